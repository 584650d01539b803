//! The thread that connects to the broker, and again when the connection is lost.
//!
//! In: a [`Plan`]; what waits, in [`Shared`]. Out: packets, and log lines that say what a person can do.
//! rumqttc's client lives as long as one connection. It would drop unacknowledged packets on a new session, and has come to a
//! standstill after a colliding packet id (rumqtt issue 1056); a fresh one has no such past, and the outbox still has the events.
//! Never: tries without a pause, logs every try, or gives up.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::inbox::{Request, Subscriptions, Taker};
use super::link::Shared;
use super::session::{Client, Failure, Happened, MAX_PACKET, Plan, Session, Version};
use crate::config::Broker;

/// A connection that held this long was a good one: the next failure is a first one.
const STEADY: Duration = Duration::from_secs(10);
/// There are 5 s to leave in, and a broker that is just starting is up within one.
const RETRY_WHILE_LEAVING: Duration = Duration::from_millis(250);

/// Starts the thread. It ends when it has taken leave, or when a connection fails that was begun to take leave.
pub(super) fn spawn(shared: Arc<Shared>, plan: Plan, subscriptions: Subscriptions) -> io::Result<()> {
    let thread = Thread {
        address: address(&plan.broker),
        plan,
        subscriptions,
        deaf: false,
        shared,
        version: Version::V5,
        backoff: Backoff::default(),
        connections: 0,
        connected_at: None,
        away_since: Instant::now(),
        said: None,
    };
    thread::Builder::new().name("mqtt".into()).spawn(move || thread.run()).map(drop)
}

