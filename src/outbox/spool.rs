//! The thread that writes.
//!
//! In: changes of the queue. Out: appends, a sync for what the broker does not take within a second, now and then a rewrite.
//! While the broker is there an event costs no sync at all: it is gone from the queue before one is due.
//! Never: holds the queue's lock while the disk works.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::disk::Log;
use super::{Shared, State, Storage};
use crate::time::Clocks;

/// What a power cut may take: the last second before it. Longer batches would spare a card little, as events are rarer.
pub(super) const SYNC_AFTER: Duration = Duration::from_secs(1);
/// The end of an event that a crash cut off is known to this. Each is 31 bytes in the system's cache, and no sync.
const HEARD_EVERY: Duration = Duration::from_secs(10);
/// Whoever makes room on a full disk expects events to be safe soon after; a try that fails is one small write.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How often it is looked whether the time of day was set, while events wait whose age would be wrong after the next start.
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Below this a rewrite, which is two files and three syncs, costs more than the room that it makes.
const REWRITE_FROM: u64 = 64 * 1024;

pub(super) fn spawn(shared: Arc<Shared>, log: Log) -> io::Result<()> {
    let writer = Writer { shared, log, synced: 0, live: 0, heard: Instant::now() };
    thread::Builder::new().name("outbox".into()).spawn(move || writer.run()).map(drop)
}

/// The disk failed: says so, and when it is tried again.
pub(super) fn failing(error: &io::Error) -> Storage {
    log::warn!("outbox: {error}; events wait in memory and do not outlive this process until it works again");
    Storage::Failing(Instant::now() + RETRY_AFTER)
}

struct Writer {
    shared: Arc<Shared>,
    log: Log,
    /// Messages below this number are synced.
    synced: u64,
    /// Bytes that a rewrite would leave, when that was last looked at.
    live: u64,
    /// When the open events' last windows were journalled.
    heard: Instant,
}

/// What is to be done next, outside of the lock.
enum Job {
    Append {
        bytes: Vec<u8>,
        asked: u64,
    },
    /// Append, and sync what comes before this message.
    Sync {
        bytes: Vec<u8>,
        asked: u64,
        before: u64,
    },
    Rewrite {
        snapshot: Vec<u8>,
        asked: u64,
        before: u64,
    },
    Clear {
        asked: u64,
    },
    Close,
}

impl Writer {
    fn run(mut self) {
        loop {
            let job = self.next_job();
            let (asked, done) = match job {
                Job::Append { bytes, asked } => (asked, self.log.append(&bytes)),
                Job::Sync { bytes, asked, before } => {
                    let done = self.log.append(&bytes).and_then(|()| self.log.sync());
                    self.synced = before;
                    (asked, done)
                }
                Job::Rewrite { snapshot, asked, before } => {
                    let done = self.log.rewrite(&snapshot);
                    (self.live, self.synced) = (snapshot.len() as u64, before);
                    (asked, done)
                }
                Job::Clear { asked } => (asked, self.log.clear()),
                Job::Close => break,
            };
            self.account(asked, done);
        }
        let Self { shared, log, .. } = self;
        // The next run may open it as soon as we say so.
        drop(log);
        shared.lock().closed = true;
        shared.changed.notify_all();
    }

    /// Waits until there is something to do.
    fn next_job(&mut self) -> Job {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            let clocks = Clocks::now();
            let now = clocks.steady;
            state.follow_clock(clocks);
            if let Some(job) = self.job(&mut state, now) {
                return job;
            }
            let on_disk = state.storage == Storage::Disk;
            let heard = (on_disk && state.queue.has_open()).then_some(self.heard + HEARD_EVERY);
            let clock = (on_disk && state.queue.events() > 0).then_some(now + CLOCK_EVERY);
            let retry = if let Storage::Failing(at) = state.storage { Some(at) } else { None };
            // With nothing due, an hour is as good as for ever.
            let wake = [state.due, heard, clock, retry].into_iter().flatten().min();
            let wake = wake.unwrap_or(now + Duration::from_secs(3600));
            let (before, closing) = (state.asked, state.closing);
            let due = state.due;
            state = shared
                .wait_until(state, wake, |state| state.asked > before || state.closing != closing || state.due != due);
        }
    }

    fn job(&mut self, state: &mut State, now: Instant) -> Option<Job> {
        let asked = state.asked;
        let before = state.queue.next_message();
        if let Storage::Failing(at) = state.storage {
            if now >= at || state.closing {
                // Once more on leaving, and that is the last time.
                state.storage = if state.closing { Storage::Memory } else { Storage::Failing(now + RETRY_AFTER) };
                return Some(Job::Rewrite { snapshot: state.queue.snapshot(), asked, before });
            }
            return None;
        }
        if state.storage == Storage::Memory {
            return state.closing.then_some(Job::Close);
        }
        if state.queue.has_open() && now >= self.heard + HEARD_EVERY {
            self.heard = now;
            state.queue.journal_heard();
            return Some(Job::Append { bytes: state.queue.take_journal(), asked });
        }
        if state.closing || state.due.is_some_and(|due| now >= due) {
            state.due = None;
            return self.tidy(state, asked, before).or(state.closing.then_some(Job::Close));
        }
        (state.asked > state.written).then(|| Job::Append { bytes: state.queue.take_journal(), asked })
    }

    /// What is due a second after a change.
    fn tidy(&self, state: &mut State, asked: u64, before: u64) -> Option<Job> {
        if state.queue.events() == 0 {
            state.queue.take_outdated();
            state.queue.take_journal();
            return (!self.log.is_empty() || asked > state.written).then_some(Job::Clear { asked });
        }
        if state.queue.take_outdated() || self.log.len() > REWRITE_FROM + 2 * self.live {
            state.queue.take_journal();
            return Some(Job::Rewrite { snapshot: state.queue.snapshot(), asked, before });
        }
        let bytes = state.queue.take_journal();
        if state.queue.waits_since(self.synced) {
            return Some(Job::Sync { bytes, asked, before });
        }
        (!bytes.is_empty() || asked > state.written).then_some(Job::Append { bytes, asked })
    }

    /// Tells those who wait, and what became of the disk.
    fn account(&mut self, asked: u64, done: io::Result<()>) {
        let mut state = self.shared.lock();
        state.written = state.written.max(asked);
        match done {
            Ok(()) => {
                if state.storage != Storage::Disk {
                    state.storage = Storage::Disk;
                    log::info!("outbox: the disk takes events again");
                }
            }
            Err(error) => {
                if state.storage == Storage::Disk {
                    state.storage = failing(&error);
                }
                state.queue.take_journal();
                state.due = None;
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}
