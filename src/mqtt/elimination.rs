//! What a broker does not take and has not announced, found out by elimination.
//!
//! A broker that is sent something that it does not take may end the connection without a word, and again each time that it is
//! sent. So after a connection that ended early the next one has a single message in flight: events first, each confirmed
//! before the next. If such a connection ends, the message under way is the suspect. It is tried without what no message was
//! accepted with so far (retained, QoS 1); if that does not help either, it is too large where nothing larger was accepted,
//! or else its topic is not allowed, and it is left out. What follows from one message for the others is tried once more
//! with another message first, since a connection may have ended by chance.
//!
//! An event needs more evidence than anything else, and only what is smaller than the event on its topic goes on being sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outgoing::SentMessage;
use super::protocol::PublishForm;
use super::reason::Cause;

/// What kind of message it is, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum MessageKind {
    Event,
    Status,
    State,
    Health,
    Info,
    Subscription,
    Response,
    Score,
    Discovery,
}

impl MessageKind {
    /// How often in a row a connection has to end with it before that is its own doing: a single end may be chance. An event is
    /// worth more seconds of waiting than anything else.
    fn patience(self) -> u32 {
        match self {
            Self::Event => 3,
            _ => 2,
        }
    }

    /// How many topics may prove deadly before none of this kind is sent, if the broker has accepted none: as many reconnections
    /// are spared as there are topics. Discovery is tried as a whole and in parts. Events go on being tried, topic by topic.
    fn max_refused_topics(self) -> usize {
        match self {
            Self::Event => usize::MAX,
            Self::Discovery => 3,
            _ => 2,
        }
    }

    /// The same where the broker has accepted some: a list of access may allow one source and not another, but a broker that
    /// has ended eight connections over something optional is left in peace.
    const MAX_REFUSED_TOPICS: usize = 8;
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "events",
            Self::Status => "the status",
            Self::State => "states",
            Self::Health => "health",
            Self::Info => "info",
            Self::Subscription => "subscriptions",
            Self::Response => "responses",
            Self::Score => "scores",
            Self::Discovery => "devices for Home Assistant",
        })
    }
}

/// What was found out. Prints what it was and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Restriction {
    /// The broker takes nothing retained.
    NoRetain,
    /// The broker takes no QoS 1.
    NoQos1,
    /// Messages of this topic from this size on end the connection.
    TooLarge { kind: MessageKind, topic: Arc<str>, size: usize },
    /// Messages of this topic end the connection.
    Topic { kind: MessageKind, topic: Arc<str> },
    /// Messages of this kind end the connection.
    Kind(MessageKind),
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRetain => f.write_str(
                "the broker ends the connection over retained messages: states, status and devices are sent without being \
                 kept; allow them (mosquitto: retain_available true)",
            ),
            Self::NoQos1 => f.write_str(
                "the broker ends the connection over messages with QoS 1: all are sent with QoS 0, which nobody \
                 acknowledges; allow QoS 1 (mosquitto: max_qos 1)",
            ),
            Self::TooLarge { kind, topic, size } => write!(
                f,
                "the broker ends the connection over {size} bytes on {topic}, and has accepted nothing as large: what of \
                 {kind} is as large is left out; raise its limit (mosquitto: max_packet_size, message_size_limit)"
            ),
            Self::Topic { kind, topic } => write!(
                f,
                "the broker ends the connection over {topic}: it is left out ({kind}); see its log and its access list"
            ),
            Self::Kind(kind) => write!(
                f,
                "the broker ends the connection over every topic of {kind}: they are left out; see its log, its access \
                 list and its limits"
            ),
        }
    }
}

/// After this long what was found out is forgotten on a new connection, since somebody may have mended the broker: to find it
/// out again takes some seconds, in which events get through.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Connections of one search that follow at once. A search has a step for each kind and form; one that goes on for longer
/// than this is none, and the broker is spared.
const MOST_STEPS: u32 = 40;

/// What is known of a broker.
#[derive(Debug)]
pub(super) struct Elimination {
    single_in_flight: bool,
    steps: u32,
    /// The last end of a connection has shown something, or may with the next.
    has_shown_something: bool,
    /// The message that was under way when the last connection with a single one ended, and how often in a row.
    suspect: Option<Suspect>,
    /// The topic that is tried in a lesser form.
    trial: Option<(Arc<str>, PublishForm)>,
    /// What helped once, and is to be tried once more before it is believed.
    doubted: Features,
    /// What some message was accepted with.
    accepted: Features,
    largest_accepted: usize,
    accepted_kinds: BTreeSet<MessageKind>,
    /// What does not help at all.
    forbidden: Features,
    /// The least size on a topic that ends the connection.
    deadly: HashMap<Arc<str>, usize>,
    refused_topics: BTreeMap<MessageKind, usize>,
    left_out: BTreeSet<MessageKind>,
    /// The least size of a message of discovery that ends the connection.
    deadly_discovery: Option<usize>,
    learned_at: Option<Instant>,
    resend: bool,
}

