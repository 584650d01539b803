//! The house's ear: what is told over MQTT, and the connection that carries it.
//!
//! In: scores, states, events and health from the daemon's threads, through a [`Publisher`] that never blocks. Out: the topics
//! of `topics` with the payloads of `message`, at a broker that comes and goes.
//! Never: makes up a score, a state or a time of its own; keeps the pipeline waiting; grows while the broker is away.

mod backoff;
mod connection;
mod link;
mod message;
mod outgoing;
mod session;
mod tls;
mod topics;
mod v4;
mod v5;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::config::Broker;
use crate::detect::Score;
use crate::health::{DeliveryCounters, Health};
use crate::outbox::{Notice, Outbox};
use link::{Shared, WINDOW};
use session::Plan;

pub use message::Info;
pub use topics::{Route, Topics};

/// For the disk to take what is left, where the broker has used up all patience.
const SYNC_WITHIN: Duration = Duration::from_millis(500);

/// Looks whether a connection could be begun with these certificates and keys; asks nobody.
///
/// # Errors
/// Files that hold no certificate or key, or do not belong together; a system without certificates of authorities.
pub fn check(broker: &Broker) -> Result<()> {
    broker.tls.as_ref().map_or(Ok(()), |tls| tls::configuration(tls).map(drop))
}

/// Tells the house. A clone is another handle to the same connection.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    outbox: Outbox,
    topics: Topics,
}

impl Publisher {
    /// Starts a thread that connects to the broker, now and whenever it is lost. What is published before waits, events
    /// in `outbox`, with those of an earlier run.
    ///
    /// # Errors
    /// Certificates or keys that are none; see [`check`].
    pub fn start(
        broker: &Broker,
        node: &str,
        info: &Info,
        outbox: Outbox,
        counters: Arc<DeliveryCounters>,
    ) -> Result<Self> {
        let topics = Topics::new(node);
        let shared = Arc::new(Shared::new(outbox.clone(), counters));
        let publisher = Self { shared: Arc::clone(&shared), outbox, topics };
        // The first two that every connection brings: who is there, and what it is.
        publisher.retain(&publisher.topics.status, Ok(message::ONLINE.into()));
        publisher.retain(&publisher.topics.info, message::info(info));
        let plan = Plan {
            broker: broker.clone(),
            tls: broker.tls.as_ref().map(tls::configuration).transpose()?,
            client_id: format!("clapd-{node}"),
            will: (Arc::clone(&publisher.topics.status), message::OFFLINE),
            // One more, for the subscription.
            capacity: WINDOW + 1,
        };
        connection::spawn(shared, plan, publisher.topics.states())
            .context("the mqtt thread cannot be started; see the limits of the service (TasksMax)")?;
        Ok(publisher)
    }

    /// The topics of this node.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// What waits for the broker.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
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

    /// An event that was told is open still, and had gone on for so long when the window with this score ended: that is how
    /// it ends if this process does not get to end it.
    pub fn heard(&self, route: &Route, lasted: Duration, score: f32) {
        self.outbox.hear(&route.event, lasted, score);
    }

    /// Tells whether an event is open; the broker keeps the last word.
    pub fn state(&self, route: &Route, on: bool) {
        self.retain(&route.state, Ok(if on { message::ON } else { message::OFF }.into()));
    }

    /// Tells a start or an end; the outbox has it until the broker has acknowledged it.
    pub fn event(&self, route: &Route, notice: Notice) {
        match notice.duration {
            None => self.outbox.start(&route.event, notice),
            Some(_) => self.outbox.end(&notice),
        }
        self.shared.change(|_| ());
    }

    /// Tells how the daemon is doing.
    pub fn health(&self, health: &Health) {
        self.retain(&self.topics.health, message::health(health));
    }

    /// Gives what waits up to `patience` to be acknowledged, says `stopped`, and takes leave. Returns how many starts and ends
    /// the broker does not have; a log line says what becomes of them.
    pub fn stop(self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        self.shared.stop(deadline);
        self.shared.wait_until_settled(deadline);
        self.retain(&self.topics.status, Ok(message::STOPPED.into()));
        self.shared.wait_until_settled(deadline);
        let left = self.shared.disconnect(deadline);
        let kept = self.outbox.close(deadline.max(Instant::now() + SYNC_WITHIN));
        match (left, kept) {
            (0, _) => {}
            (left, true) => log::info!("mqtt: {left} messages wait in the outbox for the next start"),
            (left, false) => {
                log::warn!("mqtt: {left} messages could not be delivered, and are on no disk: they are lost");
            }
        }
        left
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
