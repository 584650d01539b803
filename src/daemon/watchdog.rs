//! Whether systemd is to be told that all is well.
//!
//! In: every source's progress. Out: a yes, at most twice in systemd's interval.
//! Never: says yes because time passed.

use std::time::{Duration, Instant};

use super::listener::Seen;
use super::notify;

/// Compares progress at half of systemd's interval.
pub(super) struct Watchdog {
    every: Option<Duration>,
    looked: Instant,
    counts: Vec<u64>,
}

impl Watchdog {
    /// As systemd wants it, if it watches us at all.
    pub(super) fn new() -> Self {
        Self::every(notify::watchdog().map(|interval| interval / 2))
    }

    /// That looks so often; none: never.
    pub(super) fn every(every: Option<Duration>) -> Self {
        Self { every, looked: Instant::now(), counts: Vec::new() }
    }

    /// Other sources from now on: there is nothing to compare with.
    pub(super) fn forget(&mut self) {
        self.counts.clear();
    }

    /// Whether it is time, and every source got on since the last time.
    pub(super) fn is_satisfied<'a>(&mut self, sources: impl Iterator<Item = &'a Seen>) -> bool {
        if self.every.is_none_or(|every| self.looked.elapsed() < every) {
            return false;
        }
        self.looked = Instant::now();
        let counts: Vec<u64> = sources.map(|seen| seen.progress.count()).collect();
        // Where a source has ended since, there is nothing to compare with this once.
        let stuck =
            counts.len() == self.counts.len() && counts.iter().zip(&self.counts).any(|(now, before)| now == before);
        if stuck {
            log::error!("a source gets no further: systemd is not told that all is well");
        }
        self.counts = counts;
        !stuck
    }
}
