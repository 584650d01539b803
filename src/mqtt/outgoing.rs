//! What waits to be published.
//!
//! Four kinds wait in four ways. A retained topic holds its newest payload, and all of them are due again on a new
//! connection. A score waits until a newer one of its topic comes, a response until the broker has it. Events wait in the
//! outbox, which has them until they are acknowledged. Beside them our devices are announced to Home Assistant
//! (`announcements`), for which scores and events wait a moment.
//!
//! After the events comes the leave of former names (`departures`).
//!
//! What goes out has the form and the size that the broker takes: what it has announced (`limits`) and what was found out
//! about it (`elimination`). What does not fit is left out, and that is logged once.
//!
//! Nothing grows without a bound: retained topics and scores are as many as there are topics, and the outbox has its
//! own bounds.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::announcements::{Announcement, Announcements};
use super::departures::{DepartureMessage, Departures, MAX_STATES};
use super::discovery::{LevelSensor, PromptEntity};
use super::elimination::{Elimination, MessageKind, Restriction};
use super::limits::{BrokerLimits, packet_size};
use super::message;
use super::namesake::NamesakeWatch;
use super::protocol::{Filter, PublishForm};
use super::reason::{Cause, Reason};
use super::topics::Topics;
use crate::outbox::{EventRecord, Outbox};

/// Which of the waiting a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// A retained topic, by its index.
    Retained(usize),
    /// A retained topic that is none of ours any more.
    Stale,
    /// A retained topic of a former name, and of which leave it is.
    Departure(u32),
    /// An event, by its number.
    Event(u64),
    /// The answer to a command, by its number.
    Response(u64),
    /// A score.
    Score,
    /// A device for Home Assistant, or an entity of one.
    Device,
    /// No message, but a filter to subscribe to, with what the broker has retained or without.
    Subscription { retained: bool },
}

/// What is to be known of a message until the broker has confirmed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SentMessage {
    pub(super) ticket: Ticket,
    pub(super) kind: MessageKind,
    pub(super) topic: Arc<str>,
    /// Bytes of the packet.
    pub(super) size: usize,
    /// The form in which a broker without limits would get it.
    pub(super) wanted: PublishForm,
    /// The form in which this one gets it.
    pub(super) form: PublishForm,
}

/// A publish to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutgoingMessage {
    pub(super) sent: SentMessage,
    pub(super) payload: Vec<u8>,
}

/// A message before it is known whether and how this broker takes it.
struct UnjudgedMessage {
    ticket: Ticket,
    kind: MessageKind,
    topic: Arc<str>,
    payload: Vec<u8>,
    wanted: PublishForm,
    /// Bytes that the payload of its end may have, for the start of an event.
    end_size: Option<usize>,
}

impl UnjudgedMessage {
    fn new(ticket: Ticket, kind: MessageKind, topic: Arc<str>, payload: Vec<u8>, wanted: PublishForm) -> Self {
        Self { ticket, kind, topic, payload, wanted, end_size: None }
    }
}

/// The answer to a command, until the broker has it.
#[derive(Debug)]
struct Response {
    number: u64,
    topic: Arc<str>,
    payload: Vec<u8>,
    transaction: Option<Value>,
    /// It is what stands in for one that did not fit.
    is_substitute: bool,
    /// This connection was given it.
    handed_out: bool,
}

/// Somebody who asks reads the answer at once. As many as this wait only where the broker is away, and with it whoever asked.
const MAX_RESPONSES: usize = 32;

/// Three years in milliseconds have as many digits as any event that a person waits for; so has 8.88 as a score.
const LONGEST_EVENT: Duration = Duration::from_millis(99_999_999_888);
const LONGEST_SCORE: f32 = 8.88;

/// Bytes of the filters in one packet: below what any broker that takes an event takes as well, where it has not said so.
const MAX_SUBSCRIPTION: usize = 800;
/// Of a filter, beside its text: length and options, and its share of the packet's own head.
const FILTER_HEAD: usize = 8;

/// When refused topics are tried again: who is mending the broker's access list waits for no longer to see that it works.
/// (mosquitto 2.0.11 ends a connection on which it refuses something: that must not be all the time.)
const RETRY_REFUSED_AFTER: Duration = Duration::from_secs(300);

/// Home Assistant says that it has begun when it starts, which takes it longer than this, and when it reconnects. What comes
/// faster is somebody's flood, and gets everything once in this time.
const BIRTH_INTERVAL: Duration = Duration::from_secs(10);

