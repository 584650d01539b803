//! A short session with a broker: we log in, and send ourselves a message.
//!
//! The message travels on a topic of the form of a prompt's state, the one form that the daemon both writes and reads;
//! a daemon of this node that runs ignores one that is not retained. Nothing is retained, and there is no last will.

use std::sync::Arc;

use rumqttc_v5::tokio_rustls::rustls::ClientConfig;

use super::super::protocol::{ConnectOptions, Filter, SessionEvent, SessionFailure, Version};
use super::super::session::{self, Client, Session};
use super::super::tls;
use super::super::topics::Topics;
use super::{ProbeFailure, ProbeStep};
use crate::config::Broker;

/// Packets that may wait: a subscription, two messages and the farewell.
const CAPACITY: usize = 4;

pub(super) fn run(broker: &Broker, node: &str, passed: &mut dyn FnMut(ProbeStep, &str)) -> Result<(), ProbeFailure> {
    let tls = broker.tls.as_ref().map(tls::configuration).transpose();
    let tls = tls.map_err(|error| {
        ProbeFailure::new(ProbeStep::Tls, format!("{error:#}"), "name files in PEM that belong together")
    })?;
    let (client, session, version) = log_in(broker, node, tls).map_err(|failure| login_failure(broker, &failure))?;
    let as_whom = broker.user.as_deref().map_or_else(|| "without a user".into(), |user| format!("as {user}"));
    passed(ProbeStep::Login, &format!("{as_whom}, in {version}"));
    let mut check = SessionCheck { client, session, version };
    let topic = Topics::new(node).route("setup", "test").state;
    check.subscribe(&topic, node)?;
    check.send_and_receive(&topic, node, passed)?;
    if let Some(prefix) = &broker.discovery_prefix {
        check.try_discovery(prefix, node, passed)?;
    }
    check.disconnect();
    Ok(())
}

/// Tries MQTT 5 first, as the daemon does.
fn log_in(
    broker: &Broker,
    node: &str,
    tls: Option<Arc<ClientConfig>>,
) -> Result<(Client, Session, Version), SessionFailure> {
    // A daemon of this node may run: under its own name we would throw it out.
    let client_id = format!("clapd-{node}-setup");
    let options = ConnectOptions { broker: broker.clone(), tls, client_id, will: None, capacity: CAPACITY };
    let first = match connect(&options, Version::V5) {
        Err(failure @ (SessionFailure::WrongVersion | SessionFailure::Closed(_))) => failure,
        done => return done,
    };
    // A broker that knows 3.1.1 only says so, or does not know what to say. Where it hangs up on both, the first failure counts.
    connect(&options, Version::V4).map_err(|second| if second == SessionFailure::WrongVersion { first } else { second })
}

fn connect(options: &ConnectOptions, version: Version) -> Result<(Client, Session, Version), SessionFailure> {
    let (client, mut session) = session::open(options, version)?;
    loop {
        match session.next()? {
            SessionEvent::Accepted(_) => return Ok((client, session, version)),
            SessionEvent::Disconnected | SessionEvent::PingSent => {
                return Err(SessionFailure::Closed("no answer".into()));
            }
            _ => {}
        }
    }
}

fn login_failure(broker: &Broker, failure: &SessionFailure) -> ProbeFailure {
    const LIST: &str = "see the broker's list of users (mosquitto: `mosquitto_passwd`; Home Assistant's broker: the users of Home Assistant)";
    if let SessionFailure::Tls(fault) = failure {
        let (seen, remedy) = fault.explain(broker);
        return ProbeFailure::new(ProbeStep::Tls, seen, remedy);
    }
    let (seen, remedy) = match (failure, &broker.user, &broker.password) {
        (SessionFailure::Denied(code), None, _) => (
            format!("the broker lets nobody in without a user ({code})"),
            format!("give a user, as in mqtt://USER@{}, and a password; {LIST}", broker.host),
        ),
        (SessionFailure::Denied(code), Some(user), None) => (
            format!("the broker does not let {user} in without a password ({code})"),
            format!("give the password in a file (`--password-file FILE`); {LIST}"),
        ),
        (SessionFailure::Denied(code), Some(user), Some(_)) => {
            (format!("the user {user} or the password is wrong ({code})"), LIST.into())
        }
        (SessionFailure::WrongVersion, ..) => {
            ("the broker speaks neither MQTT 5 nor 3.1.1".into(), "see whether it is one for MQTT".into())
        }
        (failure, ..) => {
            let hint = if broker.tls.is_none() {
                "is it a broker for MQTT, and does it want TLS on this port (mqtts://)?"
            } else {
                "see the broker's log; it may want a client's certificate (mqtt.client_cert, mqtt.client_key)"
            };
            (format!("the broker does not let us in: {}", describe(failure)), hint.into())
        }
    };
    ProbeFailure::new(ProbeStep::Login, seen, remedy)
}

