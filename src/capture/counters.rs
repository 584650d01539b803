//! What a source tells about itself: counters that any thread may read at any time.
//!
//! In: increments from the audio callback, the supervisor and the reader. Out: numbers for health, logs and screen.
//! Never: no locks, so that the callback may use them.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Where a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Opened or waited for; no sample has come yet.
    Starting = 0,
    /// Samples come.
    Live = 1,
    /// Samples came once; the device is away and is waited for.
    Lost = 2,
    /// The file or standard input is over.
    Ended = 3,
}

/// Counters of one source since it was opened.
#[derive(Debug, Default)]
pub struct SourceCounters {
    /// Mono samples handed to the reader: progress.
    pub samples: AtomicU64,
    /// Samples lost: ring full, overruns, outages of a device, broken packets of a file.
    pub samples_lost: AtomicU64,
    /// Samples that were NaN or infinite and were replaced by 0.
    pub samples_bad: AtomicU64,
    /// Packets of a file that could not be decoded and were skipped.
    pub packets_bad: AtomicU64,
    /// How often a device was opened again after it had delivered or failed.
    pub reopens: AtomicU64,
    /// Errors that the sound system reported for running streams.
    pub stream_errors: AtomicU64,
    /// Threads that hold or close a stream now; more than one of them means that closing hangs in the sound system.
    pub streams_open: AtomicU64,
    state: AtomicU8,
    peak: AtomicU32,
}

impl SourceCounters {
    /// Where the source stands.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            1 => State::Live,
            2 => State::Lost,
            3 => State::Ended,
            _ => State::Starting,
        }
    }

    /// The largest magnitude heard since the last call (1.0 = full scale); 0 where nothing was heard.
    pub fn take_peak(&self) -> f32 {
        f32::from_bits(self.peak.swap(0, Ordering::Relaxed))
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Counts a block on its way to the reader.
    pub(super) fn heard(&self, data: &[f32]) {
        let peak = data.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
        // The bits of non-negative floats are ordered as the floats are.
        self.peak.fetch_max(peak.to_bits(), Ordering::Relaxed);
        add(&self.samples, data.len() as u64);
    }
}

/// Adds to a counter. Counters order nothing, so relaxed is enough.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_is_the_largest_since_it_was_taken() {
        let counters = SourceCounters::default();
        counters.heard(&[0.1, -0.7, 0.2]);
        counters.heard(&[0.3]);
        assert_eq!(counters.take_peak(), 0.7);
        assert_eq!(counters.take_peak(), 0.0);
        assert_eq!(counters.samples.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn every_state_survives_the_atomic() {
        let counters = SourceCounters::default();
        for state in [State::Starting, State::Live, State::Lost, State::Ended] {
            counters.set_state(state);
            assert_eq!(counters.state(), state);
        }
    }
}
