//! Requests that wait to be carried out, from whatever edge they come.
//!
//! What finds no room is handed back: each edge says so in its own way, and counts it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A person sends one at a time, a home's software a few. Each has at most the bytes that a packet may have, so that
/// all of them together do not fill a small computer's memory.
const MAX_WAITING: usize = 8;

/// Who sent a request, and so who is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Somebody at the broker, who reads the topic of responses.
    Mqtt,
    /// A connection of the page's server, by the number that it gave the request.
    Http(u64),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "mqtt",
            Self::Http(_) => "http",
        })
    }
}

/// Somebody wants something done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub caller: Caller,
    /// The command's name, whatever that is: over MQTT it is what stands behind `request/` in the topic.
    pub command: String,
    /// As it came: anything at all, up to the size of a packet.
    pub payload: Vec<u8>,
}

/// Requests that wait to be carried out.
#[derive(Debug, Default)]
pub struct RequestQueue {
    waiting: Mutex<VecDeque<Request>>,
    arrival: Condvar,
}

impl RequestQueue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where too many wait already: the request is dropped.
    pub fn put(&self, request: Request) -> bool {
        let mut waiting = self.lock();
        let accepted = waiting.len() < MAX_WAITING;
        if accepted {
            waiting.push_back(request);
            self.arrival.notify_one();
        }
        accepted
    }

    /// The one that has waited longest; waits for one for `patience`.
    pub fn take(&self, patience: Duration) -> Option<Request> {
        let waited = self.arrival.wait_timeout_while(self.lock(), patience, |waiting| waiting.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_in_order_and_within_a_bound() {
        let requests = RequestQueue::default();
        let request = |n: usize| Request { caller: Caller::Mqtt, command: n.to_string(), payload: Vec::new() };
        let accepted: Vec<bool> = (0..MAX_WAITING + 2).map(|n| requests.put(request(n))).collect();
        assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), MAX_WAITING);
        let taken: Vec<_> = std::iter::from_fn(|| requests.take(Duration::ZERO)).collect();
        assert_eq!(taken, (0..MAX_WAITING).map(request).collect::<Vec<_>>());
    }
}
