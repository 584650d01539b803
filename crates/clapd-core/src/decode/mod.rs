//! Files and standard input, decoded as a stream: wav (see `wav`), flac, ogg vorbis and mp3 (by symphonia) into mono
//! samples at the file's rate.
//!
//! No length in a header is believed, and a broken file is an error or a counted loss, never a panic of ours
//! (`damage_is_survived` in tests/suite/decode.rs).

mod packet;
mod raw;
mod wav;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;

pub use self::packet::{PacketCodec, PacketDecoder, alaw, mulaw};
pub use self::raw::RawFormat;
use self::wav::Wav;
use crate::channel::Channel;
use crate::panics::catch_panic;
use crate::samples::{RATES, Samples};

/// A gap between two packets' times that is believed to be lost sound. Longer ones are broken times: no damage to a file
/// that still decodes skips a minute, and a made-up hour would silence the detector for an hour.
const MAX_GAP_S: u64 = 60;
/// Broken packets in a row after which a file is given up: it is then no sound but noise that happens to look like
/// packets, and there may be gigabytes of it.
const MAX_BROKEN_PACKETS: u32 = 1_000;
/// Of a panic in symphonia, whose parsers assert what a damaged file can break: a daemon that hears a microphone must not fall
/// because somebody's mp3 is cut.
const DAMAGED: &str = "it is damaged in a way that the decoder can't cope with; convert it again from its source";

type Bytes = Box<dyn Read + Send + Sync>;

/// What was wrong with a file that could be read all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Samples that were NaN or infinite and became 0.
    pub samples_bad: u64,
    /// Packets that could not be decoded and were skipped.
    pub packets_bad: u64,
    /// The file ends before its header says so, or inside a frame.
    pub truncated: bool,
}

/// A file being decoded, forwards, a packet at a time.
pub struct Decoder {
    name: String,
    channel: Channel,
    channels: usize,
    rate: u32,
    frames: Option<u64>,
    body: Body,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    faults: Faults,
}

enum Body {
    Wav(Wav<Bytes>),
    Packets(Packets),
    /// After an error or a panic: what symphonia left behind is not touched again.
    Ended,
}

impl Decoder {
    /// Opens a file, or wav on standard input where `path` is `-`.
    ///
    /// # Errors
    /// A file that is missing, empty, in no known format, has a rate outside 8 to 192 kHz, or lacks the channel.
    pub fn open(path: &Path, channel: Channel) -> Result<Self> {
        if path == Path::new("-") {
            return Self::from_reader(Box::new(std::io::stdin()), "standard input", channel);
        }
        let name = path.display().to_string();
        let mut file = File::open(path).with_context(|| format!("{name}: can't open it"))?;
        let kind = file.metadata().with_context(|| format!("{name}: can't look at it"))?;
        ensure!(!kind.is_dir(), "{name}: is a directory, not a sound file");
        let head = read_head(&mut file).with_context(|| format!("{name}: can't read it"))?;
        if kind.is_file() && !Wav::<Bytes>::is_wav(&head) && !head.is_empty() {
            // symphonia reads tags at the end of a file that it can seek in.
            std::io::Seek::rewind(&mut file).with_context(|| format!("{name}: can't read it again"))?;
            let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
            return Self::from_media(Box::new(file), extension, name, channel);
        }
        Self::from_parts(head, Box::new(file), name, channel)
    }

    /// Decodes what `bytes` deliver; wav is sure to work without seeking. `name` is for messages.
    ///
    /// # Errors
    /// As [`Decoder::open`].
    pub fn from_reader(mut bytes: Bytes, name: &str, channel: Channel) -> Result<Self> {
        let head = read_head(&mut bytes).with_context(|| format!("{name}: can't read it"))?;
        Self::from_parts(head, bytes, name.to_owned(), channel)
    }

    fn from_parts(head: Vec<u8>, bytes: Bytes, name: String, channel: Channel) -> Result<Self> {
        ensure!(!head.is_empty(), "{name}: is empty; a wav, flac, ogg or mp3 file is needed");
        let is_wav = Wav::<Bytes>::is_wav(&head);
        let bytes: Bytes = Box::new(Cursor::new(head).chain(bytes));
        if !is_wav {
            return Self::from_media(Box::new(ReadOnlySource::new(bytes)), None, name, channel);
        }
        let wav = Wav::open(bytes).with_context(|| name.clone())?;
        let (rate, channels, frames) = (wav.rate(), wav.channels(), wav.frames());
        Self::checked(name, channel, rate, channels, frames, Body::Wav(wav))
    }

    fn from_media(
        media: Box<dyn MediaSource>,
        extension: Option<String>,
        name: String,
        channel: Channel,
    ) -> Result<Self> {
        let packets = catch_panic(DAMAGED, || Packets::open(media, extension)).with_context(|| name.clone())?;
        let (rate, channels, frames) = (packets.rate, packets.channels, packets.frames);
        Self::checked(name, channel, rate, channels, frames, Body::Packets(packets))
    }

    fn checked(
        name: String,
        channel: Channel,
        rate: u32,
        channels: usize,
        frames: Option<u64>,
        body: Body,
    ) -> Result<Self> {
        check_source_format(&name, rate, channels, channel)?;
        let (interleaved, mono, faults) = (Vec::new(), Vec::new(), Faults::default());
        Ok(Self { name, channel, channels, rate, frames, body, interleaved, mono, faults })
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Channels in the file.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How long the header says that it is: for a progress bar, and for nothing else.
    pub fn duration_hint(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.frames? as f64 / f64::from(self.rate)).ok()
    }

