//! The outbox as a state machine: the queue, and what the disk is known to have of it.
//!
//! Whoever has a thread or a file calls in: with starts, ends and acknowledgements, with the time, and with what became of a
//! [`Job`]. What comes out is the next job for the disk. Nothing here reads a clock, writes or waits, so that the tests can try any
//! order of all of it, with a disk that fails and a computer that dies at any step.
//!
//! Messages are counted in their order, and three of the counts say how far the disk is: up to where messages are written, which
//! outlives this process; up to where they are synced, which outlives the computer; and up to where callers went on without waiting
//! any longer. The disk has all that was promised where it works and no caller went on before it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::log_entry::LogEntry;
use super::log_file::HEADER;
use super::queue::{Limits, Queue};
use super::{EventRecord, PendingMessage};
use crate::counter::Counter;
use crate::time::{BootTime, Clocks};

/// What a power cut may take: the last second before it. Longer batches would spare a card little, as events are rarer.
pub(super) const SYNC_AFTER: Duration = Duration::from_secs(1);
/// The end of an event that a crash cut off is known to this. Each is 31 bytes in the system's cache, and no sync.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_secs(10);
/// Whoever makes room on a full disk expects events to be safe soon after; a try that fails is one small write.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How often it is found out whether the time of day was set, while events wait whose times would be wrong.
const CLOCK_INTERVAL: Duration = Duration::from_secs(10);
/// Below this a rewrite, which is two files and three syncs, costs more than the room that it makes.
const REWRITE_FROM: u64 = 64 * 1024;
/// What is journalled while the disk is busy: some thousand events. A disk that hangs for longer gets all of the queue at once, which
/// has a bound of its own.
const MAX_JOURNAL: usize = 1 << 20;

/// What is to be done to the log next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// Append these entries.
    Append(Vec<u8>),
    /// Append them, and have the disk take all.
    Sync(Vec<u8>),
    /// Replace all entries with these, and have the disk take them.
    Rewrite(Vec<u8>),
    /// Remove all entries.
    Clear,
}

/// What became of the disk by a job.
#[derive(Debug)]
pub(super) enum DiskChange {
    /// It failed: what is stored from now on waits in memory.
    Failed(io::Error),
    /// It has all again.
    Recovered,
}

/// What is known of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// The log has all that was written; what changed since is in the journal.
    Works,
    /// A write failed: nobody knows what the log has, and it is written anew then.
    Failing { retry: BootTime },
    /// There is none, or none any more.
    None,
}

/// What the disk has once the job is done that it is at.
#[derive(Debug)]
struct JobInFlight {
    /// Messages below this number.
    messages: u64,
    synced: bool,
    /// Bytes of entries.
    len: u64,
    /// It writes the log anew.
    rewrites: bool,
    /// Nothing is tried after it.
    last: bool,
}

/// The outbox.
#[derive(Debug)]
pub(super) struct OutboxState {
    queue: Queue,
    disk: Disk,
    in_flight: Option<JobInFlight>,
    /// Bytes of entries in the log.
    len: u64,
    /// Of those, the bytes that a rewrite would leave, when that was last known.
    live: u64,
    /// Messages below this number are written, or need not be: the log tells the next run to make them.
    written: u64,
    /// Messages below this number are synced.
    synced: u64,
    /// The callers of messages below this number went on, whether they are written or not.
    returned: u64,
    /// When changes that nobody waits for are due, and the sync of those before.
    due: Option<BootTime>,
    /// When the touches of open events are journalled next.
    touches_due: BootTime,
    /// The journal is not whole: the log has to be written anew.
    needs_rewrite: bool,
    /// The disk failed, and has not had all again since.
    failed: bool,
    dropped: Counter,
    closing: bool,
    closed: bool,
    /// When it was closed, the disk had all.
    is_stored: bool,
}

impl OutboxState {
    /// An outbox without a disk.
    pub(super) fn new(limits: Limits, now: Clocks) -> Self {
        Self {
            queue: Queue::new(limits),
            disk: Disk::None,
            in_flight: None,
            len: 0,
            live: 0,
            written: 0,
            synced: 0,
            returned: 0,
            due: None,
            touches_due: now.boot + TOUCH_INTERVAL,
            needs_rewrite: false,
            failed: false,
            dropped: Counter::default(),
            closing: false,
            closed: true,
            is_stored: false,
        }
    }

    /// Takes the log of an earlier run, of `len` bytes, and writes to it from now on. A log that took no header as its disk is full is
    /// not `appendable` and is written anew later.
    pub(super) fn open(&mut self, entries: Vec<LogEntry>, len: u64, appendable: bool, now: Clocks) {
        entries.into_iter().for_each(|entry| self.queue.apply(entry, now));
        self.len = len.saturating_sub(HEADER.len() as u64);
        self.closed = false;
        self.failed = !appendable;
        self.disk = if appendable { Disk::Works } else { Disk::Failing { retry: now.boot + RETRY_AFTER } };
    }