/// A message over which connections seem to have ended.
#[derive(Debug)]
struct Suspect {
    kind: MessageKind,
    topic: Arc<str>,
    size: usize,
    form: PublishForm,
    times: u32,
}

impl Suspect {
    fn is(&self, message: &SentMessage) -> bool {
        (self.kind, &self.topic, self.form) == (message.kind, &message.topic, message.form)
    }
}

/// What a form may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Features {
    retain: bool,
    qos1: bool,
}

impl Elimination {
    pub(super) fn new() -> Self {
        Self {
            single_in_flight: false,
            steps: 0,
            has_shown_something: false,
            suspect: None,
            trial: None,
            doubted: Features::default(),
            accepted: Features::default(),
            largest_accepted: 0,
            accepted_kinds: BTreeSet::new(),
            forbidden: Features::default(),
            deadly: HashMap::new(),
            refused_topics: BTreeMap::new(),
            left_out: BTreeSet::new(),
            deadly_discovery: None,
            learned_at: None,
            resend: false,
        }
    }

    /// A new connection was accepted. What is known too long is forgotten; if there was something, messages go one by one again.
    pub(super) fn begin_connection(&mut self, now: Instant) {
        if self.learned_at.is_some_and(|at| now.duration_since(at) > FORGET_AFTER) {
            *self = Self { single_in_flight: true, ..Self::new() };
        }
    }

    /// Whether messages are to be sent one by one.
    pub(super) fn is_single_in_flight(&self) -> bool {
        self.single_in_flight
    }

    /// Whether the next connection should follow soon: it will show something.
    pub(super) fn is_searching(&self) -> bool {
        self.single_in_flight && self.steps < MOST_STEPS && self.has_shown_something
    }

    /// Everything was sent, and the connection has lasted.
    pub(super) fn on_settled(&mut self) {
        if self.single_in_flight {
            self.single_in_flight = false;
            self.steps = 0;
            (self.suspect, self.trial) = (None, None);
        }
    }

    /// The form in which a message that is best sent in `wanted` may be sent.
    pub(super) fn form(&self, topic: &str, wanted: PublishForm) -> PublishForm {
        match &self.trial {
            Some((tried, form)) if **tried == *topic => *form,
            _ => self.permitted(wanted),
        }
    }

    /// What is left of a form without what does not help at all.
    fn permitted(&self, wanted: PublishForm) -> PublishForm {
        PublishForm {
            retained: wanted.retained && !self.forbidden.retain,
            acknowledged: wanted.acknowledged && !self.forbidden.qos1,
        }
    }

    /// Whether this would end the connection.
    pub(super) fn is_left_out(&self, kind: MessageKind, topic: &str, size: usize) -> bool {
        self.left_out.contains(&kind) || self.deadly.get(topic).is_some_and(|least| size >= *least)
    }

    /// The largest packet of discovery that may still pass.
    pub(super) fn max_discovery(&self) -> usize {
        self.deadly_discovery.map_or(usize::MAX, |least| least.saturating_sub(1))
    }

    /// Whether all that is retained has to be sent again, since it may have been sent in a lesser form for nothing; once.
    pub(super) fn take_resend(&mut self) -> bool {
        std::mem::take(&mut self.resend)
    }

    /// The broker has confirmed a message.
    pub(super) fn on_accepted(&mut self, message: &SentMessage) {
        let SentMessage { kind, topic, size, form, wanted, .. } = message;
        self.largest_accepted = self.largest_accepted.max(*size);
        self.accepted_kinds.insert(*kind);
        self.accepted.retain |= form.retained;
        self.accepted.qos1 |= form.acknowledged;
        // Not by a subscription to its topic, nor by the removal of what is on it.
        if self.suspect.as_ref().is_some_and(|suspect| suspect.is(message) && *size >= suspect.size) {
            self.suspect = None;
        }
        // It was chance.
        if (self.doubted.retain && form.retained) || (self.doubted.qos1 && form.acknowledged) {
            self.doubted.retain &= !form.retained;
            self.doubted.qos1 &= !form.acknowledged;
            self.resend = true;
        }
        if self.trial.as_ref().is_some_and(|(tried, _)| tried == topic) {
            self.trial = None;
            self.doubted.retain |= wanted.retained && !form.retained && !self.accepted.retain;
            self.doubted.qos1 |= wanted.acknowledged && !form.acknowledged && !self.accepted.qos1;
        }
    }

