//! A session with a broker as the daemon has one: with its last will, a state that is kept, an event, and the largest
//! announcement to Home Assistant, each found out about as the daemon finds out (`dialer`, `limits`, `elimination`, `link`).
//!
//! The state travels on a topic of the form of a prompt's state, the one form that the daemon both writes and reads; a daemon
//! of this node that runs ignores one that is not retained. Everything has a topic of its own below `clapd/<node>/setup/`, and
//! what is kept is removed again.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clapd_core::prompts::Prompt;

use super::super::discovery::{self, DeviceSpec, LevelSensor, Node, PromptEntity};
use super::super::elimination::{Elimination, MessageKind, Restriction};
use super::super::limits::{BrokerLimits, packet_size};
use super::super::link::Link;
use super::super::names::device_name;
use super::super::outgoing::{OutgoingMessage, SentMessage, Ticket};
use super::super::protocol::{ConnectOptions, Filter, PublishForm, SessionEvent, SessionFailure, Version};
use super::super::reason::{Cause, Reason};
use super::super::session::Session;
use super::super::topics::Topics;
use super::super::{CAPACITY, dialer::Dialer, last_will, message, ownership, tls};
use super::{ProbeFailure, ProbeSpec, ProbeStep};
use crate::config::Broker;
use crate::levels::LevelReference;
use crate::outbox::EventRecord;

/// Attempts to connect until a broker has let us in that takes none of our last wills, in either version, twice over.
const MAX_ATTEMPTS: usize = 20;
/// Connections that a broker may end until it is given up: each shows one thing that it does not take.
const MAX_ENDS: usize = 20;
/// Between two of them, so that a broker that counts connections is not provoked.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How long a broker may take to answer a message; one in the same home answers within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether that time is over.
const TURN_INTERVAL: Duration = Duration::from_millis(500);

type Report<'a> = &'a mut dyn FnMut(ProbeStep, &str);

pub(super) fn run(broker: &Broker, spec: &ProbeSpec<'_>, passed: Report<'_>) -> Result<(), ProbeFailure> {
    let tls = broker.tls.as_ref().map(tls::configuration).transpose();
    let tls = tls.map_err(|error| {
        ProbeFailure::new(ProbeStep::Tls, format!("{error:#}"), "name files in PEM that belong together")
    })?;
    let topics = Topics::new(spec.node);
    let mut will = last_will(&topics);
    // The real one would call a daemon of this node offline, if the broker should publish it.
    will.topic = topics.route("setup", "test").score.replace("/score", "/will").into();
    let options = ConnectOptions {
        broker: broker.clone(),
        tls,
        // A daemon of this node may run: under its own name we would throw it out.
        client_id: format!("clapd-{}-setup", spec.node),
        will: Some(will),
        capacity: CAPACITY,
    };
    let mut check = SessionCheck {
        options,
        dialer: Dialer::new(),
        elimination: Elimination::new(),
        limits: BrokerLimits::default(),
        connection: None,
        will_finding: None,
        findings: Vec::new(),
        ends: 0,
    };
    let first = check.connect();
    first.map_err(|failure| login_failure(broker, &failure))?;
    check.report_login(broker, passed);
    check.try_messages(&topics, spec, passed)?;
    if let Some(prefix) = &broker.discovery_prefix {
        check.try_discovery(prefix, &topics, spec, passed)?;
    }
    check.disconnect();
    Ok(())
}