/// As it stands in a url.
fn address(broker: &Broker) -> String {
    let Broker { host, port, .. } = broker;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

struct Thread {
    address: String,
    plan: Plan,
    subscriptions: Subscriptions,
    /// Subscribes to nothing: what the last connection brought was too large, and may lie at the broker for good.
    deaf: bool,
    shared: Arc<Shared>,
    version: Version,
    backoff: Backoff,
    connections: u64,
    /// When the broker accepted this connection; none while it has not.
    connected_at: Option<Instant>,
    away_since: Instant,
    /// The failure that was logged last.
    said: Option<Failure>,
}

impl Thread {
    fn run(mut self) {
        while let Err(failure) = self.connect() {
            let hopeless = self.shared.is_leaving() && matches!(failure, Failure::Denied(_));
            if hopeless || !self.shared.is_worth_another_try() {
                break;
            }
            self.wait_after(failure);
        }
        self.shared.finish();
    }

    /// One connection, from its first packet to its last; Ok where we took leave.
    fn connect(&mut self) -> Result<(), Failure> {
        self.connected_at = None;
        let (client, mut session) = self.plan.open(self.version)?;
        let end = self.serve(&client, &mut session);
        self.shared.disconnected(self.connected_at.is_some_and(|at| at.elapsed() < STEADY));
        end
    }

    fn serve(&mut self, client: &Client, session: &mut Session) -> Result<(), Failure> {
        loop {
            match session.next()? {
                Happened::Accepted(limit) => {
                    self.greet();
                    if !self.deaf && !client.subscribe(self.subscriptions.filters()) {
                        log::debug!("mqtt: the connection ended before we subscribed");
                    }
                    self.shared.connected(client, limit);
                }
                Happened::Written(packet_id) => self.shared.written(packet_id),
                Happened::Answered(packet_id, answer) => self.shared.answered(packet_id, answer),
                Happened::Subscribed(answers) => self.subscribed(&answers),
                Happened::Received { topic, payload, retained } => self.take(&topic, payload, retained),
                Happened::Asked if !self.shared.is_answering() => return Err(Failure::Mute),
                Happened::Left => return Ok(()),
                _ => {}
            }
        }
    }

    fn subscribed(&self, answers: &[Result<(), String>]) {
        for (filter, answer) in self.subscriptions.filters().iter().zip(answers) {
            if let Err(reason) = answer {
                log::warn!("mqtt: the broker refuses to tell us of {}: {reason}", filter.path);
            }
        }
    }

    fn take(&self, topic: &str, payload: Vec<u8>, retained: bool) {
        match self.subscriptions.taker(topic, &payload, retained) {
            Taker::State => self.shared.found_state(topic),
            Taker::HomeAssistant => self.shared.welcome(),
            Taker::Command(command) => {
                if !self.shared.requests.put(Request { command: command.to_owned(), payload }) {
                    self.shared.drop_command("too many wait");
                }
            }
            Taker::Old => self.shared.drop_command("it is retained, and was meant for another time"),
            Taker::Nobody => {}
        }
    }

    fn greet(&mut self) {
        self.connected_at = Some(Instant::now());
        self.connections += 1;
        self.shared.counters.connections.add(1);
        self.said = None;
        let version = match self.version {
            Version::V5 => "MQTT 5",
            Version::V4 => "MQTT 3.1.1, in which a broker cannot say what it refuses",
        };
        if self.connections > 1 {
            self.shared.counters.reconnects.add(1);
            log::info!("mqtt: connected to {} again after {} s", self.address, self.away_since.elapsed().as_secs());
        } else {
            log::info!("mqtt: connected to {} as {} ({version})", self.address, self.plan.client_id);
        }
    }

    /// Logs a new failure, and an old one at each doubling; waits, or until somebody wants to leave.
    fn wait_after(&mut self, failure: Failure) {
        let accepted = self.connected_at.is_some();
        if let Some(connected_at) = self.connected_at {
            self.away_since = Instant::now();
            if connected_at.elapsed() >= STEADY {
                self.backoff.reset();
            }
        }
        // Kept over a try in another version, which tells nothing of what lies at the broker.
        if accepted {
            self.deaf = failure == Failure::TooLarge;
        }
        let refused = self.version;
        self.choose_version(&failure, accepted);
        if self.shared.is_leaving() {
            thread::sleep(RETRY_WHILE_LEAVING);
            return;
        }
        if failure == Failure::WrongVersion && refused == Version::V5 {
            log::debug!("mqtt: {} does not speak MQTT 5", self.address);
            return;
        }
        let wait = match failure {
            // What only a person mends: trying often is of no use, and may have us locked out.
            Failure::Denied(_) | Failure::TakenOver | Failure::WrongVersion => self.backoff.fail_for_long(),
            _ => self.backoff.fail(),
        };
        let again = !matches!(failure, Failure::Denied(_)) && self.backoff.failures().is_power_of_two();
        if again || self.said.as_ref() != Some(&failure) {
            let what = if accepted { "connection lost" } else { "no connection" };
            let (seconds, explained) = (wait.as_secs_f64(), self.explain(&failure));
            log::warn!("mqtt: {what} to {}: {explained}; trying again in {seconds:.0} s", self.address);
            self.said = Some(failure);
        }
        self.shared.rest(wait);
    }

    /// MQTT 5 comes first. A broker that knows 3.1.1 only says so, or does not know what to say.
    fn choose_version(&mut self, failure: &Failure, accepted: bool) {
        let unknown = matches!(failure, Failure::WrongVersion | Failure::Closed(_)) && !accepted;
        self.version = if unknown && self.version == Version::V5 { Version::V4 } else { Version::V5 };
    }

    /// The failure, and what a person can do about it.
    fn explain(&self, failure: &Failure) -> String {
        let client_id = &self.plan.client_id;
        match failure {
            Failure::Denied(code) => {
                format!("the broker refuses the user or the password ({code}); see mqtt.url and mqtt.password_file")
            }
            Failure::WrongVersion => "the broker speaks neither MQTT 5 nor 3.1.1".into(),
            Failure::TakenOver => {
                format!("somebody else has connected as {client_id}; give every computer its own node.id")
            }
            Failure::Mute => "the broker acknowledges nothing".into(),
            Failure::TooLarge => format!(
                "somebody has published more than {MAX_PACKET} bytes on one of {:?}; the next connection hears no commands",
                self.subscriptions.filters().iter().map(|filter| filter.path.as_str()).collect::<Vec<_>>()
            ),
            Failure::Closed(why) if self.connected_at.is_some_and(|at| at.elapsed() < STEADY) => {
                format!("{why} (if this goes on: does another computer connect as {client_id}?)")
            }
            Failure::Closed(why) | Failure::Unreachable(why) => why.clone(),
        }
    }
}
