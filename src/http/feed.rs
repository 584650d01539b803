//! What happens, for whoever watches: each message is written once for all of them.
//!
//! A source hands in a message and goes on: a viewer has a queue of its own place in a ring of the newest messages, and one that does not
//! read finds the oldest gone. Events and what was sent in the last seconds are kept for viewers that come back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::counter::Counter;

/// Messages that a viewer may be behind: four seconds of a source at 10 windows and 4 batches of columns a second, and a second of eight
/// sources. All viewers share them, some kilobytes each.
const QUEUE: usize = 64;
/// Twenty people, and a panel or two; each costs some kilobytes and, at ten messages a second, 0.02% of a core.
const MAX_VIEWERS: usize = 32;
/// What is sent again to a viewer that comes back: some minutes of events, or ten seconds of a source's windows.
const MAX_KEPT: usize = 128;
/// Of all that is kept. A window of 100 prompts has 10 kB.
const MAX_KEPT_BYTES: usize = 256 << 10;

/// What a message is about; the name of the event in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EventKind {
    /// A window with its scores, and why there was no event.
    Window,
    /// Columns of the spectrogram.
    Mel,
    /// A source's level.
    Level,
    /// A start or an end.
    Event,
    /// How the daemon is doing.
    Health,
    /// What is listened for.
    Prompts,
}

impl EventKind {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [Self::Window, Self::Mel, Self::Level, Self::Event, Self::Health, Self::Prompts];

    /// As the stream calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Mel => "mel",
            Self::Level => "level",
            Self::Event => "event",
            Self::Health => "health",
            Self::Prompts => "prompts",
        }
    }

    /// Whether it is sent again to a viewer that comes back: what is drawn is over by then, and what is true is said anew.
    fn is_kept(self) -> bool {
        matches!(self, Self::Window | Self::Event)
    }
}

/// A message as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) kind: EventKind,
    pub(super) source: Option<Arc<str>>,
    pub(super) bytes: Bytes,
}

/// Where what happens is handed in. A clone is another handle to the same feed.
#[derive(Clone)]
pub(super) struct LiveFeed(Arc<Shared>);

struct Shared {
    sender: broadcast::Sender<Message>,
    viewers: AtomicUsize,
    /// Those of them that want the spectrogram.
    spectrograms: AtomicUsize,
    dropped: Counter,
    sent: Mutex<Sent>,
    /// Tells this process's messages from those of another.
    run: String,
}

#[derive(Default)]
struct Sent {
    next: u64,
    kept: VecDeque<Message>,
    bytes: usize,
}

impl Default for LiveFeed {
    fn default() -> Self {
        let run = format!("{:08x}", fastrand::u32(..));
        let sender = broadcast::Sender::new(QUEUE);
        Self(Arc::new(Shared {
            sender,
            viewers: AtomicUsize::new(0),
            spectrograms: AtomicUsize::new(0),
            dropped: Counter::default(),
            sent: Mutex::default(),
            run,
        }))
    }
}

impl LiveFeed {
    /// Whether anybody watches: what only viewers need is not computed else.
    pub(super) fn has_viewers(&self) -> bool {
        self.viewers() > 0
    }

    /// How many watch.
    pub(super) fn viewers(&self) -> usize {
        self.0.viewers.load(Relaxed)
    }

    /// Whether anybody watches a spectrogram.
    pub(super) fn has_spectrograms(&self) -> bool {
        self.0.spectrograms.load(Relaxed) > 0
    }

