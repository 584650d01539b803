//! Packets as network streams carry them (RTP), decoded one at a time into mono samples.
//!
//! There is no container around them: whoever receives a stream learns its encoding from the stream's description, and
//! keeps its time. A damaged packet is an error, and the next one may be whole.

use anyhow::{Context, Result, anyhow, bail, ensure};
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::opus::{self, Opus};
use super::pcm::Encoding;
use super::{check_source_format, pick_channel};
use crate::channel::Channel;
use crate::panics::catch_panic;

/// Of a panic in a decoder: the stream of a stranger must not end the daemon.
const DAMAGED: &str = "a packet is damaged in a way that the decoder can't cope with";

/// How a stream's packets are encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PacketCodec {
    /// G.711 μ-law, 8 bits a sample.
    Mulaw,
    /// G.711 A-law, 8 bits a sample.
    Alaw,
    /// Integers of 16 bits in network order (L16).
    Pcm16,
    /// Integers of 24 bits in network order (L24).
    Pcm24,
    /// AAC (low complexity), an access unit a packet; `config` is its AudioSpecificConfig.
    Aac {
        /// As ISO/IEC 14496-3 has it, 2 bytes or more.
        config: Vec<u8>,
    },
    /// Opus, a packet of its own each (RFC 7587).
    Opus,
}

impl PacketCodec {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mulaw => "G.711 μ-law",
            Self::Alaw => "G.711 A-law",
            Self::Pcm16 => "L16",
            Self::Pcm24 => "L24",
            Self::Aac { .. } => "AAC",
            Self::Opus => "Opus",
        }
    }
}

/// A decoder of one stream's packets.
pub struct PacketDecoder {
    body: Body,
    rate: u32,
    channels: usize,
    channel: Channel,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    samples_bad: u64,
}

enum Body {
    /// In network order.
    Pcm(Encoding),
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
    /// After a panic: what was left behind is not touched again.
    Ended,
}

