//! A short talk with a broker: we log in, and send ourselves a message.
//!
//! In: a [`Broker`] and the node's id. Out: what the broker said, or where it ended.
//! The message travels on a topic of the form of a prompt's state, the one form that the daemon both writes and reads; a daemon of
//! this node that runs takes no notice of one that is not retained.
//! Never: retains anything, or leaves a last will behind.

use std::sync::Arc;

use rumqttc_v5::tokio_rustls::rustls::ClientConfig;

use super::super::inbox::Filter;
use super::super::session::{Client, Failure, Happened, Plan, Session, Version};
use super::super::tls;
use super::super::topics::Topics;
use super::{Fault, Step};
use crate::config::Broker;

/// Packets that may wait: a subscription, two messages and the farewell.
const CAPACITY: usize = 4;

pub(super) fn talk(broker: &Broker, node: &str, passed: &mut dyn FnMut(Step, &str)) -> Result<(), Fault> {
    let tls = broker.tls.as_ref().map(tls::configuration).transpose();
    let tls =
        tls.map_err(|error| Fault::new(Step::Tls, format!("{error:#}"), "name files in PEM that belong together"))?;
    let (client, session, version) = log_in(broker, node, tls).map_err(|failure| locked_out(broker, &failure))?;
    let as_whom = broker.user.as_deref().map_or_else(|| "without a user".into(), |user| format!("as {user}"));
    passed(Step::Login, &format!("{as_whom}, in {version}"));
    let mut talk = Talk { client, session, version };
    let topic = Topics::new(node).route("setup", "test").state;
    talk.subscribe(&topic, node)?;
    talk.send_and_receive(&topic, node, passed)?;
    if let Some(prefix) = &broker.discovery_prefix {
        talk.offer(prefix, node, passed)?;
    }
    talk.leave();
    Ok(())
}

/// Tries MQTT 5 first, as the daemon does.
fn log_in(broker: &Broker, node: &str, tls: Option<Arc<ClientConfig>>) -> Result<(Client, Session, Version), Failure> {
    // A daemon of this node may run: under its own name we would throw it out.
    let client_id = format!("clapd-{node}-setup");
    let plan = Plan { broker: broker.clone(), tls, client_id, will: None, capacity: CAPACITY };
    let first = match greet(&plan, Version::V5) {
        Err(failure @ (Failure::WrongVersion | Failure::Closed(_))) => failure,
        done => return done,
    };
    // A broker that knows 3.1.1 only says so, or does not know what to say. One that hangs up on both is told of as at first.
    greet(&plan, Version::V4).map_err(|second| if second == Failure::WrongVersion { first } else { second })
}

fn greet(plan: &Plan, version: Version) -> Result<(Client, Session, Version), Failure> {
    let (client, mut session) = plan.open(version)?;
    loop {
        match session.next()? {
            Happened::Accepted(_) => return Ok((client, session, version)),
            Happened::Left | Happened::Asked => return Err(Failure::Closed("no answer".into())),
            _ => {}
        }
    }
}

fn locked_out(broker: &Broker, failure: &Failure) -> Fault {
    const LIST: &str = "see the broker's list of users (mosquitto: `mosquitto_passwd`; Home Assistant's broker: the users of Home Assistant)";
    let (seen, remedy) = match (failure, &broker.user, &broker.password) {
        (Failure::Denied(code), None, _) => (
            format!("the broker lets nobody in without a user ({code})"),
            format!("give a user, as in mqtt://USER@{}, and a password; {LIST}", broker.host),
        ),
        (Failure::Denied(code), Some(user), None) => (
            format!("the broker does not let {user} in without a password ({code})"),
            format!("give the password in a file (`--password-file FILE`); {LIST}"),
        ),
        (Failure::Denied(code), Some(user), Some(_)) => {
            (format!("the user {user} or the password is wrong ({code})"), LIST.into())
        }
        (Failure::WrongVersion, ..) => {
            ("the broker speaks neither MQTT 5 nor 3.1.1".into(), "see whether it is one for MQTT".into())
        }
        (failure, ..) => {
            let hint = if broker.tls.is_none() {
                "is it a broker for MQTT, and does it want TLS on this port (mqtts://)?"
            } else {
                "see the broker's log; it may want a client's certificate (mqtt.client_cert, mqtt.client_key)"
            };
            (format!("the broker does not let us in: {}", in_words(failure)), hint.into())
        }
    };
    Fault::new(Step::Login, seen, remedy)
}

