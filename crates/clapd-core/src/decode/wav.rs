//! Wav, read as a stream: whatever the header claims, the bytes decide.
//!
//! It does not seek, since a pipe cannot, and allocates nothing by a length that a header states. symphonia reads wav,
//! too, but believes the header: a recording whose length was never filled in is empty to it, a cut one loses its last
//! packet.

use std::io::{ErrorKind, Read};

use anyhow::{Context, Result, bail, ensure};

/// Data lengths from here on mean "unknown": recorders that write to a pipe put 0x7FFF_F000 or more, or all ones.
const UNKNOWN_FROM: u32 = 0x7FFF_F000;
/// Bytes read at a time, rounded up to a frame: a few pages; at most 512 KB more for 65,535 channels of f64.
const CHUNK: usize = 16 * 1024;

/// How one sample is stored. Integers are left-justified in their bytes, as the format demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
}

impl Encoding {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I16 => 2,
            Self::I24 => 3,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The sample in the first `bytes()` bytes of `at`; 0 where there are fewer.
    pub(super) fn decode(self, at: &[u8]) -> f32 {
        match (self, at) {
            (Self::U8, &[a, ..]) => (f32::from(a) - 128.0) / 128.0,
            (Self::I16, &[a, b, ..]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::I24, &[a, b, c, ..]) => i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0,
            (Self::I32, &[a, b, c, d, ..]) => i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0,
            (Self::F32, &[a, b, c, d, ..]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F64, &[a, b, c, d, e, f, g, h, ..]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => 0.0,
        }
    }
}

/// What the `fmt ` chunk says, checked.
#[derive(Debug, Clone, Copy)]
struct Format {
    rate: u32,
    channels: usize,
    encoding: Encoding,
}

/// A wav stream, past its header.
pub(super) struct Wav<R> {
    bytes: R,
    format: Format,
    /// Bytes of sound that the header announces; `None` where it does not know.
    announced: Option<u64>,
    consumed: u64,
    buffer: Vec<u8>,
    /// The stream ended before the announced length, or inside a frame.
    pub truncated: bool,
}

impl<R: Read> Wav<R> {
    /// Whether these first 12 bytes are those of a wav file.
    pub fn is_wav(head: &[u8]) -> bool {
        head.len() >= 12 && matches!(&head[..4], b"RIFF" | b"RF64" | b"RIFX") && &head[8..12] == b"WAVE"
    }

    /// Reads the header up to the first sample.
    pub fn open(mut bytes: R) -> Result<Self> {
        let mut riff = [0; 12];
        bytes.read_exact(&mut riff).context("the file ends inside its first 12 bytes")?;
        ensure!(Self::is_wav(&riff), "no wav header (RIFF....WAVE)");
        ensure!(&riff[..4] != b"RIFX", "big-endian wav (RIFX) is not read; {REMEDY}");
        let mut format = None;
        loop {
            let mut head = [0; 8];
            bytes.read_exact(&mut head).context("the wav file ends before its sound: there is no data chunk")?;
            let [t0, t1, t2, t3, l0, l1, l2, l3] = head;
            let len = u32::from_le_bytes([l0, l1, l2, l3]);
            match &[t0, t1, t2, t3] {
                b"fmt " => format = Some(read_format(&mut bytes, len)?),
                b"data" => {
                    let format = format.context("the wav file has its data chunk before its fmt chunk")?;
                    let announced = (len > 0 && len < UNKNOWN_FROM).then_some(u64::from(len));
                    return Ok(Self { bytes, format, announced, consumed: 0, buffer: Vec::new(), truncated: false });
                }
                _ => skip(&mut bytes, padded(len))?,
            }
        }
    }

    pub fn rate(&self) -> u32 {
        self.format.rate
    }

    pub fn channels(&self) -> usize {
        self.format.channels
    }

    /// Frames that the header announces.
    pub fn frames(&self) -> Option<u64> {
        self.announced.map(|bytes| bytes / (self.format.channels * self.format.encoding.bytes()) as u64)
    }

    /// Reads some frames, interleaved, into `frames` (replacing what is in it); `false` at the end.
    pub fn read(&mut self, frames: &mut Vec<f32>) -> Result<bool> {
        frames.clear();
        let frame = self.format.channels * self.format.encoding.bytes();
        let left = self.announced.map_or(u64::MAX, |all| all - self.consumed);
        let requested = (CHUNK.div_ceil(frame) * frame).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(requested, 0);
        let received = fill(&mut self.bytes, &mut self.buffer)?;
        self.consumed += received as u64;
        self.truncated |= (received < requested && self.announced.is_some()) || !received.is_multiple_of(frame);
        let whole = &self.buffer[..received - received % frame];
        frames.extend(whole.chunks_exact(self.format.encoding.bytes()).map(|at| self.format.encoding.decode(at)));
        Ok(!frames.is_empty())
    }
}

const REMEDY: &str = "convert it: ffmpeg -i FILE -c:a pcm_s16le OUT.wav";

fn read_format(bytes: &mut impl Read, len: u32) -> Result<Format> {
    ensure!(len >= 16, "the wav file's fmt chunk has {len} bytes, at least 16 are needed");
    // Byte 24 on matters only to extensible headers; more than 40 bytes no version of the format has.
    let mut chunk = [0; 40];
    let here = (len as usize).min(chunk.len());
    bytes.read_exact(&mut chunk[..here]).context("the wav file ends inside its fmt chunk")?;
    skip(bytes, padded(len) - here as u64)?;
    let word = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
    let (channels, align, bits) = (word(2), word(12), word(14));
    let rate = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
    // 0xFFFE: extensible; the true tag leads the sub-format.
    let tag = if word(0) == 0xFFFE && here >= 26 { word(24) } else { word(0) };
    ensure!(channels > 0, "the wav header states 0 channels; at least 1 is needed");
    // The container of a sample is what a frame's size leaves for it (24 bits in 4 bytes); where the header's frame size
    // can't be, the bits alone count.
    let by_bits = bits.div_ceil(8);
    let by_align = align / channels;
    let container = if align % channels == 0 && by_align >= by_bits && by_align <= 8 { by_align } else { by_bits };
    let encoding = match (tag, container) {
        (1, 1) => Encoding::U8,
        (1, 2) => Encoding::I16,
        (1, 3) => Encoding::I24,
        (1, 4) => Encoding::I32,
        (3, 4) => Encoding::F32,
        (3, 8) => Encoding::F64,
        _ => bail!(
            "wav encoding {tag} with {bits} bits is not read; it reads integers (1) of 8, 16, 24, 32 bits and floats (3) of \
             32, 64 bits; {REMEDY}"
        ),
    };
    Ok(Format { rate, channels: usize::from(channels), encoding })
}

/// A chunk's length with its padding: chunks begin at even places.
fn padded(len: u32) -> u64 {
    u64::from(len) + u64::from(len & 1)
}

fn skip(bytes: &mut impl Read, len: u64) -> Result<()> {
    std::io::copy(&mut bytes.take(len), &mut std::io::sink()).context("can't read on in the wav header")?;
    Ok(())
}

/// Reads until `buffer` is full or the stream ends.
fn fill(bytes: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut received = 0;
    while received < buffer.len() {
        match bytes.read(&mut buffer[received..]) {
            Ok(0) => break,
            Ok(more) => received += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("can't read on in the wav file"),
        }
    }
    Ok(received)
}