    /// The broker has named what it does not take.
    pub(super) fn on_cause(&mut self, cause: Option<Cause>) -> Option<Restriction> {
        match cause {
            Some(Cause::Retain) if !self.forbidden.retain => self.forbid(Features { retain: true, qos1: false }),
            Some(Cause::Qos) if !self.forbidden.qos1 => self.forbid(Features { retain: false, qos1: true }),
            _ => None,
        }
    }

    /// The broker has ended a connection with these messages unconfirmed.
    pub(super) fn on_end(&mut self, unconfirmed: &[SentMessage], cause: Option<Cause>) -> Option<Restriction> {
        let was_single_in_flight = std::mem::replace(&mut self.single_in_flight, true);
        self.steps += 1;
        let finding = self.learn(unconfirmed, cause, was_single_in_flight);
        self.has_shown_something =
            !was_single_in_flight || finding.is_some() || self.suspect.is_some() || self.trial.is_some();
        finding
    }

    fn learn(
        &mut self,
        unconfirmed: &[SentMessage],
        cause: Option<Cause>,
        was_single_in_flight: bool,
    ) -> Option<Restriction> {
        if let Some(finding) = self.on_cause(cause) {
            self.suspect = None;
            return Some(finding);
        }
        let [message] = unconfirmed else { return None };
        if !was_single_in_flight && cause != Some(Cause::Size) {
            return None;
        }
        let SentMessage { kind, ref topic, size, form, .. } = *message;
        let doubted =
            Features { retain: self.doubted.retain && form.retained, qos1: self.doubted.qos1 && form.acknowledged };
        if doubted != Features::default() {
            self.suspect = None;
            return self.forbid(doubted);
        }
        let before = self.suspect.take().filter(|suspect| suspect.is(message));
        let times = before.map_or(0, |suspect| suspect.times) + 1;
        let next = if cause == Some(Cause::Size) { None } else { self.next_form(message) };
        // What the first form took pains to show need not be shown again for each of those before the last.
        let is_trial = self.trial.as_ref().is_some_and(|(tried, _)| tried == topic);
        let patience = if cause == Some(Cause::Size) || (is_trial && next.is_some()) { 1 } else { kind.patience() };
        if times < patience {
            self.suspect = Some(Suspect { kind, topic: Arc::clone(topic), size, form, times });
            return None;
        }
        if let Some(next) = next {
            self.trial = Some((Arc::clone(topic), next));
            return None;
        }
        self.trial = None;
        Some(self.leave_out(message))
    }

    /// The broker has refused a message of discovery, by its size for all that is known.
    pub(super) fn on_discovery_refused(&mut self, size: usize) {
        self.deadly_discovery = Some(self.deadly_discovery.map_or(size, |least| least.min(size)));
        self.learned_at.get_or_insert_with(Instant::now);
    }

    fn forbid(&mut self, what: Features) -> Option<Restriction> {
        self.forbidden.retain |= what.retain;
        self.forbidden.qos1 |= what.qos1;
        self.doubted = Features::default();
        self.trial = None;
        self.learned_at.get_or_insert_with(Instant::now);
        if what.retain { Some(Restriction::NoRetain) } else { Some(Restriction::NoQos1) }
    }

