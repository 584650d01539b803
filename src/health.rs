//! How the daemon itself is doing.
//!
//! Each thread of the daemon adds to counters of its own. A [`Health`] is what all of them say at a moment: `mqtt`
//! publishes it and logs show it. Whatever is dropped anywhere is counted here or in `capture`.

mod remedies;
mod state_log;

use std::time::{Duration, SystemTime};

use crate::counter::Counter;
pub use remedies::Remedy;
pub use state_log::{StateChange, StateLog};

/// The state of a source whose sound comes and none of whose windows can be scored.
pub const FAILING: &str = "failing";

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
    /// Starts and ends that went out with QoS 0, since the broker takes no more: it has read them, and has promised nothing.
    pub unconfirmed: Counter,
    /// Commands that came when too many waited, or that a broker had retained.
    pub commands_dropped: Counter,
    /// Topics of ours for Home Assistant that were found to be another node's.
    pub names_taken: Counter,
}

/// What is counted in one source's pipeline.
#[derive(Debug, Default)]
pub struct ScoringCounters {
    /// Windows that got their scores.
    pub windows_scored: Counter,
    /// Windows that were due and left out, because a newer one was due as well.
    pub windows_skipped: Counter,
    /// Windows that were due and got no scores, because the model failed with them.
    pub windows_failed: Counter,
    /// Windows that were silent and got no scores but 0, see `scoring.gate_db`.
    pub windows_gated: Counter,
    /// Events that began.
    pub events_started: Counter,
    /// Time that the pipeline has computed, in microseconds.
    pub busy_us: Counter,
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
    /// Whether the broker is there now.
    pub connected: bool,
    /// See [`DeliveryCounters`].
    pub connections: u64,
    /// See [`DeliveryCounters`].
    pub reconnects: u64,
    /// See [`DeliveryCounters`].
    pub refused: u64,
    /// See [`DeliveryCounters::unconfirmed`].
    pub events_unconfirmed: u64,
    /// Starts and ends that the broker cannot take; they wait in the outbox for one that can.
    pub events_set_aside: u64,
    /// See [`DeliveryCounters`].
    pub commands_dropped: u64,
    /// See [`DeliveryCounters`].
    pub names_taken: u64,
    /// What is quiet now; empty where nothing is.
    pub quiet: Vec<QuietHealth>,
    /// Events that are missing in the journal.
    pub journal_lost: u64,
    /// The threads that serve all sources.
    pub threads: Vec<ThreadHealth>,
    /// One for each source, in the configuration's order.
    pub sources: Vec<SourceHealth>,
}

/// A time in which no events begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHealth {
    /// When it ends.
    pub until: SystemTime,
    /// Whether somebody has asked for it.
    pub is_snooze: bool,
    /// Ids of the sources that are quiet; empty for all.
    pub sources: Vec<String>,
    /// Ids of the prompts that are quiet; empty for all.
    pub prompts: Vec<String>,
}

/// A thread's health at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadHealth {
    /// The thread's name.
    pub name: &'static str,
    /// One of the constants below.
    pub state: &'static str,
    /// Since it last got on: since its loop turned, or its job came to what it is doing now.
    pub quiet: Duration,
}

impl ThreadHealth {
    /// Its loop turns.
    pub const OK: &'static str = "ok";
    /// Its loop should have turned by now.
    pub const LATE: &'static str = "late";
    /// It has a job.
    pub const BUSY: &'static str = "busy";
    /// It has no job.
    pub const IDLE: &'static str = "idle";

    fn is_late(&self) -> bool {
        self.state == Self::LATE
    }
}

/// A source's health at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceHealth {
    /// The source's id.
    pub id: String,
    /// What it is doing, in a word; see `capture::SourceState`. Beside those `paused`, and [`FAILING`].
    pub state: &'static str,
    /// The level of the last second of sound, in dB below full scale; none before there was one.
    pub level_db: Option<i32>,
    /// The channel that was chosen as the best, where that is asked for.
    pub channel: Option<usize>,
    /// What is wrong with the sound beside its state, in words with the remedy.
    pub warnings: Vec<String>,
    /// The loudest second of the last minute as the model hears it, gain and all; none before there was a minute.
    pub loudest_db: Option<i32>,
    /// Its gain in whole dB, the automatic one as it is now; none where it has none.
    pub gain_db: Option<i32>,
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
    pub windows_failed: u64,
    /// See [`ScoringCounters`].
    pub windows_gated: u64,
    /// See [`ScoringCounters`].
    pub events_started: u64,
    /// See [`ScoringCounters::busy_us`].
    pub busy: Duration,
}

impl SourceHealth {
    /// What is published at once when it changes.
    fn news(&self) -> (&'static str, Option<usize>, &[String]) {
        (self.state, self.channel, &self.warnings)
    }
}

impl Health {
    /// Whether it should be published at once, since it differs from `before`, which was published last: a source's state is
    /// another, or its warnings are, or the outbox's state; something becomes quiet or no longer is; a thread hangs, or goes on again; or there is a new connection, which was given `before`, and that may be old.
    pub fn is_news(&self, before: &Self) -> bool {
        self.outbox != before.outbox
            || self.quiet != before.quiet
            || self.connections != before.connections
            || self.names_taken != before.names_taken
            || self.journal_lost != before.journal_lost
            || !self.threads.iter().map(ThreadHealth::is_late).eq(before.threads.iter().map(ThreadHealth::is_late))
            || !self.sources.iter().map(SourceHealth::news).eq(before.sources.iter().map(SourceHealth::news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_state_is_news_and_a_count_is_not() {
        let source = |state, samples_lost| SourceHealth { state, samples_lost, ..SourceHealth::default() };
        let health = |source| Health { sources: vec![source], ..Health::default() };
        assert!(!health(source("live", 5)).is_news(&health(source("live", 0))));
        assert!(health(source("lost", 0)).is_news(&health(source("live", 0))));
        let thread = |state| ThreadHealth { name: "outbox", state, quiet: Duration::from_secs(5) };
        let hangs = Health { threads: vec![thread(ThreadHealth::LATE)], ..health(source("live", 0)) };
        let turns = Health { threads: vec![thread(ThreadHealth::OK)], ..health(source("live", 0)) };
        assert!(hangs.is_news(&turns) && turns.is_news(&hangs) && !hangs.is_news(&hangs));
        let until = SystemTime::UNIX_EPOCH;
        let quiet = QuietHealth { until, is_snooze: true, sources: Vec::new(), prompts: Vec::new() };
        assert!(Health { quiet: vec![quiet], ..hangs.clone() }.is_news(&hangs));
        let warned = SourceHealth { warnings: vec!["dead".into()], ..source("live", 0) };
        assert!(health(warned).is_news(&health(source("live", 0))));
        let connected = Health { connections: 2, ..health(source("live", 0)) };
        assert!(connected.is_news(&health(source("live", 0))), "what the broker has just been given may be old");
    }
}