fn in_words(failure: &Failure) -> String {
    match failure {
        Failure::Denied(why) | Failure::Closed(why) | Failure::Unreachable(why) => why.clone(),
        Failure::TakenOver => "somebody else has connected with our name".into(),
        other => format!("{other:?}"),
    }
}

struct Talk {
    client: Client,
    session: Session,
    version: Version,
}

/// What the broker was seen to do with a message.
struct Fate {
    accepted: Result<(), String>,
    received: bool,
}

impl Talk {
    fn subscribe(&mut self, topic: &str, node: &str) -> Result<(), Fault> {
        self.client.subscribe(vec![Filter { path: topic.into(), retained: false }]);
        loop {
            match self.session.next().map_err(|failure| hung_up(Step::Receive, &failure))? {
                Happened::Subscribed(answers) => {
                    let refused = answers.into_iter().find_map(Result::err);
                    return refused.map_or(Ok(()), |why| Err(unread(topic, node, &why)));
                }
                Happened::Left | Happened::Asked => return Err(unread(topic, node, "it does not answer")),
                _ => {}
            }
        }
    }

    fn send_and_receive(&mut self, topic: &str, node: &str, passed: &mut dyn FnMut(Step, &str)) -> Result<(), Fault> {
        let fate = self.send(topic, format!("clapd setup {:016x}", fastrand::u64(..)), true)?;
        fate.accepted.map_err(|why| {
            let remedy = format!("let this user write to clapd/{node}/# in the broker's access list");
            Fault::new(Step::Publish, format!("the broker refuses {topic}: {why}"), remedy)
        })?;
        passed(Step::Publish, &format!("{topic} is accepted"));
        if !fate.received {
            // In 3.1.1 a broker acknowledges what it throws away, and in both versions it may keep quiet about what nobody may read.
            return Err(unread(topic, node, "what was sent to it does not come back"));
        }
        passed(Step::Receive, "and comes back");
        Ok(())
    }

    /// Whether Home Assistant may be told: by removing a device that is not there.
    fn offer(&mut self, prefix: &str, node: &str, passed: &mut dyn FnMut(Step, &str)) -> Result<(), Fault> {
        let topic = format!("{prefix}/device/{node}_setup/config");
        let said = match self.send(&topic, String::new(), false)?.accepted {
            Ok(()) if self.version == Version::V4 => {
                "cannot be told in MQTT 3.1.1, in which a broker refuses in silence".into()
            }
            Ok(()) => format!("{prefix}/device/# is accepted: Home Assistant may find this computer"),
            Err(why) => format!(
                "the broker refuses {topic}: {why}. Home Assistant will not find this computer until this user may write to {prefix}/device/#"
            ),
        };
        passed(Step::Discovery, &said);
        Ok(())
    }

    /// Sends, and waits for the answer, and for the message if it should come back. The broker is asked whether it is there once
    /// everything has been quiet for a keep-alive: then nothing more will come.
    fn send(&mut self, topic: &str, payload: String, returns: bool) -> Result<Fate, Fault> {
        self.client.publish(topic, payload.clone().into_bytes(), true, false);
        let (mut accepted, mut received) = (None, !returns);
        loop {
            match self.session.next().map_err(|failure| hung_up(Step::Publish, &failure))? {
                Happened::Answered(_, Err(why)) => return Ok(Fate { accepted: Err(why), received }),
                Happened::Answered(_, Ok(())) => accepted = Some(()),
                Happened::Received { topic: on, payload: what, .. } => {
                    received |= on == topic && what == payload.as_bytes()
                }
                Happened::Left | Happened::Asked => {
                    let accepted = accepted.ok_or_else(|| "it does not answer".into());
                    return Ok(Fate { accepted, received });
                }
                _ => {}
            }
            if accepted.is_some() && received {
                return Ok(Fate { accepted: Ok(()), received });
            }
        }
    }

    fn leave(mut self) {
        if self.client.leave() {
            while !matches!(self.session.next(), Ok(Happened::Left) | Err(_)) {}
        }
    }
}

fn unread(topic: &str, node: &str, why: &str) -> Fault {
    let remedy = format!("let this user read and write clapd/{node}/# in the broker's access list");
    Fault::new(Step::Receive, format!("{topic}: {why}"), remedy)
}

fn hung_up(step: Step, failure: &Failure) -> Fault {
    let seen = format!("the broker ends the connection: {}", in_words(failure));
    Fault::new(step, seen, "see the broker's log, and its access list")
}
