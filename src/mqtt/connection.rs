//! The thread that connects to the broker, and again when the connection is lost.
//!
//! rumqttc's client lives as long as one connection. It would drop unacknowledged packets on a new session, and has
//! come to a standstill after a colliding packet id (rumqtt issue 1056); a fresh one has no such past, and the outbox
//! still has the events.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::inbox::{IncomingKind, Request, Subscriptions};
use super::protocol::{ConnectOptions, MAX_PACKET, SessionEvent, SessionFailure, Version};
use super::session::{self, Client, Session};
use crate::backoff::{Backoff, random_time};
use crate::config::Broker;
use crate::threads::{Heartbeat, ServiceThread};

/// A broker that restarts is back within seconds.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Nobody waits for longer than this until the sensors of a home are back.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A connection that held this long was a good one: the next failure is a first one.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// There are 5 s to stop in, and a broker that is just starting is up within one.
const RETRY_WHILE_STOPPING: Duration = Duration::from_millis(250);

/// How often the loop turns on a connection on which nothing happens, so that its owner sees it turn.
const TURN_INTERVAL: Duration = Duration::from_secs(1);
/// A turn takes milliseconds. A computer that starves us for so long has us restarted for worse reasons.
const MAX_TURN: Duration = Duration::from_secs(60);
/// Connecting gives up after 5 s, but a look-up of the name goes on and is waited for: by resolv.conf's defaults 5 s, twice, at each of
/// three servers, for the name itself and with each of six domains to search, which is 210 s. Some more for TLS.
const MAX_CONNECT: Duration = Duration::from_secs(300);

/// Starts the thread. It ends when it has disconnected, or when a connection fails that was begun to stop.
pub(super) fn spawn(
    delivery: Arc<Delivery>,
    options: ConnectOptions,
    subscriptions: Subscriptions,
) -> io::Result<ServiceThread> {
    let run = move |heartbeat| {
        // Also after a panic: nobody is to wait for this thread any more.
        let _end = DeliveryEnd(Arc::clone(&delivery));
        ConnectionThread::new(delivery, options, subscriptions, heartbeat).run();
    };
    ServiceThread::spawn("mqtt", run)
}

/// Says at the thread's end that it has ended.
struct DeliveryEnd(Arc<Delivery>);

