//! What the networks are run on while their activations are observed: clips of the recording of `clapd demo` and a list
//! of texts.
//!
//! The sound is real, because activations of noise and tones are unlike it: 11 windows of 10 s with 10 kinds of sound.
//! They decide no range, only which errors of rounding count, and sounds of other packages gain as much by them as
//! these do. [`crate::verify`] judges by other sounds and texts.

use anyhow::{Context, Result};
use clapd_core::dsp::{FrontendSpec, clip_patch};
use clapd_core::model::Tokenizer;

use crate::clips;

static TEXTS: &str = include_str!("texts.txt");

/// Log-mel patches: each row-major `[frames][mels]`.
///
/// # Errors
/// A front end that does not fit the recording.
pub fn patches(spec: &FrontendSpec) -> Result<Vec<Vec<f32>>> {
    clips::calibration(spec)?.iter().map(|clip| clip_patch(spec, clip)).collect()
}

/// The texts as token ids.
///
/// # Errors
/// A tokenizer that fails.
pub fn texts(tokenizer: &Tokenizer) -> Result<Vec<Vec<i64>>> {
    TEXTS.lines().map(|text| tokenizer.ids(text).with_context(|| format!("the calibration text {text:?}"))).collect()
}
