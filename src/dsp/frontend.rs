//! The streaming front end: samples in, any patch of the recent past out.
//!
//! In: [`Samples`] at the source's rate, with what was lost. Out: patches, and how much of a stretch was lost.
//! Never: a frame is computed once, however many windows overlap on it; no allocation after construction; no work
//! beyond the rings' size for a loss, however long.
//!
//! A frame that lies inside every patch that holds it comes from the ring of rows. The first and last frames of a
//! centred patch (two and two for CLAP) show the patch's own reflection, so they are computed when the patch is asked
//! for, from the ring of samples.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::clip::{filled_length, gather};
use super::ledger::LossLedger;
use super::logmel::LogMel;
use super::resample::{Piece, Resampler, check_rate, rescale};
use super::ring::SampleRing;
use super::spec::FrontendSpec;
use crate::samples::Samples;

/// Samples that are appended at a time, at most; no ring is smaller.
const PIECE: usize = 256;

/// Most memory that the rings of one source may take: 256 MiB, 60 times what a CLAP window takes.
const MAX_RING_BYTES: usize = 256 << 20;

/// The streaming front end of one source.
pub struct Frontend {
    resampler: Option<Resampler>,
    frames: FrameRing,
    ledger: LossLedger,
    input_rate: u32,
    /// Samples at the input's rate so far, lost included.
    taken: u64,
    finished: bool,
}

impl Frontend {
    /// A front end for sound at `input_rate` (8,000 to 192,000 samples a second), which keeps the newest `keep_frames` frames
    /// readable: a patch's frames and some slack.
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
        let ledger = LossLedger::new((keep_frames + 1) * spec.hop_length + spec.window_length + lag);
        Ok(Self { resampler, frames, ledger, input_rate, taken: 0, finished: false })
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
            Some(resampler) => resampler.push_silence(samples.lost, &mut |piece| frames.take(piece))?,
            None => frames.take(Piece::Silence(samples.lost))?,
        }
        self.count(samples.data.len() as u64, false)?;
        let Self { resampler, frames, .. } = self;
        match resampler {
            Some(resampler) => resampler.push(samples.data, &mut |piece| frames.take(piece)),
            None => frames.take(Piece::Sound(samples.data)),
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
            Some(resampler) => resampler.finish(&mut |piece| frames.take(piece)),
            None => Ok(()),
        }
    }

    /// Samples at the model's rate so far, lost ones included.
    pub fn samples(&self) -> u64 {
        self.frames.samples.end()
    }

    /// Samples at the model's rate in one patch.
    pub fn patch_samples(&self) -> usize {
        self.frames.spec.patch_samples()
    }

    /// Whether every sample of the patch that begins at sample `start` (at the model's rate) has arrived.
    pub fn has_patch(&self, start: u64) -> bool {
        start.saturating_add(self.patch_samples() as u64) <= self.samples()
    }

    /// Writes the log-mel of the patch that begins at sample `start` (at the model's rate, a multiple of the hop) into `out`
    /// (`patch_frames * mel_bins`, row = frame): bit for bit what [`clip_patch`](super::clip_patch) gives for those samples.
    ///
    /// # Errors
    /// A `start` that is no multiple of the hop, a patch that has not arrived or is no longer kept, or an `out` of another
    /// length.
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

    /// The share, 0 to 1, of samples `start..end` (at the model's rate) that were lost; samples that have not arrived or are
    /// no longer kept count as not lost.
    pub fn lost_share(&self, start: u64, end: u64) -> f32 {
        if end <= start {
            return 0.0;
        }
        (self.ledger.lost(start, end) as f64 / (end - start) as f64) as f32
    }

    /// Counts samples of the input, and notes where they lie at the model's rate.
    fn count(&mut self, samples: u64, lost: bool) -> Result<()> {
        self.taken = self.taken.saturating_add(samples);
        self.ledger.extend_to(rescale(self.taken, self.input_rate, self.frames.spec.sample_rate)?, lost);
        Ok(())
    }
}

/// The frames of a stream at the model's rate, and the samples that the edges of a patch need.
struct FrameRing {
    spec: FrontendSpec,
    log_mel: LogMel,
    samples: SampleRing,
    rows: Vec<f32>,
    /// The first frame that is not computed yet; frame f is centred at, or begins at, sample f * hop.
    next: u64,
    frame: Vec<f32>,
}

impl FrameRing {
    fn new(spec: &FrontendSpec, keep_frames: usize) -> Result<Self> {
        ensure!(
            keep_frames >= spec.patch_frames,
            "{keep_frames} frames are to be kept; a patch alone has {}",
            spec.patch_frames
        );
        // Only reflected edges are computed from old samples, and short streams from all of theirs.
        let keep_samples = if spec.centered {
            keep_frames.saturating_add(1).saturating_mul(spec.hop_length).saturating_add(spec.window_length).max(PIECE)
        } else {
            spec.patch_samples().max(PIECE)
        };
        let values = keep_frames.saturating_mul(spec.mel_bins);
        ensure!(
            keep_samples.saturating_add(values) <= MAX_RING_BYTES / size_of::<f32>(),
            "{keep_frames} frames are to be kept, which would take over {} MiB; keep fewer",
            MAX_RING_BYTES >> 20
        );
        Ok(Self {
            spec: *spec,
            log_mel: LogMel::new(spec),
            samples: SampleRing::new(keep_samples),
            rows: vec![0.0; values],
            // A frame that reaches before the first sample is an edge of every patch that holds it.
            next: spec.frame_lead().div_ceil(spec.hop_length) as u64,
            frame: vec![0.0; spec.window_length],
        })
    }

