//! Whether systemd is to be told that all is well: when every source has made progress and every loop turns, and not
//! because time has passed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notifier;
use super::source_status::SourceStatus;
use crate::threads::ServiceThread;

/// Compares progress at half of systemd's interval.
pub(super) struct Watchdog {
    interval: Option<Duration>,
    /// When progress was compared last.
    compared: Instant,
    /// How far each source had got then.
    counts: Vec<(Arc<SourceStatus>, u64)>,
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

    /// Whether it is time, every source got on since the last time, and no loop is late. A source that was not there then
    /// has nothing to be compared with.
    pub(super) fn is_satisfied<'a>(
        &mut self,
        sources: impl IntoIterator<Item = &'a Arc<SourceStatus>>,
        threads: impl IntoIterator<Item = &'a ServiceThread>,
    ) -> bool {
        if self.interval.is_none_or(|interval| self.compared.elapsed() < interval) {
            return false;
        }
        self.compared = Instant::now();
        let counts: Vec<_> = sources.into_iter().map(|status| (Arc::clone(status), status.progress.count())).collect();
        let got_on = |(now, count): &&(Arc<SourceStatus>, u64)| {
            self.counts.iter().all(|(then, before)| !Arc::ptr_eq(now, then) || before != count)
        };
        let mut stuck: Vec<String> = counts
            .iter()
            .filter(|count| !got_on(count))
            .map(|(status, _)| format!("source {} gets no further: systemd is not told that all is well", status.id))
            .collect();
        let late = threads.into_iter().filter(|thread| thread.heartbeat().is_late());
        stuck.extend(late.map(|thread| {
            let quiet = thread.heartbeat().since_last().as_secs();
            format!("thread {} has hung for {quiet} s: systemd is not told that all is well", thread.name())
        }));
        self.counts = counts;
        stuck.iter().for_each(|line| log::error!("{line}"));
        stuck.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::capture::SourceKind;

    #[test]
    fn a_loop_that_hangs_starves_it_and_so_does_each_source_alone() {
        let mut watchdog = Watchdog::with_interval(Some(Duration::ZERO));
        let (turn, turns) = sync_channel::<Duration>(0);
        let run = move |heartbeat: Arc<crate::threads::Heartbeat>| turns.iter().for_each(|limit| heartbeat.beat(limit));
        let looping = [ServiceThread::spawn("outbox", run).unwrap()];
        let sources = ["a", "b"].map(|id| Arc::new(SourceStatus::new(id, &SourceKind::Stdin { raw: None })));
        assert!(watchdog.is_satisfied(&sources, &looping), "there is nothing to compare with yet");
        sources[0].progress.record_part();
        assert!(!watchdog.is_satisfied(&sources, &looping), "b gets no further");
        sources.iter().for_each(|status| status.progress.record_part());
        assert!(watchdog.is_satisfied(&sources, &looping));
        turn.send(Duration::ZERO).unwrap();
        while !looping[0].heartbeat().is_late() {
            thread::sleep(Duration::from_millis(1));
        }
        sources.iter().for_each(|status| status.progress.record_part());
        assert!(!watchdog.is_satisfied(&sources, &looping), "its loop hangs");
        // The second is taken once the first has beaten.
        turn.send(Duration::MAX).unwrap();
        turn.send(Duration::MAX).unwrap();
        sources.iter().for_each(|status| status.progress.record_part());
        assert!(watchdog.is_satisfied(&sources, &looping));
        let added = Arc::new(SourceStatus::new("c", &SourceKind::Stdin { raw: None }));
        assert!(watchdog.is_satisfied([&added], &looping), "another set of sources");
    }
}