    /// The next lesser form: without what no message was accepted with, one at a time and then both.
    fn next_form(&self, message: &SentMessage) -> Option<PublishForm> {
        let full = self.permitted(message.wanted);
        let retained = full.retained && self.accepted.retain;
        let acknowledged = full.acknowledged && self.accepted.qos1;
        let mut forms = vec![full];
        for form in [
            PublishForm { retained, ..full },
            PublishForm { acknowledged, ..full },
            PublishForm { retained, acknowledged },
        ] {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        let at = forms.iter().position(|form| *form == message.form)?;
        forms.get(at + 1).copied()
    }

    fn leave_out(&mut self, message: &SentMessage) -> Restriction {
        let SentMessage { kind, ref topic, size, .. } = *message;
        self.learned_at.get_or_insert_with(Instant::now);
        let is_large = size > self.largest_accepted;
        self.deadly.insert(Arc::clone(topic), if is_large { size } else { 0 });
        if is_large && kind == MessageKind::Discovery {
            self.deadly_discovery = Some(self.deadly_discovery.map_or(size, |least| least.min(size)));
        }
        let refused_topics = self.refused_topics.entry(kind).or_default();
        *refused_topics += 1;
        let most = if self.accepted_kinds.contains(&kind) {
            kind.max_refused_topics().max(MessageKind::MAX_REFUSED_TOPICS)
        } else {
            kind.max_refused_topics()
        };
        if *refused_topics >= most {
            self.left_out.insert(kind);
            return Restriction::Kind(kind);
        }
        let topic = Arc::clone(topic);
        if is_large { Restriction::TooLarge { kind, topic, size } } else { Restriction::Topic { kind, topic } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::outgoing::Ticket;

    const fn form(retained: bool, acknowledged: bool) -> PublishForm {
        PublishForm { acknowledged, retained }
    }

    /// A broker that ends the connection over what `kills` says, and what a client with a single message in flight makes of
    /// it: the restrictions, and in which form each message got through at last.
    struct Trial {
        elimination: Elimination,
        findings: Vec<Restriction>,
        ends: usize,
    }

    impl Trial {
        fn new() -> Self {
            Self { elimination: Elimination::new(), findings: Vec::new(), ends: 0 }
        }

        /// Sends all messages on one connection after the other until one lasts; true where that is after at most 40.
        fn run(&mut self, messages: &[(MessageKind, &str, usize, PublishForm)], kills: impl Fn(&SentMessage) -> bool) {
            self.elimination.on_end(&[], None);
            let mut delivered = BTreeSet::new();
            'connection: for _ in 0..MOST_STEPS {
                for (kind, topic, size, wanted) in messages {
                    if delivered.contains(topic) && *kind == MessageKind::Event
                        || self.elimination.is_left_out(*kind, topic, *size)
                    {
                        continue;
                    }
                    let message = SentMessage {
                        ticket: Ticket::Score,
                        kind: *kind,
                        topic: (*topic).into(),
                        size: *size,
                        wanted: *wanted,
                        form: self.elimination.form(topic, *wanted),
                    };
                    if kills(&message) {
                        self.findings.extend(self.elimination.on_end(&[message], None));
                        self.ends += 1;
                        continue 'connection;
                    }
                    self.elimination.on_accepted(&message);
                    delivered.insert(*topic);
                }
                return self.elimination.on_settled();
            }
            panic!("no connection lasted: {:?}", self.findings);
        }
    }

    const ALL: &[(MessageKind, &str, usize, PublishForm)] = &[
        (MessageKind::Event, "event", 200, form(false, true)),
        (MessageKind::Status, "status", 40, form(true, true)),
        (MessageKind::State, "state", 40, form(true, true)),
        (MessageKind::Health, "health", 700, form(true, true)),
        (MessageKind::Score, "score", 90, form(false, false)),
        (MessageKind::Discovery, "device", 5_000, form(true, true)),
    ];

    #[test]
    fn a_broker_that_takes_all_is_given_all() {
        let mut trial = Trial::new();
        trial.run(ALL, |_| false);
        assert!(trial.findings.is_empty() && !trial.elimination.is_single_in_flight());
    }

    #[test]
    fn retained_messages_are_given_up_once_two_have_shown_it() {
        let mut trial = Trial::new();
        trial.run(ALL, |message| message.form.retained);
        assert_eq!(trial.findings, [Restriction::NoRetain]);
        // Twice the status, and once the state that confirms it.
        assert_eq!(trial.ends, 3);
        assert!(!trial.elimination.is_left_out(MessageKind::Discovery, "device", 5_000));
    }

    #[test]
    fn qos_1_is_given_up_for_an_event_after_three_ends() {
        let mut trial = Trial::new();
        trial.run(ALL, |message| message.form.acknowledged);
        assert_eq!(trial.findings, [Restriction::NoQos1]);
        assert_eq!(trial.ends, 4);
        assert_eq!(trial.elimination.form("any", form(true, true)), form(true, false));
    }

    #[test]
    fn neither_is_taken() {
        let mut trial = Trial::new();
        trial.run(ALL, |message| message.form.acknowledged || message.form.retained);
        trial.findings.sort_by_key(ToString::to_string);
        assert_eq!(trial.findings, [Restriction::NoQos1, Restriction::NoRetain]);
        assert!(trial.ends <= 7, "{}", trial.ends);
    }

    #[test]
    fn what_is_too_large_is_left_out_and_nothing_else() {
        for limit in [1_000, 2_048, 4_096] {
            let mut trial = Trial::new();
            trial.run(ALL, |message| message.size > limit);
            let topic = "device".into();
            assert_eq!(trial.findings, [Restriction::TooLarge { kind: MessageKind::Discovery, topic, size: 5_000 }]);
            assert_eq!((trial.ends, trial.elimination.max_discovery()), (2, 4_999));
        }
    }

    #[test]
    fn a_topic_that_is_not_allowed_is_left_out() {
        let mut trial = Trial::new();
        let more = [ALL, &[(MessageKind::State, "state2", 40, form(true, true))]].concat();
        trial.run(&more, |message| &*message.topic == "state2");
        assert_eq!(trial.findings, [Restriction::Topic { kind: MessageKind::State, topic: "state2".into() }]);
        assert!(!trial.elimination.is_left_out(MessageKind::State, "state", 40));
    }

    #[test]
    fn a_kind_of_which_nothing_is_taken_is_left_out() {
        let topics: Vec<String> = (0..20).map(|n| format!("score{n}")).collect();
        let scores = topics.iter().map(|topic| (MessageKind::Score, topic.as_str(), 90, form(false, false)));
        let mut trial = Trial::new();
        trial.run(
            &ALL.iter().copied().filter(|(kind, ..)| *kind != MessageKind::Score).chain(scores).collect::<Vec<_>>(),
            |message| message.kind == MessageKind::Score,
        );
        assert_eq!(trial.findings.last(), Some(&Restriction::Kind(MessageKind::Score)));
        assert_eq!(trial.ends, 4);
    }

    #[test]
    fn an_event_that_alone_is_deadly_is_set_aside_and_the_others_are_not() {
        let mut trial = Trial::new();
        let events = [
            (MessageKind::Event, "a", 200, form(false, true)),
            (MessageKind::Event, "b", 900, form(false, true)),
            (MessageKind::Event, "c", 210, form(false, true)),
        ];
        trial.run(&[&events, ALL].concat(), |message| &*message.topic == "b");
        assert_eq!(trial.findings, [Restriction::TooLarge { kind: MessageKind::Event, topic: "b".into(), size: 900 }]);
        assert!(!trial.elimination.is_left_out(MessageKind::Event, "b", 899));
        assert_eq!(trial.ends, 3);
    }

    #[test]
    fn an_end_by_chance_changes_nothing_in_the_end() {
        let mut trial = Trial::new();
        let left = std::cell::Cell::new(2);
        trial.run(ALL, |message| {
            let ends = message.kind == MessageKind::Status && left.get() > 0;
            left.set(left.get() - usize::from(ends));
            ends
        });
        assert!(trial.findings.is_empty(), "{:?}", trial.findings);
        assert!(trial.elimination.take_resend(), "the status was sent without being kept");
        assert_eq!(trial.elimination.form("status", form(true, true)), form(true, true));
    }

    #[test]
    fn a_subscription_to_its_topic_does_not_clear_a_message() {
        let subscription = (MessageKind::Subscription, "device", 30, form(false, false));
        let mut trial = Trial::new();
        trial.run(&[&[subscription], ALL].concat(), |message| message.size > 1_000);
        assert_eq!((trial.ends, trial.elimination.max_discovery()), (2, 4_999));
    }

    #[test]
    fn a_single_end_by_chance_leaves_out_nothing_of_any_kind() {
        for (chance, ..) in ALL {
            let mut trial = Trial::new();
            let left = std::cell::Cell::new(1);
            trial.run(ALL, |message| message.kind == *chance && left.replace(0) > 0);
            assert!(trial.findings.is_empty(), "{:?}", trial.findings);
            for (kind, topic, size, _) in ALL {
                assert!(!trial.elimination.is_left_out(*kind, topic, *size), "{chance} {kind}");
            }
        }
    }

    #[test]
    fn a_reason_is_believed_at_once() {
        let mut elimination = Elimination::new();
        assert_eq!(elimination.on_end(&[], Some(Cause::Retain)), Some(Restriction::NoRetain));
        assert!(elimination.is_searching(), "the next connection follows soon");
        assert_eq!(elimination.on_end(&[], Some(Cause::Retain)), None, "that is known");
        assert_eq!(elimination.on_end(&[], Some(Cause::Qos)), Some(Restriction::NoQos1));
        assert_eq!(elimination.form("any", form(true, true)), form(false, false));
    }

    #[test]
    fn what_was_found_is_forgotten_in_time() {
        let mut elimination = Elimination::new();
        elimination.on_end(&[], Some(Cause::Retain));
        elimination.on_settled();
        let now = Instant::now();
        elimination.begin_connection(now);
        assert!(!elimination.form("any", form(true, true)).retained);
        elimination.begin_connection(now + FORGET_AFTER + Duration::from_secs(1));
        assert!(elimination.form("any", form(true, true)).retained && elimination.is_single_in_flight());
    }
}
