//! What waits to be published.
//!
//! Four kinds wait in four ways. A retained topic holds its newest payload, and all of them are due again on a new
//! connection. A score waits until a newer one of its topic comes, a response until it is sent. Events wait in the
//! outbox, which has them until they are acknowledged. Beside them our devices are announced to Home Assistant
//! (`announcements`), for which scores and events wait a moment.
//!
//! Nothing grows without a bound: retained topics and scores are as many as there are topics, and the outbox has its
//! own bounds.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announcements::{Announcement, Announcements};
use super::discovery::PromptEntity;
use super::message;
use super::protocol::Filter;
use crate::outbox::Outbox;

/// Which of the waiting a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// A retained topic, by its index.
    Retained(usize),
    /// A retained topic that is none of ours any more.
    Stale,
    /// An event, by its number.
    Event(u64),
    /// The answer to a command.
    Response,
    /// A score; nobody acknowledges those.
    Score,
    /// A device for Home Assistant, by the index of its topic.
    Device { topic: usize, retained: bool },
}

/// A publish to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutgoingMessage {
    pub(super) ticket: Ticket,
    pub(super) topic: Arc<str>,
    pub(super) payload: Vec<u8>,
}

impl Ticket {
    pub(super) fn is_retained(self) -> bool {
        matches!(self, Self::Retained(_) | Self::Stale | Self::Device { retained: true, .. })
    }

    /// Whether the broker shall acknowledge it.
    pub(super) fn is_acknowledged(self) -> bool {
        self != Self::Score
    }
}

/// More states than any configuration has, so that a broker full of odd topics does not fill our memory.
const MAX_STALE: usize = 16_384;

/// Somebody who asks reads the answer at once. As many as this wait only where the broker is away, and with it whoever asked.
const MAX_RESPONSES: usize = 32;

/// When refused topics are tried again: who is mending the broker's access list waits for no longer to see that it works.
/// (mosquitto 2.0.11 ends a connection on which it refuses something: that must not be all the time.)
const RETRY_REFUSED_AFTER: Duration = Duration::from_secs(300);

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
    /// Topics that the broker has refused, and when.
    refused: HashMap<Arc<str>, Instant>,
    /// States at the broker that no prompt has any more, with the payload that they are to get.
    stale: VecDeque<(Arc<str>, &'static str)>,
    responses: VecDeque<(Arc<str>, Vec<u8>)>,
    scores: HashMap<Arc<str>, Vec<u8>>,
    /// The topics in `scores`, the longest waiting first.
    score_order: VecDeque<Arc<str>>,
    announcements: Announcements,
    /// The topics of devices that were announced.
    device_topics: Vec<Arc<str>>,
    /// Home Assistant has begun: once it knows our devices, it needs all that is retained.
    ha_birth_pending: bool,
}

