//! Samples as they are stored uncompressed, read as a stream: what wav, au, raw PCM and packets of PCM have in common.
//!
//! It does not seek, since a pipe cannot, and allocates nothing by a length that a header states.

use std::io::{ErrorKind, Read};

use anyhow::{Context, Result, ensure};

/// Bytes read at a time, rounded up to a frame: a few pages; at most 512 KB more for 65,535 channels of f64.
const CHUNK: usize = 16 * 1024;

/// How one sample is stored. Integers are left-justified in their bytes, as wav demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Unsigned, as wav has it.
    U8,
    /// Signed, as au has it.
    I8,
    I16,
    I24,
    I32,
    F32,
    F64,
    /// G.711 as European telephones have it.
    ALaw,
    /// G.711 as American telephones have it.
    MuLaw,
}

impl Encoding {
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::ALaw | Self::MuLaw => 1,
            Self::I16 => 2,
            Self::I24 => 3,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The sample in the first `bytes()` bytes of `at`, little-endian; 0 where there are fewer.
    pub fn decode(self, at: &[u8]) -> f32 {
        match (self, at) {
            (Self::U8, &[a, ..]) => (f32::from(a) - 128.0) / 128.0,
            (Self::I8, &[a, ..]) => f32::from(i8::from_le_bytes([a])) / 128.0,
            (Self::I16, &[a, b, ..]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::I24, &[a, b, c, ..]) => i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0,
            (Self::I32, &[a, b, c, d, ..]) => i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0,
            (Self::F32, &[a, b, c, d, ..]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F64, &[a, b, c, d, e, f, g, h, ..]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Self::ALaw, &[a, ..]) => f32::from(a_law(a)) / 32_768.0,
            (Self::MuLaw, &[a, ..]) => f32::from(mu_law(a)) / 32_768.0,
            _ => 0.0,
        }
    }

    pub fn decode_big_endian(self, at: &[u8]) -> f32 {
        let mut reversed = [0; 8];
        let bytes = at.len().min(reversed.len());
        reversed[..bytes].copy_from_slice(&at[..bytes]);
        reversed[..bytes].reverse();
        self.decode(&reversed[..bytes])
    }
}

/// A sample of A-law in 16 bits. ITU-T G.711, table 1a: a sign, three bits of exponent, four of mantissa, every second bit inverted.
pub fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = (byte >> 4 & 7, i16::from(byte & 15) << 4);
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

/// A sample of mu-law in 16 bits. ITU-T G.711, table 2a: the same with all bits inverted, and shifted so that exponent 0 is no exception.
pub fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = (((i16::from(byte & 15) << 3) + 0x84) << (byte >> 4 & 7)) - 0x84;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// What a header says of the samples behind it, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub rate: u32,
    /// At least 1.
    pub channels: usize,
    pub encoding: Encoding,
    pub big_endian: bool,
    /// Bytes of sound that the header announces; `None` where it does not know.
    pub announced: Option<u64>,
}

/// A stream of samples, past its header.
pub(super) struct Pcm<R> {
    bytes: R,
    layout: Layout,
    consumed: u64,
    buffer: Vec<u8>,
    /// The stream ended before the announced length, or inside a frame.
    pub truncated: bool,
}

impl<R: Read> Pcm<R> {
    pub fn new(bytes: R, layout: Layout) -> Result<Self> {
        ensure!(layout.channels > 0, "its header states 0 channels; at least 1 is needed");
        Ok(Self { bytes, layout, consumed: 0, buffer: Vec::new(), truncated: false })
    }

    pub fn rate(&self) -> u32 {
        self.layout.rate
    }

    pub fn channels(&self) -> usize {
        self.layout.channels
    }

    /// Frames that the header announces.
    pub fn frames(&self) -> Option<u64> {
        self.layout.announced.map(|bytes| bytes / self.frame_bytes() as u64)
    }

    /// Whether its samples may exceed full scale.
    pub fn is_float(&self) -> bool {
        matches!(self.layout.encoding, Encoding::F32 | Encoding::F64)
    }

    fn frame_bytes(&self) -> usize {
        self.layout.channels * self.layout.encoding.bytes()
    }

    /// Reads some frames, interleaved, into `frames` (replacing what is in it); `false` at the end.
    pub fn read(&mut self, frames: &mut Vec<f32>) -> Result<bool> {
        frames.clear();
        let frame = self.frame_bytes();
        let left = self.layout.announced.map_or(u64::MAX, |all| all - self.consumed);
        let requested = (CHUNK.div_ceil(frame) * frame).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.resize(requested, 0);
        let received = fill(&mut self.bytes, &mut self.buffer)?;
        self.consumed += received as u64;
        self.truncated |= (received < requested && self.layout.announced.is_some()) || !received.is_multiple_of(frame);
        let whole = &self.buffer[..received - received % frame];
        let Layout { encoding, big_endian, .. } = self.layout;
        let samples = whole.chunks_exact(encoding.bytes());
        if big_endian {
            frames.extend(samples.map(|at| encoding.decode_big_endian(at)));
        } else {
            frames.extend(samples.map(|at| encoding.decode(at)));
        }
        Ok(!frames.is_empty())
    }
}

/// Reads until `buffer` is full or the stream ends.
fn fill(bytes: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut received = 0;
    while received < buffer.len() {
        match bytes.read(&mut buffer[received..]) {
            Ok(0) => break,
            Ok(more) => received += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("can't read on"),
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the tables in ITU-T G.711, scaled to 16 bits.
    #[test]
    fn laws_follow_their_tables() {
        for (byte, value) in [(0xD5, 8), (0x55, -8), (0xAA, 32_256), (0x2A, -32_256), (0xC5, 264), (0xF5, 528)] {
            assert_eq!(a_law(byte), value, "{byte:#x}");
        }
        for (byte, value) in [(0xFF, 0), (0x7F, 0), (0x80, 32_124), (0x00, -32_124), (0xEF, 132), (0xFE, 8)] {
            assert_eq!(mu_law(byte), value, "{byte:#x}");
        }
    }
}
