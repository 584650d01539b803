//! Files and standard input, decoded as a stream into mono samples at the file's rate: wav, au and raw PCM by ourselves
//! (see `pcm`), all that is packed by symphonia and ropus (see `container`).
//!
//! No length in a header is believed without its bytes, and a broken file is an error or a counted loss, never a panic of
//! ours (`damage_is_survived` in tests/suite/decode.rs). What is read is a table in docs/recordings.md, and its lines are
//! tests (tests/program/recordings.rs).

mod au;
mod container;
mod foreign;
mod id3;
mod mp4;
mod opus;
mod packet;
mod pcm;
mod raw;
mod wav;

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use symphonia::core::io::{MediaSource, ReadOnlySource};

use self::container::Container;
pub use self::packet::{PacketCodec, PacketDecoder};
use self::pcm::Pcm;
pub use self::pcm::{a_law, mu_law};
pub use self::raw::RawFormat;
use crate::channel::Channel;
use crate::panics::catch_panic;
use crate::samples::{RATES, Samples};

/// What can be read, for messages.
const READ: &str = "wav, flac, ogg, opus, mp3, m4a, aac, webm, aiff, caf and au";
/// What makes sound of anything that is not read into something that is.
const REMEDY: &str = "convert it: ffmpeg -i FILE -c:a pcm_s16le OUT.wav";
/// Of a panic in a decoder, whose parsers assert what a damaged file can break: a daemon that hears a microphone must not
/// fall because somebody's mp3 is cut.
const DAMAGED: &str = "it is damaged in a way that the decoder can't cope with; convert it again from its source";
/// Peaks above this are integers that somebody stored as floats without scaling them: 16 is 24 dB above full scale, which no
/// microphone and no mix reaches by mistake, and quiet sound in units of 16-bit integers exceeds it at once.
const MAX_PEAK: f32 = 16.0;
/// Full scales of integers that are stored as floats: of 16, 24 and 32 bits.
const FULL_SCALES: [f32; 3] = [32_768.0, 8_388_608.0, 2_147_483_648.0];

/// How far a file of floats is looked at before it is heard: three minutes of 48 kHz in stereo, in less than a second from an
/// SD card.
const SCANNED_BYTES: u64 = 64 << 20;

type Bytes = Box<dyn Read + Send + Sync>;

/// What was wrong with a file that could be read all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Samples that were NaN or infinite and became 0.
    pub samples_bad: u64,
    /// Packets that could not be decoded and were skipped.
    pub packets_bad: u64,
    /// The file ends before its header says so, or inside a frame.
    pub truncated: bool,
    /// What the samples are divided by, since they lie beyond full scale: a full scale of integers that were stored as floats, or
    /// else their peak; 0: they are as they were.
    pub divided_by: f32,
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
    Pcm(Pcm<Bytes>),
    Container(Box<Container>),
    /// After an error or a panic: what symphonia left behind is not touched again.
    Ended,
}

/// A file for symphonia.
struct Input {
    media: Box<dyn MediaSource>,
    head: Vec<u8>,
    extension: Option<String>,
    delay: Option<mp4::Delay>,
}

impl Decoder {
    /// Opens a file, or standard input where `path` is `-`.
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
        if !kind.is_file() {
            return Self::from_reader(Box::new(file), &name, channel);
        }
        let unreadable = || format!("{name}: can't read it");
        let begin = id3::end_of_tags(&mut file).with_context(unreadable)?;
        let mut file = id3::Behind::new(file, begin).with_context(unreadable)?;
        let head = read_head(&mut file).with_context(unreadable)?;
        if is_pcm(&head) || head.is_empty() {
            let divided_by = find_divisor(&mut file);
            file.seek(SeekFrom::Start(head.len() as u64)).with_context(unreadable)?;
            let mut decoder = Self::from_parts(head, Box::new(file), name, channel)?;
            decoder.faults.divided_by = divided_by;
            return Ok(decoder);
        }
        // symphonia reads an index at the end of a file that it can seek in.
        let delay = if mp4::is_mp4(&head) { mp4::delay(&mut file) } else { None };
        file.rewind().with_context(unreadable)?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
        let input = Input { media: Box::new(file), head, extension, delay };
        Self::from_media(input, name, channel)
    }

    /// Decodes what `bytes` deliver, without seeking. `name` is for messages.
    ///
    /// # Errors
    /// As [`Decoder::open`]; an mp4 file whose index stands behind the sound.
    pub fn from_reader(mut bytes: Bytes, name: &str, channel: Channel) -> Result<Self> {
        let head = read_head(&mut bytes).and_then(|head| id3::skip_tags(head, &mut bytes));
        Self::from_parts(head.with_context(|| format!("{name}: can't read it"))?, bytes, name.to_owned(), channel)
    }

    /// Takes `bytes` for PCM without a header. `name` is for messages.
    ///
    /// # Errors
    /// A channel that `format` lacks.
    pub fn from_raw(bytes: Bytes, format: RawFormat, name: &str, channel: Channel) -> Result<Self> {
        Self::from_pcm(Pcm::new(bytes, format.into())?, name.to_owned(), channel)
    }

    fn from_parts(head: Vec<u8>, bytes: Bytes, name: String, channel: Channel) -> Result<Self> {
        ensure!(!head.is_empty(), "{name}: is empty: 0 bytes; record or copy it again");
        let bytes: Bytes = Box::new(Cursor::new(head.clone()).chain(bytes));
        if is_pcm(&head) {
            return Self::from_pcm(open_pcm(&head, bytes).with_context(|| name.clone())?, name, channel);
        }
        let is_mp4 = mp4::is_mp4(&head);
        let input = Input { media: Box::new(ReadOnlySource::new(bytes)), head, extension: None, delay: None };
        let opened = Self::from_media(input, name, channel);
        opened.map_err(|error| if is_mp4 { error.context(MP4_ON_A_PIPE) } else { error })
    }

    fn from_pcm(pcm: Pcm<Bytes>, name: String, channel: Channel) -> Result<Self> {
        let (rate, channels, frames) = (pcm.rate(), pcm.channels(), pcm.frames());
        Self::checked(name, channel, rate, channels, frames, Body::Pcm(pcm))
    }

    fn from_media(input: Input, name: String, channel: Channel) -> Result<Self> {
        let Input { media, head, extension, delay } = input;
        if let Some(what) = foreign::recognize(&head) {
            bail!("{name}: {what}");
        }
        let container = catch_panic(DAMAGED, || Container::open(media, extension.as_deref(), delay))
            .with_context(|| name.clone())?;
        let (rate, channels, frames) = (container.rate, container.channels, container.frames);
        Self::checked(name, channel, rate, channels, frames, Body::Container(Box::new(container)))
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
            Body::Pcm(pcm) => {
                let more = pcm.read(interleaved).map(|more| more.then_some(0));
                faults.truncated = pcm.truncated;
                more
            }
            Body::Container(container) => catch_panic(DAMAGED, || container.next(interleaved, faults)),
            Body::Ended => Ok(None),
        };
        let lost = match lost.with_context(|| self.name.clone()) {
            Ok(Some(lost)) => lost,
            end_or_error => {
                self.body = Body::Ended;
                return end_or_error.map(|_| None);
            }
        };
        scale_to_full(&mut self.interleaved, &mut self.faults.divided_by);
        self.faults.samples_bad += pick_channel(self.channel, self.channels, &self.interleaved, &mut self.mono);
        Ok(Some(Samples { lost, data: &self.mono }))
    }
}

