//! A bounded, crash-safe queue of events: what happens between an event and the broker's acknowledgement of it.
//!
//! The daemon adds starts and ends. mqtt takes messages in their order, again and again until each is acknowledged,
//! also after a restart of the daemon or a power cut. A thread of its own writes: an event is in the system's cache
//! before `start` or `end` returns, and on the disk a second later, if the broker does not have it by then.
//!
//! An event leaves the outbox when the broker has acknowledged it, or over a bound: then the oldest start and end go
//! together, and are counted. Nobody waits longer than 0.2 s for a disk; without one, events wait in memory, and
//! health says so.

mod event_record;
mod log_entry;
mod log_file;
mod queue;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::counter::Counter;
use crate::threads::ServiceThread;
use crate::time::Clocks;
pub use event_record::EventRecord;
use log_file::LogFile;
use queue::{Limits, Queue};

/// A disk answers within a millisecond, a card that tidies up within some hundred. Who captures sound has 30 s of patience, and
/// what a process that is killed takes with it is what it detected in this time on a disk that hangs.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// Where events are stored, and how many for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxSpec {
    /// The folder; none: events wait in memory.
    pub dir: Option<PathBuf>,
    /// Events that have ended and wait.
    pub max_events: usize,
    /// How long after its end an event is worth publishing.
    pub max_age: Duration,
}

impl Default for OutboxSpec {
    /// In memory. A busy home makes a few hundred events a day: ten thousand are a month's, and 2 MB. After three days, a
    /// long weekend, nobody acts on what was heard.
    fn default() -> Self {
        Self { dir: None, max_events: 10_000, max_age: Duration::from_secs(72 * 3600) }
    }
}

/// A start or an end to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingMessage {
    /// Its number, for [`Outbox::acknowledge`].
    pub number: u64,
    /// Where it goes.
    pub topic: Arc<str>,
    /// What it says.
    pub record: EventRecord,
}

/// The outbox. A clone is another handle to the same one; the last one closes it.
#[derive(Debug, Clone)]
pub struct Outbox {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<SharedOutbox>,
    /// Until somebody takes it.
    thread: Mutex<Option<ServiceThread>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
    }
}

#[derive(Debug)]
struct SharedOutbox {
    state: Mutex<OutboxState>,
    changed: Condvar,
}

#[derive(Debug)]
struct OutboxState {
    queue: Queue,
    storage: Storage,
    /// Writes that somebody waits for, and how many of them are done.
    requested: u64,
    finished: u64,
    /// When changes that nobody waits for are due, and the sync of those before.
    due: Option<Instant>,
    dropped: Counter,
    closing: bool,
    closed: bool,
}

/// Where events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Disk,
    /// The disk failed, and is tried again then.
    Failing(Instant),
    /// There is no disk.
    Memory,
}

impl OutboxState {
    /// Finds out whether the time of day was set; where times on the disk are wrong for it, they are written anew soon.
    fn follow_clock(&mut self, now: Clocks) {
        self.queue.follow_clock(now);
        self.mark_due();
    }

    fn mark_due(&mut self) {
        if self.storage != Storage::Disk {
            self.queue.take_journal();
        } else if self.queue.has_unwritten() {
            self.due.get_or_insert_with(|| Instant::now() + writer::SYNC_AFTER);
        }
    }
}

impl Outbox {
    /// Opens the outbox, with what an earlier run left in it; events that it left open are ended at the time at which they were
    /// touched last. Where the folder cannot be used a log line says why, and events wait in memory: that they may be lost in a
    /// power cut is better than not to listen at all.
    pub fn open(spec: &OutboxSpec) -> Self {
        let mut queue = Queue::new(Limits { max_events: spec.max_events, max_age: spec.max_age });
        let opened = spec.dir.as_deref().and_then(|dir| Self::read(dir, &mut queue));
        let storage = opened.as_ref().map_or(Storage::Memory, |(_, storage)| *storage);
        let state = OutboxState {
            queue,
            storage,
            requested: 0,
            finished: 0,
            due: None,
            dropped: Counter::default(),
            closing: false,
            closed: opened.is_none(),
        };
        let shared = Arc::new(SharedOutbox { state: Mutex::new(state), changed: Condvar::new() });
        let mut thread = None;
        if let Some((log, _)) = opened {
            match writer::spawn(Arc::clone(&shared), log) {
                Ok(started) => thread = Some(started),
                Err(error) => {
                    log::warn!("outbox: its thread cannot be started ({error}): events wait in memory");
                    let mut state = shared.lock();
                    (state.storage, state.closed) = (Storage::Memory, true);
                }
            }
        }
        let outbox = Self { handle: Arc::new(Handle { shared, thread: Mutex::new(thread) }) };
        // What was left open has ended, and limits may have been lowered since.
        outbox.change(|queue, now| {
            queue.begin_run(now);
            queue.rewind(now)
        });
        outbox
    }

