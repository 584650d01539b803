//! Packets out of a container and their decoders: all that symphonia reads, and Opus.

use anyhow::{Context, Result, anyhow, bail, ensure};
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::{TimeBase, Timestamp};

use super::mp4::Delay;
use super::opus::{self, Opus};
use super::{Faults, READ, REMEDY};

/// A gap between two packets' times that is believed to be lost sound. Longer ones are broken times: no damage to a file
/// that still decodes skips a minute, and a made-up hour would silence the detector for an hour.
const MAX_GAP_S: u64 = 60;
/// Broken packets in a row after which a file is given up: it is then no sound but noise that happens to look like
/// packets, and there may be gigabytes of it.
const MAX_BROKEN_PACKETS: u32 = 1_000;

/// A track's decoder.
enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

/// A packet, decoded.
struct Decoded {
    /// Frames that it has.
    frames: usize,
    /// Frames that were left out before them.
    trimmed: i64,
    rate: u32,
    channels: usize,
}

impl Codec {
    fn new(parameters: &AudioCodecParameters) -> Result<Self> {
        if parameters.codec == CODEC_ID_OPUS {
            let head = parameters.extra_data.as_deref().context("its Opus track has no header; record it again")?;
            return Ok(Self::Opus(Box::new(Opus::new(head)?)));
        }
        let decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &Default::default());
        Ok(Self::Symphonia(decoder.map_err(|error| anyhow!("its encoding can't be decoded ({error}); {REMEDY}"))?))
    }

    fn channels(&self) -> usize {
        match self {
            Self::Symphonia(decoder) => decoder.codec_params().channels.as_ref().map_or(0, |channels| channels.count()),
            Self::Opus(decoder) => decoder.channels(),
        }
    }

    /// Decodes into `out` (interleaved); `None` where the packet is broken.
    fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Result<Option<Decoded>> {
        match self {
            Self::Opus(decoder) => {
                let trimmed = decoder.decode(&packet.data, packet.trim_end.get(), out);
                let channels = decoder.channels();
                let frames = out.len() / channels;
                Ok(trimmed.map(|trimmed| Decoded {
                    frames,
                    trimmed: trimmed.cast_signed(),
                    rate: opus::RATE,
                    channels,
                }))
            }
            Self::Symphonia(decoder) => {
                let decoded = match decoder.decode(packet) {
                    Ok(decoded) => decoded,
                    Err(SymphoniaError::DecodeError(_) | SymphoniaError::IoError(_)) => return Ok(None),
                    Err(error) => bail!("it can't be decoded further ({error}); {REMEDY}"),
                };
                decoded.copy_to_vec_interleaved(out);
                let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                let trimmed = packet.trim_start.get().cast_signed();
                Ok(Some(Decoded { frames: decoded.frames(), trimmed, rate, channels }))
            }
        }
    }
}

/// How a container counts time.
#[derive(Clone, Copy)]
struct Ticks {
    /// Samples a tick, as a fraction.
    samples: i128,
    ticks: i128,
}

impl Ticks {
    fn new(base: Option<TimeBase>, rate: u32) -> Self {
        let Some(base) = base else { return Self { samples: 1, ticks: 1 } };
        Self { samples: i128::from(base.numer.get()) * i128::from(rate), ticks: base.denom.get().into() }
    }

    /// A time in samples.
    fn to_samples(self, at: Timestamp) -> i64 {
        let samples = i128::from(at.get()) * self.samples / self.ticks;
        i64::try_from(samples).unwrap_or(if samples < 0 { i64::MIN } else { i64::MAX })
    }

    /// The least gap between two packets that is one, and not the rounding of their times: 1 sample; 10 ticks where a tick
    /// is longer than a sample. (webm counts milliseconds, and those of Vorbis, whose packets change their length, are off
    /// by three; a lost packet is 20 ms.)
    fn least_gap(self) -> u64 {
        if self.samples <= self.ticks { 1 } else { u64::try_from(10 * self.samples / self.ticks).unwrap_or(u64::MAX) }
    }
}

/// A container's track of sound and its decoder.
pub(super) struct Container {
    format: Box<dyn FormatReader>,
    codec: Codec,
    track: u32,
    pub rate: u32,
    pub channels: usize,
    /// Frames that the header announces.
    pub frames: Option<u64>,
    ticks: Ticks,
    /// Frames at the beginning, of the encoder's delay, that are yet to be left out.
    skip: usize,
    /// Time at which the next packet should begin, in samples; `None` where any beginning is right.
    expected: Option<i64>,
}