/// What the broker has refused of a topic.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    at: Instant,
    /// The size of the message, where it may have been that; what is smaller goes on being sent.
    least: usize,
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Outgoing {
    outbox: Outbox,
    /// By a number that no other topic ever has, in the order in which they were first set.
    retained: BTreeMap<usize, (Arc<str>, Vec<u8>)>,
    next: usize,
    index: HashMap<Arc<str>, usize>,
    /// Retained topics whose payload this connection has not had yet.
    due: BTreeSet<usize>,
    /// Topics of which the broker has refused a message.
    refused: HashMap<Arc<str>, Refusal>,
    /// States at the broker that no prompt has any more, with the payload that they are to get.
    stale: VecDeque<(Arc<str>, &'static str)>,
    /// Filters that are subscribed to one by one, with a single message in flight.
    filters: VecDeque<Filter>,
    /// This connection subscribes to nothing.
    skips_subscriptions: bool,
    responses: VecDeque<Response>,
    next_response: u64,
    scores: HashMap<Arc<str>, Vec<u8>>,
    /// The topics in `scores`, the longest waiting first.
    score_order: VecDeque<Arc<str>>,
    /// With a single message in flight, a score was the last: next is a message of discovery, if one waits. Scores never end.
    score_was_last: bool,
    announcements: Announcements,
    departures: Departures,
    namesakes: NamesakeWatch,
    /// Home Assistant has begun: once it knows our devices, it needs all that is retained.
    ha_birth_pending: bool,
    /// When it last began, as far as it was followed, and whether it has begun since.
    last_birth: Option<Instant>,
    birth_deferred: bool,
    limits: BrokerLimits,
    elimination: Elimination,
    /// Kinds of which something was left out, and that this was logged.
    left_out: BTreeSet<MessageKind>,
    /// Events that this broker cannot take, by number: each is counted once.
    set_aside: BTreeSet<u64>,
    set_aside_count: u64,
    is_stopping: bool,
}

impl Outgoing {
    pub(super) fn new(
        outbox: Outbox,
        announcements: Announcements,
        departures: Departures,
        namesakes: NamesakeWatch,
    ) -> Self {
        Self {
            outbox,
            retained: BTreeMap::new(),
            next: 0,
            index: HashMap::new(),
            due: BTreeSet::new(),
            refused: HashMap::new(),
            stale: VecDeque::new(),
            filters: VecDeque::new(),
            skips_subscriptions: false,
            responses: VecDeque::new(),
            next_response: 0,
            scores: HashMap::new(),
            score_order: VecDeque::new(),
            score_was_last: false,
            announcements,
            departures,
            namesakes,
            ha_birth_pending: false,
            last_birth: None,
            birth_deferred: false,
            limits: BrokerLimits::default(),
            elimination: Elimination::new(),
            left_out: BTreeSet::new(),
            set_aside: BTreeSet::new(),
            set_aside_count: 0,
            is_stopping: false,
        }
    }

    /// Sets a retained topic. Topics are sent in the order in which they were first set.
    pub(super) fn retain(&mut self, topic: &Arc<str>, payload: Vec<u8>) {
        let index = *self.index.entry(Arc::clone(topic)).or_insert(self.next);
        self.next = self.next.max(index + 1);
        match self.retained.get_mut(&index) {
            Some((_, known)) if *known == payload => {}
            Some((_, known)) => {
                *known = payload;
                self.due.insert(index);
            }
            None => {
                self.retained.insert(index, (Arc::clone(topic), payload));
                self.due.insert(index);
            }
        }
    }

    /// Sets what is announced to Home Assistant from now on: `prompts` at each of `sources`, with a score every `period`.
    pub(super) fn set_devices(&mut self, sources: Vec<String>, prompts: Vec<PromptEntity>, period: Duration) {
        self.departures.set_announced(&sources, prompts.iter().map(|prompt| prompt.id.clone()));
        self.announcements.set(sources, prompts, period);
    }

    /// Sets what is announced of the levels of each source from now on.
    pub(super) fn set_levels(&mut self, levels: BTreeMap<String, LevelSensor>) {
        self.announcements.set_levels(levels);
    }

    /// When something is due that nothing else but time will have sent, if there is such a time.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let birth = self.birth_deferred.then(|| self.last_birth.map(|at| at + BIRTH_INTERVAL)).flatten();
        [self.announcements.wake_at(now), birth, self.departures.wake_at(now), self.namesakes.wait_until(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// A state is no prompt's any more: whoever subscribes to it learns so, now or on the next connection.
    pub(super) fn remove_state(&mut self, topic: &str) {
        if let Some(index) = self.index.remove(topic) {
            self.retained.remove(&index);
            self.due.remove(&index);
            self.found_state(topic);
        }
    }

    /// Sends a response, to the command with this transaction; true where the oldest was dropped for it.
    pub(super) fn add_response(&mut self, topic: Arc<str>, payload: Vec<u8>, transaction: Option<Value>) -> bool {
        let number = self.next_response;
        self.next_response += 1;
        let response = Response { number, topic, payload, transaction, is_substitute: false, handed_out: false };
        self.responses.push_back(response);
        let dropped = self.responses.len() > MAX_RESPONSES;
        if dropped {
            self.responses.pop_front();
        }
        dropped
    }

    /// Sets a topic's newest score; true where an older one was dropped for it.
    pub(super) fn set_score(&mut self, topic: &Arc<str>, payload: Vec<u8>) -> bool {
        let dropped = self.scores.insert(Arc::clone(topic), payload).is_some();
        if !dropped {
            self.score_order.push_back(Arc::clone(topic));
        }
        dropped
    }

    /// The broker has retained this state. Where no prompt has it any more, whoever subscribes to it now gets `OFF`, and
    /// the topic is removed, which alone would leave them with the last payload.
    pub(super) fn found_state(&mut self, topic: &str) {
        if !self.index.contains_key(topic) && self.stale.len() < MAX_STATES {
            if let Some((source, prompt)) = self.announcements.topics().parse_state(topic) {
                self.announcements.found_prompt(source, prompt);
            }
            let topic: Arc<str> = topic.into();
            self.stale.extend([(Arc::clone(&topic), message::OFF), (topic, "")]);
        }
    }

    /// A new connection, whose broker takes what `limits` says. Returns the filters to subscribe to at once; with
    /// a single message in flight they are subscribed to one by one.
    pub(super) fn begin_connection(&mut self, limits: BrokerLimits, filters: Vec<Filter>, now: Instant) -> Vec<Filter> {
        if limits != self.limits {
            self.left_out.clear();
        }
        self.limits = limits;
        self.elimination.begin_connection(now);
        self.departures.begin_connection();
        self.namesakes.begin_connection();
        self.begin();
        self.skips_subscriptions = filters.is_empty();
        let filters = filters.into_iter();
        let allowed =
            filters.filter(|filter| !self.elimination.is_left_out(MessageKind::Subscription, &filter.path, 0));
        if self.is_single_in_flight() {
            self.filters = allowed.collect();
            return Vec::new();
        }
        self.filters.clear();
        let allowed: Vec<Filter> = allowed.collect();
        if allowed.iter().any(|filter| self.namesakes.concerns(&filter.path)) {
            self.namesakes.begin_look(now);
        }
        allowed
    }

    /// A new connection knows nothing of what the one before it was given.
    fn begin(&mut self) {
        self.stale.clear();
        self.due = self.retained.keys().copied().collect();
        self.responses.iter_mut().for_each(|response| response.handed_out = false);
        self.outbox.rewind();
        self.forget_removed_events();
        self.announcements.begin_connection();
        self.ha_birth_pending = false;
        self.score_was_last = false;
    }

    /// Whether messages are to be sent one by one, events first.
    pub(super) fn is_single_in_flight(&self) -> bool {
        self.elimination.is_single_in_flight()
    }

    /// Whether the next connection will show what the broker does not take, and so should follow soon.
    pub(super) fn is_searching(&self) -> bool {
        self.elimination.is_searching()
    }

    /// Everything was sent and confirmed, and the connection has lasted.
    pub(super) fn on_settled(&mut self) {
        self.elimination.on_settled();
    }

    /// The broker has ended the connection, with these messages unconfirmed.
    pub(super) fn on_end(&mut self, unconfirmed: &[SentMessage], cause: Option<Cause>) -> Option<Restriction> {
        let finding = self.elimination.on_end(unconfirmed, cause);
        if let (Some(_), [SentMessage { ticket: Ticket::Response(number), size, .. }]) = (&finding, unconfirmed) {
            let why = self.in_words_of_limit();
            self.substitute_response(*number, *size, &why);
        }
        finding
    }

    /// The filters by which to ask the broker whose the topics are on which we announce devices, or those of a former name, by
    /// packet; empty where all was asked, and where nothing is subscribed to. With a single message in flight devices alone are asked
    /// for, one by one, after the events.
    pub(super) fn take_filters(&mut self, now: Instant) -> Vec<Vec<Filter>> {
        if self.skips_subscriptions {
            return Vec::new();
        }
        let mut filters = Vec::new();
        if !self.elimination.is_left_out(MessageKind::Discovery, "", 0) {
            filters = self.announcements.take_filters(now);
            filters.retain(|filter| !self.elimination.is_left_out(MessageKind::Subscription, &filter.path, 0));
        }
        if self.is_single_in_flight() {
            self.filters.extend(filters);
            return Vec::new();
        }
        if self.may_depart() {
            filters.extend(self.departures.take_filters(self.limits.wildcards, now));
        }
        let max = self.limits.max_packet.map_or(usize::MAX, |max| max as usize).min(MAX_SUBSCRIPTION);
        in_packets(filters, max)
    }

    /// Whether there is time for former names: not while it is found out what the broker takes, nor while we stop.
    fn may_depart(&self) -> bool {
        !self.is_single_in_flight() && !self.is_stopping
    }

    /// The broker has answered a subscription.
    pub(super) fn on_subscribed(&mut self, path: &str, is_granted: bool, now: Instant) {
        self.departures.on_subscribed(path, is_granted, now);
        self.namesakes.on_subscribed(path);
    }

    /// Something on a topic that may be by which another of our name is known, or of a former name: whether it is nothing
    /// else, and what to say about it, once.
    pub(super) fn found_name(
        &mut self,
        topic: &str,
        payload: &[u8],
        retained: bool,
        now: Instant,
    ) -> (bool, Option<String>) {
        if self.namesakes.concerns(topic) {
            return (true, self.namesakes.found(topic, payload, retained));
        }
        (self.departures.found(topic, payload, retained, now), None)
    }

    /// Somebody's device on a topic of ours; what to say about it, once.
    pub(super) fn found_announcement(&mut self, topic: &str, payload: &[u8]) -> Option<String> {
        self.announcements.found_announcement(topic, payload)
    }

    /// Home Assistant has begun, and knows nothing of us: it gets our devices and then all that is retained.
    pub(super) fn on_ha_birth(&mut self, now: Instant) {
        if self.last_birth.is_some_and(|last| now < last + BIRTH_INTERVAL) {
            self.birth_deferred = true;
            return;
        }
        (self.last_birth, self.birth_deferred) = (Some(now), false);
        self.announcements.on_ha_birth(now);
        self.ha_birth_pending = true;
    }

    /// What to send next.
    pub(super) fn next(&mut self, now: Instant) -> Option<OutgoingMessage> {
        if self.birth_deferred {
            // It is too early still, or this begins what was deferred.
            self.on_ha_birth(now);
        }
        if self.ha_birth_pending && !self.announcements.is_in_progress(now) {
            self.ha_birth_pending = false;
            self.due = self.retained.keys().copied().collect();
        }
        loop {
            let candidate =
                if self.is_single_in_flight() { self.next_by_importance(now) } else { self.next_in_order(now) }?;
            if let Some(message) = self.fit(candidate) {
                return Some(message);
            }
        }
    }

    /// Retained topics, so that the picture is right, devices, responses, then events in their order, what is left of former names,
    /// then scores. Events and scores wait a moment for Home Assistant to subscribe.
    fn next_in_order(&mut self, now: Instant) -> Option<UnjudgedMessage> {
        if self.namesakes.wait_until(now).is_some() {
            // For a round trip, so that it is seen whose the retained topics were. Events wait for Home Assistant alone.
            return if self.announcements.holds_events(now) { None } else { self.event() };
        }
        if let Some(found) =
            self.retained(None).or_else(|| self.stale()).or_else(|| self.device(now)).or_else(|| self.response())
        {
            return Some(found);
        }
        if self.announcements.holds_events(now) {
            return None;
        }
        self.event().or_else(|| self.departure(now)).or_else(|| self.score())
    }

    /// The most important first, and nothing waits for anything: each may be what ends the connection.
    fn next_by_importance(&mut self, now: Instant) -> Option<UnjudgedMessage> {
        const KINDS: [MessageKind; 4] =
            [MessageKind::Status, MessageKind::State, MessageKind::Health, MessageKind::Info];
        if let Some(found) = self
            .event()
            .or_else(|| KINDS.into_iter().find_map(|kind| self.retained(Some(kind))))
            .or_else(|| self.stale())
        {
            return Some(found);
        }
        if self.leaves_out_options() {
            return None;
        }
        if let Some(found) = self.subscription().or_else(|| self.response()) {
            return Some(found);
        }
        let turn = std::mem::take(&mut self.score_was_last);
        if turn && let Some(device) = self.device(now) {
            return Some(device);
        }
        if let Some(score) = self.score() {
            self.score_was_last = true;
            return Some(score);
        }
        self.device(now)
    }

    /// The message in a form and size that this broker takes; none where there is no such form.
    fn fit(&mut self, candidate: UnjudgedMessage) -> Option<OutgoingMessage> {
        let UnjudgedMessage { ticket, kind, topic, payload, wanted, end_size } = candidate;
        let form = self.limits.allow(self.elimination.form(&topic, wanted));
        let is_subscription = matches!(ticket, Ticket::Subscription { .. });
        let size = if is_subscription { 0 } else { packet_size(&topic, payload.len()) };
        // A start goes only where its end can follow.
        let judged = end_size.map_or(size, |end| size.max(packet_size(&topic, end)));
        if self.refused.get(&topic).is_some_and(|refusal| size >= refusal.least) {
            // It is tried again after a while; a response is not in there.
            if let Ticket::Departure(leave) = ticket {
                self.departures.refused(leave);
            }
            return None;
        }
        if self.limits.fits(judged) && !self.elimination.is_left_out(kind, &topic, judged) {
            return Some(OutgoingMessage { sent: SentMessage { ticket, kind, topic, size, wanted, form }, payload });
        }
        match ticket {
            Ticket::Response(number) => {
                let why = self.in_words_of_limit();
                self.substitute_response(number, size, &why);
            }
            Ticket::Event(number) => self.set_event_aside(number, &topic, judged),
            Ticket::Departure(leave) => self.departures.refused(leave),
            // That the broker ends the connection over it was logged when it was found out.
            _ if self.limits.fits(size) => {}
            _ if self.left_out.insert(kind) => log::warn!(
                "mqtt: {topic} has {size} bytes, and {}: what of {kind} is as large is left out; {}",
                self.in_words_of_limit(),
                self.limits.explain_max_packet().map_or("see its log", |(_, remedy)| remedy)
            ),
            _ => {}
        }
        None
    }

    fn in_words_of_limit(&self) -> String {
        let explained = self.limits.explain_max_packet();
        explained.map_or_else(|| "the broker ends the connection over it".into(), |(whose, _)| whose)
    }

    /// This broker cannot take the event. It stays in the outbox, for a broker with other limits, until it is too old.
    fn set_event_aside(&mut self, number: u64, topic: &str, size: usize) {
        if !self.set_aside.insert(number) {
            return;
        }
        if self.set_aside.len() > self.outbox.waiting() {
            // Some have become too old since.
            self.forget_removed_events();
        }
        self.set_aside_count += 1;
        let count = self.set_aside_count;
        if count.is_power_of_two() {
            let why = self.in_words_of_limit();
            log::error!(
                "mqtt: an event on {topic} has {size} bytes, and {why}: it is set aside, and the others go on ({count} \
                 events set aside so far); raise its limit, or see its access list"
            );
        }
    }

    /// Of the events that were set aside, those that the outbox does not have any more.
    fn forget_removed_events(&mut self) {
        let outbox = &self.outbox;
        self.set_aside.retain(|number| outbox.topic(*number).is_some());
    }

    /// An answer that does not fit is replaced by one that says so; one that does not fit either is dropped.
    fn substitute_response(&mut self, number: u64, size: usize, why: &str) {
        let Some(at) = self.responses.iter().position(|response| response.number == number) else { return };
        let response = &mut self.responses[at];
        let error = format!("the answer has {size} bytes, and {why}");
        match message::response(response.transaction.as_ref(), &Err(error.into())) {
            Ok(payload) if !response.is_substitute && payload.len() < response.payload.len() => {
                log::warn!("mqtt: {}: an answer has {size} bytes, and {why}: it says so instead", response.topic);
                response.payload = payload;
                (response.is_substitute, response.handed_out) = (true, false);
            }
            _ => {
                log::warn!("mqtt: {}: an answer has {size} bytes, and {why}: it is dropped", response.topic);
                self.responses.remove(at);
            }
        }
    }

    /// The next retained topic that is due, of this kind or of any.
    fn retained(&mut self, kind: Option<MessageKind>) -> Option<UnjudgedMessage> {
        let topics = self.announcements.topics();
        let is_of_kind = |index: &usize| {
            let entry = self.retained.get(index);
            kind.is_none_or(|kind| entry.is_none_or(|(topic, _)| kind_of(topics, topic) == kind))
        };
        while let Some(index) = self.due.iter().copied().find(is_of_kind) {
            self.due.remove(&index);
            if let Some((topic, payload)) = self.retained.get(&index) {
                let (kind, topic, payload) = (kind_of(topics, topic), Arc::clone(topic), payload.clone());
                let ticket = Ticket::Retained(index);
                return Some(UnjudgedMessage::new(ticket, kind, topic, payload, PublishForm::RETAINED));
            }
        }
        None
    }

    fn stale(&mut self) -> Option<UnjudgedMessage> {
        while let Some((topic, payload)) = self.stale.pop_front() {
            // A prompt may have come since.
            if !self.index.contains_key(&topic) {
                let (ticket, kind) = (Ticket::Stale, MessageKind::State);
                return Some(UnjudgedMessage::new(ticket, kind, topic, payload.into(), PublishForm::RETAINED));
            }
        }
        None
    }

    fn departure(&mut self, now: Instant) -> Option<UnjudgedMessage> {
        if !self.may_depart() {
            return None;
        }
        let DepartureMessage { leave, topic, kind, payload } = self.departures.next(now)?;
        Some(UnjudgedMessage::new(Ticket::Departure(leave), kind, topic, payload.into(), PublishForm::RETAINED))
    }

    fn subscription(&mut self) -> Option<UnjudgedMessage> {
        let Filter { path, retained } = self.filters.pop_front()?;
        let (ticket, kind) = (Ticket::Subscription { retained }, MessageKind::Subscription);
        Some(UnjudgedMessage::new(ticket, kind, path.into(), Vec::new(), PublishForm::PLAIN))
    }

    fn response(&mut self) -> Option<UnjudgedMessage> {
        let response = self.responses.iter_mut().find(|response| !response.handed_out)?;
        response.handed_out = true;
        let (ticket, kind) = (Ticket::Response(response.number), MessageKind::Response);
        let (topic, payload) = (Arc::clone(&response.topic), response.payload.clone());
        Some(UnjudgedMessage::new(ticket, kind, topic, payload, PublishForm::ACKNOWLEDGED))
    }

    fn score(&mut self) -> Option<UnjudgedMessage> {
        let topic = self.score_order.pop_front()?;
        let payload = self.scores.remove(&topic)?;
        Some(UnjudgedMessage::new(Ticket::Score, MessageKind::Score, topic, payload, PublishForm::PLAIN))
    }

    fn device(&mut self, now: Instant) -> Option<UnjudgedMessage> {
        let (limits, elimination, refused) = (&self.limits, &self.elimination, &self.refused);
        let max_packet = limits.max_packet.map_or(usize::MAX, |max| max as usize).min(elimination.max_discovery());
        self.announcements.set_max_packet(max_packet);
        let Announcement { topic, payload, retained } = self.announcements.next(now, |topic| {
            let is_refused = refused.get(topic).is_some_and(|refusal| refusal.least == 0);
            is_refused || elimination.is_left_out(MessageKind::Discovery, topic, 0)
        })?;
        let wanted = PublishForm { acknowledged: true, retained };
        Some(UnjudgedMessage::new(Ticket::Device, MessageKind::Discovery, topic, payload, wanted))
    }

    fn event(&mut self) -> Option<UnjudgedMessage> {
        loop {
            let waiting = self.outbox.next()?;
            let (ticket, kind, topic) = (Ticket::Event(waiting.number), MessageKind::Event, waiting.topic);
            match message::event(&waiting.record) {
                Ok(payload) => {
                    let end_size = waiting.record.duration.is_none().then(|| end_size(&waiting.record, payload.len()));
                    let candidate = UnjudgedMessage::new(ticket, kind, topic, payload, PublishForm::ACKNOWLEDGED);
                    return Some(UnjudgedMessage { end_size, ..candidate });
                }
                Err(error) => {
                    // It would never be written, and must not stand in the way of the others.
                    log::error!("mqtt: {topic}: a payload cannot be written: {error}");
                    self.outbox.acknowledge(waiting.number);
                }
            }
        }
    }

    /// The broker has it.
    pub(super) fn accepted(&mut self, message: &SentMessage) {
        self.elimination.on_accepted(message);
        match message.ticket {
            Ticket::Event(number) => self.outbox.acknowledge(number),
            Ticket::Departure(leave) => self.departures.accepted(leave),
            Ticket::Retained(_) => self.namesakes.accepted(&message.topic),
            Ticket::Response(number) => self.responses.retain(|response| response.number != number),
            _ => {}
        }
        if self.elimination.take_resend() {
            self.due = self.retained.keys().copied().collect();
        }
    }

    /// Whether there is nothing but scores to hand out to this connection.
    pub(super) fn is_handed_out(&self) -> bool {
        self.due.is_empty()
            && self.stale.is_empty()
            && !self.outbox.has_next()
            && (self.leaves_out_options()
                || self.filters.is_empty()
                    && self.responses.iter().all(|response| response.handed_out)
                    && !self.announcements.is_due())
    }

    /// We want to stop: from now on nothing is risked for what is optional.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Whether only events and what is retained is sent: a connection that ends now would not be followed by another, and
    /// nobody would learn that we have stopped.
    fn leaves_out_options(&self) -> bool {
        self.is_stopping && self.is_single_in_flight()
    }

    /// The broker refuses this message: its topic, or what of it is as large, is left alone for a while, for the others to
    /// get through.
    pub(super) fn refused(&mut self, message: &SentMessage, reason: &Reason) {
        let cause = reason.cause();
        match message.ticket {
            Ticket::Device if cause == Cause::Size && self.announcements.retry(&message.topic) => {
                self.elimination.on_discovery_refused(message.size);
            }
            Ticket::Retained(_) | Ticket::Event(_) | Ticket::Device => {
                let least = if cause == Cause::Size { message.size } else { 0 };
                self.refused.insert(Arc::clone(&message.topic), Refusal { at: Instant::now(), least });
            }
            Ticket::Response(number) => {
                self.substitute_response(number, message.size, &format!("the broker refuses it: {reason}"));
            }
            Ticket::Departure(leave) => self.departures.refused(leave),
            Ticket::Stale | Ticket::Score | Ticket::Subscription { .. } => {}
        }
    }

    /// Once a refusal is old enough: begins as on a new connection, refused topics and all.
    pub(super) fn retry_refused(&mut self) {
        if self.refused.values().any(|refusal| refusal.at.elapsed() > RETRY_REFUSED_AFTER) {
            self.refused.clear();
            self.begin();
        }
    }

    /// Starts and ends that wait, handed out or not.
    pub(super) fn waiting_events(&self) -> usize {
        self.outbox.waiting()
    }

    /// Starts and ends that were set aside so far.
    pub(super) fn events_set_aside(&self) -> u64 {
        self.set_aside_count
    }
}

/// Filters, as many together as `max` bytes hold.
fn in_packets(filters: Vec<Filter>, max: usize) -> Vec<Vec<Filter>> {
    let size = |filters: &[Filter]| filters.iter().map(|filter| filter.path.len() + FILTER_HEAD).sum::<usize>();
    let mut packets: Vec<Vec<Filter>> = Vec::new();
    for filter in filters {
        match packets.last_mut() {
            Some(packet) if size(packet) + filter.path.len() + FILTER_HEAD <= max => packet.push(filter),
            _ => packets.push(vec![filter]),
        }
    }
    packets
}

/// Bytes that the payload of this event's end may have, whose start has so many; it may last for years.
fn end_size(start: &EventRecord, size: usize) -> usize {
    let (duration, levels) = (Some(LONGEST_EVENT), Some(message::LONGEST_LEVELS));
    let end = EventRecord { duration, score: LONGEST_SCORE, peak: LONGEST_SCORE, levels, ..start.clone() };
    message::event(&end).map_or(size, |payload| payload.len())
}

/// What a retained topic is for.
fn kind_of(topics: &Topics, topic: &Arc<str>) -> MessageKind {
    match topic {
        topic if *topic == topics.status => MessageKind::Status,
        topic if *topic == topics.health => MessageKind::Health,
        topic if *topic == topics.info => MessageKind::Info,
        _ => MessageKind::State,
    }
}

#[cfg(test)]
mod tests;
