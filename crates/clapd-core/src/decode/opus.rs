//! Opus packets, out of ogg, webm and mp4, as samples at 48 kHz: symphonia takes them out, ropus decodes them.

use anyhow::{Context, Result, anyhow, bail, ensure};
use ropus::{Channels, DecodeMode, Decoder, OpusMSDecoder};

use super::REMEDY;

/// Opus always decodes at this rate, whatever the rate was that it was made of.
pub(super) const RATE: u32 = 48_000;

/// Frames that a packet has at most: 120 ms.
const MAX_FRAMES: usize = 5_760;

#[expect(clippy::large_enum_variant, reason = "a track has one of it, and most have the larger")]
enum Streams {
    One(Decoder),
    Several(OpusMSDecoder),
}

/// An Opus track's decoder.
pub(super) struct Opus {
    streams: Streams,
    channels: usize,
    /// Frames at the beginning, of the encoder's delay, that are yet to be left out.
    skip: usize,
    gain: f32,
    decoded: Vec<f32>,
    /// The same as several streams are decoded to.
    integers: Vec<i16>,
}

fn one_stream(channels: Channels) -> Result<Streams> {
    Decoder::new(RATE, channels).map(Streams::One).map_err(|error| anyhow!("can't decode Opus ({error:?})"))
}

impl Opus {
    /// `head` is the track's identification header (RFC 7845, section 5.1).
    pub fn new(head: &[u8]) -> Result<Self> {
        ensure!(head.len() >= 19 && head.starts_with(b"OpusHead"), "its Opus header is damaged; record it again");
        // mp4 has the same header with version 0 and its numbers big-endian.
        let word = |at: usize| match head[8] {
            0 => u16::from_be_bytes([head[at], head[at + 1]]),
            _ => u16::from_le_bytes([head[at], head[at + 1]]),
        };
        let channels = usize::from(head[9]);
        let streams = match (head[18], channels) {
            (0, 1) => one_stream(Channels::Mono)?,
            (0, 2) => one_stream(Channels::Stereo)?,
            (1 | 255, 1..) => {
                let layout = head.get(19..21 + channels).context("its Opus header ends inside its channels")?;
                let (streams, coupled) = (i32::from(layout[0]), i32::from(layout[1]));
                // At most 255, by its byte.
                let decoder = OpusMSDecoder::new(RATE.cast_signed(), channels as i32, streams, coupled, &layout[2..]);
                let problem = |code| {
                    anyhow!(
                        "its Opus header maps {channels} channels to {streams} streams, which can't be ({code}); {REMEDY}"
                    )
                };
                Streams::Several(decoder.map_err(problem)?)
            }
            (family, _) => bail!("its Opus channel mapping {family} with {channels} channels is not read; {REMEDY}"),
        };
        // In steps of 1/256 dB.
        let gain = f32::from(word(16).cast_signed()) / 256.0;
        let (decoded, integers) = (Vec::new(), Vec::new());
        Ok(Self { streams, channels, skip: word(10).into(), gain: 10_f32.powf(gain / 20.0), decoded, integers })
    }

    /// A decoder of packets that come without a header, of one or two channels.
    pub fn of_packets(channels: usize) -> Result<Self> {
        let streams = match channels {
            1 => one_stream(Channels::Mono)?,
            2 => one_stream(Channels::Stereo)?,
            _ => bail!("Opus with {channels} channels is not read without a header; 1 or 2 can be"),
        };
        Ok(Self { streams, channels, skip: 0, gain: 1.0, decoded: Vec::new(), integers: Vec::new() })
    }

    /// Channels of every frame.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Decodes a packet into `out` (interleaved), without the last `padding` frames, and gives the frames that were left
    /// out at its beginning; `None` where it is broken.
    pub fn decode(&mut self, packet: &[u8], padding: u64, out: &mut Vec<f32>) -> Option<u64> {
        if packet.is_empty() {
            return None;
        }
        self.decoded.resize(MAX_FRAMES * self.channels, 0.0);
        let frames = match &mut self.streams {
            Streams::One(decoder) => decoder.decode_float(packet, &mut self.decoded, DecodeMode::Normal).ok()?,
            Streams::Several(decoder) => {
                let (length, most) = (i32::try_from(packet.len()).ok()?, MAX_FRAMES as i32);
                self.integers.resize(MAX_FRAMES * self.channels, 0);
                let frames = decoder.decode(Some(packet), length, &mut self.integers, most, false).ok()?;
                let integers = self.decoded.iter_mut().zip(&self.integers);
                integers.for_each(|(sample, integer)| *sample = f32::from(*integer) / 32_768.0);
                usize::try_from(frames).ok()?
            }
        };
        let begin = self.skip.min(frames);
        let end = frames.saturating_sub(usize::try_from(padding).unwrap_or(frames)).max(begin);
        self.skip -= begin;
        out.clear();
        out.extend(self.decoded[begin * self.channels..end * self.channels].iter().map(|sample| sample * self.gain));
        Some(begin as u64)
    }
}