fn describe(failure: &SessionFailure) -> String {
    match failure {
        SessionFailure::Denied(why) | SessionFailure::Closed(why) | SessionFailure::Unreachable(why) => why.clone(),
        SessionFailure::TakenOver => "somebody else has connected with our name".into(),
        other => format!("{other:?}"),
    }
}

struct SessionCheck {
    client: Client,
    session: Session,
    version: Version,
}

/// What the broker did with a message.
struct SendOutcome {
    accepted: Result<(), String>,
    received: bool,
}

impl SessionCheck {
    fn subscribe(&mut self, topic: &str, node: &str) -> Result<(), ProbeFailure> {
        self.client.subscribe(vec![Filter { path: topic.into(), retained: false }]);
        loop {
            match self.session.next().map_err(|failure| connection_ended(ProbeStep::Receive, &failure))? {
                SessionEvent::Subscribed(answers) => {
                    let refused = answers.into_iter().find_map(Result::err);
                    return refused.map_or(Ok(()), |why| Err(not_received(topic, node, &why)));
                }
                SessionEvent::Disconnected | SessionEvent::PingSent => {
                    return Err(not_received(topic, node, "it does not answer"));
                }
                _ => {}
            }
        }
    }

    fn send_and_receive(
        &mut self,
        topic: &str,
        node: &str,
        passed: &mut dyn FnMut(ProbeStep, &str),
    ) -> Result<(), ProbeFailure> {
        let outcome = self.send(topic, &format!("clapd setup {:016x}", fastrand::u64(..)), true)?;
        outcome.accepted.map_err(|why| {
            let remedy = format!("let this user write to clapd/{node}/# in the broker's access list");
            ProbeFailure::new(ProbeStep::Publish, format!("the broker refuses {topic}: {why}"), remedy)
        })?;
        passed(ProbeStep::Publish, &format!("{topic} is accepted"));
        if !outcome.received {
            // In 3.1.1 a broker acknowledges what it throws away, and in both versions it may keep quiet about what nobody may read.
            return Err(not_received(topic, node, "what was sent to it does not come back"));
        }
        passed(ProbeStep::Receive, "and comes back");
        Ok(())
    }

    /// Whether devices may be announced to Home Assistant: by removing a device that is not there.
    fn try_discovery(
        &mut self,
        prefix: &str,
        node: &str,
        passed: &mut dyn FnMut(ProbeStep, &str),
    ) -> Result<(), ProbeFailure> {
        let topic = format!("{prefix}/device/{node}_setup/config");
        let seen = match self.send(&topic, "", false)?.accepted {
            Ok(()) if self.version == Version::V4 => {
                "cannot be told in MQTT 3.1.1, in which a broker refuses in silence".into()
            }
            Ok(()) => format!("{prefix}/device/# is accepted: Home Assistant may find this computer"),
            Err(why) => format!(
                "the broker refuses {topic}: {why}. Home Assistant will not find this computer until this user may write to {prefix}/device/#"
            ),
        };
        passed(ProbeStep::Discovery, &seen);
        Ok(())
    }

    /// Sends, and waits for the answer, and for the message if it should come back. The broker is asked whether it is there once
    /// everything has been quiet for a keep-alive: then nothing more will come.
    fn send(&mut self, topic: &str, payload: &str, returns: bool) -> Result<SendOutcome, ProbeFailure> {
        self.client.publish(topic, payload.as_bytes().to_vec(), true, false);
        let (mut accepted, mut received) = (None, !returns);
        loop {
            match self.session.next().map_err(|failure| connection_ended(ProbeStep::Publish, &failure))? {
                SessionEvent::Acknowledged(_, Err(why)) => return Ok(SendOutcome { accepted: Err(why), received }),
                SessionEvent::Acknowledged(_, Ok(())) => accepted = Some(()),
                SessionEvent::Received { topic: on, payload: what, .. } => {
                    received |= on == topic && what == payload.as_bytes();
                }
                SessionEvent::Disconnected | SessionEvent::PingSent => {
                    let accepted = accepted.ok_or_else(|| "it does not answer".into());
                    return Ok(SendOutcome { accepted, received });
                }
                _ => {}
            }
            if accepted.is_some() && received {
                return Ok(SendOutcome { accepted: Ok(()), received });
            }
        }
    }

    fn disconnect(mut self) {
        if self.client.disconnect() {
            while !matches!(self.session.next(), Ok(SessionEvent::Disconnected) | Err(_)) {}
        }
    }
}

fn not_received(topic: &str, node: &str, why: &str) -> ProbeFailure {
    let remedy = format!("let this user read and write clapd/{node}/# in the broker's access list");
    ProbeFailure::new(ProbeStep::Receive, format!("{topic}: {why}"), remedy)
}

fn connection_ended(step: ProbeStep, failure: &SessionFailure) -> ProbeFailure {
    let seen = format!("the broker ends the connection: {}", describe(failure));
    ProbeFailure::new(step, seen, "see the broker's log, and its access list")
}