    /// The thread that writes, for whoever looks after it; none where events wait in memory, or it was taken before.
    pub fn take_thread(&self) -> Option<ServiceThread> {
        self.handle.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn shared(&self) -> &SharedOutbox {
        &self.handle.shared
    }

    fn read(dir: &Path, queue: &mut Queue) -> Option<(LogFile, Storage)> {
        let (log, found) = LogFile::open(dir)
            .inspect_err(|error| {
                log::warn!(
                    "outbox: {}: {error}; events wait in memory and do not outlive this process; see outbox.dir",
                    dir.display()
                );
            })
            .ok()?;
        if found.damaged > 0 {
            log::warn!("outbox: {}: {} damaged bytes are passed over", dir.display(), found.damaged);
        }
        let storage = found.full.as_ref().map_or(Storage::Disk, writer::disk_failed);
        let now = Clocks::now();
        found.entries.into_iter().for_each(|entry| queue.apply(entry, now));
        if queue.waiting() > 0 {
            log::info!("outbox: {} messages of an earlier run wait", queue.waiting());
        }
        Some((log, storage))
    }

    /// Adds a start.
    pub fn start(&self, topic: &Arc<str>, record: EventRecord) {
        self.store(|queue, now| queue.start(topic, record, now));
    }

    /// Adds an end.
    pub fn end(&self, record: &EventRecord) {
        self.store(|queue, now| queue.end(record, now));
    }

    /// The topic's open event was still going on when a window with this score ended, `lasted` after the event had begun.
    pub fn touch(&self, topic: &Arc<str>, lasted: Duration, score: f32) {
        self.shared().lock().queue.touch(topic, lasted, score);
    }

    /// The next message that was not handed out since [`Self::rewind`].
    pub fn next(&self) -> Option<PendingMessage> {
        self.shared().lock().queue.next()
    }

    /// Where a message that waits goes.
    pub fn topic(&self, number: u64) -> Option<Arc<str>> {
        self.shared().lock().queue.topic(number)
    }

    /// Whether there is a next message.
    pub fn has_next(&self) -> bool {
        self.shared().lock().queue.has_next()
    }

    /// Hands out everything again, to a new connection.
    pub fn rewind(&self) {
        self.change(Queue::rewind);
    }

    /// The broker has this message.
    pub fn acknowledge(&self, number: u64) {
        self.change(|queue, now| {
            queue.acknowledge(number, now);
            0
        });
    }

    /// Messages that wait for the broker.
    pub fn waiting(&self) -> usize {
        self.shared().lock().queue.waiting()
    }

    /// Events that were dropped over a bound.
    pub fn dropped(&self) -> u64 {
        self.shared().lock().dropped.get()
    }

    /// Where events are: `disk`, or `memory`, where they end with this process.
    pub fn storage(&self) -> &'static str {
        if self.shared().lock().storage == Storage::Disk { "disk" } else { "memory" }
    }

    /// Has the disk take what waits, for the next run, and ends the thread; returns whether that is done.
    pub fn close(&self, deadline: Instant) -> bool {
        let mut state = self.shared().lock();
        state.queue.journal_touches();
        state.closing = true;
        self.shared().changed.notify_all();
        let state = self.shared().wait_until(state, deadline, |state| state.closed);
        state.closed && (state.storage == Storage::Disk || state.queue.waiting() == 0)
    }

    /// Changes the queue and waits until the change is written, but not for long.
    fn store(&self, change: impl FnOnce(&mut Queue, Clocks) -> u64) {
        let mut state = self.shared().lock();
        self.shared().change(&mut state, change);
        if state.storage != Storage::Disk {
            return;
        }
        state.requested += 1;
        let mine = state.requested;
        self.shared().changed.notify_all();
        let deadline = Instant::now() + WRITE_TIMEOUT;
        drop(
            self.shared().wait_until(state, deadline, |state| state.finished >= mine || state.storage != Storage::Disk),
        );
    }

    /// Changes the queue; the change is written when there is time.
    fn change(&self, change: impl FnOnce(&mut Queue, Clocks) -> u64) {
        let mut state = self.shared().lock();
        let idle = state.due.is_none();
        self.shared().change(&mut state, change);
        if idle && state.due.is_some() {
            self.shared().changed.notify_all();
        }
    }
}

impl SharedOutbox {
    /// Every change is one step: a thread that panicked left whole values behind.
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, state: &mut OutboxState, change: impl FnOnce(&mut Queue, Clocks) -> u64) {
        let dropped = change(&mut state.queue, Clocks::now());
        if let Some(count) = state.dropped.add(dropped) {
            log::warn!("outbox: {count} events dropped so far, over outbox.max_events or max_age_h");
        }
        state.mark_due();
    }

    fn wait_until<'a>(
        &'a self,
        state: MutexGuard<'a, OutboxState>,
        deadline: Instant,
        mut done: impl FnMut(&OutboxState) -> bool,
    ) -> MutexGuard<'a, OutboxState> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(state, patience, |state| !done(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
