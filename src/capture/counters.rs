//! What a source shows of itself: counters that any thread may read at any time.
//!
//! The audio callback, the device's watcher and the reader add to them; health, logs and the screen show them. All that
//! the callback adds to are atomic.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::level::{LevelMeter, Signal};
use super::source_state::SourceState;
use super::warnings::Warnings;
use crate::counter::Counter;

/// Stands for a level that is not known yet; no level is so low.
const NO_LEVEL: i32 = i32::MIN;
/// Stands for no choice of a channel.
const NO_CHANNEL: i32 = -1;

/// Counters of one source since it was opened.
#[derive(Debug)]
pub struct SourceCounters {
    /// Mono samples handed to the reader: progress.
    pub samples: Counter,
    /// Samples lost: ring full, overruns, outages of a device, broken packets of a file.
    pub samples_lost: Counter,
    /// Samples that were NaN or infinite and were replaced by 0.
    pub samples_bad: Counter,
    /// Packets of a file that could not be decoded and were skipped.
    pub packets_bad: Counter,
    /// How often a device was opened again after it had delivered or failed.
    pub reopens: Counter,
    /// Errors that the sound system reported for running streams.
    pub stream_errors: Counter,
    /// Threads that hold or close a stream now; more than one of them means that closing hangs in the sound system.
    pub streams_open: AtomicU64,
    /// What is wrong with the sound, in words.
    pub warnings: Warnings,
    /// The channel that was chosen as the best.
    channel: AtomicI32,
    /// Whether samples come: any state but silent and clipping.
    delivery: AtomicU8,
    /// What the samples say: live, silent or clipping.
    signal: AtomicU8,
    level_db: AtomicI32,
    /// Why the device's last stream was given up.
    failure: Mutex<Option<DeviceFailure>>,
}

/// Why a device could not be opened, or its stream was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFailure {
    /// What was seen.
    pub reason: String,
    /// Somebody uses it, which may be another source of ours.
    pub is_busy: bool,
}

impl Default for SourceCounters {
    fn default() -> Self {
        Self {
            samples: Counter::default(),
            samples_lost: Counter::default(),
            samples_bad: Counter::default(),
            packets_bad: Counter::default(),
            reopens: Counter::default(),
            stream_errors: Counter::default(),
            streams_open: AtomicU64::default(),
            warnings: Warnings::default(),
            channel: AtomicI32::new(NO_CHANNEL),
            delivery: AtomicU8::new(SourceState::Starting.number()),
            signal: AtomicU8::new(SourceState::Live.number()),
            level_db: AtomicI32::new(NO_LEVEL),
            failure: Mutex::default(),
        }
    }
}

impl SourceCounters {
    /// What the source is doing. What the samples say counts only while they come reliably.
    pub fn state(&self) -> SourceState {
        match SourceState::from_number(self.delivery.load(Ordering::Relaxed)) {
            SourceState::Live => SourceState::from_number(self.signal.load(Ordering::Relaxed)),
            other => other,
        }
    }

    /// The level of the last second of sound, RMS in dB below full scale, whose RMS is 1; none before there was one.
    pub fn level_db(&self) -> Option<i32> {
        Some(self.level_db.load(Ordering::Relaxed)).filter(|level| *level != NO_LEVEL)
    }

    /// Whether a stream holds the device, or is being closed.
    pub fn has_streams(&self) -> bool {
        self.streams_open.load(Ordering::Relaxed) > 0
    }

    /// Why the device's last stream was given up; none where none was.
    pub fn failure(&self) -> Option<DeviceFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be called by the device's watcher only, since it locks.
    pub(super) fn set_failure(&self, failure: DeviceFailure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// The channel that is taken where the best is asked for, counted from 0; none before anything came, and for other sources.
    pub fn channel(&self) -> Option<usize> {
        usize::try_from(self.channel.load(Ordering::Relaxed)).ok()
    }

    pub(super) fn set_channel(&self, channel: usize) {
        // ALSA's counts of channels are far below that.
        self.channel.store(i32::try_from(channel).unwrap_or(NO_CHANNEL), Ordering::Relaxed);
    }

    pub(super) fn set_state(&self, state: SourceState) {
        self.delivery.store(state.number(), Ordering::Relaxed);
    }

    /// Counts a block on its way to the reader, whose `meter` has taken it.
    pub(super) fn record_block(&self, samples: u64, meter: &LevelMeter) {
        let signal = match meter.signal() {
            Signal::Sound => SourceState::Live,
            Signal::Silent => SourceState::Silent,
            Signal::Clipping => SourceState::Clipping,
        };
        self.signal.store(signal.number(), Ordering::Relaxed);
        self.level_db.store(meter.level_db().unwrap_or(NO_LEVEL), Ordering::Relaxed);
        self.samples.add(samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_samples_say_counts_only_while_they_come() {
        let (counters, mut meter) = (SourceCounters::default(), LevelMeter::default());
        assert_eq!((counters.state(), counters.level_db()), (SourceState::Starting, None));
        meter.push(8_000, &[0.0; 80_000]);
        counters.record_block(80_000, &meter);
        assert_eq!((counters.state(), counters.level_db()), (SourceState::Starting, Some(-144)));
        for (delivery, state) in [
            (SourceState::Live, SourceState::Silent),
            (SourceState::Lost, SourceState::Lost),
            (SourceState::Stalled, SourceState::Stalled),
            (SourceState::Recovering, SourceState::Recovering),
            (SourceState::Ended, SourceState::Ended),
        ] {
            counters.set_state(delivery);
            assert_eq!(counters.state(), state);
        }
        assert_eq!(counters.samples.get(), 80_000);
    }
}