fn login_failure(broker: &Broker, failure: &SessionFailure) -> ProbeFailure {
    const LIST: &str = "see the broker's list of users (mosquitto: `mosquitto_passwd`; Home Assistant's broker: the users of Home Assistant)";
    if let SessionFailure::Tls(fault) = failure {
        let (seen, remedy) = fault.explain(broker);
        return ProbeFailure::new(ProbeStep::Tls, seen, remedy);
    }
    let (seen, remedy) = match (failure, &broker.user, &broker.password) {
        (SessionFailure::Refused(reason), user, password) if reason.is_about_login() => match (user, password) {
            (None, _) => (
                format!("the broker lets nobody in without a user: {}", reason.sentence()),
                format!("give a user, as in mqtt://USER@{}, and a password; {LIST}", broker.host),
            ),
            (Some(user), None) => (
                format!("the broker does not let {user} in without a password: {}", reason.sentence()),
                format!("give the password in a file (`--password-file FILE`); {LIST}"),
            ),
            (Some(user), Some(_)) => {
                (format!("the user {user} or the password is wrong: {}", reason.sentence()), LIST.into())
            }
        },
        (SessionFailure::Refused(reason) | SessionFailure::Ended(reason, _), ..) => {
            (reason.sentence(), reason.remedy().into())
        }
        (failure, ..) => {
            let hint = if broker.tls.is_none() {
                "is it a broker for MQTT, and does it want TLS on this port (mqtts://)?"
            } else {
                "see the broker's log; it may want a client's certificate (mqtt.client_cert, mqtt.client_key)"
            };
            (format!("the broker does not let us in: {failure}"), hint.into())
        }
    };
    ProbeFailure::new(ProbeStep::Login, seen, remedy)
}

/// A message to try.
struct TestMessage {
    kind: MessageKind,
    topic: Arc<str>,
    payload: Vec<u8>,
    wanted: PublishForm,
}

/// What became of it.
enum Outcome {
    /// The broker has confirmed it, in this form.
    Accepted(PublishForm),
    /// The broker has refused it.
    Refused(Reason),
    /// It is larger than may be sent: whose bound that is, and how it is raised.
    TooLarge { size: usize, bound: String, remedy: &'static str },
    /// The broker ends the connection over it.
    Deadly,
}

struct SessionCheck {
    options: ConnectOptions,
    dialer: Dialer,
    elimination: Elimination,
    limits: BrokerLimits,
    connection: Option<(Link, Session)>,
    will_finding: Option<&'static str>,
    findings: Vec<Restriction>,
    ends: usize,
}

impl SessionCheck {
    /// Connects as the daemon does, in the version and with the will that the broker takes.
    fn connect(&mut self) -> Result<(), SessionFailure> {
        let mut first = None;
        for _ in 0..MAX_ATTEMPTS {
            let tried = self.dialer.version();
            let failure = match self.dial() {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(failure) => failure,
            };
            let finding = self.dialer.on_refused(&failure);
            self.will_finding = finding.or(self.will_finding);
            let goes_on = finding.is_some()
                || self.dialer.is_searching()
                || (tried == Version::V5 && failure.suggests_other_version());
            // Where the broker hangs up on all that is tried, what came first counts.
            let says_why = failure.cause().is_some_and(|cause| cause != Cause::Version);
            if !goes_on {
                return Err(if says_why { failure } else { first.unwrap_or(failure) });
            }
            first.get_or_insert(failure);
        }
        Err(first.unwrap_or_else(|| SessionFailure::Closed("it lets nobody in".into())))
    }

    /// One attempt; false where another is to follow at once.
    fn dial(&mut self) -> Result<bool, SessionFailure> {
        let (client, mut session) = self.dialer.open(&self.options)?;
        loop {
            match session.next()? {
                SessionEvent::Accepted(limits) if !self.dialer.on_accepted() => {
                    self.limits = limits;
                    // One message at a time shows which it is that the broker does not take.
                    self.connection = Some((Link::new(client, limits.receive_max, true), session));
                    return Ok(true);
                }
                SessionEvent::Accepted(_) => {
                    client.disconnect();
                }
                SessionEvent::Disconnected if self.dialer.is_to_redial() => return Ok(false),
                SessionEvent::Disconnected | SessionEvent::PingSent => {
                    return Err(SessionFailure::Closed("no answer".into()));
                }
                _ => {}
            }
        }
    }

