//! Whether systemd is to be told that all is well: when every source has made progress, and not because time has
//! passed.

use std::time::{Duration, Instant};

use super::notifier;
use super::source_status::SourceStatus;

/// Compares progress at half of systemd's interval.
pub(super) struct Watchdog {
    interval: Option<Duration>,
    /// When progress was compared last.
    compared: Instant,
    counts: Vec<u64>,
}

impl Watchdog {
    /// As systemd wants it, if it watches us at all.
    pub(super) fn from_environment() -> Self {
        Self::with_interval(notifier::watchdog_interval().map(|interval| interval / 2))
    }

    /// Compares progress so often; none: never.
    pub(super) fn with_interval(interval: Option<Duration>) -> Self {
        Self { interval, compared: Instant::now(), counts: Vec::new() }
    }

    /// Other sources from now on: there is nothing to compare with.
    pub(super) fn reset(&mut self) {
        self.counts.clear();
    }

    /// Whether it is time, and every source got on since the last time.
    pub(super) fn is_satisfied<'a>(&mut self, sources: impl Iterator<Item = &'a SourceStatus>) -> bool {
        if self.interval.is_none_or(|interval| self.compared.elapsed() < interval) {
            return false;
        }
        self.compared = Instant::now();
        let counts: Vec<u64> = sources.map(|status| status.progress.count()).collect();
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
