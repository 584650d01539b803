//! The thread that writes the log.
//!
//! It appends the changes of the queue, syncs what the broker does not take within a second, and now and then rewrites
//! the log. While the broker is there an event costs no sync at all: it has left the queue before one is due. The queue
//! is not locked while the disk works.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::log_file::LogFile;
use super::{OutboxState, SharedOutbox, Storage};
use crate::threads::{Heartbeat, ServiceThread};
use crate::time::Clocks;

/// What a power cut may take: the last second before it. Longer batches would spare a card little, as events are rarer.
pub(super) const SYNC_AFTER: Duration = Duration::from_secs(1);
/// The end of an event that a crash cut off is known to this. Each is 31 bytes in the system's cache, and no sync.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10);
/// Whoever makes room on a full disk expects events to be safe soon after; a try that fails is one small write.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How often it is found out whether the time of day was set, while events wait whose age would be wrong after the next start.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// Below this a rewrite, which is two files and three syncs, costs more than the room that it makes.
const REWRITE_FROM: u64 = 64 * 1024;

/// How often the loop turns at the least, so that its owner sees it turn.
const TURN_INTERVAL: Duration = Duration::from_secs(5);
/// The most that a turn may take, which is one append, sync or rewrite: after as long as this Linux itself calls a task hung that waits
/// for a disk (kernel.hung_task_timeout_secs). Memory cards that tidy up have been seen to take tens of seconds.
const MAX_TURN: Duration = Duration::from_secs(120);

pub(super) fn spawn(shared: Arc<SharedOutbox>, log: LogFile) -> io::Result<ServiceThread> {
    let end = WriterEnd(Arc::clone(&shared));
    let writer = Writer { shared, log, synced: 0, live: 0, touches_journalled: Instant::now() };
    ServiceThread::spawn("outbox", move |heartbeat| {
        let _end = end;
        writer.run(&heartbeat);
    })
}

/// Says at the thread's end, be it a panic, that nobody needs to wait for the disk any more. The log is closed by then, so that the
/// next run may open it.
struct WriterEnd(Arc<SharedOutbox>);

impl Drop for WriterEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if thread::panicking() {
            state.storage = Storage::Memory;
        }
        state.closed = true;
        drop(state);
        self.0.changed.notify_all();
    }
}

/// The disk failed: says so, and when it is tried again.
pub(super) fn disk_failed(error: &io::Error) -> Storage {
    log::warn!("outbox: {error}; events wait in memory and do not outlive this process until it works again");
    Storage::Failing(Instant::now() + RETRY_AFTER)
}

struct Writer {
    shared: Arc<SharedOutbox>,
    log: LogFile,
    /// Messages below this number are synced.
    synced: u64,
    /// Bytes that a rewrite would leave, when that was last looked at.
    live: u64,
    /// When the touches of open events were journalled.
    touches_journalled: Instant,
}

/// What is to be done next, outside of the lock.
enum Job {
    Append {
        bytes: Vec<u8>,
        requested: u64,
    },
    /// Append, and sync what comes before this message.
    Sync {
        bytes: Vec<u8>,
        requested: u64,
        before: u64,
    },
    Rewrite {
        snapshot: Vec<u8>,
        requested: u64,
        before: u64,
    },
    Clear {
        requested: u64,
    },
    Close,
}

impl Writer {
    fn run(mut self, heartbeat: &Heartbeat) {
        loop {
            let job = self.next_job(heartbeat);
            let (requested, done) = match job {
                Job::Append { bytes, requested } => (requested, self.log.append(&bytes)),
                Job::Sync { bytes, requested, before } => {
                    let done = self.log.append(&bytes).and_then(|()| self.log.sync());
                    self.synced = before;
                    (requested, done)
                }
                Job::Rewrite { snapshot, requested, before } => {
                    let done = self.log.rewrite(&snapshot);
                    (self.live, self.synced) = (snapshot.len() as u64, before);
                    (requested, done)
                }
                Job::Clear { requested } => (requested, self.log.clear()),
                Job::Close => break,
            };
            self.finish_job(requested, done);
        }
    }

    /// Waits until there is something to do.
    fn next_job(&mut self, heartbeat: &Heartbeat) -> Job {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            heartbeat.beat(MAX_TURN);
            let clocks = Clocks::now();
            let now = clocks.steady;
            state.follow_clock(clocks);
            if let Some(job) = self.job(&mut state, now) {
                return job;
            }
            let on_disk = state.storage == Storage::Disk;
            let touches = (on_disk && state.queue.has_open()).then_some(self.touches_journalled + TOUCH_INTERVAL);
            let clock = (on_disk && state.queue.events() > 0).then_some(now + CLOCK_INTERVAL);
            let retry = if let Storage::Failing(at) = state.storage { Some(at) } else { None };
            let wake = [state.due, touches, clock, retry].into_iter().flatten().fold(now + TURN_INTERVAL, Instant::min);
            let (before, closing) = (state.requested, state.closing);
            let due = state.due;
            state = shared.wait_until(state, wake, |state| {
                state.requested > before || state.closing != closing || state.due != due
            });
        }
    }

    fn job(&mut self, state: &mut OutboxState, now: Instant) -> Option<Job> {
        let requested = state.requested;
        let before = state.queue.next_message();
        if let Storage::Failing(at) = state.storage {
            if now >= at || state.closing {
                // Once more on leaving, and that is the last time.
                state.storage = if state.closing { Storage::Memory } else { Storage::Failing(now + RETRY_AFTER) };
                return Some(Job::Rewrite { snapshot: state.queue.snapshot(), requested, before });
            }
            return None;
        }
        if state.storage == Storage::Memory {
            return state.closing.then_some(Job::Close);
        }
        if state.queue.has_open() && now >= self.touches_journalled + TOUCH_INTERVAL {
            self.touches_journalled = now;
            state.queue.journal_touches();
            return Some(Job::Append { bytes: state.queue.take_journal(), requested });
        }
        if state.closing || state.due.is_some_and(|due| now >= due) {
            state.due = None;
            return self.tidy(state, requested, before).or(state.closing.then_some(Job::Close));
        }
        (state.requested > state.finished).then(|| Job::Append { bytes: state.queue.take_journal(), requested })
    }

    /// What is due a second after a change.
    fn tidy(&self, state: &mut OutboxState, requested: u64, before: u64) -> Option<Job> {
        if state.queue.events() == 0 {
            state.queue.take_outdated();
            state.queue.take_journal();
            return (!self.log.is_empty() || requested > state.finished).then_some(Job::Clear { requested });
        }
        if state.queue.take_outdated() || self.log.len() > REWRITE_FROM + 2 * self.live {
            state.queue.take_journal();
            return Some(Job::Rewrite { snapshot: state.queue.snapshot(), requested, before });
        }
        let bytes = state.queue.take_journal();
        if state.queue.waits_since(self.synced) {
            return Some(Job::Sync { bytes, requested, before });
        }
        (!bytes.is_empty() || requested > state.finished).then_some(Job::Append { bytes, requested })
    }

    /// Wakes those who wait for the write, and keeps account of whether the disk works.
    fn finish_job(&mut self, requested: u64, done: io::Result<()>) {
        let mut state = self.shared.lock();
        state.finished = state.finished.max(requested);
        match done {
            Ok(()) => {
                if state.storage != Storage::Disk {
                    state.storage = Storage::Disk;
                    log::info!("outbox: the disk takes events again");
                }
            }
            Err(error) => {
                if state.storage == Storage::Disk {
                    state.storage = disk_failed(&error);
                }
                state.queue.take_journal();
                state.due = None;
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}
