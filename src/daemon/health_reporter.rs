//! Health, as it is published and logged: at once when a state changes, and else once a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notifier::Notifier;
use crate::health::{DeliveryCounters, Health, QuietHealth, SourceHealth, StateLog, ThreadHealth};
use crate::http::HttpServer;
use crate::journal::Journal;
use crate::mqtt::Publisher;
use crate::outbox::Outbox;

/// How often health is published when nothing changes.
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);

/// How often the page's server is handed health when nothing changes: what it shows is a second old at the most.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes and logs health.
pub(super) struct HealthReporter {
    began: Instant,
    delivery: Arc<DeliveryCounters>,
    journal: Option<Journal>,
    /// The health that was published last, and when.
    published: Option<(Health, Instant)>,
    /// When the page's server was handed it last.
    shown: Option<Instant>,
    states: StateLog,
}

impl HealthReporter {
    pub(super) fn new(delivery: Arc<DeliveryCounters>, journal: Option<Journal>) -> Self {
        Self { began: Instant::now(), delivery, journal, published: None, shown: None, states: StateLog::default() }
    }

    /// Publishes health where it is news or due. To be called often.
    pub(super) fn report(
        &mut self,
        sources: Vec<SourceHealth>,
        threads: Vec<ThreadHealth>,
        quiet: Vec<QuietHealth>,
        publisher: Option<&Publisher>,
        http: Option<&HttpServer>,
        notifier: &Notifier,
    ) {
        let health = self.health(sources, threads, quiet, publisher);
        for change in self.states.changes(&health) {
            log::log!(if change.is_trouble { log::Level::Warn } else { log::Level::Info }, "{}", change.text);
        }
        let news = self.published.as_ref().is_none_or(|(before, _)| health.is_news(before));
        let due = self.published.as_ref().is_none_or(|(_, at)| at.elapsed() >= HEALTH_INTERVAL);
        if let Some(http) = http
            && (news || self.shown.is_none_or(|at| at.elapsed() >= SHOW_INTERVAL))
        {
            http.set_health(&health, news);
            self.shown = Some(Instant::now());
        }
        if !news && !due {
            return;
        }
        if news {
            let states: Vec<_> =
                health.sources.iter().map(|source| format!("{} {}", source.id, source.state)).collect();
            notifier.send(&format!("STATUS={}", states.join(", ")));
        }
        if let Some(publisher) = publisher {
            publisher.publish_health(&health);
        }
        self.published = Some((health, Instant::now()));
    }

    /// Has the next report published in any case.
    pub(super) fn forget_published(&mut self) {
        self.published = None;
    }

    fn health(
        &self,
        sources: Vec<SourceHealth>,
        threads: Vec<ThreadHealth>,
        quiet: Vec<QuietHealth>,
        publisher: Option<&Publisher>,
    ) -> Health {
        let outbox = publisher.map(Publisher::outbox);
        Health {
            uptime: self.began.elapsed(),
            outbox: outbox.map_or("memory", Outbox::storage),
            events_waiting: outbox.map_or(0, |outbox| outbox.waiting() as u64),
            events_dropped: outbox.map_or(0, Outbox::dropped),
            scores_dropped: self.delivery.scores_dropped.get(),
            connected: publisher.is_some_and(Publisher::is_connected),
            connections: self.delivery.connections.get(),
            reconnects: self.delivery.reconnects.get(),
            refused: self.delivery.refused.get(),
            events_unconfirmed: self.delivery.unconfirmed.get(),
            events_set_aside: publisher.map_or(0, Publisher::events_set_aside),
            commands_dropped: self.delivery.commands_dropped.get(),
            names_taken: self.delivery.names_taken.get(),
            quiet,
            journal_lost: self.journal.as_ref().map_or(0, Journal::lost),
            threads,
            sources,
        }
    }
}