    fn take(&mut self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Sound(samples) => self.append(samples),
            Piece::Silence(count) => self.append_silence(count),
        }
    }

    fn append(&mut self, mut samples: &[f32]) -> Result<()> {
        while !samples.is_empty() {
            let missing = self.next_end() - self.samples.end();
            let (now, later) = samples.split_at(samples.len().min(missing.min(PIECE as u64) as usize));
            self.samples.append(now);
            samples = later;
            if self.samples.end() == self.next_end() {
                self.compute_next()?;
            }
        }
        Ok(())
    }

    /// Appends zeros. Of a long silence only as much is written as the rings hold: nothing older can be read afterwards.
    fn append_silence(&mut self, count: u64) -> Result<()> {
        const ZEROS: [f32; PIECE] = [0.0; PIECE];
        let hop = self.spec.hop_length as u64;
        let rings = (self.keep_frames() + 1) * hop + (self.spec.window_length + self.spec.patch_samples()) as u64;
        let hops = count.saturating_sub(rings) / hop;
        self.samples.skip(hops * hop);
        self.next += hops;
        let mut left = count - hops * hop;
        while left > 0 {
            let now = left.min(PIECE as u64);
            self.append(&ZEROS[..now as usize])?;
            left -= now;
        }
        Ok(())
    }

    fn compute_next(&mut self) -> Result<()> {
        self.samples.copy(self.next_end() - self.spec.window_length as u64, &mut self.frame);
        let row = self.row_range(self.next);
        self.log_mel.row(&self.frame, &mut self.rows[row])?;
        self.next += 1;
        Ok(())
    }

    fn patch(&mut self, start: u64, out: &mut [f32]) -> Result<()> {
        let hop = self.spec.hop_length as u64;
        ensure!(start.is_multiple_of(hop), "a patch at sample {start}; patches begin at multiples of {hop}");
        self.check_out(out)?;
        let first = start / hop;
        let inner = self.inner_frames();
        let oldest = self.next.saturating_sub(self.keep_frames());
        ensure!(
            first + inner.start as u64 >= oldest
                && (inner.len() == self.spec.patch_frames || start >= self.samples.begin()),
            "the patch at sample {start} is no longer kept; the oldest frame is {oldest}, ask sooner or keep more"
        );
        for (k, row) in out.chunks_exact_mut(self.spec.mel_bins).enumerate() {
            if inner.contains(&k) {
                row.copy_from_slice(&self.rows[self.row_range(first + k as u64)]);
            } else {
                let samples = &self.samples;
                gather(&self.spec, k, &mut self.frame, |at| samples.get(start + at as u64));
                self.log_mel.row(&self.frame, row)?;
            }
        }
        Ok(())
    }

    fn short_patch(&mut self, out: &mut [f32]) -> Result<()> {
        self.check_out(out)?;
        let length = self.samples.end();
        let filled = filled_length(&self.spec, usize::try_from(length).context("length of a short stream")?);
        for (k, row) in out.chunks_exact_mut(self.spec.mel_bins).enumerate() {
            let samples = &self.samples;
            let sample = |at| if at < filled { samples.get(at as u64 % length) } else { 0.0 };
            gather(&self.spec, k, &mut self.frame, sample);
            self.log_mel.row(&self.frame, row)?;
        }
        Ok(())
    }

    /// The frames of a patch that don't reach over its ends.
    fn inner_frames(&self) -> Range<usize> {
        let (lead, hop) = (self.spec.frame_lead(), self.spec.hop_length);
        let begin = lead.div_ceil(hop);
        let last_begin = self.spec.patch_samples() + lead - self.spec.window_length;
        begin..(last_begin / hop + 1).clamp(begin, self.spec.patch_frames)
    }

    fn check_out(&self, out: &[f32]) -> Result<()> {
        let (length, needed) = (out.len(), self.spec.patch_len());
        ensure!(length == needed, "room for {length} values of a patch; {needed} are needed (frames times mel bins)");
        Ok(())
    }

    /// Where the next frame ends.
    fn next_end(&self) -> u64 {
        self.next * self.spec.hop_length as u64 + (self.spec.window_length - self.spec.frame_lead()) as u64
    }

    fn keep_frames(&self) -> u64 {
        (self.rows.len() / self.spec.mel_bins) as u64
    }

    fn row_range(&self, frame: u64) -> Range<usize> {
        let slot = (frame % self.keep_frames()) as usize * self.spec.mel_bins;
        slot..slot + self.spec.mel_bins
    }
}
