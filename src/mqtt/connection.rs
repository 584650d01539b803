//! The thread that owns the connection, and what it shares with those who publish.
//!
//! In: what waits in [`Outgoing`]; the broker's acknowledgements. Out: packets.
//! Whoever changes what waits hands out as much of it as the connection has room for, and so does this thread whenever the
//! broker has acknowledged something: nobody blocks, and there is one queue only. rumqttc's client lives as long as one
//! connection. It would drop unacknowledged packets on a new session, and can come to a standstill after a
//! colliding packet id (rumqtt issue 1056); a fresh one has no such past, and `Outgoing` still has the events.
//! Never: an event leaves `Outgoing` before it is acknowledged.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{Client, ConnectReturnCode, Connection, ConnectionError, Event, Incoming, LastWill, MqttOptions, QoS};

use super::backoff::Backoff;
use super::outgoing::{Message, Outgoing, Ticket};
use super::{lock, message};
use crate::config::Broker;
use crate::health::DeliveryCounters;

/// Packets under way at a time. It hides a slow link's delay, and stays below the 100 packet ids that rumqttc uses, so
/// that ids do not collide.
const WINDOW: usize = 64;
/// A broker calls us gone after one and a half of these; half a minute is soon enough to see `offline`.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Health with 16 sources is 4 kB; the broker sends us acknowledgements only.
const MAX_PACKET: usize = 64 * 1024;
/// A connection that held this long was a good one: the next failure is a first one.
const STEADY: Duration = Duration::from_secs(30);
/// There are 5 s to leave in, and a broker that is just starting is up within one.
const RETRY_WHILE_LEAVING: Duration = Duration::from_millis(250);

/// What the publishers and the thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub(super) counters: Arc<DeliveryCounters>,
}

#[derive(Default)]
struct State {
    outgoing: Outgoing,
    link: Option<Link>,
    /// Set once we want to leave: until then events may still be delivered.
    leave_by: Option<Instant>,
    /// The thread has ended.
    finished: bool,
}

/// A connection that the broker has accepted.
struct Link {
    client: Client,
    /// Given to rumqttc, not yet written to the socket.
    handed: VecDeque<Ticket>,
    /// Written, not yet acknowledged, by packet id.
    in_flight: HashMap<u16, Ticket>,
}

impl State {
    /// Hands out as much as there is room for.
    fn pump(&mut self) {
        let Some(link) = &mut self.link else { return };
        while link.handed.len() + link.in_flight.len() < WINDOW {
            let Some(message) = self.outgoing.next() else { return };
            if !link.hand(message) {
                // The connection has just ended; the next one begins from the start.
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let nothing_under_way =
            self.link.as_ref().is_none_or(|link| link.handed.is_empty() && link.in_flight.is_empty());
        self.outgoing.is_settled() && nothing_under_way
    }
}

impl Link {
    fn hand(&mut self, message: Message) -> bool {
        let (qos, retain) = match message.ticket {
            Ticket::Retained(_) => (QoS::AtLeastOnce, true),
            Ticket::Event(_) => (QoS::AtLeastOnce, false),
            Ticket::Score => (QoS::AtMostOnce, false),
        };
        let handed = self.client.try_publish(&*message.topic, qos, retain, message.payload).is_ok();
        if handed {
            self.handed.push_back(message.ticket);
        }
        handed
    }
}

impl Shared {
    pub(super) fn new(counters: Arc<DeliveryCounters>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), counters }
    }

    /// Changes what waits, then hands out what there is room for.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Outgoing) -> T) -> T {
        let mut state = lock(&self.state);
        let result = change(&mut state.outgoing);
        state.pump();
        result
    }

    /// We want to leave by `deadline`: the broker is tried at once, and again and again while events wait.
    pub(super) fn stop(&self, deadline: Instant) {
        lock(&self.state).leave_by = Some(deadline);
        self.changed.notify_all();
    }

    pub(super) fn wait_until_settled(&self, deadline: Instant) {
        self.wait(deadline, |state| state.finished || state.is_settled());
    }

    /// Takes leave of the broker, which then keeps the last will to itself; returns how many events wait still.
    pub(super) fn disconnect(&self, deadline: Instant) -> usize {
        if let Some(link) = &lock(&self.state).link
            && link.client.try_disconnect().is_err()
        {
            log::debug!("mqtt: the connection ended before we took leave");
        }
        self.wait(deadline, |state| state.finished);
        lock(&self.state).outgoing.events()
    }

    /// Waits until `done` or the deadline.
    fn wait(&self, deadline: Instant, mut done: impl FnMut(&State) -> bool) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(lock(&self.state), patience, |state| !done(state));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn connected(&self, client: &Client) {
        let mut state = lock(&self.state);
        state.outgoing.begin();
        state.link = Some(Link { client: client.clone(), handed: VecDeque::new(), in_flight: HashMap::new() });
        state.pump();
    }

    /// rumqttc writes in the order in which it was given; packet id 0 means that no acknowledgement will come.
    fn written(&self, packet_id: u16) {
        let mut state = lock(&self.state);
        if let Some(link) = &mut state.link
            && let Some(ticket) = link.handed.pop_front()
            && packet_id != 0
        {
            link.in_flight.insert(packet_id, ticket);
        }
        state.pump();
        self.changed.notify_all();
    }

    fn acknowledged(&self, packet_id: u16) {
        let mut state = lock(&self.state);
        if let Some(ticket) = state.link.as_mut().and_then(|link| link.in_flight.remove(&packet_id)) {
            state.outgoing.acknowledged(ticket);
        }
        state.pump();
        self.changed.notify_all();
    }

    /// While we are leaving, only for events: what else waits means nothing to a broker that never knew we were there.
    fn is_worth_another_try(&self) -> bool {
        let state = lock(&self.state);
        state.leave_by.is_none_or(|deadline| Instant::now() < deadline && state.outgoing.events() > 0)
    }

    fn finish(&self) {
        lock(&self.state).finished = true;
        self.changed.notify_all();
    }
}

