//! The header of au (Sun, NeXT): big-endian samples and G.711.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::REMEDY;
use super::pcm::{Encoding, Layout, Pcm};

/// The longest comment that is skipped: players write a line, and a header that claims more is none.
const MAX_HEADER: u32 = 1 << 20;

/// Whether a file begins as au does.
pub(super) fn is_au(head: &[u8]) -> bool {
    head.starts_with(b".snd")
}

/// Reads the header up to the first sample.
pub(super) fn open<R: Read>(mut bytes: R) -> Result<Pcm<R>> {
    let mut head = [0; 24];
    bytes.read_exact(&mut head).context("the au file ends inside its header")?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (begins, len, tag, rate, channels) = (word(4), word(8), word(12), word(16), word(20));
    ensure!(
        (24..=MAX_HEADER).contains(&begins),
        "the au header says that sound begins at byte {begins}; 24 to {MAX_HEADER} are possible"
    );
    let comment = u64::from(begins) - head.len() as u64;
    std::io::copy(&mut bytes.by_ref().take(comment), &mut std::io::sink()).context("can't read on in the au header")?;
    let encoding = match tag {
        1 => Encoding::MuLaw,
        2 => Encoding::I8,
        3 => Encoding::I16,
        4 => Encoding::I24,
        5 => Encoding::I32,
        6 => Encoding::F32,
        7 => Encoding::F64,
        27 => Encoding::ALaw,
        _ => bail!("au encoding {tag} is not read; it reads 1 to 7 and 27; {REMEDY}"),
    };
    let channels = usize::from(u16::try_from(channels).context("the au header states more than 65535 channels")?);
    // All ones: unknown.
    let announced = (len > 0 && len < u32::MAX).then_some(u64::from(len));
    Pcm::new(bytes, Layout { rate, channels, encoding, big_endian: true, announced })
}
