//! A connection that the broker has accepted: what was handed to the client and what the broker has acknowledged of it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::elimination::MessageKind;
use super::outgoing::{OutgoingMessage, SentMessage, Ticket};
use super::protocol::Filter;
use super::session::Client;

/// Packets in flight at a time. It hides a slow link's delay, and stays below the 100 packet ids that rumqttc uses, so
/// that ids do not collide.
pub(super) const WINDOW: usize = 64;
/// A broker that acknowledges nothing for so long, and answers pings, is stuck; another connection may not be.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same where one message at a time is sent: a broker that drops it without a word answers all others at once.
const SINGLE_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that ends a connection over a message does so at once; one that was sent this long ago was not the reason.
const BLAME_FOR: Duration = Duration::from_secs(5);

/// What the broker has yet to answer beside publishes.
#[derive(Debug, PartialEq, Eq)]
enum Marker {
    None,
    /// A marker was sent; these messages went before it.
    Sent(Vec<SentMessage>),
}

/// The packets of one connection.
pub(super) struct Link {
    client: Client,
    /// Handed to the client, not yet written: those to be acknowledged, in order, and how many others.
    unwritten: VecDeque<SentMessage>,
    unwritten_plain: usize,
    /// Written, not yet acknowledged, by packet id.
    unacknowledged: HashMap<u16, SentMessage>,
    /// Nobody will acknowledge these; a marker shows that the broker has read them.
    unmarked: Vec<SentMessage>,
    marker: Marker,
    /// Filters that were subscribed to and not answered, in order; with a single message in flight also what it was handed.
    subscriptions: VecDeque<(Vec<String>, Option<SentMessage>)>,
    /// When the broker last answered, or had nothing to answer.
    last_answer: Instant,
    last_handed: Instant,
    /// Packets that may be in flight at a time.
    window: usize,
    /// The same once there is no need for care.
    full_window: usize,
    is_single_in_flight: bool,
}

impl Link {
    /// With `is_single_in_flight` each message is confirmed before the next is sent, and a marker comes first, so that a broker that
    /// takes nothing at all is not held against the first message.
    pub(super) fn new(client: Client, receive_max: u16, is_single_in_flight: bool) -> Self {
        let now = Instant::now();
        let full_window = WINDOW.min(usize::from(receive_max));
        let mut link = Self {
            client,
            unwritten: VecDeque::new(),
            unwritten_plain: 0,
            unacknowledged: HashMap::new(),
            unmarked: Vec::new(),
            marker: Marker::None,
            subscriptions: VecDeque::new(),
            last_answer: now,
            last_handed: now,
            window: if is_single_in_flight { 1 } else { full_window },
            full_window,
            is_single_in_flight,
        };
        if is_single_in_flight {
            link.mark();
        }
        link
    }

