//! What a source tells about itself: counters that any thread may read at any time.
//!
//! In: increments from the audio callback, the supervisor and the reader. Out: numbers for health, logs and screen.
//! Never: no locks, so that the callback may use them.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use super::level::{LevelMeter, Signal};
use super::state::State;

/// Stands for a level that is not known yet; no level is so low.
const NO_LEVEL: i32 = i32::MIN;

/// Counters of one source since it was opened.
#[derive(Debug)]
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
    /// Where the way to the samples stands: any state but silent and clipping.
    stand: AtomicU8,
    /// What the samples say: live, silent or clipping.
    signal: AtomicU8,
    level_db: AtomicI32,
}

impl Default for SourceCounters {
    fn default() -> Self {
        Self {
            samples: AtomicU64::default(),
            samples_lost: AtomicU64::default(),
            samples_bad: AtomicU64::default(),
            packets_bad: AtomicU64::default(),
            reopens: AtomicU64::default(),
            stream_errors: AtomicU64::default(),
            streams_open: AtomicU64::default(),
            stand: AtomicU8::new(State::Starting.number()),
            signal: AtomicU8::new(State::Live.number()),
            level_db: AtomicI32::new(NO_LEVEL),
        }
    }
}

impl SourceCounters {
    /// Where the source stands. What the samples say counts only while they come reliably.
    pub fn state(&self) -> State {
        match State::numbered(self.stand.load(Ordering::Relaxed)) {
            State::Live => State::numbered(self.signal.load(Ordering::Relaxed)),
            other => other,
        }
    }

    /// The level of the last second that was heard, RMS in dB below full scale, whose RMS is 1; none before there was one.
    pub fn level_db(&self) -> Option<i32> {
        Some(self.level_db.load(Ordering::Relaxed)).filter(|level| *level != NO_LEVEL)
    }

    pub(super) fn set_state(&self, state: State) {
        self.stand.store(state.number(), Ordering::Relaxed);
    }

    /// Counts a block on its way to the reader, whose `meter` has taken it.
    pub(super) fn heard(&self, samples: u64, meter: &LevelMeter) {
        let signal = match meter.signal() {
            Signal::Sound => State::Live,
            Signal::Silent => State::Silent,
            Signal::Clipping => State::Clipping,
        };
        self.signal.store(signal.number(), Ordering::Relaxed);
        self.level_db.store(meter.level_db().unwrap_or(NO_LEVEL), Ordering::Relaxed);
        add(&self.samples, samples);
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
    fn what_samples_say_counts_only_while_they_come() {
        let (counters, mut meter) = (SourceCounters::default(), LevelMeter::default());
        assert_eq!((counters.state(), counters.level_db()), (State::Starting, None));
        meter.take(8_000, &[0.0; 80_000]);
        counters.heard(80_000, &meter);
        assert_eq!((counters.state(), counters.level_db()), (State::Starting, Some(-144)));
        for (stand, state) in [
            (State::Live, State::Silent),
            (State::Lost, State::Lost),
            (State::Stalled, State::Stalled),
            (State::Recovering, State::Recovering),
            (State::Ended, State::Ended),
        ] {
            counters.set_state(stand);
            assert_eq!(counters.state(), state);
        }
        assert_eq!(counters.samples.load(Ordering::Relaxed), 80_000);
    }
}
