//! Requests that were handed to the supervisor and wait for its answer.
//!
//! They go into the queue that those of MQTT go into; a number stands for the connection that waits. A connection that is closed meanwhile
//! leaves its number, and the answer goes nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::failure::Failure;
use crate::command::{Caller, Outcome, RefusalReason, Request, RequestQueue, STOPPING};

/// New prompts may have a large text model read from a slow memory card first, which takes a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// An answer as it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) payload: Bytes,
}

/// Those that wait.
pub(super) struct Calls {
    requests: Arc<RequestQueue>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    senders: HashMap<u64, oneshot::Sender<Answer>>,
}

/// Takes a number back when nobody waits any more.
struct WaitingCall<'a>(&'a Calls, u64);

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.lock().senders.remove(&self.1);
    }
}

impl Calls {
    pub(super) fn new(requests: Arc<RequestQueue>) -> Self {
        Self { requests, waiting: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a command carried out, and waits for what comes of it.
    pub(super) async fn ask(&self, command: &str, payload: Vec<u8>) -> Result<Answer, Failure> {
        let (call, answer) = self.enter();
        let request = Request { caller: Caller::Http(call.1), command: command.to_owned(), payload };
        if !self.requests.put(request) {
            return Err(Failure::busy("too many requests wait to be carried out; send it again in some seconds"));
        }
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Failure::busy(STOPPING)),
            Err(_) => Err(Failure::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "{command} is not over after {} s, and goes on; ask again what has come of it",
                    ANSWER_TIMEOUT.as_secs()
                ),
            )),
        }
    }

    fn enter(&self) -> (WaitingCall<'_>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.senders.insert(number, sender);
        (WaitingCall(self, number), receiver)
    }

    /// Answers, if somebody waits.
    pub(super) fn answer(&self, number: u64, outcome: &Outcome, payload: Vec<u8>) {
        let status = match outcome {
            Ok(_) => StatusCode::OK,
            Err(refusal) => match refusal.reason {
                RefusalReason::Invalid => StatusCode::BAD_REQUEST,
                RefusalReason::Busy => StatusCode::SERVICE_UNAVAILABLE,
            },
        };
        if let Some(sender) = self.lock().senders.remove(&number) {
            // Whoever waited may have gone in this moment.
            let _ = sender.send(Answer { status, payload: payload.into() });
        }
    }
}