    fn report_login(&mut self, broker: &Broker, passed: Report<'_>) {
        let as_whom = broker.user.as_deref().map_or_else(|| "without a user".into(), |user| format!("as {user}"));
        let limits = self.dialer.news_of_limits(&self.limits);
        let limits = limits.map(|limits| format!("; the broker takes {limits}")).unwrap_or_default();
        passed(ProbeStep::Login, &format!("{as_whom}, in {}{limits}", self.dialer.version()));
        passed(
            ProbeStep::Will,
            self.will_finding.unwrap_or("the broker lets us in with a last will, which is to say when clapd dies"),
        );
    }

    /// An event, which is what matters most; then a state that is kept, and comes back.
    fn try_messages(&mut self, topics: &Topics, spec: &ProbeSpec<'_>, passed: Report<'_>) -> Result<(), ProbeFailure> {
        self.try_event(topics, spec, passed)?;
        let route = topics.route("setup", "test");
        let payload = format!("clapd setup {:016x}", fastrand::u64(..)).into_bytes();
        let wanted = PublishForm::RETAINED;
        let state = TestMessage { kind: MessageKind::State, topic: Arc::clone(&route.state), payload, wanted };
        let published = self.deliver(&state)?;
        let form = publish_outcome(ProbeStep::Receive, &published, &state.topic, spec.node)?;
        let received = self.receive(&state, form.retained, spec.node);
        // Also where it did not come back: nothing is to be left. What was found out about the first is confirmed by it, too.
        let removal = TestMessage { payload: Vec::new(), ..state };
        let removed = self.deliver(&removal)?;
        publish_outcome(ProbeStep::Receive, &removed, &route.state, spec.node)?;
        received?;
        passed(
            ProbeStep::Receive,
            match form.retained && self.elimination.form(&route.state, PublishForm::RETAINED).retained {
                true => "a state is kept, and comes back",
                false => "a state comes back, but is not kept: who subscribes later learns of it at the next change",
            },
        );
        self.report_findings(ProbeStep::Receive, passed);
        Ok(())
    }

    /// The largest event at QoS 1.
    fn try_event(&mut self, topics: &Topics, spec: &ProbeSpec<'_>, passed: Report<'_>) -> Result<(), ProbeFailure> {
        let topic = topics.route("setup", "test").event;
        let (payload, wanted) = (largest_event(spec), PublishForm::ACKNOWLEDGED);
        let size = packet_size(&topic, payload.len());
        let event = TestMessage { kind: MessageKind::Event, topic, payload, wanted };
        let published = self.deliver(&event)?;
        let form = publish_outcome(ProbeStep::Publish, &published, &event.topic, spec.node)?;
        passed(
            ProbeStep::Publish,
            &match form.acknowledged {
                true => format!("an event of {size} bytes is accepted and acknowledged"),
                false => {
                    format!("an event of {size} bytes is accepted, but not acknowledged: the broker takes QoS 0 only")
                }
            },
        );
        self.report_findings(ProbeStep::Publish, passed);
        Ok(())
    }

    fn report_findings(&mut self, step: ProbeStep, passed: Report<'_>) {
        self.findings.drain(..).for_each(|finding| passed(step, &finding.to_string()));
    }

