//! A connection that the broker has accepted: what was handed to the client and what the broker has acknowledged of it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::outgoing::{OutgoingMessage, Ticket};
use super::protocol::Filter;
use super::session::Client;

/// Packets in flight at a time. It hides a slow link's delay, and stays below the 100 packet ids that rumqttc uses, so
/// that ids do not collide.
pub(super) const WINDOW: usize = 64;
/// A broker that acknowledges nothing for so long, and answers pings, is stuck; another connection may not be.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The packets of one connection.
pub(super) struct Link {
    client: Client,
    /// Handed to the client, not yet written: those to be acknowledged, in order, and how many scores.
    unwritten: VecDeque<Ticket>,
    unwritten_scores: usize,
    /// Written, not yet acknowledged, by packet id.
    unacknowledged: HashMap<u16, Ticket>,
    /// When the broker last answered, or had nothing to answer.
    last_answer: Instant,
    /// Packets that may be in flight at a time.
    window: usize,
}

impl Link {
    pub(super) fn new(client: Client, window: usize) -> Self {
        let (unwritten, unacknowledged) = (VecDeque::new(), HashMap::new());
        Self { client, unwritten, unwritten_scores: 0, unacknowledged, last_answer: Instant::now(), window }
    }

    /// Packets that were handed to the client and that the broker may not have.
    fn in_flight(&self) -> usize {
        self.unwritten.len() + self.unwritten_scores + self.unacknowledged.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.window
    }

    /// Whether the broker has acknowledged nothing for too long.
    pub(super) fn is_stuck(&self) -> bool {
        !self.unacknowledged.is_empty() && self.last_answer.elapsed() > ANSWER_TIMEOUT
    }

    /// Hands a message to the client; false where the connection has ended.
    pub(super) fn publish(&mut self, message: OutgoingMessage) -> bool {
        let OutgoingMessage { ticket, topic, payload } = message;
        let published = self.client.publish(&topic, payload, ticket.is_acknowledged(), ticket.is_retained());
        match (published, ticket) {
            (true, Ticket::Score) => self.unwritten_scores += 1,
            (true, _) => self.unwritten.push_back(ticket),
            (false, _) => {}
        }
        published
    }

    /// The client has written a packet. It writes in the order in which it was given; packet id 0 means that no
    /// acknowledgement will come.
    pub(super) fn on_written(&mut self, packet_id: u16) {
        if packet_id == 0 {
            self.unwritten_scores = self.unwritten_scores.saturating_sub(1);
        } else if let Some(ticket) = self.unwritten.pop_front() {
            if self.unacknowledged.is_empty() {
                self.last_answer = Instant::now();
            }
            self.unacknowledged.insert(packet_id, ticket);
        }
    }

    /// The broker has answered a packet; which message that was.
    pub(super) fn on_answer(&mut self, packet_id: u16) -> Option<Ticket> {
        let ticket = self.unacknowledged.remove(&packet_id)?;
        self.last_answer = Instant::now();
        Some(ticket)
    }

    /// Asks for messages; false where the connection has ended.
    pub(super) fn subscribe(&self, filters: Vec<Filter>) -> bool {
        self.client.subscribe(filters)
    }

    /// Asks the client to disconnect; false where the connection has ended.
    pub(super) fn disconnect(&self) -> bool {
        self.client.disconnect()
    }
}