impl Outgoing {
    pub(super) fn new(outbox: Outbox, announcements: Announcements) -> Self {
        Self {
            outbox,
            retained: BTreeMap::new(),
            next: 0,
            index: HashMap::new(),
            due: BTreeSet::new(),
            refused: HashMap::new(),
            stale: VecDeque::new(),
            responses: VecDeque::new(),
            scores: HashMap::new(),
            score_order: VecDeque::new(),
            announcements,
            device_topics: Vec::new(),
            ha_birth_pending: false,
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
        self.announcements.set(sources, prompts, period);
    }

    /// The end of the pause in which events and scores wait, if there is one.
    pub(super) fn pause_until(&self, now: Instant) -> Option<Instant> {
        self.announcements.pause_until(now)
    }

    /// A state is no prompt's any more: whoever subscribes to it learns so, now or on the next connection.
    pub(super) fn remove_state(&mut self, topic: &str) {
        if let Some(index) = self.index.remove(topic) {
            self.retained.remove(&index);
            self.due.remove(&index);
            self.found_state(topic);
        }
    }

    /// Sends a response once; true where the oldest was dropped for it.
    pub(super) fn add_response(&mut self, topic: Arc<str>, payload: Vec<u8>) -> bool {
        self.responses.push_back((topic, payload));
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
        if !self.index.contains_key(topic) && self.stale.len() < MAX_STALE {
            if let Some((source, prompt)) = self.announcements.topics().parse_state(topic) {
                self.announcements.found_prompt(source, prompt);
            }
            let topic: Arc<str> = topic.into();
            self.stale.extend([(Arc::clone(&topic), message::OFF), (topic, "")]);
        }
    }

    /// A new connection, whose broker takes packets of at most `max_packet` bytes, if it has said so.
    pub(super) fn begin_connection(&mut self, max_packet: Option<u32>) {
        self.announcements.set_max_payload(max_packet);
        self.begin();
    }

    /// A new connection knows nothing of what the one before it was given.
    fn begin(&mut self) {
        self.stale.clear();
        self.due = self.retained.keys().copied().collect();
        self.outbox.rewind();
        self.announcements.begin_connection();
        self.ha_birth_pending = false;
    }

    /// The filters by which to ask the broker whose the topics are on which we announce devices; empty where all was asked.
    pub(super) fn take_filters(&mut self, now: Instant) -> Vec<Filter> {
        self.announcements.take_filters(now)
    }

    /// Somebody's device on a topic of ours; what to say about it, once.
    pub(super) fn found_announcement(&mut self, topic: &str, payload: &[u8]) -> Option<String> {
        self.announcements.found_announcement(topic, payload)
    }

    /// Home Assistant has begun, and knows nothing of us: it gets our devices and then all that is retained.
    pub(super) fn on_ha_birth(&mut self, now: Instant) {
        self.announcements.on_ha_birth(now);
        self.ha_birth_pending = true;
    }

    /// What to send next: retained topics, so that the picture is right, devices, responses, then events in
    /// their order, then scores.
    pub(super) fn next(&mut self, now: Instant) -> Option<OutgoingMessage> {
        if self.ha_birth_pending && !self.announcements.is_in_progress(now) {
            self.ha_birth_pending = false;
            self.due = self.retained.keys().copied().collect();
        }
        if let Some(message) = self.retained().or_else(|| self.device(now)) {
            return Some(message);
        }
        if let Some((topic, payload)) = self.responses.pop_front() {
            return Some(OutgoingMessage { ticket: Ticket::Response, topic, payload });
        }
        if self.announcements.is_in_progress(now) {
            return None;
        }
        if let Some(event) = self.event() {
            return Some(event);
        }
        let topic = self.score_order.pop_front()?;
        let payload = self.scores.remove(&topic)?;
        Some(OutgoingMessage { ticket: Ticket::Score, topic, payload })
    }

    fn retained(&mut self) -> Option<OutgoingMessage> {
        while let Some(index) = self.due.pop_first() {
            let Some((topic, payload)) = self.retained.get(&index).cloned() else { continue };
            if !self.refused.contains_key(&topic) {
                return Some(OutgoingMessage { ticket: Ticket::Retained(index), topic, payload });
            }
        }
        while let Some((topic, payload)) = self.stale.pop_front() {
            // A prompt may have come since.
            if !self.index.contains_key(&topic) {
                return Some(OutgoingMessage { ticket: Ticket::Stale, topic, payload: payload.into() });
            }
        }
        None
    }

    fn device(&mut self, now: Instant) -> Option<OutgoingMessage> {
        let refused = &self.refused;
        let Announcement { topic, payload, retained } =
            self.announcements.next(now, |topic| refused.contains_key(topic))?;
        let index = self.device_topics.iter().position(|known| *known == topic).unwrap_or_else(|| {
            self.device_topics.push(Arc::clone(&topic));
            self.device_topics.len() - 1
        });
        Some(OutgoingMessage { ticket: Ticket::Device { topic: index, retained }, topic, payload })
    }

    fn event(&mut self) -> Option<OutgoingMessage> {
        loop {
            let waiting = self.outbox.next()?;
            if self.refused.contains_key(&waiting.topic) {
                continue;
            }
            let ticket = Ticket::Event(waiting.number);
            match message::event(&waiting.record) {
                Ok(payload) => return Some(OutgoingMessage { ticket, topic: waiting.topic, payload }),
                Err(error) => {
                    // It would never be written, and must not stand in the way of the others.
                    log::error!("mqtt: {}: a payload cannot be written: {error}", waiting.topic);
                    self.outbox.acknowledge(waiting.number);
                }
            }
        }
    }

    /// The broker has it.
    pub(super) fn acknowledged(&mut self, ticket: Ticket) {
        if let Ticket::Event(number) = ticket {
            self.outbox.acknowledge(number);
        }
    }

    /// The topic of a message, for the log.
    pub(super) fn topic(&self, ticket: Ticket) -> String {
        match ticket {
            Ticket::Retained(index) => {
                self.retained.get(&index).map_or_else(String::new, |(topic, _)| topic.to_string())
            }
            Ticket::Event(number) => self.outbox.topic(number).map_or_else(String::new, |topic| topic.to_string()),
            Ticket::Device { topic, .. } => {
                self.device_topics.get(topic).map_or_else(String::new, |topic| topic.to_string())
            }
            Ticket::Stale => "a state that no prompt has any more".into(),
            Ticket::Response => "a response".into(),
            Ticket::Score => "a score".into(),
        }
    }

    /// Whether there is nothing but scores to hand out to this connection.
    pub(super) fn is_handed_out(&self) -> bool {
        self.due.is_empty()
            && self.stale.is_empty()
            && self.responses.is_empty()
            && !self.announcements.is_due()
            && !self.outbox.has_next()
    }

    /// The broker refuses this message: its topic is left alone for a while, for the others to get through.
    pub(super) fn refused(&mut self, ticket: Ticket) {
        let topic = match ticket {
            Ticket::Retained(index) => self.retained.get(&index).map(|(topic, _)| Arc::clone(topic)),
            Ticket::Event(number) => self.outbox.topic(number),
            Ticket::Device { topic, .. } => self.device_topics.get(topic).cloned(),
            Ticket::Stale | Ticket::Response | Ticket::Score => None,
        };
        topic.and_then(|topic| self.refused.insert(topic, Instant::now()));
    }

    /// Once a refusal is old enough: begins as on a new connection, refused topics and all.
    pub(super) fn retry_refused(&mut self) {
        if self.refused.values().any(|at| at.elapsed() > RETRY_REFUSED_AFTER) {
            self.refused.clear();
            self.begin();
        }
    }

    /// Starts and ends that wait, handed out or not.
    pub(super) fn waiting_events(&self) -> usize {
        self.outbox.waiting()
    }
}

#[cfg(test)]
mod tests;
