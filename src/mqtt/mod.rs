//! What is published over MQTT, and the connection that carries it.
//!
//! The daemon's threads publish scores, states, events and health through a [`Publisher`], which never blocks. They go
//! to the topics of `topics` with the payloads of `message`, at a broker that comes and goes; what waits meanwhile has
//! a bound.

mod announcements;
mod connection;
mod delivery;
mod departures;
mod dialer;
mod discovery;
mod elimination;
mod identity;
mod inbox;
mod limits;
mod link;
mod message;
mod names;
mod namesake;
mod outgoing;
mod ownership;
pub mod probe;
mod protocol;
mod reason;
mod session;
mod tls;
mod topics;
mod v4;
mod v5;
mod will;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clapd_core::prompts::Prompt;
use clapd_core::score::Score;

use crate::command::{Outcome, Reply, RequestQueue};
use crate::config::Broker;
use crate::health::{DeliveryCounters, Health};
use crate::levels::{LevelPublishing, LevelReference, NewLevel};
use crate::outbox::{EventRecord, Outbox};
use crate::threads::ServiceThread;
use announcements::Announcements;
use delivery::Delivery;
use departures::Departures;
use discovery::{LevelSensor, Node, PromptEntity};
pub use identity::Identity;
use inbox::Subscriptions;
use link::WINDOW;
pub use message::{
    Info, event as event_payload, health as health_payload, quiet as quiet_payload, response as response_payload,
    rounded, time_of_day,
};
use namesake::NamesakeWatch;
use outgoing::Outgoing;
use protocol::{ConnectOptions, LastWill, PublishForm};
pub use topics::{Route, Topics};

/// For the disk to take what is left, where the broker has used up all patience.
const SYNC_TIMEOUT: Duration = Duration::from_millis(500);

const NO_THREAD: &str = "the mqtt thread cannot be started; see the limits of the service (TasksMax)";

/// Checks that a connection could be begun with these certificates and keys, without making one.
///
/// # Errors
/// A host that can stand in no certificate; files that hold no certificate or key, or do not belong together; a system without
/// certificates of authorities.
pub fn check(broker: &Broker) -> Result<()> {
    let Some(tls) = &broker.tls else { return Ok(()) };
    tls::server_name(broker)?;
    tls::configuration(tls).map(drop)
}

/// Publishes to the broker. A clone is another handle to the same connection.
#[derive(Clone)]
pub struct Publisher {
    delivery: Arc<Delivery>,
    outbox: Outbox,
    topics: Topics,
    /// Until somebody takes it.
    thread: Arc<Mutex<Option<ServiceThread>>>,
}

impl Publisher {
    /// Starts a thread that connects to the broker, now and whenever it is lost. What is published before waits, events
    /// in `outbox`, with those of an earlier run. What is retained of former names in `identity` is removed.
    ///
    /// # Errors
    /// Certificates or keys that are none; see [`check`].
    pub fn start(
        broker: &Broker,
        identity: Identity,
        info: &Info,
        outbox: Outbox,
        counters: Arc<DeliveryCounters>,
    ) -> Result<Self> {
        let (node, instance) = (identity.node().to_owned(), identity.instance().to_owned());
        let topics = Topics::new(&node);
        let announcements =
            Announcements::new(home_assistant(&node, &topics, info), broker.discovery_prefix.as_deref());
        let namesakes = NamesakeWatch::new(topics.clone(), &instance);
        let outgoing = Outgoing::new(outbox.clone(), announcements, Departures::new(identity), namesakes);
        let delivery = Arc::new(Delivery::new(outgoing, counters));
        let publisher = Self { delivery: Arc::clone(&delivery), outbox, topics, thread: Arc::default() };
        // The first two that every connection brings: who is there, and what it is.
        publisher.retain(&publisher.topics.status, Ok(message::ONLINE.into()));
        publisher.retain(&publisher.topics.info, message::info(info, &instance));
        let options = ConnectOptions {
            broker: broker.clone(),
            tls: broker.tls.as_ref().map(tls::configuration).transpose()?,
            client_id: format!("clapd-{node}"),
            will: Some(last_will(&publisher.topics)),
            capacity: CAPACITY,
        };
        let subscriptions = Subscriptions::new(&publisher.topics, broker.discovery_prefix.as_deref());
        let thread = connection::spawn(delivery, options, subscriptions).context(NO_THREAD)?;
        *publisher.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(publisher)
    }