    /// Begins this run, on this start of the computer: events that were left open end, and limits may have been lowered since. Returns
    /// the count of dropped events where a log line is due, as do all that may drop some.
    pub(super) fn begin_run(&mut self, boot_id: Option<u128>, now: Clocks) -> Option<u64> {
        self.queue.begin_run(boot_id, now);
        let dropped = self.queue.rewind(now);
        // From what the log has, the next run would make the same ends.
        (self.written, self.returned) = (self.queue.next_message(), self.queue.next_message());
        if self.disk == Disk::Works && self.queue.events() > 0 {
            // An earlier run may have been killed before it synced, or when a sync had failed: another sync of that file would say that
            // all is well.
            (self.needs_rewrite, self.due) = (true, Some(now.boot + SYNC_AFTER));
        }
        self.after_change(dropped, now)
    }

    /// There is no disk, after all, or none any more.
    pub(super) fn lose_disk(&mut self) {
        (self.disk, self.closed, self.returned) = (Disk::None, true, self.queue.next_message());
        self.queue.begin_log();
    }

    /// Adds a start. [`Self::is_pending`] of the next message says whether to wait for the disk.
    pub(super) fn start(&mut self, topic: &Arc<str>, record: EventRecord, now: Clocks) -> Option<u64> {
        let dropped = self.queue.start(topic, record, now);
        self.after_message(dropped, now)
    }

    /// Adds an end.
    pub(super) fn end(&mut self, record: &EventRecord, now: Clocks) -> Option<u64> {
        let dropped = self.queue.end(record, now);
        self.after_message(dropped, now)
    }

    /// The topic's open event was still going on when a window with this score ended, `lasted` after the event had begun.
    pub(super) fn touch(&mut self, topic: &Arc<str>, lasted: Duration, score: f32) {
        self.queue.touch(topic, lasted, score);
    }

    /// The next message that was not handed out since [`Self::rewind`]. One whose caller waits for the disk is not handed out yet: a
    /// broker that has a start shall get its end also where the process dies now.
    pub(super) fn next(&mut self) -> Option<PendingMessage> {
        self.queue.next(self.written.max(self.returned))
    }

    /// Hands out everything again; what is too old is dropped.
    pub(super) fn rewind(&mut self, now: Clocks) -> Option<u64> {
        let dropped = self.queue.rewind(now);
        self.after_change(dropped, now)
    }

    /// The broker has this message.
    pub(super) fn acknowledge(&mut self, message: u64, now: Clocks) {
        self.queue.acknowledge(message, now);
        self.after_change(0, now);
    }

    /// The next run shall find all. After this, [`Self::next_job`] ends with none and [`Self::is_closing`] with nothing to do.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// The caller of the messages below this number goes on without the disk; true where it is the first that does.
    pub(super) fn give_up(&mut self, messages: u64) -> bool {
        let first = self.has_all();
        self.returned = self.returned.max(messages);
        first
    }

    fn after_message(&mut self, dropped: u64, now: Clocks) -> Option<u64> {
        if !self.has_all() {
            // It is late already: nobody waits for it twice.
            self.returned = self.queue.next_message();
        }
        self.after_change(dropped, now)
    }

    fn after_change(&mut self, dropped: u64, now: Clocks) -> Option<u64> {
        if !self.keeps_journal() {
            self.queue.begin_log();
        } else if self.queue.journal_len() > MAX_JOURNAL {
            self.queue.begin_log();
            self.needs_rewrite = true;
        }
        if self.disk == Disk::Works && (self.queue.journal_len() > 0 || self.needs_rewrite) {
            self.due.get_or_insert(now.boot + SYNC_AFTER);
        }
        self.dropped.add(dropped)
    }

    /// Whether the journal will be appended to what the log has: also to what is being written anew right now.
    fn keeps_journal(&self) -> bool {
        self.disk == Disk::Works || self.in_flight.as_ref().is_some_and(|job| job.rewrites)
    }

    /// What is to be done next, if there is something and nothing is being done. [`Self::finish_job`] says what became of it.
    pub(super) fn next_job(&mut self, now: Clocks) -> Option<Job> {
        if self.in_flight.is_some() {
            return None;
        }
        self.queue.follow_clock(now);
        self.after_change(0, now);
        let job = match self.disk {
            Disk::None => None,
            Disk::Failing { retry } => (now.boot >= retry || self.closing).then(|| self.rewrite()),
            Disk::Works => self.next_write(now.boot),
        }?;
        let len = match &job {
            Job::Append(entries) | Job::Sync(entries) => self.len + entries.len() as u64,
            Job::Rewrite(entries) => entries.len() as u64,
            Job::Clear => 0,
        };
        self.in_flight = Some(JobInFlight {
            messages: self.queue.next_message(),
            synced: matches!(job, Job::Sync(_) | Job::Rewrite(_)),
            len,
            rewrites: matches!(job, Job::Rewrite(_)),
            last: self.closing && matches!(self.disk, Disk::Failing { .. }),
        });
        Some(job)
    }