impl Container {
    /// Finds the sound in `media` and what decodes it. `delay` is what the container says of the encoder's delay, where
    /// symphonia doesn't read that.
    pub fn open(media: Box<dyn MediaSource>, extension: Option<&str>, delay: Option<Delay>) -> Result<Self> {
        let mut hint = Hint::new();
        if let Some(extension) = extension {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(media, Default::default());
        let format = symphonia::default::get_probe()
            .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(|error| anyhow!("no sound in it that can be read ({error}); {READ} can be; {REMEDY}"))?;
        let track = format.default_track(TrackType::Audio).context("there is no audio track in it")?;
        let parameters = parameters_of(track).context("its audio track has no known encoding")?;
        let codec = Codec::new(parameters)?;
        let rate = match (&codec, parameters.sample_rate) {
            (Codec::Opus(_), _) => opus::RATE,
            // What the codec's own header says: mp4 rounds rates, and says half of some.
            (Codec::Symphonia(decoder), stated) => {
                decoder.codec_params().sample_rate.or(stated).context("it does not state its sample rate")?
            }
        };
        let ticks = Ticks::new(track.time_base, rate);
        // Opus states its delay in its own header.
        let skip = if matches!(codec, Codec::Opus(_)) { 0 } else { delay.map_or(0, |delay| delay.frames(rate)) };
        // Where symphonia cuts an encoder's delay off, sound begins at zero; where it is cut off here, behind the delay.
        let cuts = skip > 0 || matches!(codec, Codec::Opus(_));
        let expected = (!cuts).then(|| ticks.to_samples(track.start_ts).max(0));
        let (track, frames, channels) = (track.id, track.num_frames, codec.channels());
        ensure!(channels > 0, "it does not state how many channels it has");
        Ok(Self { format, codec, track, rate, channels, frames, ticks, skip, expected })
    }

    /// Decodes the next good packet into `out` (interleaved); the samples lost before it, or `None` at the end.
    pub fn next(&mut self, out: &mut Vec<f32>, faults: &mut Faults) -> Result<Option<u64>> {
        let mut broken = 0;
        while broken < MAX_BROKEN_PACKETS {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(None),
                Err(SymphoniaError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    faults.truncated = true;
                    return Ok(None);
                }
                Err(SymphoniaError::ResetRequired) => {
                    self.next_stream()?;
                    continue;
                }
                Err(SymphoniaError::DecodeError(_)) => {
                    faults.packets_bad += 1;
                    broken += 1;
                    continue;
                }
                Err(error) => bail!("it can't be read on ({error})"),
            };
            if packet.track_id != self.track {
                continue;
            }
            let Some(Decoded { mut frames, mut trimmed, rate, channels }) = self.codec.decode(&packet, out)? else {
                faults.packets_bad += 1;
                broken += 1;
                continue;
            };
            let cut = self.skip.min(frames);
            if cut > 0 {
                out.drain(..cut * channels);
                self.skip -= cut;
                frames -= cut;
                trimmed += cut as i64;
            }
            if frames == 0 {
                continue;
            }
            ensure!(
                rate == self.rate && channels == self.channels,
                "it changes from {} Hz, {} channels to {rate} Hz, {channels} channels on the way; cut it there",
                self.rate,
                self.channels
            );
            let begins = self.ticks.to_samples(packet.pts).saturating_add(trimmed);
            let ends = begins.saturating_add_unsigned(frames as u64);
            let gap = self.expected.replace(ends).map_or(0, |expected| begins.saturating_sub(expected));
            let plausible = self.ticks.least_gap()..=(MAX_GAP_S * u64::from(self.rate));
            let lost = u64::try_from(gap).ok().filter(|gap| plausible.contains(gap));
            return Ok(Some(lost.unwrap_or(0)));
        }
        bail!("{MAX_BROKEN_PACKETS} packets in a row are broken; is it a sound file?")
    }

    /// A chained ogg file: the next recording in it, which has a decoder of its own.
    fn next_stream(&mut self) -> Result<()> {
        let track = self.format.default_track(TrackType::Audio).context("its next part has no audio track")?;
        let parameters = parameters_of(track).context("its next part has no known encoding")?;
        self.codec = Codec::new(parameters).context("its next part")?;
        self.track = track.id;
        self.expected = None;
        Ok(())
    }
}

fn parameters_of(track: &Track) -> Option<&AudioCodecParameters> {
    track.codec_params.as_ref().and_then(|parameters| parameters.audio())
}
