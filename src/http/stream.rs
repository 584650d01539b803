//! A viewer's stream of what happens, as `text/event-stream`.
//!
//! It begins with what is true now, goes on with what the viewer has missed, and then with what happens. Nothing is waited for but
//! the viewer's own connection, which asks for the next message once it has room for it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::feed::{EventKind, Message, Subscription};

/// Proxies close what is silent for a minute; a browser finds out that its network has changed the sooner.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Ten times the queue: who has lost so many is better off with a new connection, which begins with what is true then.
const MAX_DROPPED: u64 = 640;
/// After a connection that is lost: viewers come back spread over some seconds, and not all at once.
const RECONNECT_MS: std::ops::Range<u32> = 1_000..4_000;

/// What of the feed a viewer wants; none: all.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) source: Option<String>,
    pub(super) kinds: Option<Vec<EventKind>>,
}

impl Selection {
    fn takes(&self, message: &Message) -> bool {
        let source = self.source.as_deref();
        let is_of_source = message.source.as_deref().is_none_or(|id| source.is_none_or(|wanted| wanted == id));
        is_of_source && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&message.kind))
    }
}

struct Viewer {
    selection: Selection,
    /// What it gets before the feed.
    first: VecDeque<Bytes>,
    subscription: Subscription,
    dropped: u64,
}

impl Viewer {
    /// What is sent next; none where the stream ends.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.pop_front() {
            return Some(first);
        }
        loop {
            if let Some(message) = self.subscription.missed.pop_front() {
                if self.selection.takes(&message) {
                    return Some(message.bytes);
                }
                continue;
            }
            match timeout(KEEP_ALIVE, self.subscription.receiver.recv()).await {
                Ok(Ok(message)) if self.selection.takes(&message) => return Some(message.bytes),
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(count))) => {
                    self.subscription.place.count_dropped(count);
                    self.dropped += count;
                    if self.dropped > MAX_DROPPED {
                        return None;
                    }
                }
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.subscription.place.count_unread(self.subscription.receiver.len());
    }
}

/// The stream of a viewer, which begins with `first`.
pub(super) fn respond(subscription: Subscription, selection: Selection, first: Vec<(EventKind, Vec<u8>)>) -> Response {
    let retry = Bytes::from(format!("retry: {}\n\n", fastrand::u32(RECONNECT_MS)));
    let taken = first.into_iter().filter(|(kind, _)| selection.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind)));
    let written = taken.map(|(kind, json)| {
        // Without an id: it is no message of the feed, and the place there stays what it was.
        Bytes::from([format!("event: {}\ndata: ", kind.name()).as_bytes(), &json, b"\n\n"].concat())
    });
    let first = std::iter::once(retry).chain(written).collect();
    let viewer = Viewer { selection, first, subscription, dropped: 0 };
    let body = unfold(viewer, |mut viewer| async {
        let bytes = viewer.next().await?;
        Some((Ok::<_, Infallible>(bytes), viewer))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx, and what is built on it, would collect it.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