    fn next_write(&mut self, now: BootTime) -> Option<Job> {
        let touched = self.closing || (self.queue.has_open() && now >= self.touches_due);
        if touched {
            self.touches_due = now + TOUCH_INTERVAL;
            self.queue.journal_touches();
        }
        if self.closing || self.due.is_some_and(|due| now >= due) {
            self.due = None;
            return self.tidy();
        }
        if self.written == self.queue.next_message() && !(touched && self.queue.journal_len() > 0) {
            return None;
        }
        Some(if self.needs_rewrite { self.rewrite() } else { Job::Append(self.queue.take_journal()) })
    }

    /// What is due a second after a change.
    fn tidy(&mut self) -> Option<Job> {
        let unwritten = self.written < self.queue.next_message();
        if self.queue.events() == 0 {
            self.queue.begin_log();
            self.needs_rewrite = false;
            return (self.len > 0 || unwritten).then_some(Job::Clear);
        }
        if self.needs_rewrite || self.len > REWRITE_FROM + 2 * self.live {
            return Some(self.rewrite());
        }
        if self.queue.waits_since(self.synced) {
            return Some(Job::Sync(self.queue.take_journal()));
        }
        (self.queue.journal_len() > 0 || unwritten).then(|| Job::Append(self.queue.take_journal()))
    }

    fn rewrite(&mut self) -> Job {
        self.queue.take_journal();
        self.needs_rewrite = false;
        self.due = None;
        Job::Rewrite(self.queue.snapshot())
    }

    /// The job that [`Self::next_job`] has given out is done, or failed. Returns what that says of the disk, where it is news.
    pub(super) fn finish_job(&mut self, done: io::Result<()>, now: Clocks) -> Option<DiskChange> {
        let job = self.in_flight.take()?;
        match done {
            Ok(()) => {
                self.disk = Disk::Works;
                self.len = job.len;
                self.written = self.written.max(job.messages);
                if job.synced {
                    self.synced = job.messages;
                }
                if job.rewrites {
                    self.live = job.len;
                }
                self.after_change(0, now);
                if self.len > 0 && self.queue.events() == 0 {
                    self.due.get_or_insert(now.boot + SYNC_AFTER);
                }
                (self.has_all() && std::mem::take(&mut self.failed)).then_some(DiskChange::Recovered)
            }
            Err(error) => {
                let retry = if self.closing { now.boot } else { now.boot + RETRY_AFTER };
                self.disk = if job.last { Disk::None } else { Disk::Failing { retry } };
                self.returned = self.queue.next_message();
                self.queue.begin_log();
                (self.needs_rewrite, self.due) = (false, None);
                (!std::mem::replace(&mut self.failed, true)).then_some(DiskChange::Failed(error))
            }
        }
    }

    /// When [`Self::next_job`] may have something to do that nobody has called for; none: not before something changes.
    pub(super) fn wake_at(&self, now: BootTime) -> Option<BootTime> {
        match self.disk {
            Disk::None => None,
            Disk::Failing { retry } => Some(retry),
            Disk::Works => {
                let touches = self.queue.has_open().then_some(self.touches_due);
                let clock = (self.queue.events() > 0).then(|| now + CLOCK_INTERVAL);
                [self.due, touches, clock].into_iter().flatten().min()
            }
        }
    }

    /// Whether the disk has every message whose caller went on.
    fn has_all(&self) -> bool {
        self.disk == Disk::Works && self.written >= self.returned
    }

    /// Where events are: `disk`, or `memory`, where they end with this process.
    pub(super) fn storage(&self) -> &'static str {
        if self.has_all() { "disk" } else { "memory" }
    }

    /// Whether it is worth to wait for the disk to have the messages below this number.
    pub(super) fn is_pending(&self, messages: u64) -> bool {
        self.written < messages && self.returned < messages
    }

    /// The number that the next message will have.
    pub(super) fn next_message(&self) -> u64 {
        self.queue.next_message()
    }

    /// When something is due that nobody waits for.
    pub(super) fn due(&self) -> Option<BootTime> {
        self.due
    }

    /// Where a message that waits goes.
    pub(super) fn topic(&self, message: u64) -> Option<Arc<str>> {
        self.queue.topic(message)
    }

    /// Whether there is a message that was not handed out since [`Self::rewind`].
    pub(super) fn has_next(&self) -> bool {
        self.queue.has_next()
    }

    /// Messages that wait for the broker.
    pub(super) fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Events that were dropped over a bound.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Whether the log is to be let go of once there is no job left.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// The log was let go of: nothing that comes now is written.
    pub(super) fn set_closed(&mut self) {
        self.is_stored = self.has_all();
        self.lose_disk();
    }

    /// Whether the log was let go of with all that waits.
    pub(super) fn is_stored(&self) -> bool {
        self.closed && (self.is_stored || self.queue.waiting() == 0)
    }

    /// Whether the log was let go of, or never was.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests;
