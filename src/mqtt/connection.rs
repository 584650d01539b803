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
use super::dialer::Dialer;
use super::inbox::{IncomingKind, Subscriptions};
use super::limits::BrokerLimits;
use super::protocol::{ConnectOptions, SessionEvent, SessionFailure, Version};
use super::reason::Cause;
use super::session::{Client, Session};
use crate::backoff::{Backoff, random_time};
use crate::config::Broker;
use crate::threads::{Heartbeat, ServiceThread};

/// A broker that restarts is back within seconds.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Nobody waits for longer than this until the sensors of a home are back.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A connection that held this long was a good one: the next failure is a first one.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Before the next attempt while it is found out what a broker takes: some ten attempts are within as many seconds, and an event
/// that begins meanwhile waits for no longer than this.
const SEARCH_WAIT: Duration = Duration::from_secs(1);
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
    dialer: Dialer,
    /// Messages that the last connection had not confirmed when it ended.
    suspects: usize,
    /// When what only time brings was looked after last.
    turned_at: Instant,
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
            dialer: Dialer::new(),
            suspects: 0,
            turned_at: Instant::now(),
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
            let hopeless = self.delivery.is_stopping() && failure.needs_a_person();
            if hopeless || !self.delivery.should_retry() {
                break;
            }
            self.wait_after(failure);
        }
    }

    /// One connection, from its first packet to its last; Ok where we have disconnected.
    fn connect(&mut self) -> Result<(), SessionFailure> {
        (self.connected_at, self.suspects) = (None, 0);
        let (client, mut session) = self.dialer.open(&self.options)?;
        let ended = self.run_session(&client, &mut session);
        if self.dialer.is_to_redial() {
            return self.connect();
        }
        let early = self.connected_at.is_some_and(|at| at.elapsed() < STABLE_AFTER);
        self.suspects = self.delivery.on_disconnected(ended.as_ref().err(), early);
        ended
    }

    fn run_session(&mut self, client: &Client, session: &mut Session) -> Result<(), SessionFailure> {
        loop {
            let event = self.next_event(session)?;
            if event.is_none() || self.turned_at.elapsed() >= TURN_INTERVAL {
                self.turned_at = Instant::now();
                if !self.delivery.hand_out() {
                    return Err(SessionFailure::NoAcks);
                }
            }
            match event.unwrap_or(SessionEvent::Other) {
                SessionEvent::Accepted(limits) => {
                    if self.dialer.on_accepted() {
                        log::debug!("mqtt: {} takes a lesser last will; the full one is tried once more", self.address);
                        client.disconnect();
                        continue;
                    }
                    self.on_accepted(&limits);
                    let subscribes = !self.skip_subscriptions;
                    let filters = if subscribes { self.subscriptions.filters(limits.wildcards) } else { Vec::new() };
                    self.delivery.on_connected(client, limits, filters);
                }
                SessionEvent::Written(packet_id) => self.delivery.on_written(packet_id),
                SessionEvent::Acknowledged(packet_id, answer) => self.delivery.on_answer(packet_id, answer),
                SessionEvent::MarkerReached => self.delivery.on_marker(),
                SessionEvent::Subscribed(answers) => {
                    let needs_plain_filters = self.delivery.on_subscribed(&answers);
                    if needs_plain_filters {
                        self.delivery.subscribe(self.subscriptions.filters(false));
                    }
                }
                SessionEvent::Received { topic, payload, retained } => self.receive(&topic, payload, retained),
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

    fn receive(&self, topic: &str, payload: Vec<u8>, retained: bool) {
        if self.delivery.on_name(topic, &payload, retained) {
            return;
        }
        match self.subscriptions.classify(topic, &payload, retained) {
            IncomingKind::RetainedState => self.delivery.on_retained_state(topic),
            IncomingKind::HomeAssistantBirth => self.delivery.on_ha_birth(),
            IncomingKind::Announcement => self.delivery.on_announcement(topic, &payload),
            IncomingKind::Command(command) => {
                self.delivery.on_request(command, payload);
            }
            IncomingKind::RetainedCommand => {
                self.delivery.count_dropped_command("it is retained, and was meant for another time");
            }
            IncomingKind::Irrelevant => {}
        }
    }

    fn on_accepted(&mut self, limits: &BrokerLimits) {
        self.connected_at = Some(Instant::now());
        let is_again = self.delivery.count_connection();
        self.logged_failure = None;
        let version = match self.dialer.version() {
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
        if let Some(limits) = self.dialer.news_of_limits(limits) {
            log::info!("mqtt: {} takes {limits}: what is published keeps to it", self.address);
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
        let tried = self.dialer.version();
        let mut finding = None;
        if accepted {
            self.dialer.on_ended(self.delivery.is_searching());
        } else {
            finding = self.dialer.on_refused(&failure);
        }
        if self.delivery.is_stopping() {
            thread::sleep(RETRY_WHILE_STOPPING);
            return;
        }
        if failure.cause() == Some(Cause::Version) && tried == Version::V5 {
            log::debug!("mqtt: {} does not speak MQTT 5", self.address);
            return;
        }
        if let Some(finding) = finding {
            // The next attempt goes without, and nobody is to be told that there was none.
            log::warn!("mqtt: {finding}");
            return self.delivery.sleep(random_time(SEARCH_WAIT / 2, SEARCH_WAIT));
        }
        let longest = self.backoff.fail();
        let wait = if failure.needs_a_person() || failure.cause() == Some(Cause::Version) {
            // What only a person mends: trying often is of no use, and may have us locked out.
            random_time(LONGEST_WAIT / 2, LONGEST_WAIT)
        } else if self.delivery.is_searching() || (!accepted && self.dialer.is_searching()) {
            // Every attempt shows more of what the broker takes; events wait for the end of it.
            random_time(SEARCH_WAIT / 2, SEARCH_WAIT)
        } else {
            random_time(SHORTEST_WAIT, longest)
        };
        let again = !failure.needs_a_person() && self.backoff.failures().is_power_of_two();
        if again || self.logged_failure.as_ref() != Some(&failure) {
            let what = if accepted { "connection lost" } else { "no connection" };
            let (seconds, explained) = (wait.as_secs_f64(), self.explain(&failure));
            log::warn!("mqtt: {what} to {}: {explained}; trying again in {seconds:.0} s", self.address);
            self.logged_failure = Some(failure);
        }
        self.heartbeat.beat(wait + MAX_TURN);
        self.delivery.sleep(wait);
    }

    /// The failure, and what a person can do about it.
    fn explain(&self, failure: &SessionFailure) -> String {
        let client_id = &self.options.client_id;
        let is_early = self.connected_at.is_some_and(|at| at.elapsed() < STABLE_AFTER);
        match failure {
            SessionFailure::Tls(fault) => {
                let (seen, remedy) = fault.explain(&self.options.broker);
                format!("TLS: {seen}; {remedy}")
            }
            SessionFailure::TooLarge => format!(
                "{failure}, one of {:?}; the next connection hears no commands",
                self.subscriptions.filters(true).iter().map(|filter| filter.path.as_str()).collect::<Vec<_>>()
            ),
            SessionFailure::Ended(reason, _) if reason.cause() == Cause::TakenOver => {
                format!("somebody else has connected as {client_id}; give every computer its own node.id")
            }
            SessionFailure::Closed(_) | SessionFailure::Ended(..) if self.suspects > 0 => format!(
                "{failure} (after {} messages that it has not confirmed: now they are sent one by one, events first, to \
                 find out whether it does not take one of them)",
                self.suspects
            ),
            // In 3.1.1 nothing else tells of it.
            SessionFailure::Closed(_) if is_early => {
                format!("{failure} (if this goes on: does another computer connect as {client_id}?)")
            }
            failure => failure.to_string(),
        }
    }
}
