//! The newest frames of a stream, and the patches they make.
//!
//! A frame is computed once, however many windows overlap on it. A frame that lies inside every patch that holds it
//! comes from the ring of rows. The first and last frames of a centred patch (two and two for CLAP) show the patch's
//! own reflection, so they are computed when the patch is asked for, from the ring of samples.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::clip::{filled_length, gather};
use super::logmel::LogMel;
use super::resample::Piece;
use super::ring::SampleRing;
use super::spec::FrontendSpec;

/// Samples that are appended at a time, at most; no ring is smaller.
const PIECE: usize = 256;

/// Most memory that the rings of one source may take: 256 MiB, 60 times what a CLAP window takes.
const MAX_RING_BYTES: usize = 256 << 20;

/// The frames of a stream at the model's rate, and the samples that the edges of a patch need.
pub(super) struct FrameRing {
    spec: FrontendSpec,
    log_mel: LogMel,
    samples: SampleRing,
    rows: Vec<f32>,
    /// The largest sample of each of them.
    peaks: Vec<f32>,
    /// The first frame that is not computed yet; frame f is centred at, or begins at, sample f * hop.
    next: u64,
    frame: Vec<f32>,
}

impl FrameRing {
    /// Rings that keep the newest `keep_frames` frames of a checked `spec` readable.
    pub(super) fn new(spec: &FrontendSpec, keep_frames: usize) -> Result<Self> {
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
            peaks: vec![0.0; keep_frames],
            // A frame that reaches before the first sample is an edge of every patch that holds it.
            next: spec.frame_lead().div_ceil(spec.hop_length) as u64,
            frame: vec![0.0; spec.window_length],
        })
    }

    /// The description of the frames.
    pub(super) fn spec(&self) -> &FrontendSpec {
        &self.spec
    }

    /// How many samples have come so far.
    pub(super) fn samples(&self) -> u64 {
        self.samples.end()
    }

    /// Takes the next samples, or so many of silence.
    pub(super) fn push(&mut self, piece: Piece<'_>) -> Result<()> {
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

    /// Appends zeros. Of a long silence only as much is written as the rings hold: nothing older can be read after it.
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
        self.peaks[row.start / self.spec.mel_bins] = peak(self.frame.iter().copied());
        self.log_mel.row(&self.frame, &mut self.rows[row])?;
        self.next += 1;
        Ok(())
    }

    /// Writes the patch that begins at sample `start`, all of which has come.
    pub(super) fn patch(&mut self, start: u64, out: &mut [f32]) -> Result<()> {
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

    /// Gives every frame from number `from` on that is kept, in order: its number and its log-mel values. Returns the number of the
    /// next.
    pub(super) fn rows_since(&self, from: u64, sink: &mut dyn FnMut(u64, &[f32])) -> u64 {
        // Frame 0 may lie before the first that is computed.
        let oldest = self
            .next
            .saturating_sub(self.keep_frames())
            .max(self.spec.frame_lead().div_ceil(self.spec.hop_length) as u64);
        for frame in from.max(oldest)..self.next {
            sink(frame, &self.rows[self.row_range(frame)]);
        }
        self.next
    }

    /// Writes the patch of a stream that ended within its first patch.
    pub(super) fn short_patch(&mut self, out: &mut [f32]) -> Result<()> {
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

    /// The largest sample of the patch that begins at sample `start`, sign aside; what lies beyond its frames that don't reach over
    /// its ends (up to 11 ms of CLAP's 10 s at either end) is left out. To be asked where [`patch`](Self::patch) was given.
    pub(super) fn patch_peak(&self, start: u64) -> f32 {
        let first = start / self.spec.hop_length as u64;
        let frames = self.inner_frames().map(|k| self.row_range(first + k as u64).start / self.spec.mel_bins);
        frames.fold(0.0, |most, slot| self.peaks[slot].max(most))
    }

    /// The same of the patch of a stream that ended within its first patch.
    pub(super) fn short_peak(&self) -> f32 {
        peak((0..self.samples.end()).map(|at| self.samples.get(at)))
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

fn peak(samples: impl Iterator<Item = f32>) -> f32 {
    samples.fold(0.0, |most, sample| sample.abs().max(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_transformed_once_however_many_windows_overlap_on_it() {
        let spec = FrontendSpec::clap_fused();
        let mut ring = FrameRing::new(&spec, spec.patch_frames + 100).unwrap();
        let mut patch = vec![0.0; spec.patch_len()];
        let second = vec![0.25; 48_000];
        let mut windows = 0;
        // 10 s windows, one every second of 15 s.
        for start in -9_i64..=5 {
            ring.push(Piece::Sound(&second)).unwrap();
            if let Ok(start) = u64::try_from(start) {
                ring.patch(start * 48_000, &mut patch).unwrap();
                windows += 1;
            }
        }
        // Of 1,500 hops the first two frames reach before the beginning, and the last two have not ended yet.
        let streamed = 15 * 100 - 2 - 1;
        let reflected_edges = 4 * windows;
        assert_eq!((windows, ring.log_mel.rows), (6, streamed + reflected_edges));
    }
}