    /// Whether devices may be announced to Home Assistant: by removing a device that is not there. Whether the largest is taken
    /// shows a message of the same size on a topic of ours, where Home Assistant does not see it.
    fn try_discovery(
        &mut self,
        prefix: &str,
        topics: &Topics,
        spec: &ProbeSpec<'_>,
        passed: Report<'_>,
    ) -> Result<(), ProbeFailure> {
        let wanted = PublishForm::RETAINED;
        let topic: Arc<str> = format!("{prefix}/device/{}_setup/config", spec.node).into();
        let kind = MessageKind::Discovery;
        let permission = TestMessage { kind, topic: Arc::clone(&topic), payload: Vec::new(), wanted };
        let cannot =
            format!("Home Assistant will not find this computer until this user may write to {prefix}/device/#");
        let seen = match self.deliver(&permission)? {
            Outcome::Accepted(_) if self.dialer.version() == Version::V4 => {
                "cannot be told in MQTT 3.1.1, in which a broker refuses in silence".into()
            }
            Outcome::Accepted(_) => format!("{prefix}/device/# is accepted: Home Assistant may find this computer"),
            Outcome::Refused(reason) => format!("the broker refuses {topic}: {}. {cannot}", reason.sentence()),
            Outcome::TooLarge { size, bound, .. } => {
                format!("the topic {topic} alone is {size} bytes, and {bound}. {cannot}")
            }
            Outcome::Deadly => format!("the broker ends the connection over {topic}. {cannot}"),
        };
        passed(ProbeStep::Discovery, &seen);
        let topic: Arc<str> = topics.route("setup", "test").score.replace("/score", "/size").into();
        let (device, entity) = largest_announcements(topics, spec);
        let filler = |size: usize| {
            let payload = vec![b' '; size.saturating_sub(packet_size(&topic, 0))];
            let wanted = PublishForm::ACKNOWLEDGED;
            TestMessage { kind, topic: Arc::clone(&topic), payload, wanted }
        };
        let whole = self.deliver(&filler(device))?;
        let seen = match whole {
            Outcome::Accepted(_) => format!("the largest announcement, of {device} bytes, is accepted"),
            _ => {
                let remedy = "raise the broker's limit (mosquitto: max_packet_size, message_size_limit)";
                match self.deliver(&filler(entity))? {
                    Outcome::Accepted(_) => format!(
                        "the largest announcement, of {device} bytes, is not accepted: Home Assistant is told of the \
                         entities one by one, in at most {entity} bytes, which is; {remedy} for all in one"
                    ),
                    _ => format!(
                        "neither the largest announcement, of {device} bytes, nor that of one entity, of {entity}, is \
                         accepted: those that are too large are left out, and events are not; {remedy}"
                    ),
                }
            }
        };
        self.findings.clear();
        passed(ProbeStep::Discovery, &seen);
        Ok(())
    }

    /// Has the broker confirm the message, on one connection after the other if it ends them.
    fn deliver(&mut self, message: &TestMessage) -> Result<Outcome, ProbeFailure> {
        let TestMessage { kind, topic, payload, wanted } = message;
        let size = packet_size(topic, payload.len());
        loop {
            if self.connection.is_none() {
                thread::sleep(RETRY_AFTER);
                self.connect().map_err(|failure| login_failure(&self.options.broker, &failure))?;
            }
            if let Some((bound, remedy)) = self.limits.explain_max_packet().filter(|_| !self.limits.fits(size)) {
                return Ok(Outcome::TooLarge { size, bound, remedy });
            }
            if self.elimination.is_left_out(*kind, topic, size) {
                return Ok(Outcome::Deadly);
            }
            let form = self.limits.allow(self.elimination.form(topic, *wanted));
            let topic = Arc::clone(topic);
            let sent = SentMessage { ticket: Ticket::Score, kind: *kind, topic, size, wanted: *wanted, form };
            match self.send(sent, payload.clone()) {
                Ok(Ok(())) => return Ok(Outcome::Accepted(form)),
                Ok(Err(reason)) => return Ok(Outcome::Refused(reason)),
                Err(failure) => self.on_end(&failure)?,
            }
        }
    }

    fn on_end(&mut self, failure: &SessionFailure) -> Result<(), ProbeFailure> {
        let suspects = self.connection.take().map(|(link, _)| link.suspects()).unwrap_or_default();
        self.findings.extend(self.elimination.on_end(&suspects, failure.cause()));
        self.dialer.on_ended(true);
        self.ends += 1;
        if failure.needs_a_person() || self.ends > MAX_ENDS {
            return Err(connection_ended(ProbeStep::Publish, failure));
        }
        Ok(())
    }

