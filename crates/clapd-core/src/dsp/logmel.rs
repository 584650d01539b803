//! One frame of samples into one row of log-mel values: the one function behind streaming and one-shot.
//!
//! It remembers nothing of earlier frames; that is why both give the same bits.

use anyhow::Result;

use super::mel::MelBank;
use super::spec::{FrontendSpec, LogScale};
use super::stft::Stft;

/// The transform of a frame, with its buffers.
pub(super) struct LogMel {
    stft: Stft,
    bank: MelBank,
    log: LogScale,
    /// How often a frame was transformed.
    #[cfg(test)]
    pub(super) rows: u64,
}

impl LogMel {
    /// The transform of a checked `spec`.
    pub(super) fn new(spec: &FrontendSpec) -> Self {
        let bank = MelBank::new(spec);
        Self {
            stft: Stft::new(spec, bank.used_bins()),
            bank,
            log: spec.log,
            #[cfg(test)]
            rows: 0,
        }
    }

    /// Writes the row of `frame` (`window_length` samples) into `row` (`mel_bins` values).
    pub(super) fn row(&mut self, frame: &[f32], row: &mut [f32]) -> Result<()> {
        #[cfg(test)]
        {
            self.rows += 1;
        }
        let spectrum = self.stft.spectrum(frame)?;
        for (out, sum) in row.iter_mut().zip(self.bank.sums(spectrum)) {
            *out = match self.log {
                LogScale::Decibel { floor } => 10.0 * sum.max(floor).log10(),
                LogScale::NaturalOffset { offset } => (sum + offset).ln(),
            } as f32;
        }
        Ok(())
    }
}