impl PacketDecoder {
    /// A decoder for packets of `codec`. `rate` and `channels` are the description's; AAC has its own in its
    /// configuration, which count, and Opus is decoded at 48 kHz.
    ///
    /// # Errors
    /// An encoding that is not decoded (AAC other than of low complexity), a rate outside 8 to 192 kHz, a channel that
    /// the stream does not have.
    pub fn new(codec: &PacketCodec, rate: u32, channels: usize, channel: Channel) -> Result<Self> {
        let (body, rate, channels) = match codec {
            PacketCodec::Mulaw => (Body::Pcm(Encoding::MuLaw), rate, channels),
            PacketCodec::Alaw => (Body::Pcm(Encoding::ALaw), rate, channels),
            PacketCodec::Pcm16 => (Body::Pcm(Encoding::I16), rate, channels),
            PacketCodec::Pcm24 => (Body::Pcm(Encoding::I24), rate, channels),
            PacketCodec::Opus => {
                let decoder = catch_panic(DAMAGED, || Opus::of_packets(channels))?;
                (Body::Opus(Box::new(decoder)), opus::RATE, channels)
            }
            PacketCodec::Aac { config } => {
                let decoder = catch_panic(DAMAGED, || open_aac(config))?;
                let parameters = decoder.codec_params();
                let rate = parameters.sample_rate.context("its AAC configuration states no sample rate")?;
                let channels = parameters.channels.as_ref().map_or(0, |channels| channels.count());
                (Body::Symphonia(decoder), rate, channels)
            }
        };
        ensure!(channels > 0, "it has no channels");
        check_source_format("the stream", rate, channels, channel)?;
        Ok(Self { body, rate, channels, channel, interleaved: Vec::new(), mono: Vec::new(), samples_bad: 0 })
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels in the stream.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Samples that were NaN or infinite and became 0, so far.
    pub fn samples_bad(&self) -> u64 {
        self.samples_bad
    }

    /// The samples of one packet.
    ///
    /// # Errors
    /// A packet that can't be decoded.
    pub fn decode(&mut self, packet: &[u8]) -> Result<&[f32]> {
        let interleaved = &mut self.interleaved;
        interleaved.clear();
        match &mut self.body {
            Body::Pcm(encoding) => {
                let samples = packet.chunks_exact(encoding.bytes());
                interleaved.extend(samples.map(|at| encoding.decode_big_endian(at)));
            }
            Body::Opus(decoder) => match catch_panic(DAMAGED, || Ok(decoder.decode(packet, 0, interleaved))) {
                Ok(decoded) => drop(decoded.context("a packet of Opus is broken")?),
                Err(panicked) => {
                    self.body = Body::Ended;
                    return Err(panicked);
                }
            },
            Body::Symphonia(decoder) => {
                // What panicked says so once; after that there is nothing left to decode with.
                let decoded = catch_panic(DAMAGED, || {
                    let packet = Packet::new(0, Timestamp::ZERO, Duration::ZERO, packet);
                    Ok(decoder.decode(&packet).map(|decoded| {
                        decoded.copy_to_vec_interleaved(interleaved);
                        (decoded.spec().rate(), decoded.spec().channels().count())
                    }))
                });
                match decoded {
                    Ok(decoded) => {
                        let (rate, channels) = decoded.map_err(|error| anyhow!("{error}"))?;
                        let same = rate == self.rate && channels == self.channels;
                        ensure!(same, "it changes to {rate} Hz, {channels} channels within a stream");
                    }
                    Err(panicked) => {
                        self.body = Body::Ended;
                        return Err(panicked);
                    }
                }
            }
            Body::Ended => bail!(DAMAGED),
        }
        self.samples_bad += pick_channel(self.channel, self.channels, &self.interleaved, &mut self.mono);
        Ok(&self.mono)
    }
}

fn open_aac(config: &[u8]) -> Result<Box<dyn AudioDecoder>> {
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(CODEC_ID_AAC).with_extra_data(config.into());
    symphonia::default::get_codecs()
        .make_audio_decoder(&parameters, &Default::default())
        .map_err(|error| anyhow!("its AAC can't be decoded ({error}); AAC-LC with one or two channels can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(codec: &PacketCodec, channels: usize, packet: &[u8]) -> Vec<f32> {
        let mut decoder = PacketDecoder::new(codec, 8_000, channels, Channel::Mix).unwrap();
        decoder.decode(packet).unwrap().to_vec()
    }

    #[test]
    fn integers_are_in_network_order_and_half_a_frame_is_none() {
        assert_eq!(decode(&PacketCodec::Pcm16, 1, &[0x40, 0x00, 0x80, 0x00, 0x01]), [0.5, -1.0]);
        assert_eq!(decode(&PacketCodec::Pcm16, 2, &[0x40, 0x00, 0x00, 0x00, 0x40, 0x00]), [0.25]);
        assert_eq!(decode(&PacketCodec::Pcm24, 1, &[0xC0, 0x00, 0x00]), [-0.5]);
    }

    #[test]
    fn what_is_not_decoded_is_refused_and_damage_is_survived() {
        let open =
            |codec: &PacketCodec, rate, channels, channel| PacketDecoder::new(codec, rate, channels, channel).map(drop);
        assert!(open(&PacketCodec::Mulaw, 4_000, 1, Channel::Mix).is_err());
        assert!(open(&PacketCodec::Mulaw, 8_000, 0, Channel::Mix).is_err());
        assert!(open(&PacketCodec::Mulaw, 8_000, 1, Channel::Index(1)).is_err());
        // HE-AAC (object type 5), and nothing.
        for config in [&[0x2B, 0x92, 0x08, 0x00][..], &[]] {
            assert!(open(&PacketCodec::Aac { config: config.to_vec() }, 48_000, 1, Channel::Mix).is_err());
        }
        // AAC-LC, 16 kHz, one channel; then noise of every length.
        let codec = PacketCodec::Aac { config: vec![0x14, 0x08] };
        let mut decoder = PacketDecoder::new(&codec, 48_000, 2, Channel::Mix).unwrap();
        assert_eq!((decoder.rate(), decoder.channels()), (16_000, 1));
        let mut random = fastrand::Rng::with_seed(7);
        for length in 0..400 {
            let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let _ = decoder.decode(&noise);
        }
    }
}
