//! A bounded, crash-safe queue of events: what happens between an event and the broker's acknowledgement of it.
//!
//! The daemon adds starts and ends. mqtt takes messages in their order, again and again until each is acknowledged,
//! also after a restart of the daemon or a power cut. An event is in the system's cache before `start` or `end` returns,
//! and on the disk a second later, if the broker does not have it by then.
//!
//! An event leaves the outbox when the broker has acknowledged it, or over a bound: then the oldest start and end go
//! together, and are counted. Nobody waits longer than two seconds for a disk; without one, events wait in memory, and
//! health says so.
//!
//! `state` decides all of it, and knows neither a file nor a thread; `queue` is the order and the bounds in it, `log_entry`
//! and `log_file` are what lies on the disk, and `writer` is the thread between the two.

mod event_record;
mod log_entry;
mod log_file;
mod queue;
mod state;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::counter::Counter;
use crate::threads::ServiceThread;
use crate::time::{self, Clocks};
pub use event_record::EventRecord;
use log_file::LogFile;
use queue::Limits;
use state::OutboxState;

/// How long a caller waits for the disk. A disk answers within a millisecond, a card that tidies up within some hundred, and a machine
/// that is busy may take as long to let the thread run. A source, which has 30 s of patience, waits once: until a disk that hangs has
/// all again, nobody waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

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
        self.shared.lock().close();
        self.shared.changed.notify_all();
    }
}

#[derive(Debug)]
struct SharedOutbox {
    state: Mutex<OutboxState>,
    changed: Condvar,
    /// Times that the disk took too long.
    slow: Counter,
}

impl Outbox {
    /// Opens the outbox, with what an earlier run left in it; events that it left open are ended at the time at which they were
    /// touched last. Where the folder cannot be used a log line says why, and events wait in memory: that they may be lost in a
    /// power cut is better than not to listen at all.
    pub fn open(spec: &OutboxSpec) -> Self {
        let now = Clocks::now();
        let mut state = OutboxState::new(Limits { max_events: spec.max_events, max_age: spec.max_age }, now);
        let log = spec.dir.as_deref().and_then(|dir| Self::read(dir, &mut state, now));
        warn_of_dropped(state.begin_run(time::boot_id(), now));
        let shared =
            Arc::new(SharedOutbox { state: Mutex::new(state), changed: Condvar::new(), slow: Counter::default() });
        let mut thread = None;
        if let Some(log) = log {
            match writer::spawn(Arc::clone(&shared), log) {
                Ok(started) => thread = Some(started),
                Err(error) => {
                    log::warn!("outbox: its thread cannot be started ({error}): events wait in memory");
                    shared.lock().lose_disk();
                }
            }
        }
        Self { handle: Arc::new(Handle { shared, thread: Mutex::new(thread) }) }
    }

    /// The thread that writes, for whoever looks after it; none where events wait in memory, or it was taken before.
    pub fn take_thread(&self) -> Option<ServiceThread> {
        self.handle.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn shared(&self) -> &SharedOutbox {
        &self.handle.shared
    }

    fn read(dir: &Path, state: &mut OutboxState, now: Clocks) -> Option<LogFile> {
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
        found.full.iter().for_each(writer::warn_of);
        state.open(found.entries, found.len, found.full.is_none(), now);
        if state.waiting() > 0 {
            log::info!("outbox: {} messages of an earlier run wait", state.waiting());
        }
        Some(log)
    }

    /// Adds a start.
    pub fn start(&self, topic: &Arc<str>, record: EventRecord) {
        self.store(|state, now| state.start(topic, record, now));
    }

    /// Adds an end.
    pub fn end(&self, record: &EventRecord) {
        self.store(|state, now| state.end(record, now));
    }

    /// The topic's open event was still going on when a window with this score ended, `lasted` after the event had begun.
    pub fn touch(&self, topic: &Arc<str>, lasted: Duration, score: f32) {
        self.shared().lock().touch(topic, lasted, score);
    }

    /// The next message that was not handed out since [`Self::rewind`].
    pub fn next(&self) -> Option<PendingMessage> {
        self.shared().lock().next()
    }

    /// Where a message that waits goes.
    pub fn topic(&self, number: u64) -> Option<Arc<str>> {
        self.shared().lock().topic(number)
    }

    /// Whether there is a next message, or will be one once the disk has it.
    pub fn has_next(&self) -> bool {
        self.shared().lock().has_next()
    }

    /// Hands out everything again, to a new connection.
    pub fn rewind(&self) {
        self.change(OutboxState::rewind);
    }

    /// The broker has this message.
    pub fn acknowledge(&self, number: u64) {
        self.change(|state, now| {
            state.acknowledge(number, now);
            None
        });
    }

    /// Messages that wait for the broker.
    pub fn waiting(&self) -> usize {
        self.shared().lock().waiting()
    }

    /// Events that were dropped over a bound.
    pub fn dropped(&self) -> u64 {
        self.shared().lock().dropped()
    }

    /// Where events are: `disk`, where every start and end that was added is written, or `memory`, where some end with this process.
    pub fn storage(&self) -> &'static str {
        self.shared().lock().storage()
    }

    /// Has the disk take what waits, for the next run, and ends the thread; returns whether that is done.
    pub fn close(&self, deadline: Instant) -> bool {
        let shared = self.shared();
        let mut state = shared.lock();
        state.close();
        shared.changed.notify_all();
        shared.wait_until(state, deadline, OutboxState::is_closed).is_stored()
    }

    /// Changes the state and waits until the change is written, but not for long.
    fn store(&self, change: impl FnOnce(&mut OutboxState, Clocks) -> Option<u64>) {
        let shared = self.shared();
        let mut state = shared.lock();
        warn_of_dropped(change(&mut state, Clocks::now()));
        shared.changed.notify_all();
        let mine = state.next_message();
        let mut state = shared.wait_until(state, Instant::now() + WRITE_TIMEOUT, |state| !state.is_pending(mine));
        if state.is_pending(mine)
            && state.give_up(mine)
            && let Some(count) = shared.slow.add(1)
        {
            log::warn!(
                "outbox: the disk takes longer than {} s: until it has written what waits, that does not outlive this process \
                 ({count} times so far)",
                WRITE_TIMEOUT.as_secs()
            );
        }
    }

    /// Changes the state; the change is written when there is time.
    fn change(&self, change: impl FnOnce(&mut OutboxState, Clocks) -> Option<u64>) {
        let mut state = self.shared().lock();
        let due = state.due();
        warn_of_dropped(change(&mut state, Clocks::now()));
        if state.due() != due {
            self.shared().changed.notify_all();
        }
    }
}

fn warn_of_dropped(count: Option<u64>) {
    if let Some(count) = count {
        log::warn!("outbox: {count} events dropped so far, over outbox.max_events or max_age_h");
    }
}

impl SharedOutbox {
    /// Every change is one step: a thread that panicked left whole values behind.
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, or `patience` is over.
    fn wait<'a>(&self, state: MutexGuard<'a, OutboxState>, patience: Duration) -> MutexGuard<'a, OutboxState> {
        self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_until<'a>(
        &self,
        state: MutexGuard<'a, OutboxState>,
        deadline: Instant,
        mut done: impl FnMut(&OutboxState) -> bool,
    ) -> MutexGuard<'a, OutboxState> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(state, patience, |state| !done(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