    fn send(&mut self, sent: SentMessage, payload: Vec<u8>) -> Result<Result<(), Reason>, SessionFailure> {
        let mut message = Some(OutgoingMessage { sent, payload });
        let begun = Instant::now();
        loop {
            let Some((link, session)) = &mut self.connection else { return Err(no_answer()) };
            // The broker has to have read the marker with which the connection begins.
            if link.has_room()
                && let Some(message) = message.take()
            {
                link.publish(message);
            }
            match session.next_within(TURN_INTERVAL)? {
                Some(SessionEvent::Written(packet_id)) => link.on_written(packet_id),
                Some(SessionEvent::Acknowledged(packet_id, answer)) => {
                    if let Some(message) = link.on_answer(packet_id) {
                        if answer.is_ok() {
                            self.elimination.on_accepted(&message);
                        }
                        return Ok(answer);
                    }
                }
                Some(SessionEvent::MarkerReached) => {
                    if let Some(message) = link.on_marker().pop() {
                        self.elimination.on_accepted(&message);
                        return Ok(Ok(()));
                    }
                }
                Some(SessionEvent::Disconnected) => return Err(no_answer()),
                _ if begun.elapsed() > ANSWER_TIMEOUT => return Err(SessionFailure::NoAcks),
                _ => {}
            }
        }
    }

    /// Subscribes, and waits for the state: what is kept comes at once, and what is not is sent for it.
    fn receive(&mut self, state: &TestMessage, is_kept: bool, node: &str) -> Result<(), ProbeFailure> {
        let topic = &*state.topic;
        let ended = |failure: &SessionFailure| connection_ended(ProbeStep::Receive, failure);
        let begun = Instant::now();
        let Some((link, session)) = &mut self.connection else { return Err(ended(&no_answer())) };
        let filter = Filter { path: topic.into(), retained: is_kept };
        link.subscribe(vec![filter], None);
        loop {
            let event = session.next_within(TURN_INTERVAL);
            let event = match event {
                Ok(event) => event,
                Err(failure) => {
                    self.connection = None;
                    return Err(ended(&failure));
                }
            };
            match event {
                Some(SessionEvent::Subscribed(answers)) => {
                    link.on_subscribed();
                    if let Some(reason) = answers.into_iter().find_map(Result::err) {
                        return Err(not_received(topic, node, &reason.sentence()));
                    }
                    if !is_kept {
                        let form = PublishForm { retained: false, ..state.wanted };
                        let form = self.limits.allow(self.elimination.form(topic, form));
                        let size = packet_size(topic, state.payload.len());
                        let (kind, wanted) = (state.kind, form);
                        let topic = Arc::clone(&state.topic);
                        let sent = SentMessage { ticket: Ticket::Score, kind, topic, size, wanted, form };
                        link.publish(OutgoingMessage { sent, payload: state.payload.clone() });
                    }
                }
                Some(SessionEvent::Received { topic: on, payload, .. }) if on == topic && payload == state.payload => {
                    return Ok(());
                }
                Some(SessionEvent::Written(packet_id)) => link.on_written(packet_id),
                Some(SessionEvent::Acknowledged(packet_id, _)) => drop(link.on_answer(packet_id)),
                Some(SessionEvent::MarkerReached) => drop(link.on_marker()),
                Some(SessionEvent::Disconnected) => return Err(ended(&no_answer())),
                // In 3.1.1 a broker acknowledges what it throws away, and in both versions it may keep quiet about what nobody may
                // read.
                _ if begun.elapsed() > ANSWER_TIMEOUT => {
                    return Err(not_received(topic, node, "what was sent to it does not come back"));
                }
                _ => {}
            }
        }
    }

