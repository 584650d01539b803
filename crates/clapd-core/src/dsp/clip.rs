//! One clip into one patch: the one-shot front end. Short clips are repeated or padded, long ones are cut.

use anyhow::{Result, ensure};

use super::logmel::LogMel;
use super::spec::{FrontendSpec, ShortClipPolicy};

/// One-shot: the log-mel patch (`patch_frames * mel_bins` values, row = frame) of one clip at the model's rate. A clip
/// shorter than a patch is repeated or padded as `spec.short` says; of a longer one the beginning is taken.
///
/// # Errors
/// An empty clip, or a description that fails [`FrontendSpec::validate`].
pub fn clip_patch(spec: &FrontendSpec, clip: &[f32]) -> Result<Vec<f32>> {
    spec.validate()?;
    ensure!(!clip.is_empty(), "the clip has no samples; give at least one");
    let mut patch = vec![0.0; spec.patch_len()];
    let mut log_mel = LogMel::new(spec);
    let mut frame = vec![0.0; spec.window_length];
    let filled = filled_length(spec, clip.len());
    for (k, row) in patch.chunks_exact_mut(spec.mel_bins).enumerate() {
        gather(spec, k, &mut frame, |at| if at < filled { clip[at % clip.len()] } else { 0.0 });
        log_mel.row(&frame, row)?;
    }
    Ok(patch)
}

/// How many samples of a patch a clip of `length` fills: whole copies, one copy, or all of it. The rest is zeros.
pub(super) fn filled_length(spec: &FrontendSpec, length: usize) -> usize {
    let patch = spec.patch_samples();
    match spec.short {
        ShortClipPolicy::RepeatPad if length < patch => patch / length.max(1) * length,
        ShortClipPolicy::RepeatPad | ShortClipPolicy::ZeroPad => length.min(patch),
    }
}

/// Fills `frame` with the samples of frame `k` of a patch, whose samples `sample` gives by their index in it; beyond
/// its ends the patch is reflected, without repeating the end sample.
pub(super) fn gather(spec: &FrontendSpec, k: usize, frame: &mut [f32], sample: impl Fn(usize) -> f32) {
    let last = spec.patch_samples() - 1;
    let begin = k * spec.hop_length;
    let lead = spec.frame_lead();
    for (i, slot) in frame.iter_mut().enumerate() {
        let at = (begin + i).abs_diff(lead);
        *slot = sample(if at > last { 2 * last - at } else { at });
    }
}
