//! What the networks are run on while their activations are watched.
//!
//! In: the recording of `clapd demo` (tests/audio/CREDITS.md) and a list of texts. Out: log-mel patches, token ids.
//! Real sound, because activations of noise and tones are unlike it: 11 windows of 10 s with 16 kinds of sound. They decide
//! no range, only which errors of rounding count, and sounds of 36 other packages gain as much by them as these do.
//! Never: anything that a user's checkpoint is judged on; [`crate::tune::verify`] has other sounds and texts.

use std::io::Cursor;

use anyhow::{Context, Result};

use crate::capture::Channel;
use crate::capture::decode::Decoder;
use crate::clap::Tokenizer;
use crate::dsp::{FrontendSpec, clip_patch, resample_clip};

static RECORDING: &[u8] = include_bytes!("../../../tests/audio/demo.ogg");
static TEXTS: &str = include_str!("texts.txt");

/// The recording, cut into patches of the front end: each row-major `[frames][mels]`.
///
/// # Errors
/// A front end that does not fit the recording.
pub fn patches(spec: &FrontendSpec) -> Result<Vec<Vec<f32>>> {
    let mut decoder =
        Decoder::from_reader(Box::new(Cursor::new(RECORDING)), "the demonstration's recording", Channel::Mix)?;
    let rate = decoder.rate();
    let mut samples = Vec::new();
    while let Some(block) = decoder.next_block()? {
        samples.extend_from_slice(block.data);
    }
    let samples = resample_clip(&samples, rate, spec.sample_rate)?;
    samples.chunks_exact(spec.patch_samples()).map(|clip| clip_patch(spec, clip)).collect()
}

/// The texts as token ids.
///
/// # Errors
/// A tokenizer that fails.
pub fn texts(tokenizer: &Tokenizer) -> Result<Vec<Vec<i64>>> {
    TEXTS.lines().map(|text| tokenizer.ids(text).with_context(|| format!("the calibration text {text:?}"))).collect()
}
