//! Which windows are due, and what a window's embedding is.
//!
//! A schedule makes [`Span`]s, in order, of how many samples have arrived. Each patch is encoded once, and only if a window that is
//! scored holds it.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Model;
use super::gain::patch_gain;
use crate::dsp::{Frontend, FrontendSpec, amplify};
use crate::model::{Encode, Step, Windowing};

/// A window in samples at the model's rate, and the starts of its patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u64,
    pub end: u64,
    /// Samples from patch to patch.
    step: u64,
    patches: u64,
    /// The clip is shorter than one patch and will be padded.
    short: bool,
}

/// The windows of a source: one every hop, the first when the first patch is whole.
#[derive(Debug)]
pub(crate) struct Schedule {
    windowing: Windowing,
    hop: u64,
    frame: u64,
    rate: u32,
    next: u64,
}

impl Schedule {
    pub(crate) fn new(model: &Model, hop: Duration) -> Self {
        let (frame, rate) = (model.frontend.hop_length as u64, model.frontend.sample_rate);
        let frames = (hop.as_secs_f64() * f64::from(rate) / frame as f64).round() as u64;
        Self { windowing: model.windowing, hop: frames.max(1) * frame, frame, rate, next: 0 }
    }

    /// Frames that have to stay readable: the newest window, wherever in a hop and a chunk it ends.
    pub(crate) fn keep_frames(&self, chunk: Duration) -> usize {
        let Windowing { patch, patch_hop, patches } = self.windowing;
        let window = patch + patch_hop * patches as u64;
        let chunk = (chunk.as_secs_f64() * f64::from(self.rate)) as u64;
        // A second for what the resampler gives at once.
        ((window + self.hop + chunk + u64::from(self.rate)) / self.frame) as usize
    }

    /// The same as a time.
    pub(crate) fn keep(&self, chunk: Duration) -> Duration {
        Duration::from_secs_f64(self.keep_frames(chunk) as f64 * self.frame as f64 / f64::from(self.rate))
    }

    /// The next window, if all its samples are among the `arrived`.
    pub(crate) fn next(&mut self, arrived: u64) -> Option<Span> {
        let due = self.windowing.patch + self.next * self.hop;
        let span = (arrived >= due).then(|| self.ending_by(due))?;
        self.next += 1;
        Some(span)
    }

    /// Passes over the windows that would have been due before now.
    pub(crate) fn forget_until(&mut self, arrived: u64) {
        if let Some(late) = arrived.checked_sub(self.windowing.patch) {
            self.next = self.next.max(late / self.hop + 1);
        }
    }

    /// The window at the end of a source, if it holds sound that no window up to `covered` held: a frame of it at least,
    /// but where nothing was covered yet, one sample is a clip.
    pub(crate) fn last_window(&self, arrived: u64, covered: u64) -> Option<Span> {
        if arrived == 0 || (covered > 0 && arrived < covered + self.frame) {
            return None;
        }
        if arrived < self.windowing.patch {
            return Some(Span { start: 0, end: arrived, step: 0, patches: 1, short: true });
        }
        let aligned = self.windowing.patch + (arrived - self.windowing.patch) / self.frame * self.frame;
        Some(self.ending_by(aligned)).filter(|span| span.end > covered)
    }

    fn ending_by(&self, due: u64) -> Span {
        let Windowing { patch, patch_hop, patches } = self.windowing;
        if patch_hop == 0 {
            return Span { start: due - patch, end: due, step: 0, patches: 1, short: false };
        }
        let last = (due - patch) / patch_hop;
        let first = (last + 1).saturating_sub(patches as u64);
        Span {
            start: first * patch_hop,
            end: last * patch_hop + patch,
            step: patch_hop,
            patches: last + 1 - first,
            short: false,
        }
    }
}

/// The gain in dB of the patch that ends before a sample, at the model's rate.
pub(crate) type PatchGain<'a> = &'a dyn Fn(u64) -> f32;

/// Turns spans into embeddings and remembers the features of the patches that the next span shares.
pub(crate) struct Embedder {
    spec: FrontendSpec,
    /// Start of a patch and its features, oldest first.
    known: VecDeque<(u64, Vec<f32>)>,
    spare: Vec<Vec<f32>>,
    patch: Vec<f32>,
    mean: Vec<f32>,
    embedding: Vec<f32>,
}

impl Embedder {
    pub(crate) fn new(model: &Model) -> Self {
        let features = model.encoder.feature_len();
        Self {
            spec: model.frontend,
            known: VecDeque::new(),
            spare: Vec::new(),
            patch: vec![0.0; model.frontend.patch_frames * model.frontend.mel_bins],
            mean: vec![0.0; features],
            embedding: vec![0.0; model.encoder.embedding_len()],
        }
    }