    /// What was wrong so far.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// The next samples, some milliseconds of them, with what was lost before; `None` at the end.
    ///
    /// # Errors
    /// A file that can't be read on; every later call says that it is at its end.
    pub fn next_block(&mut self) -> Result<Option<Samples<'_>>> {
        let (body, interleaved, faults) = (&mut self.body, &mut self.interleaved, &mut self.faults);
        let lost = match body {
            Body::Wav(wav) => {
                let more = wav.read(interleaved).map(|more| more.then_some(0));
                faults.truncated = wav.truncated;
                more
            }
            Body::Packets(packets) => catch_panic(DAMAGED, || packets.next(interleaved, faults)),
            Body::Ended => Ok(None),
        };
        let lost = match lost.with_context(|| self.name.clone()) {
            Ok(Some(lost)) => lost,
            end_or_error => {
                self.body = Body::Ended;
                return end_or_error.map(|_| None);
            }
        };
        self.mono.clear();
        for frame in self.interleaved.chunks_exact(self.channels) {
            let mut bad = false;
            self.mono.push(self.channel.pick(frame.iter().copied(), &mut bad));
            self.faults.samples_bad += u64::from(bad);
        }
        Ok(Some(Samples { lost, data: &self.mono }))
    }
}

/// Whether sound of this rate and with so many channels can be taken; `name` is for messages.
fn check_source_format(name: &str, rate: u32, channels: usize, channel: Channel) -> Result<()> {
    ensure!(
        RATES.contains(&rate),
        "{name}: its sample rate is {rate} Hz, allowed are {} to {} Hz; convert it: ffmpeg -i FILE -ar 48000 OUT.wav",
        RATES.start(),
        RATES.end()
    );
    ensure!(
        channel.min_channels() <= channels,
        "{name}: channel {} was asked for, but it has {channels} (counted from 0); choose another or \"mix\"",
        channel.min_channels() - 1
    );
    Ok(())
}

/// A track and its decoder.
struct Packets {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    rate: u32,
    channels: usize,
    frames: Option<u64>,
    /// Time at which the next packet should begin, in samples; `None` where any beginning is right.
    expected: Option<i64>,
}

impl Packets {
    fn open(media: Box<dyn MediaSource>, extension: Option<String>) -> Result<Self> {
        let mut hint = Hint::new();
        if let Some(extension) = extension {
            hint.with_extension(&extension);
        }
        let stream = MediaSourceStream::new(media, Default::default());
        let format = symphonia::default::get_probe()
            .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(|error| {
                anyhow!("no sound in it that can be read ({error}); wav, flac, ogg vorbis and mp3 can be")
            })?;
        let track = format.default_track(TrackType::Audio).context("there is no audio track in it")?;
        let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
        let parameters = parameters.context("its audio track has no known encoding")?;
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(parameters, &Default::default())
            .map_err(|error| anyhow!("its encoding can't be decoded ({error}); flac, vorbis and mp3 can be"))?;
        let rate = parameters.sample_rate.context("it does not state its sample rate")?;
        // Where an encoder's delay is cut off, sound begins at zero.
        let expected = Some(track.start_ts.get().max(0));
        let (track, frames) = (track.id, track.num_frames);
        let mut packets = Self { format, decoder, track, rate, channels: 0, frames, expected };
        packets.channels = packets.count_channels()?;
        Ok(packets)
    }

    fn count_channels(&self) -> Result<usize> {
        let channels = self.decoder.codec_params().channels.as_ref().map_or(0, |channels| channels.count());
        ensure!(channels > 0, "it does not state how many channels it has");
        Ok(channels)
    }

    /// Decodes the next good packet into `out` (interleaved); the samples lost before it, or `None` at the end.
    fn next(&mut self, out: &mut Vec<f32>, faults: &mut Faults) -> Result<Option<u64>> {
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
            let decoded = match self.decoder.decode(&packet) {
                Ok(decoded) => decoded,
                Err(SymphoniaError::DecodeError(_) | SymphoniaError::IoError(_)) => {
                    faults.packets_bad += 1;
                    broken += 1;
                    continue;
                }
                Err(error) => bail!("it can't be decoded further ({error})"),
            };
            if decoded.frames() == 0 {
                continue;
            }
            let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
            ensure!(
                rate == self.rate && channels == self.channels,
                "it changes from {} Hz, {} channels to {rate} Hz, {channels} channels on the way; cut it there",
                self.rate,
                self.channels
            );
            decoded.copy_to_vec_interleaved(out);
            let begins = packet.pts.get().saturating_add_unsigned(packet.trim_start.get());
            let ends = begins.saturating_add_unsigned(decoded.frames() as u64);
            let gap = self.expected.replace(ends).map_or(0, |expected| begins.saturating_sub(expected));
            let plausible = 1..=(MAX_GAP_S * u64::from(self.rate));
            let lost = u64::try_from(gap).ok().filter(|gap| plausible.contains(gap));
            return Ok(Some(lost.unwrap_or(0)));
        }
        bail!("{MAX_BROKEN_PACKETS} packets in a row are broken; is it a sound file?")
    }

    /// A chained ogg file: the next recording in it, which has a decoder of its own.
    fn next_stream(&mut self) -> Result<()> {
        let track = self.format.default_track(TrackType::Audio).context("its next part has no audio track")?;
        let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
        let parameters = parameters.context("its next part has no known encoding")?;
        self.decoder = symphonia::default::get_codecs()
            .make_audio_decoder(parameters, &Default::default())
            .map_err(|error| anyhow!("its next part can't be decoded ({error})"))?;
        self.track = track.id;
        self.expected = None;
        Ok(())
    }
}

/// Up to 12 bytes: enough to tell wav from the rest.
fn read_head(bytes: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(12);
    bytes.take(12).read_to_end(&mut head)?;
    Ok(head)
}
