//! The header of wav (RIFF, RF64, BW64): where the sound begins, what it is, and how long.
//!
//! symphonia reads wav, too, but believes the header: a recording whose length was never filled in is empty to it, a cut
//! one loses its last packet.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::REMEDY;
use super::pcm::{Encoding, Layout, Pcm};

/// Data lengths from here on mean "unknown": recorders that write to a pipe put 0x7FFF_F000 or more, or all ones.
const UNKNOWN_FROM: u32 = 0x7FFF_F000;

/// What chunks of wav are mostly called.
const COMMON_CHUNKS: [&[u8; 4]; 8] = [b"data", b"fmt ", b"LIST", b"fact", b"bext", b"iXML", b"id3 ", b"JUNK"];

/// Whether these first 12 bytes are those of a wav file.
pub(super) fn is_wav(head: &[u8]) -> bool {
    head.len() >= 12 && matches!(&head[..4], b"RIFF" | b"RF64" | b"BW64" | b"RIFX") && &head[8..12] == b"WAVE"
}

/// What the `fmt ` chunk says, checked.
#[derive(Debug, Clone, Copy)]
struct Format {
    rate: u32,
    channels: usize,
    encoding: Encoding,
}

/// Reads the header up to the first sample.
pub(super) fn open<R: Read>(mut bytes: R) -> Result<Pcm<R>> {
    let mut riff = [0; 12];
    bytes.read_exact(&mut riff).context("the file ends inside its first 12 bytes")?;
    ensure!(is_wav(&riff), "no wav header (RIFF....WAVE)");
    ensure!(&riff[..4] != b"RIFX", "big-endian wav (RIFX) is not read; {REMEDY}");
    let long = &riff[..4] != b"RIFF";
    let (mut format, mut long_len) = (None, None);
    let mut after_odd = false;
    loop {
        let (id, len) = read_chunk_head(&mut bytes, after_odd)?;
        after_odd = len & 1 == 1;
        match &id {
            b"fmt " => format = Some(read_format(&mut bytes, len)?),
            // Its own length is given in 64 bits where `data` has all ones.
            b"ds64" if long => long_len = Some(read_long_length(&mut bytes, len)?),
            b"data" => {
                let Format { rate, channels, encoding } =
                    format.context("the wav file has its data chunk before its fmt chunk")?;
                let announced = match (long_len, len) {
                    (Some(long_len), u32::MAX) => Some(long_len).filter(|len| *len > 0 && *len < u64::MAX),
                    _ => (len > 0 && len < UNKNOWN_FROM).then_some(u64::from(len)),
                };
                return Pcm::new(bytes, Layout { rate, channels, encoding, big_endian: false, announced });
            }
            _ => skip(&mut bytes, len.into())?,
        }
    }
}

/// A chunk's name and length. Chunks begin at even places, and some programs forget the byte of padding that this takes:
/// after a chunk of odd length its first byte shows whether it is there.
fn read_chunk_head(bytes: &mut impl Read, after_odd: bool) -> Result<([u8; 4], u32)> {
    const NO_DATA: &str = "the wav file ends before its sound: there is no data chunk";
    let mut head = [0; 8];
    bytes.read_exact(&mut head).context(NO_DATA)?;
    // The byte of padding is 0 by the standard, and whatever was in memory from some; a name is printable throughout.
    let is_name = head[..4].iter().all(|byte| matches!(byte, 0x20..0x7F));
    let padded = !is_name || COMMON_CHUNKS.iter().any(|name| &head[1..5] == *name);
    if after_odd && padded {
        head.rotate_left(1);
        bytes.read_exact(&mut head[7..]).context(NO_DATA)?;
    }
    let [t0, t1, t2, t3, l0, l1, l2, l3] = head;
    Ok(([t0, t1, t2, t3], u32::from_le_bytes([l0, l1, l2, l3])))
}

/// The data's length from `ds64`, behind that of the whole.
fn read_long_length(bytes: &mut impl Read, len: u32) -> Result<u64> {
    ensure!(len >= 16, "the wav file's ds64 chunk has {len} bytes, at least 16 are needed");
    let mut lengths = [0; 16];
    bytes.read_exact(&mut lengths).context("the wav file ends inside its ds64 chunk")?;
    skip(bytes, u64::from(len) - 16)?;
    let [.., a, b, c, d, e, f, g, h] = lengths;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

fn read_format(bytes: &mut impl Read, len: u32) -> Result<Format> {
    ensure!(len >= 16, "the wav file's fmt chunk has {len} bytes, at least 16 are needed");
    // Byte 24 on matters only to extensible headers; more than 40 bytes no version of the format has.
    let mut chunk = [0; 40];
    let here = (len as usize).min(chunk.len());
    bytes.read_exact(&mut chunk[..here]).context("the wav file ends inside its fmt chunk")?;
    skip(bytes, u64::from(len) - here as u64)?;
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
        (6, 1) => Encoding::ALaw,
        (7, 1) => Encoding::MuLaw,
        _ => bail!(
            "wav encoding {tag} with {bits} bits is not read; it reads integers (1) of 8, 16, 24, 32 bits, floats (3) of \
             32, 64 bits, A-law (6) and mu-law (7); {REMEDY}"
        ),
    };
    Ok(Format { rate, channels: usize::from(channels), encoding })
}

fn skip(bytes: &mut impl Read, len: u64) -> Result<()> {
    std::io::copy(&mut bytes.take(len), &mut std::io::sink()).context("can't read on in the wav header")?;
    Ok(())
}
