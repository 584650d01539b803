//! The house's ear: what is told over MQTT, and the connection that carries it.
//!
//! In: scores, states, events and health from the daemon's threads, through a [`Publisher`] that never blocks. Out: the topics
//! of `topics` with the payloads of `message`, at a broker that comes and goes.
//! Never: makes up a score, a state or a time of its own; keeps the pipeline waiting; grows while the broker is away.

mod backoff;
mod connection;
mod message;
mod outgoing;
mod topics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::config::Broker;
use crate::detect::Score;
use crate::health::{DeliveryCounters, Health};
use connection::Shared;

pub use message::{Info, Notice};
pub use topics::{Route, Topics};

/// Tells the house. A clone is another handle to the same connection.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    topics: Topics,
}

impl Publisher {
    /// Starts a thread that connects to the broker, now and whenever it is lost. What is published before waits.
    pub fn start(broker: &Broker, node: &str, info: &Info, counters: Arc<DeliveryCounters>) -> Result<Self> {
        let topics = Topics::new(node);
        let shared = Arc::new(Shared::new(counters));
        let publisher = Self { shared: Arc::clone(&shared), topics };
        // The first two that every connection brings: who is there, and what it is.
        publisher.retain(&publisher.topics.status, Ok(message::ONLINE.into()));
        publisher.retain(&publisher.topics.info, message::info(info));
        connection::spawn(shared, broker, &format!("clapd-{node}"), &publisher.topics.status)
            .context("the mqtt thread cannot be started; see the limits of the service (TasksMax)")?;
        Ok(publisher)
    }

    /// The topics of this node.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Tells a score, if the broker is there, or else the newest of them once it is.
    pub fn score(&self, route: &Route, score: Score, at: SystemTime) {
        let Some(payload) = written(&route.score, message::score(score, at)) else { return };
        let dropped = self.shared.change(|outgoing| outgoing.score(&route.score, payload));
        let counter = &self.shared.counters.scores_dropped;
        if dropped && counter.add(1) {
            log::debug!("mqtt: {} scores replaced by newer ones so far", counter.get());
        }
    }

    /// Tells whether an event is open; the broker keeps the last word.
    pub fn state(&self, route: &Route, on: bool) {
        self.retain(&route.state, Ok(if on { message::ON } else { message::OFF }.into()));
    }

    /// Tells a start or an end; it waits until the broker has acknowledged it.
    pub fn event(&self, route: &Route, notice: &Notice) {
        let Some(payload) = written(&route.event, message::event(notice)) else { return };
        let dropped = self.shared.change(|outgoing| outgoing.event(&route.event, payload));
        let counter = &self.shared.counters.events_dropped;
        if dropped && counter.add(1) {
            log::warn!(
                "mqtt: {} events dropped so far, the oldest of {} that wait for the broker",
                counter.get(),
                outgoing::MAX_EVENTS
            );
        }
    }

    /// Tells how the daemon is doing.
    pub fn health(&self, health: &Health) {
        self.retain(&self.topics.health, message::health(health));
    }

    /// Gives what waits up to `patience` to be acknowledged, says `stopped`, and takes leave. Returns how many events the broker
    /// does not have.
    pub fn stop(self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        self.shared.stop(deadline);
        self.shared.wait_until_settled(deadline);
        self.retain(&self.topics.status, Ok(message::STOPPED.into()));
        self.shared.wait_until_settled(deadline);
        self.shared.disconnect(deadline)
    }

    fn retain(&self, topic: &Arc<str>, payload: serde_json::Result<Vec<u8>>) {
        if let Some(payload) = written(topic, payload) {
            self.shared.change(|outgoing| outgoing.retain(topic, payload));
        }
    }
}

/// The payload; a log line where there is none, so that nothing goes missing in silence.
fn written(topic: &str, payload: serde_json::Result<Vec<u8>>) -> Option<Vec<u8>> {
    payload.inspect_err(|error| log::error!("mqtt: {topic}: a payload cannot be written: {error}")).ok()
}

/// A thread that panicked left whole values behind: every change here is done in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
