//! How the daemon itself is doing.
//!
//! In: counts from the threads of the daemon, each of which adds to its own. Out: a [`Health`] that `mqtt` tells and logs show.
//! Never: decides anything, and loses no count: what is dropped anywhere is counted here or in `capture`.

mod state_log;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use state_log::{StateChange, StateLog};

/// A number that only grows, added to by one thread and read by another.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; true where that is the first or brought a new power of two, which is when a log says so.
    pub fn add(&self, n: u64) -> bool {
        let before = self.0.fetch_add(n, Relaxed);
        (before + n).checked_ilog2() > before.checked_ilog2()
    }

    /// Replaces the count, for one that somebody else keeps.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What is counted on the way to the broker.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    /// Scores that were replaced by newer ones before they could be sent.
    pub scores_dropped: Counter,
    /// Connections that the broker has accepted.
    pub connections: Counter,
    /// Of those, all after the first.
    pub reconnects: Counter,
    /// Messages that the broker refused; it may say so in MQTT 5 only.
    pub refused: Counter,
    /// Commands that came when too many waited, or that a broker had retained.
    pub commands_dropped: Counter,
}

/// What is counted in one source's pipeline.
#[derive(Debug, Default)]
pub struct ScoringCounters {
    /// Windows that got their scores.
    pub windows_scored: Counter,
    /// Windows that were due and left out, because a newer one was due as well.
    pub windows_skipped: Counter,
    /// Windows that were silent and got no scores but 0, see `scoring.gate_db`.
    pub windows_gated: Counter,
    /// Events that began.
    pub events_started: Counter,
}

/// The daemon's health at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Since the daemon began.
    pub uptime: Duration,
    /// Where events wait for the broker: `disk`, or `memory`, where they end with the daemon.
    pub outbox: &'static str,
    /// Starts and ends that the broker has not acknowledged.
    pub events_waiting: u64,
    /// Events that were dropped because too many waited, or for too long.
    pub events_dropped: u64,
    /// See [`DeliveryCounters`].
    pub scores_dropped: u64,
    /// See [`DeliveryCounters`].
    pub connections: u64,
    /// See [`DeliveryCounters`].
    pub reconnects: u64,
    /// See [`DeliveryCounters`].
    pub refused: u64,
    /// See [`DeliveryCounters`].
    pub commands_dropped: u64,
    /// One for each source, in the configuration's order.
    pub sources: Vec<SourceHealth>,
}

/// A source's health at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceHealth {
    /// The source's id.
    pub id: String,
    /// What it is doing, in a word; see `capture::State`.
    pub state: &'static str,
    /// The level of the last second that was heard, in dB below full scale; none before there was one.
    pub level_db: Option<i32>,
    /// Samples that came and found no room.
    pub samples_lost: u64,
    /// Samples that were no numbers.
    pub samples_bad: u64,
    /// Times that the device was opened again.
    pub reopens: u64,
    /// Errors that the sound system reported.
    pub stream_errors: u64,
    /// See [`ScoringCounters`].
    pub windows_scored: u64,
    /// See [`ScoringCounters`].
    pub windows_skipped: u64,
    /// See [`ScoringCounters`].
    pub windows_gated: u64,
    /// See [`ScoringCounters`].
    pub events_started: u64,
}

impl Health {
    /// Whether somebody should hear of it at once, having heard of `before`: a source's state is another, or the outbox's; or there
    /// is a new connection, which was given what was told last, and that may be old.
    pub fn is_news(&self, before: &Self) -> bool {
        self.outbox != before.outbox
            || self.connections != before.connections
            || !self.sources.iter().map(|source| source.state).eq(before.sources.iter().map(|source| source.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_hears_of_the_first_and_of_each_doubling() {
        let counter = Counter::default();
        let said: Vec<u64> = (1..=20).filter(|_| counter.add(1)).collect();
        assert_eq!(said, [1, 2, 4, 8, 16]);
        assert!(counter.add(100) && !counter.add(0));
        assert_eq!(counter.get(), 120);
    }

    #[test]
    fn a_new_state_is_news_and_a_count_is_not() {
        let source = |state, samples_lost| SourceHealth { state, samples_lost, ..SourceHealth::default() };
        let health = |source| Health { sources: vec![source], ..Health::default() };
        assert!(!health(source("live", 5)).is_news(&health(source("live", 0))));
        assert!(health(source("lost", 0)).is_news(&health(source("live", 0))));
        let connected = Health { connections: 2, ..health(source("live", 0)) };
        assert!(connected.is_news(&health(source("live", 0))), "what the broker has just been given may be old");
    }
}
