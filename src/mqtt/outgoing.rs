//! What is still to be told, in memory.
//!
//! In: payloads with their topics. Out: the next [`Message`] to send, until the broker has acknowledged it.
//! Three kinds wait in three ways. A retained topic holds its newest payload, and all of them are due again on a new connection.
//! A score waits until a newer one of its topic comes. An event waits for its acknowledgement, and is due again on a
//! new connection; only when too many wait is the oldest dropped.
//! Never: grows without a bound: the first two are as many as there are topics, the third has its own bound. No threads, no I/O.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Events that wait. A busy house makes a few hundred a day; at some 300 bytes each this is 3 MB.
pub(super) const MAX_EVENTS: usize = 10_000;

/// Which of the waiting a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// A retained topic, by its index.
    Retained(usize),
    /// An event, by its number.
    Event(u64),
    /// A score; nobody acknowledges those.
    Score,
}

/// A publish to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) ticket: Ticket,
    pub(super) topic: Arc<str>,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    topic: Arc<str>,
    payload: Vec<u8>,
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    retained: Vec<(Arc<str>, Vec<u8>)>,
    index: HashMap<Arc<str>, usize>,
    /// Retained topics whose payload this connection has not had yet.
    due: BTreeSet<usize>,
    scores: HashMap<Arc<str>, Vec<u8>>,
    /// The topics in `scores`, the longest waiting first.
    score_order: VecDeque<Arc<str>>,
    events: VecDeque<Waiting>,
    /// Number of the next event that comes.
    next_event: u64,
    /// Events below this number were handed out on this connection.
    handed_out: u64,
}

impl Outgoing {
    /// Sets a retained topic. Topics are sent in the order in which they were first set.
    pub(super) fn retain(&mut self, topic: &Arc<str>, payload: Vec<u8>) {
        match self.index.get(topic) {
            Some(index) if self.retained[*index].1 == payload => {}
            Some(index) => {
                self.retained[*index].1 = payload;
                self.due.insert(*index);
            }
            None => {
                self.index.insert(Arc::clone(topic), self.retained.len());
                self.due.insert(self.retained.len());
                self.retained.push((Arc::clone(topic), payload));
            }
        }
    }

    /// Sets a topic's newest score; true where an older one was dropped for it.
    pub(super) fn score(&mut self, topic: &Arc<str>, payload: Vec<u8>) -> bool {
        let dropped = self.scores.insert(Arc::clone(topic), payload).is_some();
        if !dropped {
            self.score_order.push_back(Arc::clone(topic));
        }
        dropped
    }

    /// Adds an event; true where the oldest was dropped for it.
    pub(super) fn event(&mut self, topic: &Arc<str>, payload: Vec<u8>) -> bool {
        self.events.push_back(Waiting { number: self.next_event, topic: Arc::clone(topic), payload });
        self.next_event += 1;
        let dropped = self.events.len() > MAX_EVENTS;
        if dropped {
            self.events.pop_front();
        }
        dropped
    }

    /// A new connection knows nothing of what the one before it was given.
    pub(super) fn begin(&mut self) {
        self.due = (0..self.retained.len()).collect();
        self.handed_out = 0;
    }

    /// What to send next: retained topics, so that the picture is right, then events in their order, then scores.
    pub(super) fn next(&mut self) -> Option<Message> {
        if let Some(index) = self.due.pop_first() {
            let (topic, payload) = self.retained.get(index)?.clone();
            return Some(Message { ticket: Ticket::Retained(index), topic, payload });
        }
        let first = self.events.partition_point(|event| event.number < self.handed_out);
        if let Some(event) = self.events.get(first) {
            self.handed_out = event.number + 1;
            let ticket = Ticket::Event(event.number);
            return Some(Message { ticket, topic: Arc::clone(&event.topic), payload: event.payload.clone() });
        }
        let topic = self.score_order.pop_front()?;
        let payload = self.scores.remove(&topic)?;
        Some(Message { ticket: Ticket::Score, topic, payload })
    }

    /// The broker has it.
    pub(super) fn acknowledged(&mut self, ticket: Ticket) {
        if let Ticket::Event(number) = ticket {
            let at = self.events.partition_point(|event| event.number < number);
            if self.events.get(at).is_some_and(|event| event.number == number) {
                self.events.remove(at);
            }
        }
    }

    /// Whether all retained topics were handed out and all events acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.due.is_empty() && self.events.is_empty()
    }

    /// Events that wait, handed out or not.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Arc<str> {
        name.into()
    }

    fn sent(outgoing: &mut Outgoing) -> Vec<String> {
        std::iter::from_fn(|| outgoing.next())
            .map(|message| format!("{}={}", message.topic, String::from_utf8_lossy(&message.payload)))
            .collect()
    }

    #[test]
    fn retained_topics_come_first_and_again_on_each_connection() {
        let mut outgoing = Outgoing::default();
        outgoing.score(&topic("score"), b"1".into());
        outgoing.event(&topic("event"), b"e".into());
        outgoing.retain(&topic("status"), b"online".into());
        outgoing.retain(&topic("a"), b"OFF".into());
        assert_eq!(sent(&mut outgoing), ["status=online", "a=OFF", "event=e", "score=1"]);
        outgoing.retain(&topic("a"), b"OFF".into());
        assert_eq!(sent(&mut outgoing), [""; 0], "nothing has changed");
        outgoing.retain(&topic("a"), b"ON".into());
        assert_eq!(sent(&mut outgoing), ["a=ON"]);
        outgoing.begin();
        assert_eq!(sent(&mut outgoing), ["status=online", "a=ON", "event=e"], "the event was not acknowledged");
        assert!(!outgoing.is_settled());
        outgoing.acknowledged(Ticket::Event(0));
        assert!(outgoing.is_settled());
    }

    #[test]
    fn only_the_newest_score_of_a_topic_waits() {
        let mut outgoing = Outgoing::default();
        assert!(!outgoing.score(&topic("b"), b"1".into()));
        assert!(!outgoing.score(&topic("a"), b"2".into()));
        assert!(outgoing.score(&topic("b"), b"3".into()));
        assert_eq!(sent(&mut outgoing), ["b=3", "a=2"]);
    }

    #[test]
    fn events_are_bounded_and_the_oldest_goes() {
        let mut outgoing = Outgoing::default();
        let dropped = (0..MAX_EVENTS + 3).filter(|n| outgoing.event(&topic("e"), n.to_string().into())).count();
        assert_eq!((dropped, outgoing.events()), (3, MAX_EVENTS));
        assert_eq!(sent(&mut outgoing)[0], "e=3");
    }

    #[test]
    fn acknowledgements_may_come_in_any_order_and_twice() {
        let mut outgoing = Outgoing::default();
        assert!((0..4).all(|n| !outgoing.event(&topic("e"), vec![b'0' + n])));
        sent(&mut outgoing);
        for number in [2, 0, 2, 99] {
            outgoing.acknowledged(Ticket::Event(number));
        }
        outgoing.begin();
        assert_eq!(sent(&mut outgoing), ["e=1", "e=3"]);
    }
}