impl Drop for DeliveryEnd {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// As it stands in a url.
fn address(broker: &Broker) -> String {
    let Broker { host, port, .. } = broker;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

struct ConnectionThread {
    address: String,
    options: ConnectOptions,
    subscriptions: Subscriptions,
    /// Subscribes to nothing: what the last connection brought was too large, and may lie at the broker for good.
    skip_subscriptions: bool,
    delivery: Arc<Delivery>,
    version: Version,
    backoff: Backoff,
    /// When the broker accepted this connection; none while it has not.
    connected_at: Option<Instant>,
    disconnected_at: Instant,
    /// The failure that was logged last.
    logged_failure: Option<SessionFailure>,
    heartbeat: Arc<Heartbeat>,
}

impl ConnectionThread {
    fn new(
        delivery: Arc<Delivery>,
        options: ConnectOptions,
        subscriptions: Subscriptions,
        heartbeat: Arc<Heartbeat>,
    ) -> Self {
        Self {
            address: address(&options.broker),
            options,
            subscriptions,
            skip_subscriptions: false,
            delivery,
            version: Version::V5,
            // Any wait between the shortest and a bound that doubles from twice the shortest on.
            backoff: Backoff::new(2 * SHORTEST_WAIT, LONGEST_WAIT),
            connected_at: None,
            disconnected_at: Instant::now(),
            logged_failure: None,
            heartbeat,
        }
    }

    fn run(mut self) {
        while let Err(failure) = self.connect() {
            let hopeless = self.delivery.is_stopping() && matches!(failure, SessionFailure::Denied(_));
            if hopeless || !self.delivery.should_retry() {
                break;
            }
            self.wait_after(failure);
        }
    }

    /// One connection, from its first packet to its last; Ok where we have disconnected.
    fn connect(&mut self) -> Result<(), SessionFailure> {
        self.connected_at = None;
        let (client, mut session) = session::open(&self.options, self.version)?;
        let end = self.run_session(&client, &mut session);
        self.delivery.on_disconnected(self.connected_at.is_some_and(|at| at.elapsed() < STABLE_AFTER));
        end
    }

    fn run_session(&mut self, client: &Client, session: &mut Session) -> Result<(), SessionFailure> {
        // The broker answers in order: what is asked after is whose the topics of our devices are.
        let mut is_first_answer = !self.skip_subscriptions;
        loop {
            let Some(event) = self.next_event(session)? else {
                self.delivery.hand_out();
                continue;
            };
            match event {
                SessionEvent::Accepted(max_packet) => {
                    self.on_accepted();
                    if !self.skip_subscriptions && !client.subscribe(self.subscriptions.filters()) {
                        log::debug!("mqtt: the connection ended before we subscribed");
                    }
                    self.delivery.on_connected(client, max_packet);
                }
                SessionEvent::Written(packet_id) => self.delivery.on_written(packet_id),
                SessionEvent::Acknowledged(packet_id, answer) => self.delivery.on_answer(packet_id, answer),
                SessionEvent::Subscribed(answers) => self.on_subscribed(&answers, std::mem::take(&mut is_first_answer)),
                SessionEvent::Received { topic, payload, retained } => self.receive(&topic, payload, retained),
                SessionEvent::PingSent if !self.delivery.is_acknowledging() => return Err(SessionFailure::NoAcks),
                SessionEvent::Disconnected => return Ok(()),
                _ => {}
            }
        }
    }

    /// Waits for something to happen; none where the loop is to turn, or a pause has passed for which something waits.
    fn next_event(&self, session: &mut Session) -> Result<Option<SessionEvent>, SessionFailure> {
        if self.connected_at.is_none() {
            self.heartbeat.beat(MAX_CONNECT);
            return session.next().map(Some);
        }
        self.heartbeat.beat(MAX_TURN);
        session.next_within(self.delivery.pause().map_or(TURN_INTERVAL, |pause| pause.min(TURN_INTERVAL)))
    }

    fn on_subscribed(&self, answers: &[Result<(), String>], is_first: bool) {
        if !is_first {
            if let Some(reason) = answers.iter().find_map(|answer| answer.as_ref().err()) {
                log::info!(
                    "mqtt: another node's device on a topic of ours for Home Assistant would not be noticed: {reason}"
                );
            }
            return;
        }
        for (filter, answer) in self.subscriptions.filters().iter().zip(answers) {
            if let Err(reason) = answer {
                log::warn!("mqtt: the broker refuses to tell us of {}: {reason}", filter.path);
            }
        }
    }

    fn receive(&self, topic: &str, payload: Vec<u8>, retained: bool) {
        match self.subscriptions.classify(topic, &payload, retained) {
            IncomingKind::RetainedState => self.delivery.on_retained_state(topic),
            IncomingKind::HomeAssistantBirth => self.delivery.on_ha_birth(),
            IncomingKind::Announcement => self.delivery.on_announcement(topic, &payload),
            IncomingKind::Command(command) => {
                self.delivery.on_request(Request { command: command.to_owned(), payload });
            }
            IncomingKind::RetainedCommand => {
                self.delivery.count_dropped_command("it is retained, and was meant for another time");
            }
            IncomingKind::Irrelevant => {}
        }
    }

    fn on_accepted(&mut self) {
        self.connected_at = Some(Instant::now());
        let is_again = self.delivery.count_connection();
        self.logged_failure = None;
        let version = match self.version {
            Version::V5 => "MQTT 5",
            Version::V4 => "MQTT 3.1.1, in which a broker cannot say what it refuses",
        };
        if is_again {
            log::info!(
                "mqtt: connected to {} again after {} s",
                self.address,
                self.disconnected_at.elapsed().as_secs()
            );
        } else {
            log::info!("mqtt: connected to {} as {} ({version})", self.address, self.options.client_id);
        }
    }

    /// Logs a new failure, and an old one at each doubling; waits, or until somebody wants to stop.
    fn wait_after(&mut self, failure: SessionFailure) {
        let accepted = self.connected_at.is_some();
        if let Some(connected_at) = self.connected_at {
            self.disconnected_at = Instant::now();
            if connected_at.elapsed() >= STABLE_AFTER {
                self.backoff.reset();
            }
        }
        // This outlasts a try in another version, which shows nothing of what lies at the broker.
        if accepted {
            self.skip_subscriptions = failure == SessionFailure::TooLarge;
        }
        let refused = self.version;
        self.choose_version(&failure, accepted);
        if self.delivery.is_stopping() {
            thread::sleep(RETRY_WHILE_STOPPING);
            return;
        }
        if failure == SessionFailure::WrongVersion && refused == Version::V5 {
            log::debug!("mqtt: {} does not speak MQTT 5", self.address);
            return;
        }
        let longest = self.backoff.fail();
        let wait = match failure {
            // What only a person mends: trying often is of no use, and may have us locked out.
            SessionFailure::Denied(_) | SessionFailure::TakenOver | SessionFailure::WrongVersion => {
                random_time(LONGEST_WAIT / 2, LONGEST_WAIT)
            }
            _ => random_time(SHORTEST_WAIT, longest),
        };
        let again = !matches!(failure, SessionFailure::Denied(_)) && self.backoff.failures().is_power_of_two();
        if again || self.logged_failure.as_ref() != Some(&failure) {
            let what = if accepted { "connection lost" } else { "no connection" };
            let (seconds, explained) = (wait.as_secs_f64(), self.explain(&failure));
            log::warn!("mqtt: {what} to {}: {explained}; trying again in {seconds:.0} s", self.address);
            self.logged_failure = Some(failure);
        }
        self.heartbeat.beat(wait + MAX_TURN);
        self.delivery.sleep(wait);
    }

    /// MQTT 5 comes first. A broker that knows 3.1.1 only says so, or does not know what to say.
    fn choose_version(&mut self, failure: &SessionFailure, accepted: bool) {
        let unknown = matches!(failure, SessionFailure::WrongVersion | SessionFailure::Closed(_)) && !accepted;
        self.version = if unknown && self.version == Version::V5 { Version::V4 } else { Version::V5 };
    }

    /// The failure, and what a person can do about it.
    fn explain(&self, failure: &SessionFailure) -> String {
        let client_id = &self.options.client_id;
        match failure {
            SessionFailure::Denied(code) => {
                format!("the broker refuses the user or the password ({code}); see mqtt.url and mqtt.password_file")
            }
            SessionFailure::Tls(fault) => {
                let (seen, remedy) = fault.explain(&self.options.broker);
                format!("TLS: {seen}; {remedy}")
            }
            SessionFailure::WrongVersion => "the broker speaks neither MQTT 5 nor 3.1.1".into(),
            SessionFailure::TakenOver => {
                format!("somebody else has connected as {client_id}; give every computer its own node.id")
            }
            SessionFailure::NoAcks => "the broker acknowledges nothing".into(),
            SessionFailure::TooLarge => format!(
                "somebody has published more than {MAX_PACKET} bytes on one of {:?}; the next connection hears no commands",
                self.subscriptions.filters().iter().map(|filter| filter.path.as_str()).collect::<Vec<_>>()
            ),
            SessionFailure::Closed(why) if self.connected_at.is_some_and(|at| at.elapsed() < STABLE_AFTER) => {
                format!("{why} (if this goes on: does another computer connect as {client_id}?)")
            }
            SessionFailure::Closed(why) | SessionFailure::Unreachable(why) => why.clone(),
        }
    }
}