    /// Messages that viewers were too slow for.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// Sends `data` as JSON to all who watch; `source` is the id of whom it is about. Waits for nobody.
    pub(super) fn publish(&self, kind: EventKind, source: Option<&str>, data: &impl Serialize) {
        // An event is kept for a viewer that is away for a moment, however few watch; the rest is not even written.
        if !self.has_viewers() && kind != EventKind::Event {
            return;
        }
        match serde_json::to_vec(data) {
            Ok(json) => self.send(kind, source, &json),
            Err(error) => log::error!("http: a {} cannot be written: {error}", kind.name()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sent> {
        self.0.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, kind: EventKind, source: Option<&str>, json: &[u8]) {
        let source = source.map(Arc::from);
        let mut sent = self.lock();
        let message = Message { number: sent.next, kind, source, bytes: written(&self.0.run, sent.next, kind, json) };
        sent.next += 1;
        if kind.is_kept() {
            sent.keep(message.clone());
        }
        // It fails where nobody watches.
        let _ = self.0.sender.send(message);
    }

    /// A viewer, of a spectrogram or not; none where there are too many. `last` is the id of the message that it has had last.
    pub(super) fn watch(&self, last: Option<&str>, has_spectrogram: bool) -> Option<Subscription> {
        let place = ViewerPlace::take(self, has_spectrogram)?;
        let last = last.and_then(|last| last.split_once('-')).filter(|(run, _)| *run == self.0.run);
        let last = last.and_then(|(_, number)| number.parse::<u64>().ok());
        // Nothing is sent in between, so that nothing comes twice, and nothing is missing.
        let sent = self.lock();
        let missed = last.map(|last| sent.kept.iter().filter(|message| message.number > last).cloned().collect());
        let receiver = self.0.sender.subscribe();
        Some(Subscription { missed: missed.unwrap_or_default(), receiver, place })
    }
}

/// A message with its id, in the form of `text/event-stream`.
fn written(run: &str, number: u64, kind: EventKind, json: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(json.len() + 64);
    bytes.put(format!("id: {run}-{number}\nevent: {}\ndata: ", kind.name()).as_bytes());
    // JSON has no line break of its own.
    bytes.put(json);
    bytes.put(&b"\n\n"[..]);
    bytes.freeze()
}

impl Sent {
    fn keep(&mut self, message: Message) {
        self.bytes += message.bytes.len();
        self.kept.push_back(message);
        while self.kept.len() > MAX_KEPT || self.bytes > MAX_KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
        }
    }
}

/// What a viewer gets.
pub(super) struct Subscription {
    /// What it has missed, the oldest first.
    pub(super) missed: VecDeque<Message>,
    pub(super) receiver: broadcast::Receiver<Message>,
    pub(super) place: ViewerPlace,
}

/// One of the places for viewers, given back when it is dropped.
pub(super) struct ViewerPlace {
    feed: LiveFeed,
    has_spectrogram: bool,
}

impl ViewerPlace {
    fn take(feed: &LiveFeed, has_spectrogram: bool) -> Option<Self> {
        let taken =
            feed.0.viewers.fetch_update(Relaxed, Relaxed, |viewers| (viewers < MAX_VIEWERS).then_some(viewers + 1));
        taken.ok()?;
        feed.0.spectrograms.fetch_add(usize::from(has_spectrogram), Relaxed);
        Some(Self { feed: feed.clone(), has_spectrogram })
    }

    /// Counts messages that this viewer was too slow for.
    pub(super) fn count_dropped(&self, count: u64) {
        if let Some(total) = self.feed.0.dropped.add(count) {
            log::info!("http: a viewer does not read fast enough ({total} messages dropped so far)");
        }
    }

    /// Of the messages that a viewer has not read when it goes, those that were gone before.
    pub(super) fn count_unread(&self, unread: usize) {
        self.count_dropped(unread.saturating_sub(QUEUE) as u64);
    }
}

impl Drop for ViewerPlace {
    fn drop(&mut self) {
        self.feed.0.spectrograms.fetch_sub(usize::from(self.has_spectrogram), Relaxed);
        self.feed.0.viewers.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &Message) -> String {
        let text = String::from_utf8(message.bytes.to_vec()).unwrap();
        text.split_once('-').unwrap().1.to_owned()
    }

    #[test]
    fn a_message_is_written_once_and_numbered() {
        let feed = LiveFeed::default();
        let (mut one, mut other) = (feed.watch(None, false).unwrap(), feed.watch(None, false).unwrap());
        feed.publish(EventKind::Window, Some("mic"), &serde_json::json!({ "text": "a\nb" }));
        feed.publish(EventKind::Mel, Some("mic"), &5);
        let (first, same) = (one.receiver.try_recv().unwrap(), other.receiver.try_recv().unwrap());
        assert_eq!(first.bytes.as_ptr(), same.bytes.as_ptr());
        assert_eq!(text(&first), "0\nevent: window\ndata: {\"text\":\"a\\nb\"}\n\n");
        assert_eq!(text(&one.receiver.try_recv().unwrap()), "1\nevent: mel\ndata: 5\n\n");
    }

    #[test]
    fn a_viewer_that_comes_back_gets_what_it_has_missed() {
        let feed = LiveFeed::default();
        let watched = feed.watch(None, false).unwrap();
        for number in 0..4 {
            feed.publish(EventKind::Event, None, &number);
            feed.publish(EventKind::Mel, None, &number);
        }
        let id = |number: u64| format!("{}-{number}", feed.0.run);
        let missed =
            |last: &str| feed.watch(Some(last), false).unwrap().missed.iter().map(|it| it.number).collect::<Vec<_>>();
        assert_eq!(missed(&id(2)), [4, 6]);
        assert!(missed(&id(7)).is_empty());
        for other in ["", "x", "ffff-", "-1", "0000000g-1"] {
            assert!(missed(other).is_empty(), "{other}: of another process, or none");
        }
        assert!(feed.watch(None, false).unwrap().missed.is_empty());
        drop(watched);
        feed.publish(EventKind::Window, None, &0);
        feed.publish(EventKind::Event, None, &0);
        assert_eq!(missed(&id(7)), [8], "without viewers an event is kept, and a window not written");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let feed = LiveFeed::default();
        let large = "x".repeat(MAX_KEPT_BYTES / 4);
        (0..5).for_each(|_| feed.publish(EventKind::Event, None, &large));
        assert_eq!(feed.lock().kept.len(), 3);
        (0..2 * MAX_KEPT).for_each(|_| feed.publish(EventKind::Event, None, &1));
        let sent = feed.lock();
        assert_eq!(sent.kept.len(), MAX_KEPT);
        assert_eq!(sent.bytes, sent.kept.iter().map(|it| it.bytes.len()).sum::<usize>());
    }

    #[test]
    fn viewers_have_a_bound_and_slow_ones_lose_the_oldest() {
        let feed = LiveFeed::default();
        let mut all: Vec<_> = std::iter::from_fn(|| feed.watch(None, false)).collect();
        assert_eq!((all.len(), feed.viewers()), (MAX_VIEWERS, MAX_VIEWERS));
        (0..QUEUE + 5).for_each(|number| feed.publish(EventKind::Mel, None, &number));
        let receiver = &mut all[0].receiver;
        assert!(matches!(receiver.try_recv(), Err(broadcast::error::TryRecvError::Lagged(5))));
        assert_eq!(receiver.try_recv().unwrap().number, 5);
        let last = all.pop().unwrap();
        last.place.count_unread(last.receiver.len());
        assert_eq!(feed.dropped(), 5);
        assert!(!feed.has_spectrograms());
        drop((all, last));
        let watched = feed.watch(None, true).unwrap();
        assert!(feed.has_viewers() && feed.has_spectrograms());
        drop(watched);
        assert!(!feed.has_viewers() && !feed.has_spectrograms());
    }
}