/// Replaces what is in `mono` by one channel of interleaved frames; how many samples of it were no numbers and became 0.
fn pick_channel(channel: Channel, channels: usize, interleaved: &[f32], mono: &mut Vec<f32>) -> u64 {
    let mut samples_bad = 0;
    mono.clear();
    mono.extend(interleaved.chunks_exact(channels).map(|frame| {
        let mut bad = false;
        let sample = channel.pick(frame.iter().copied(), &mut bad);
        samples_bad += u64::from(bad);
        sample
    }));
    samples_bad
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

/// Whether a file begins with a header of samples that are read here, and not by symphonia.
fn is_pcm(head: &[u8]) -> bool {
    wav::is_wav(head) || au::is_au(head)
}

/// Reads the header of such a file, which begins with `head`, up to the first sample.
fn open_pcm<R: Read>(head: &[u8], bytes: R) -> Result<Pcm<R>> {
    if wav::is_wav(head) { wav::open(bytes) } else { au::open(bytes) }
}

/// Of an mp4 file that failed where nobody could seek.
const MP4_ON_A_PIPE: &str = "an mp4 file is mostly read from its end, which a pipe can't: name it as a file, or give it its index \
                             first: ffmpeg -i FILE -c copy -movflags +faststart OUT.m4a";

/// What the floats of a wav or au file are to be divided by, 0 for nothing: a recording may begin so quietly that its first
/// block does not show what its loudest does. A file that can't be read shows it when it is opened to be heard.
fn find_divisor(file: &mut (impl Read + Seek)) -> f32 {
    let mut find = || -> Result<f32> {
        file.rewind()?;
        let head = read_head(file)?;
        let bytes = Cursor::new(&head).chain(file.by_ref().take(SCANNED_BYTES));
        let mut pcm = open_pcm(&head, bytes)?;
        let (mut samples, mut peak) = (Vec::new(), 0.0_f32);
        while pcm.is_float() && pcm.read(&mut samples)? {
            peak = peak.max(peak_of(&samples));
        }
        let full = full_scale_of(peak);
        Ok(if full == 0.0 && peak > 1.0 { peak } else { full })
    };
    find().unwrap_or(0.0)
}

/// Divides floats by what is known to be needed, or by the full scale of integers that show in them only now. What was divided once
/// is divided to the end. Sound that a decoder has computed may exceed full scale a little, and is heard as it is.
fn scale_to_full(samples: &mut [f32], divided_by: &mut f32) {
    if *divided_by == 0.0 {
        *divided_by = full_scale_of(peak_of(samples));
    }
    if *divided_by > 0.0 {
        let factor = 1.0 / *divided_by;
        samples.iter_mut().for_each(|sample| *sample *= factor);
    }
}

/// The greatest sample, whatever its sign, of those that are numbers.
fn peak_of(samples: &[f32]) -> f32 {
    samples.iter().copied().filter(|sample| sample.is_finite()).fold(0.0, |peak, sample| peak.max(sample.abs()))
}

/// The full scale of integers with this peak; 0: they are no integers.
fn full_scale_of(peak: f32) -> f32 {
    let scale = FULL_SCALES.into_iter().find(|full| peak <= *full);
    scale.filter(|_| peak > MAX_PEAK).unwrap_or(0.0)
}

/// Up to 64 bytes: enough to tell wav from the rest, and a pointer of Git LFS from other text.
fn read_head(bytes: &mut impl Read) -> std::io::Result<Vec<u8>> {
    const HEAD: u64 = 64;
    let mut head = Vec::new();
    bytes.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}