    /// Packets that were handed to the client and that the broker may not have.
    fn in_flight(&self) -> usize {
        let unread = match &self.marker {
            Marker::None => 0,
            Marker::Sent(before) => before.len().max(usize::from(self.is_single_in_flight)),
        };
        let subscriptions = if self.is_single_in_flight { self.subscriptions.len() } else { 0 };
        self.unwritten.len()
            + self.unwritten_plain
            + self.unacknowledged.len()
            + self.unmarked.len()
            + unread
            + subscriptions
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// Whether nothing but scores may be under way, which never end.
    pub(super) fn has_nothing_but_scores(&self) -> bool {
        let is_score = |message: &SentMessage| message.kind == MessageKind::Score;
        let before = if let Marker::Sent(before) = &self.marker { before.as_slice() } else { &[] };
        self.unwritten.is_empty()
            && self.unacknowledged.is_empty()
            && self.unmarked.iter().chain(before).all(is_score)
            && (self.subscriptions.is_empty() || !self.is_single_in_flight)
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.window
    }

    /// Whether the broker has answered nothing for too long.
    pub(super) fn is_stuck(&self) -> bool {
        let timeout = if self.is_single_in_flight { SINGLE_ANSWER_TIMEOUT } else { ANSWER_TIMEOUT };
        self.waits_for_answer() && self.last_answer.elapsed() > timeout
    }

    fn waits_for_answer(&self) -> bool {
        !self.unacknowledged.is_empty() || self.marker != Marker::None || !self.subscriptions.is_empty()
    }

    /// What the broker may have ended the connection over: all that it has not confirmed, if it was handed out just before.
    pub(super) fn suspects(&self) -> Vec<SentMessage> {
        if self.last_handed.elapsed() > BLAME_FOR && !self.is_stuck() {
            return Vec::new();
        }
        let Marker::Sent(before) = &self.marker else { return self.unconfirmed().cloned().collect() };
        self.unconfirmed().chain(before).cloned().collect()
    }

    fn unconfirmed(&self) -> impl Iterator<Item = &SentMessage> {
        let subscribed = self.subscriptions.iter().filter_map(|(_, message)| message.as_ref());
        self.unwritten.iter().chain(self.unacknowledged.values()).chain(&self.unmarked).chain(subscribed)
    }

    /// Hands a message to the client; false where the connection has ended.
    pub(super) fn publish(&mut self, message: OutgoingMessage) -> bool {
        let OutgoingMessage { sent, payload } = message;
        self.last_handed = Instant::now();
        if let Ticket::Subscription { retained } = sent.ticket {
            let filter = Filter { path: sent.topic.to_string(), retained };
            return self.subscribe(vec![filter], Some(sent));
        }
        if !self.client.publish(&sent.topic, payload, sent.form) {
            return false;
        }
        if sent.form.acknowledged {
            self.unwritten.push_back(sent);
            return true;
        }
        self.unwritten_plain += 1;
        // Nobody waits for a score; of all others it is to be known whether the broker has read them.
        if self.is_single_in_flight || sent.kind != MessageKind::Score {
            self.unmarked.push(sent);
            if self.marker == Marker::None {
                self.mark();
            }
        }
        true
    }

    /// Asks for messages; false where the connection has ended.
    pub(super) fn subscribe(&mut self, filters: Vec<Filter>, message: Option<SentMessage>) -> bool {
        if filters.is_empty() {
            return true;
        }
        let paths = filters.iter().map(|filter| filter.path.clone()).collect();
        let subscribed = self.client.subscribe(filters);
        if subscribed {
            self.begin_waiting();
            self.subscriptions.push_back((paths, message));
        }
        subscribed
    }

    fn mark(&mut self) {
        if self.client.mark() {
            self.begin_waiting();
            self.marker = Marker::Sent(std::mem::take(&mut self.unmarked));
        }
    }

    fn begin_waiting(&mut self) {
        if !self.waits_for_answer() {
            self.last_answer = Instant::now();
        }
    }

    /// The client has written a packet. It writes in the order in which it was given; packet id 0 means that no
    /// acknowledgement will come.
    pub(super) fn on_written(&mut self, packet_id: u16) {
        if packet_id == 0 {
            self.unwritten_plain = self.unwritten_plain.saturating_sub(1);
        } else if let Some(message) = self.unwritten.pop_front() {
            self.begin_waiting();
            self.unacknowledged.insert(packet_id, message);
        }
    }

    /// The broker has answered a packet; which message that was.
    pub(super) fn on_answer(&mut self, packet_id: u16) -> Option<SentMessage> {
        let message = self.unacknowledged.remove(&packet_id)?;
        self.last_answer = Instant::now();
        Some(message)
    }

    /// The broker has read everything before the marker: these messages, which nobody acknowledges.
    pub(super) fn on_marker(&mut self) -> Vec<SentMessage> {
        self.last_answer = Instant::now();
        let Marker::Sent(read) = std::mem::replace(&mut self.marker, Marker::None) else { return Vec::new() };
        if !self.unmarked.is_empty() {
            self.mark();
        }
        read
    }

    /// The broker has answered a subscription: to these filters.
    pub(super) fn on_subscribed(&mut self) -> Option<(Vec<String>, Option<SentMessage>)> {
        self.last_answer = Instant::now();
        self.subscriptions.pop_front()
    }

    /// From now on as many messages may be in flight as the broker allows.
    pub(super) fn end_single_in_flight(&mut self) {
        (self.is_single_in_flight, self.window) = (false, self.full_window);
    }

    /// Asks the client to disconnect; false where the connection has ended.
    pub(super) fn disconnect(&self) -> bool {
        self.client.disconnect()
    }
}