    /// The thread that has the connection, for whoever looks after it; none where it was taken before.
    pub fn take_thread(&self) -> Option<ServiceThread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Announces to Home Assistant what is listened for: `prompts` at each of `sources`, whose ids these are, with a score every
    /// `period`. To be called at the start and whenever any of it has changed; what is not there any more is removed there.
    /// Does nothing where the broker's `discovery_prefix` is none.
    pub fn announce<'a>(&self, sources: impl IntoIterator<Item = &'a str>, prompts: &[Prompt], period: Duration) {
        let sources = sources.into_iter().map(Into::into).collect();
        let prompts = prompts.iter().map(PromptEntity::of).collect();
        self.delivery.change(|outgoing| outgoing.set_devices(sources, prompts, period));
    }

    /// Announces to Home Assistant the sensors of how loud it is, of these sources with what their levels are measured against. To be
    /// called with [`Self::announce`].
    pub fn announce_levels<'a>(
        &self,
        publishing: LevelPublishing,
        sources: impl IntoIterator<Item = (&'a str, LevelReference)>,
    ) {
        let sensor = |reference| match publishing {
            LevelPublishing::Unasked => LevelSensor::None,
            LevelPublishing::Off => LevelSensor::Removed,
            LevelPublishing::Minute | LevelPublishing::Second => LevelSensor::Shown(reference),
        };
        let levels = sources.into_iter().map(|(source, reference)| (source.to_owned(), sensor(reference))).collect();
        self.delivery.change(|outgoing| outgoing.set_levels(levels));
    }

    /// The topics of this node.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// What waits for the broker.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Starts and ends that this broker could not take, and that wait for another one or for its limits to be raised.
    pub fn events_set_aside(&self) -> u64 {
        self.delivery.events_set_aside()
    }

    /// Whether the broker is there.
    pub fn is_connected(&self) -> bool {
        self.delivery.is_connected()
    }

    /// Where what others ask for over MQTT waits.
    pub fn requests(&self) -> Arc<RequestQueue> {
        self.delivery.requests()
    }

    /// Counts a request that is not even answered.
    pub fn ignore_request(&self, reason: &str) {
        self.delivery.count_dropped_command(reason);
    }

    /// Publishes a score, if the broker is there, or else the newest of them once it is.
    pub fn publish_score(&self, route: &Route, score: Score, at: SystemTime) {
        let Some(payload) = written(&route.score, message::score(score, at)) else { return };
        if self.delivery.change(|outgoing| outgoing.set_score(&route.score, payload)) {
            self.delivery.count_dropped_score();
        }
    }

    /// Publishes a level of a source, if the broker is there, or else the newest of them once it is.
    pub fn publish_level(&self, source: &str, reference: LevelReference, level: &NewLevel) {
        let topic = match level {
            NewLevel::Second(_) => self.topics.second_level(source),
            NewLevel::Minute(_) => self.topics.level(source),
        };
        let Some(payload) = written(&topic, message::level(reference, level)) else { return };
        if self.delivery.change(|outgoing| outgoing.set_score(&topic, payload)) {
            self.delivery.count_dropped_score();
        }
    }

    /// The route's open event had gone on for so long when the window with this score ended: that is how it ends if this
    /// process does not get to end it.
    pub fn touch_event(&self, route: &Route, lasted: Duration, score: f32) {
        self.outbox.touch(&route.event, lasted, score);
    }

    /// Publishes whether an event is open; the broker retains it.
    pub fn publish_state(&self, route: &Route, on: bool) {
        self.retain(&route.state, Ok(if on { message::ON } else { message::OFF }.into()));
    }

    /// A prompt is listened for no more: what the broker has retained of it is removed.
    pub fn remove_state(&self, route: &Route) {
        self.delivery.change(|outgoing| outgoing.remove_state(&route.state));
    }

    /// Answers a command: with data, or with why there is none.
    pub fn respond(&self, reply: &Reply, outcome: &Outcome) {
        let topic = self.topics.response(&reply.command);
        let Some(payload) = written(&topic, message::response(reply.transaction.as_ref(), outcome)) else { return };
        let transaction = reply.transaction.clone();
        if self.delivery.change(|outgoing| outgoing.add_response(topic, payload, transaction)) {
            self.delivery.count_dropped_command("too many responses wait");
        }
    }

    /// Publishes a start or an end; the outbox has it until the broker has acknowledged it.
    pub fn publish_event(&self, route: &Route, record: EventRecord) {
        match record.duration {
            None => self.outbox.start(&route.event, record),
            Some(_) => self.outbox.end(&record),
        }
        self.delivery.change(|_| ());
    }

    /// Publishes how the daemon is doing.
    pub fn publish_health(&self, health: &Health) {
        self.retain(&self.topics.health, message::health(health));
    }

    /// Gives what waits up to `patience` to be acknowledged, publishes `stopped`, and disconnects. Returns how many starts and
    /// ends the broker does not have; a log line says what becomes of them.
    pub fn stop(self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        self.delivery.stop(deadline);
        self.delivery.wait_until_settled(deadline);
        self.retain(&self.topics.status, Ok(message::STOPPED.into()));
        self.delivery.wait_until_settled(deadline);
        let left = self.delivery.disconnect(deadline);
        let is_stored = self.outbox.close(deadline.max(Instant::now() + SYNC_TIMEOUT));
        match (left, is_stored) {
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
            self.delivery.change(|outgoing| outgoing.retain(topic, payload));
        }
    }
}

/// Requests that may wait to be written: messages, and a few more for subscriptions, a marker and the farewell.
const CAPACITY: usize = WINDOW + 8;

/// What is published when this node vanishes, where the broker takes it so.
fn last_will(topics: &Topics) -> LastWill {
    LastWill { topic: Arc::clone(&topics.status), payload: message::OFFLINE, form: PublishForm::RETAINED }
}

fn home_assistant(node: &str, topics: &Topics, info: &Info) -> Node {
    let model = format!("{} {}", info.bundle, info.bundle_version);
    Node { id: node.into(), topics: topics.clone(), version: info.version.clone(), model }
}

/// The payload; a log line where there is none, so that nothing goes missing in silence.
fn written(topic: &str, payload: serde_json::Result<Vec<u8>>) -> Option<Vec<u8>> {
    payload.inspect_err(|error| log::error!("mqtt: {topic}: a payload cannot be written: {error}")).ok()
}