    /// The unit embedding of a window, whose patches are made louder by `gain` as far as they have room; `step` is called between the
    /// parts of each patch.
    pub(crate) fn embed(
        &mut self,
        encoder: &dyn Encode,
        frontend: &mut Frontend,
        span: &Span,
        gain: PatchGain<'_>,
        step: Step<'_>,
    ) -> Result<&[f32]> {
        self.features(encoder, frontend, span, gain, step)?;
        encoder.embed(&self.mean, &mut self.embedding)?;
        // One such number would make a number that is none of every score.
        if self.embedding.iter().any(|x| !x.is_finite()) {
            bail!("the audio tower gave an embedding that is not finite for the window at sample {}", span.start);
        }
        Ok(&self.embedding)
    }

    /// The mean features of a window's patches.
    pub(crate) fn features(
        &mut self,
        encoder: &dyn Encode,
        frontend: &mut Frontend,
        span: &Span,
        gain: PatchGain<'_>,
        step: Step<'_>,
    ) -> Result<&[f32]> {
        while let Some((start, _)) = self.known.front()
            && *start < span.start
        {
            self.spare.extend(self.known.pop_front().map(|(_, features)| features));
        }
        self.mean.fill(0.0);
        let share = 1.0 / span.patches as f32;
        for index in 0..span.patches {
            let start = span.start + index * span.step;
            let at = self.features_at(encoder, frontend, start, span.short, gain, step)?;
            self.mean.iter_mut().zip(&self.known[at].1).for_each(|(mean, x)| *mean += share * x);
        }
        Ok(&self.mean)
    }

    /// Index in `known` of the patch that starts at `start`.
    fn features_at(
        &mut self,
        encoder: &dyn Encode,
        frontend: &mut Frontend,
        start: u64,
        short: bool,
        gain: PatchGain<'_>,
        step: Step<'_>,
    ) -> Result<usize> {
        let at = self.known.partition_point(|(known, _)| *known < start);
        if self.known.get(at).is_some_and(|(known, _)| *known == start) {
            return Ok(at);
        }
        if short {
            frontend.short_patch(&mut self.patch)?;
        } else {
            frontend.patch(start, &mut self.patch)?;
        }
        let gain_db = gain(if short { frontend.samples() } else { start + self.spec.patch_samples() as u64 });
        // Without a gain not a bit of it changes.
        if gain_db != 0.0 {
            let peak = if short { frontend.short_peak() } else { frontend.patch_peak(start) };
            amplify(&self.spec, patch_gain(gain_db, peak), &mut self.patch);
        }
        let mut features = self.spare.pop().unwrap_or_default();
        features.resize(encoder.feature_len(), 0.0);
        encoder.encode_stepwise(&self.patch, &mut features, step)?;
        if features.iter().any(|x| !x.is_finite()) {
            bail!("the audio tower gave a number that is not finite for the patch at sample {start}");
        }
        self.known.insert(at, (start, features));
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(patch: u64, patch_hop: u64, patches: usize, hop: u64) -> Schedule {
        Schedule { windowing: Windowing { patch, patch_hop, patches }, hop, frame: 10, rate: 100, next: 0 }
    }

    fn ranges(schedule: &mut Schedule, arrived: u64) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| schedule.next(arrived)).map(|span| (span.start, span.end)).collect()
    }

    #[test]
    fn a_window_of_one_patch_slides_by_the_hop() {
        let mut clap = schedule(1000, 0, 1, 100);
        assert_eq!(ranges(&mut clap, 999), []);
        assert_eq!(ranges(&mut clap, 1250), [(0, 1000), (100, 1100), (200, 1200)]);
        assert_eq!(clap.last_window(1250, 1200).map(|s| (s.start, s.end)), Some((250, 1250)));
        assert_eq!(clap.last_window(1205, 1200), None);
    }

    #[test]
    fn a_window_of_patches_grows_to_its_length_and_slides() {
        let mut mini = schedule(90, 50, 3, 50);
        assert_eq!(ranges(&mut mini, 290), [(0, 90), (0, 140), (0, 190), (50, 240), (100, 290)]);
    }

    #[test]
    fn a_short_source_is_one_padded_window() {
        let span = schedule(90, 50, 3, 50).last_window(40, 0).unwrap();
        assert_eq!((span.start, span.end, span.short), (0, 40, true));
        // Less than a frame of 10 samples.
        let span = schedule(90, 50, 3, 50).last_window(1, 0).unwrap();
        assert_eq!((span.start, span.end, span.short), (0, 1, true));
        assert_eq!(schedule(90, 50, 3, 50).last_window(0, 0), None);
    }

    #[test]
    fn what_was_lost_is_not_due() {
        let mut clap = schedule(1000, 0, 1, 100);
        clap.forget_until(5_050);
        assert_eq!(ranges(&mut clap, 5_150), [(4_100, 5_100)]);
    }
}
