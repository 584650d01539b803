//! What others send us: states of ours that the broker has kept, requests, and Home Assistant's word that it has begun.
//!
//! In: the topics and payloads of received publishes. Out: the filters to subscribe to, whose a publish is, and a bounded queue
//! of [`Request`]s for whoever carries them out.
//! Never: reads a payload beyond a comparison, or waits; what finds no room is dropped, and the caller counts it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::topics::Topics;

/// A person sends one at a time, a house's software a few. Each has at most the bytes that a packet may have, so that
/// all of them together do not fill a small computer's memory.
const MAX_WAITING: usize = 8;

/// What Home Assistant says on `<discovery_prefix>/status` when it has begun.
const BEGUN: &[u8] = b"online";

/// A filter to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) path: String,
    /// Whether what the broker has retained is wanted, too.
    pub(super) retained: bool,
}

/// Whose a received publish is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taker<'a> {
    /// The broker has retained a state of this node.
    State,
    /// Somebody wants this command carried out.
    Command(&'a str),
    /// A request that was retained: nobody knows for when it was meant.
    Old,
    /// Home Assistant has begun, and knows nothing of us.
    HomeAssistant,
    Nobody,
}

/// What is subscribed to.
#[derive(Debug, Clone)]
pub(super) struct Subscriptions {
    states: String,
    requests: String,
    home_assistant: Option<String>,
}

impl Subscriptions {
    /// Of this node; with the discovery prefix of Home Assistant, where it is to be told.
    pub(super) fn new(topics: &Topics, discovery_prefix: Option<&str>) -> Self {
        Self {
            states: topics.states(),
            requests: topics.requests(),
            home_assistant: discovery_prefix.map(|prefix| format!("{prefix}/status")),
        }
    }

    /// All filters, in the order in which the broker answers.
    pub(super) fn filters(&self) -> Vec<Filter> {
        let requests = Filter { path: format!("{}#", self.requests), retained: false };
        let states = Filter { path: self.states.clone(), retained: true };
        let home_assistant = self.home_assistant.iter().map(|path| Filter { path: path.clone(), retained: false });
        [states, requests].into_iter().chain(home_assistant).collect()
    }

    /// Whose this publish is; `retained` where it lay at the broker before we came.
    pub(super) fn taker<'a>(&self, topic: &'a str, payload: &[u8], retained: bool) -> Taker<'a> {
        if let Some(command) = topic.strip_prefix(&self.requests) {
            return if retained { Taker::Old } else { Taker::Command(command) };
        }
        if self.home_assistant.as_deref() == Some(topic) {
            // Whom it had told before we came hears all from us anyway: we have just connected.
            return if payload == BEGUN && !retained { Taker::HomeAssistant } else { Taker::Nobody };
        }
        // What is not retained, we have sent ourselves.
        if retained { Taker::State } else { Taker::Nobody }
    }
}

/// Somebody wants something done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What stands behind `request/` in the topic, whatever that is.
    pub command: String,
    /// As it came: anything at all, up to the size of a packet.
    pub payload: Vec<u8>,
}

/// Requests that wait to be carried out.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: Mutex<VecDeque<Request>>,
    came: Condvar,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where too many wait already: the request is dropped.
    pub(super) fn put(&self, request: Request) -> bool {
        let mut waiting = self.lock();
        let room = waiting.len() < MAX_WAITING;
        if room {
            waiting.push_back(request);
            self.came.notify_one();
        }
        room
    }

    /// The one that has waited longest; waits for one for `patience`.
    pub(super) fn take(&self, patience: Duration) -> Option<Request> {
        let waited = self.came.wait_timeout_while(self.lock(), patience, |waiting| waiting.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_has_one_taker() {
        let topics = Topics::new("attic");
        let subscriptions = Subscriptions::new(&topics, Some("homeassistant"));
        let paths: Vec<_> = subscriptions.filters().into_iter().map(|filter| (filter.path, filter.retained)).collect();
        let filter = |path: &str, retained| (path.to_owned(), retained);
        assert_eq!(
            paths,
            [
                filter("clapd/attic/+/+/state", true),
                filter("clapd/attic/request/#", false),
                filter("homeassistant/status", false)
            ]
        );
        for (topic, payload, retained, taker) in [
            ("clapd/attic/mic/dog/state", "ON", true, Taker::State),
            ("clapd/attic/mic/dog/state", "ON", false, Taker::Nobody),
            ("clapd/attic/request/prompts/set", "{}", false, Taker::Command("prompts/set")),
            ("clapd/attic/request/", "", false, Taker::Command("")),
            ("clapd/attic/request/mic/state", "ON", false, Taker::Command("mic/state")),
            ("clapd/attic/request/pause", "{}", true, Taker::Old),
            ("homeassistant/status", "online", false, Taker::HomeAssistant),
            ("homeassistant/status", "online", true, Taker::Nobody),
            ("homeassistant/status", "offline", false, Taker::Nobody),
        ] {
            assert_eq!(subscriptions.taker(topic, payload.as_bytes(), retained), taker, "{topic} {payload} {retained}");
        }
        assert_eq!(Subscriptions::new(&topics, None).filters().len(), 2);
    }

    #[test]
    fn requests_wait_in_order_and_within_a_bound() {
        let requests = Requests::default();
        let request = |n: usize| Request { command: n.to_string(), payload: Vec::new() };
        let kept: Vec<bool> = (0..MAX_WAITING + 2).map(|n| requests.put(request(n))).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), MAX_WAITING);
        let taken: Vec<_> = std::iter::from_fn(|| requests.take(Duration::ZERO)).collect();
        assert_eq!(taken, (0..MAX_WAITING).map(request).collect::<Vec<_>>());
    }
}
