//! The streaming front end: samples in, any patch of the recent past out, and how much of a stretch was lost.

use anyhow::{Result, ensure};

use super::frames::FrameRing;
use super::loss_mask::LossMask;
use super::resample::{Piece, Resampler, check_rate, rescale};
use super::spec::FrontendSpec;
use crate::samples::Samples;

/// The streaming front end of one source.
pub struct Frontend {
    resampler: Option<Resampler>,
    frames: FrameRing,
    loss_mask: LossMask,
    input_rate: u32,
    /// Samples at the input's rate so far, lost included.
    received: u64,
    finished: bool,
}

impl Frontend {
    /// A front end for sound at `input_rate` (8,000 to 192,000 samples a second), which keeps the newest `keep_frames`
    /// frames readable: a patch's frames and some slack.
    ///
    /// # Errors
    /// A description that fails [`FrontendSpec::validate`], a rate out of range, fewer frames than a patch, or so many
    /// that they would take over 256 MiB.
    pub fn new(spec: &FrontendSpec, input_rate: u32, keep_frames: usize) -> Result<Self> {
        spec.validate()?;
        check_rate(input_rate)?;
        let resampler =
            if input_rate == spec.sample_rate { None } else { Some(Resampler::new(input_rate, spec.sample_rate)?) };
        let frames = FrameRing::new(spec, keep_frames)?;
        // Losses are known before the resampler has caught up with them.
        let lag = resampler.as_ref().map_or(0, Resampler::max_lag);
        let loss_mask = LossMask::new((keep_frames + 1) * spec.hop_length + spec.window_length + lag);
        Ok(Self { resampler, frames, loss_mask, input_rate, received: 0, finished: false })
    }

    /// Takes the next samples. The chunks in which a stream comes don't change a bit of its frames. What was lost is
    /// silence, however long, at a bounded cost.
    ///
    /// # Errors
    /// After [`Frontend::finish`], or beyond 2^56 samples.
    pub fn push(&mut self, samples: Samples<'_>) -> Result<()> {
        ensure!(!self.finished, "samples after the end of the stream; a new stream needs a new front end");
        self.count(samples.lost, true)?;
        let Self { resampler, frames, .. } = self;
        match resampler {
            Some(resampler) => resampler.push_silence(samples.lost, &mut |piece| frames.push(piece))?,
            None => frames.push(Piece::Silence(samples.lost))?,
        }
        self.count(samples.data.len() as u64, false)?;
        let Self { resampler, frames, .. } = self;
        match resampler {
            Some(resampler) => resampler.push(samples.data, &mut |piece| frames.push(piece)),
            None => frames.push(Piece::Sound(samples.data)),
        }
    }

    /// Ends the stream: what the resampler still holds comes out, `round(samples * model rate / input rate)` in all.
    ///
    /// # Errors
    /// If the resampler fails. A second call does nothing.
    pub fn finish(&mut self) -> Result<()> {
        self.finished = true;
        let Self { resampler, frames, .. } = self;
        match resampler {
            Some(resampler) => resampler.finish(&mut |piece| frames.push(piece)),
            None => Ok(()),
        }
    }

    /// Samples at the model's rate so far, lost ones included.
    pub fn samples(&self) -> u64 {
        self.frames.samples()
    }

    /// Samples at the model's rate in one patch.
    pub fn patch_samples(&self) -> usize {
        self.frames.spec().patch_samples()
    }

    /// Whether every sample of the patch that begins at sample `start` (at the model's rate) has arrived.
    pub fn has_patch(&self, start: u64) -> bool {
        start.saturating_add(self.patch_samples() as u64) <= self.samples()
    }

    /// Writes the log-mel of the patch that begins at sample `start` (at the model's rate, a multiple of the hop) into
    /// `out` (`patch_frames * mel_bins`, row = frame): bit for bit what [`clip_patch`](super::clip_patch) gives for
    /// those samples.
    ///
    /// # Errors
    /// A `start` that is no multiple of the hop, a patch that has not arrived or is no longer kept, or an `out` of
    /// another length.
    pub fn patch(&mut self, start: u64, out: &mut [f32]) -> Result<()> {
        ensure!(
            self.has_patch(start),
            "the patch at sample {start} needs {} samples, but only {} have come; ask has_patch first",
            self.patch_samples(),
            self.samples()
        );
        self.frames.patch(start, out)
    }

    /// Writes the patch of a stream that has ended before one whole patch came: its samples, repeated or padded
    /// as the description says, bit for bit what [`clip_patch`](super::clip_patch) gives for them.
    ///
    /// # Errors
    /// A stream that has not ended, is empty, or is a whole patch or more; an `out` of another length.
    pub fn short_patch(&mut self, out: &mut [f32]) -> Result<()> {
        ensure!(self.finished, "a short patch of a stream that goes on; finish it first");
        ensure!(
            self.samples() > 0 && !self.has_patch(0),
            "a short patch of a stream of {} samples; 1 to {} are needed, others have none or whole patches",
            self.samples(),
            self.patch_samples() - 1
        );
        self.frames.short_patch(out)
    }

    /// The largest sample, sign aside, of the patch that begins at sample `start`, and was just written by [`patch`](Self::patch); at
    /// either end up to 11 ms may be left out.
    pub(crate) fn patch_peak(&self, start: u64) -> f32 {
        self.frames.patch_peak(start)
    }

    /// The same of the patch that [`short_patch`](Self::short_patch) writes.
    pub(crate) fn short_peak(&self) -> f32 {
        self.frames.short_peak()
    }

    /// Gives every frame from number `from` on that is still kept, in order: the sample at the model's rate that it is centred at, or
    /// begins at, and its log-mel values. Returns the number of the next.
    pub fn rows_since(&self, from: u64, sink: &mut dyn FnMut(u64, &[f32])) -> u64 {
        let hop = self.frames.spec().hop_length as u64;
        self.frames.rows_since(from, &mut |frame, row| sink(frame * hop, row))
    }

    /// The share, 0 to 1, of samples `start..end` (at the model's rate) that were lost; samples that have not arrived
    /// or are no longer kept count as not lost.
    pub fn lost_share(&self, start: u64, end: u64) -> f32 {
        if end <= start {
            return 0.0;
        }
        (self.loss_mask.lost(start, end) as f64 / (end - start) as f64) as f32
    }

    /// Counts samples of the input, and notes where they lie at the model's rate.
    fn count(&mut self, samples: u64, lost: bool) -> Result<()> {
        self.received = self.received.saturating_add(samples);
        self.loss_mask.extend_to(rescale(self.received, self.input_rate, self.frames.spec().sample_rate)?, lost);
        Ok(())
    }
}