    fn disconnect(self) {
        if let Some((link, mut session)) = self.connection
            && link.disconnect()
        {
            while !matches!(session.next(), Ok(SessionEvent::Disconnected) | Err(_)) {}
        }
    }
}

fn no_answer() -> SessionFailure {
    SessionFailure::Closed("it does not answer".into())
}

/// The form in which a message was accepted without which nothing goes.
fn publish_outcome(step: ProbeStep, outcome: &Outcome, topic: &str, node: &str) -> Result<PublishForm, ProbeFailure> {
    let remedy = format!("let this user write to clapd/{node}/# in the broker's access list");
    let fault = |seen: String, remedy: String| Err(ProbeFailure::new(step, seen, remedy));
    match outcome {
        Outcome::Accepted(form) => Ok(*form),
        Outcome::Refused(reason) if reason.cause() == Cause::Topic => {
            fault(format!("the broker refuses {topic}: {}", reason.sentence()), remedy)
        }
        Outcome::Refused(reason) => {
            fault(format!("the broker refuses {topic}: {}", reason.sentence()), reason.remedy().into())
        }
        Outcome::TooLarge { size, bound, remedy } => {
            fault(format!("a message of {size} bytes does not fit: {bound}"), (*remedy).into())
        }
        Outcome::Deadly => fault(
            format!("the broker ends the connection over {topic}"),
            format!("{remedy}, and see its log and its limits"),
        ),
    }
}

/// The end of an event of the prompt with the longest text.
fn largest_event(spec: &ProbeSpec<'_>) -> Vec<u8> {
    let longest = spec.prompts.iter().map(Prompt::name).max_by_key(|name| name.len());
    let record = EventRecord {
        id: format!("{:016x}-setup-test-0", fastrand::u64(..)),
        prompt: longest.unwrap_or("a test").into(),
        score: 7.25,
        peak: 8.25,
        started_at: SystemTime::now(),
        duration: Some(Duration::from_millis(12_345)),
        levels: Some(message::LONGEST_LEVELS),
    };
    message::event(&record).unwrap_or_default()
}

/// Bytes of the packets for the largest device, and for the largest of its entities.
fn largest_announcements(topics: &Topics, spec: &ProbeSpec<'_>) -> (usize, usize) {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    // The bundle's name and version are some ten letters.
    let node = Node { id: spec.node.into(), topics: topics.clone(), version, model: "xxxxxxxx 1.0".into() };
    let prompts: Vec<PromptEntity> = spec.prompts.iter().map(PromptEntity::of).collect();
    let sizes = spec.sources.iter().map(|source| {
        // The largest that it can be.
        let level = LevelSensor::Shown(LevelReference::SoundPressure);
        let device = DeviceSpec { source, prompts: &prompts, removed: &[], period: spec.period, level };
        let whole = discovery::device(&node, device).map_or(0, |payload| payload.len());
        let parts = discovery::entities(&node, device).unwrap_or_default();
        let topic = |key: &str| format!("homeassistant/binary_sensor/{}/{key}/config", device_name(spec.node, source));
        let part = parts.iter().map(|part| packet_size(&topic(&part.key), part.payload.len())).max();
        let topic = ownership::topic("homeassistant", &device_name(spec.node, source));
        (packet_size(&topic, whole), part.unwrap_or(0))
    });
    sizes.fold((0, 0), |largest, size| (largest.0.max(size.0), largest.1.max(size.1)))
}

fn not_received(topic: &str, node: &str, why: &str) -> ProbeFailure {
    let remedy = format!("let this user read and write clapd/{node}/# in the broker's access list");
    ProbeFailure::new(ProbeStep::Receive, format!("{topic}: {why}"), remedy)
}

fn connection_ended(step: ProbeStep, failure: &SessionFailure) -> ProbeFailure {
    let seen = format!("the broker ends the connection: {failure}");
    ProbeFailure::new(step, seen, "see the broker's log, and its access list")
}
