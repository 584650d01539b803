//! The daemon at work: it minds its listeners, signals, health and systemd until it is time to leave.
//!
//! In: what the listeners show, signals, the end of a change. Out: health, word to systemd, an exit without an open event.
//! What others ask is carried out in `commands`, what is listened to changes in `reload` and `sources`.
//! Never: blocks for longer than a listener may take to end; feeds the watchdog by a timer alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clapd_core::prompts::Prompt;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::kept::Kept;
use super::logged::SharedLog;
use super::notify::Notifier;
use super::orders::Task;
use super::reload::{Change, Workshop};
use super::sources::Listening;
use super::watchdog::Watchdog;
use super::{LISTENERS_WITHIN, LOOK};
use crate::config::Settings;
use crate::health::{DeliveryCounters, Health, SourceHealth, StateLog};
use crate::mqtt::{Info, Publisher};
use crate::outbox::Outbox;

/// How often health is told when nothing changes.
const HEALTH_EVERY: Duration = Duration::from_secs(60);
/// From the wish to stop to the end: systemd's stop timeout in our unit is twice as long.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// The daemon at work.
pub(super) struct House {
    pub(super) began: Instant,
    /// The configuration's file, and what it said last.
    pub(super) path: PathBuf,
    pub(super) settings: Settings,
    /// The prompts that were set since; none: those of the configuration.
    pub(super) set: Option<Vec<Prompt>>,
    pub(super) kept: Kept,
    pub(super) workshop: Arc<Workshop>,
    pub(super) info: Info,
    pub(super) task: Arc<Task>,
    pub(super) sources: Vec<Listening>,
    /// Whether sources that come are paused, as all were asked to be.
    pub(super) paused: bool,
    /// What is being made ready.
    pub(super) change: Option<Change>,
    /// Another SIGHUP came meanwhile.
    pub(super) reload_again: bool,
    pub(super) publisher: Option<Publisher>,
    /// Where scores are written, too.
    pub(super) log: Option<SharedLog>,
    pub(super) delivery: Arc<DeliveryCounters>,
    pub(super) notifier: Notifier,
    pub(super) watchdog: Watchdog,
    /// The health that was told last, and when.
    pub(super) told: Option<(Health, Instant)>,
    /// What the log was told of the sources' states.
    pub(super) states: StateLog,
    pub(super) outcome: Result<()>,
    /// A listener ended in a way that only a new process mends.
    pub(super) broken: bool,
}

impl House {
    /// Minds the house until it is time to leave.
    pub(super) fn mind(&mut self, mut signals: Signals) {
        self.tell_health();
        self.notifier.send("READY=1");
        while self.is_listening() && !self.broken && !self.is_told_to_stop(&mut signals) {
            self.finish_change();
            self.tell_health();
            let running = self.sources.iter().filter(|source| source.thread.is_some());
            if self.watchdog.is_satisfied(running.map(|source| &*source.seen)) {
                self.notifier.send("WATCHDOG=1");
            }
            // Waits a little while for somebody who wants something.
            self.serve();
        }
    }

    fn is_told_to_stop(&mut self, signals: &mut Signals) -> bool {
        let (mut stop, mut reload) = (false, false);
        for signal in signals.pending() {
            stop |= signal != SIGHUP;
            reload |= signal == SIGHUP;
        }
        if reload && !stop {
            self.reload(None);
        }
        stop
    }

    /// Collects listeners that have ended; false when none is left.
    fn is_listening(&mut self) -> bool {
        for Listening { seen, thread, .. } in &mut self.sources {
            let Some(ended) = thread.take_if(|thread| thread.is_finished()) else { continue };
            let ended = ended.join();
            // A file may fail and the microphones go on. A device fails only when nothing but a new process helps, and what
            // a panic has left behind nobody knows.
            self.broken |= ended.is_err() || (seen.steady && matches!(ended, Ok(Err(_))));
            let outcome = ended.unwrap_or_else(|_| Err(anyhow!("its thread panicked, which is a fault in clapd")));
            match outcome.with_context(|| format!("source {}", seen.id)) {
                Ok(()) => log::info!("{}: over", seen.id),
                Err(error) => {
                    log::error!("{error:#}");
                    if self.outcome.is_ok() {
                        self.outcome = Err(error);
                    }
                }
            }
        }
        self.sources.iter().any(|source| source.thread.is_some())
    }

    /// Tells health when a state changed, and once in a while.
    fn tell_health(&mut self) {
        let outbox = self.publisher.as_ref().map(Publisher::outbox);
        let health = Health {
            uptime: self.began.elapsed(),
            outbox: outbox.map_or("memory", Outbox::storage),
            events_waiting: outbox.map_or(0, |outbox| outbox.waiting() as u64),
            events_dropped: outbox.map_or(0, Outbox::dropped),
            scores_dropped: self.delivery.scores_dropped.get(),
            connections: self.delivery.connections.get(),
            reconnects: self.delivery.reconnects.get(),
            refused: self.delivery.refused.get(),
            commands_dropped: self.delivery.commands_dropped.get(),
            sources: self.sources.iter().map(health).collect(),
        };
        for change in self.states.changes(&health) {
            log::log!(if change.is_trouble { log::Level::Warn } else { log::Level::Info }, "{}", change.text);
        }
        let news = self.told.as_ref().is_none_or(|(before, _)| health.is_news(before));
        let due = self.told.as_ref().is_none_or(|(_, at)| at.elapsed() >= HEALTH_EVERY);
        if !news && !due {
            return;
        }
        if news {
            let states: Vec<_> =
                health.sources.iter().map(|source| format!("{} {}", source.id, source.state)).collect();
            self.notifier.send(&format!("STATUS={}", states.join(", ")));
        }
        if let Some(publisher) = &self.publisher {
            publisher.publish_health(&health);
        }
        self.told = Some((health, Instant::now()));
    }

    /// Ends what is open, tells what is left, and says goodbye.
    pub(super) fn leave(mut self) -> Result<()> {
        self.notifier.send("STOPPING=1");
        let deadline = Instant::now() + LEAVE_WITHIN;
        self.sources.iter().for_each(|source| source.orders.stop());
        let listeners_deadline = Instant::now() + LISTENERS_WITHIN;
        while self.is_listening() && Instant::now() < listeners_deadline {
            thread::sleep(LOOK / 10);
        }
        for Listening { seen, .. } in self.sources.iter().filter(|source| source.thread.is_some()) {
            log::warn!("{}: does not end within {} s and is left behind", seen.id, LISTENERS_WITHIN.as_secs());
        }
        // The last counts of all, whether or not a state has changed.
        self.told = None;
        self.tell_health();
        // A listener that was left behind still holds the log.
        self.log.iter().for_each(SharedLog::flush);
        if let Some(publisher) = self.publisher.take() {
            publisher.stop(deadline.saturating_duration_since(Instant::now()));
        }
        log::info!("stopped");
        self.outcome
    }
}

/// A source's own, but that somebody wanted it paused counts for more than what its device is doing.
fn health(source: &Listening) -> SourceHealth {
    let own = source.seen.health();
    if source.orders.is_paused() && source.thread.is_some() { SourceHealth { state: "paused", ..own } } else { own }
}
