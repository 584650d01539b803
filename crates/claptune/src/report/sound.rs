//! A recording inside the page: its beginning as a `data:` address that a browser plays.
//!
//! The sound is cut, mono and at a low rate, and there are only so many, so that the page can be sent.

use std::path::Path;

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::dsp::resample_clip;
use clapd_core::samples::RATES;

/// Sounds of a page: with 10 s of each it has 5 MB at most, which a mail still takes.
pub(super) const MAX_SOUNDS: usize = 12;
/// As long as the model listens.
pub(super) const SECONDS: usize = 10;
/// Holds all up to 8 kHz: enough to judge what a sound is.
const RATE: u32 = 16_000;

/// The first [`SECONDS`] as 16-bit WAV, which every browser plays, and which needs no encoder.
///
/// # Errors
/// A file that is missing or broken.
pub(super) fn address(file: &Path) -> Result<String> {
    let mut decoder = Decoder::open(file, Channel::Mix)?;
    let rate = decoder.rate();
    let most = SECONDS * rate as usize;
    let mut samples: Vec<f32> = Vec::new();
    while let Some(block) = decoder.next_block()? {
        let space = most - samples.len();
        let lost = usize::try_from(block.lost).unwrap_or(usize::MAX).min(space);
        samples.resize(samples.len() + lost, 0.0);
        samples.extend(block.data.iter().take(most - samples.len()));
        if samples.len() == most {
            break;
        }
    }
    ensure!(!samples.is_empty(), "{}: holds no sound", file.display());
    // A browser's decoders begin at 8 kHz too; slower files are rare enough to be refused by the resampler.
    let to = if (*RATES.start()..=RATE).contains(&rate) { rate } else { RATE };
    let samples = resample_clip(&samples, rate, to)?;
    Ok(format!("data:audio/wav;base64,{}", STANDARD.encode(wav(&samples, to))))
}

fn wav(samples: &[f32], rate: u32) -> Vec<u8> {
    let length = 2 * samples.len() as u32;
    let mut bytes = Vec::with_capacity(44 + 2 * samples.len());
    bytes.extend(b"RIFF");
    bytes.extend((36 + length).to_le_bytes());
    // PCM, one channel.
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(rate.to_le_bytes());
    bytes.extend((2 * rate).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(length.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| ((sample.clamp(-1.0, 1.0) * 32767.0).round() as i16).to_le_bytes()));
    bytes
}