/// Starts the thread. It ends when it has taken leave, or when a connection fails that was begun to take leave.
pub(super) fn spawn(shared: Arc<Shared>, broker: &Broker, client_id: &str, status: &str) -> io::Result<()> {
    let thread = Thread {
        address: format!("{}:{}", broker.host, broker.port),
        options: options(broker, client_id, status),
        shared,
        backoff: Backoff::default(),
        connections: 0,
        connected_at: None,
        away_since: Instant::now(),
    };
    thread::Builder::new().name("mqtt".into()).spawn(move || thread.run()).map(drop)
}

fn options(broker: &Broker, client_id: &str, status: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, &broker.host, broker.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_session(true)
        .set_max_packet_size(MAX_PACKET, MAX_PACKET)
        .set_last_will(LastWill::new(status, message::OFFLINE, QoS::AtLeastOnce, true));
    if let Some(user) = &broker.user {
        options.set_credentials(user, broker.password.as_ref().map_or("", |password| password.reveal()));
    }
    options
}

struct Thread {
    address: String,
    options: MqttOptions,
    shared: Arc<Shared>,
    backoff: Backoff,
    connections: u64,
    /// When the broker accepted this connection; none while it has not.
    connected_at: Option<Instant>,
    away_since: Instant,
}

impl Thread {
    fn run(mut self) {
        loop {
            let (client, mut connection) = Client::new(self.options.clone(), WINDOW);
            self.connected_at = None;
            let end = self.serve(&client, &mut connection);
            lock(&self.shared.state).link = None;
            match end {
                Err(error) if self.shared.is_worth_another_try() => self.wait_after(&error),
                _ => break,
            }
        }
        self.shared.finish();
    }

    /// Serves one connection, from its first packet to its last; Ok where we took leave.
    fn serve(&mut self, client: &Client, connection: &mut Connection) -> Result<(), Box<ConnectionError>> {
        for event in connection.iter() {
            match event.map_err(Box::new)? {
                Event::Incoming(Incoming::ConnAck(_)) => {
                    self.greet();
                    self.shared.connected(client);
                }
                Event::Outgoing(rumqttc::Outgoing::Publish(packet_id)) => self.shared.written(packet_id),
                Event::Incoming(Incoming::PubAck(ack)) => self.shared.acknowledged(ack.pkid),
                Event::Outgoing(rumqttc::Outgoing::Disconnect) => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    fn greet(&mut self) {
        self.connected_at = Some(Instant::now());
        self.connections += 1;
        if self.connections > 1 {
            self.shared.counters.reconnects.add(1);
            log::info!("mqtt: connected to {} again after {} s", self.address, self.away_since.elapsed().as_secs());
        } else {
            log::info!("mqtt: connected to {} as {}", self.address, self.options.client_id());
        }
    }

    /// Logs the failure, the first and then at each doubling, and waits, or until somebody wants to leave.
    fn wait_after(&mut self, error: &ConnectionError) {
        if let Some(connected_at) = self.connected_at {
            self.away_since = Instant::now();
            if connected_at.elapsed() >= STEADY {
                self.backoff.reset();
            }
        }
        if lock(&self.shared.state).leave_by.is_some() {
            thread::sleep(RETRY_WHILE_LEAVING);
            return;
        }
        let wait = self.backoff.fail();
        if self.backoff.failures().is_power_of_two() {
            let what = if self.connected_at.is_some() { "connection lost" } else { "no connection" };
            let seconds = wait.as_secs_f64();
            log::warn!("mqtt: {what} to {}: {}; trying again in {seconds:.0} s", self.address, explain(error));
        }
        self.shared.wait(Instant::now() + wait, |state| state.leave_by.is_some());
    }
}

/// The error with what a person can do about it.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => "the broker refuses the user or the password; see mqtt.url and mqtt.password_file".into(),
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses us: {code:?}"),
        ConnectionError::NetworkTimeout => "no answer within 5 s".into(),
        other => other.to_string(),
    }
}
