//! What waits for the broker, in its order and within its bounds, without a clock or a file.
//!
//! Every change writes an entry to the journal, and the entries of an earlier run make the queue again. An event is a
//! start and its end; it stays until the broker has both, and while it is open also then, so that a later run can end
//! it. Open events are one a topic, the others at most `max_events`; the tests below hold these bounds.
//!
//! Times of day are corrected where the clock is set, as far as they are of this start of the computer: those of an
//! earlier process too, since the log says which clock they are of. Only what was handed out stays as the broker may
//! know it, so that a message that is sent twice is the same message: an end that was not has the right times, also
//! where its start was published with wrong ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::log_entry::LogEntry;
use super::{EventRecord, PendingMessage};
use crate::time::{BootTime, ClockStep, Clocks};

/// Before this the time of day was not set when it was read: a small computer without a clock of its own starts at 1970.
const EARLIEST_SET_TIME: Duration = Duration::from_secs(1_735_689_600);

/// A thousand events a second reach it in some hundred million years.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) max_events: usize,
    pub(super) max_age: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    End,
}

#[derive(Debug)]
struct QueuedEvent {
    topic: Arc<str>,
    /// As it started, by the clock as it is set now.
    record: EventRecord,
    stored_at: SystemTime,
    /// Its start's number among the messages.
    start: u64,
    start_acked: bool,
    /// `started_at` in the start that was handed out.
    start_sent: Option<SystemTime>,
    end: Option<EventEnd>,
    last_touch: LastTouch,
}

#[derive(Debug)]
struct EventEnd {
    message: u64,
    stored_at: SystemTime,
    score: f32,
    peak: f32,
    duration: Duration,
    expires: BootTime,
    /// `started_at` in the end that was handed out.
    sent: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy)]
struct LastTouch {
    lasted: Duration,
    score: f32,
    peak: f32,
    written: bool,
}

impl QueuedEvent {
    /// The time of day was set. Whose time it is decides when it happened; that it has grown no older holds for any event.
    fn correct(&mut self, step: ClockStep, own: bool) {
        self.stored_at = step.correct(self.stored_at);
        if let Some(end) = &mut self.end {
            end.stored_at = step.correct(end.stored_at);
        }
        if own {
            self.record.started_at = step.correct(self.record.started_at);
        }
    }

    /// What the broker may know otherwise than it is known now, as entries of the log.
    fn sent(&self, event: u64) -> impl Iterator<Item = LogEntry> {
        let start = self.start_sent.filter(|_| !self.start_acked).map(|at| (false, at));
        let end = self.end.as_ref().and_then(|end| end.sent).map(|at| (true, at));
        let other = self.record.started_at;
        [start, end]
            .into_iter()
            .flatten()
            .filter(move |(_, at)| *at != other)
            .map(move |(ended, started_at)| LogEntry::Sent { event, ended, started_at })
    }

    /// Whether the broker may know a part of it.
    fn is_known(&self) -> bool {
        self.start_acked || self.start_sent.is_some() || self.end.as_ref().is_some_and(|end| end.sent.is_some())
    }
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// By number, which is their order.
    events: BTreeMap<u64, QueuedEvent>,
    /// Messages that the broker has not acknowledged, by number, with their event.
    waiting: BTreeMap<u64, (u64, Part)>,
    /// Numbers of the events that have not ended.
    open: Vec<u64>,
    next_event: u64,
    next_message: u64,
    /// Messages below this number were handed out on this connection.
    cursor: u64,
    /// Bytes of entries that the log does not have yet.
    journal: Vec<u8>,
    /// The clocks as they were when the time of day was last set, or first looked at; and the start of the computer that they are of.
    clocks: Option<Clocks>,
    boot_id: Option<u128>,
    /// The log has an entry with these clocks.
    clock_written: bool,
    /// Events below this number are of an earlier start of the computer, whose clock nobody knows any more.
    first_own: u64,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            events: BTreeMap::new(),
            waiting: BTreeMap::new(),
            open: Vec::new(),
            next_event: 0,
            next_message: 0,
            cursor: 0,
            journal: Vec::new(),
            clocks: None,
            boot_id: None,
            clock_written: false,
            first_own: 0,
        }
    }

    /// Begins this run, on this start of the computer: what an earlier run stored gets the times of the clock as it is now, and
    /// every open event, which that run has left behind, ends when it was touched last.
    pub(super) fn begin_run(&mut self, boot_id: Option<u128>, now: Clocks) {
        if boot_id.is_none() || boot_id != self.boot_id {
            (self.first_own, self.clocks) = (self.next_event, Some(now));
            (self.boot_id, self.clock_written) = (boot_id, false);
        }
        self.follow_clock(now);
        for event in self.events.values_mut() {
            if let Some(end) = &mut event.end {
                end.expires = expiry(self.limits, end.stored_at, now);
            }
        }
        self.open.clone().iter().for_each(|event| self.end_at_last_touch(*event, now));
    }

    /// Finds out whether the time of day was set. Then nothing has grown older by it, and what was not handed out happened at
    /// another time of day: a small computer listens before it knows the time.
    pub(super) fn follow_clock(&mut self, now: Clocks) {
        if self.correct_times(now) {
            self.clock_written = false;
            if !self.events.is_empty() {
                self.journal_clock();
                let sent: Vec<LogEntry> = self.events.iter().flat_map(|(number, event)| event.sent(*number)).collect();
                sent.iter().for_each(|entry| entry.write(&mut self.journal));
            }
        }
    }

    /// True where the time of day was set.
    fn correct_times(&mut self, now: Clocks) -> bool {
        let before = self.clocks.get_or_insert(now);
        let Some(step) = now.step_since(before) else { return false };
        *before = now;
        for (number, event) in &mut self.events {
            event.correct(step, *number >= self.first_own);
        }
        true
    }

    /// Has the log say which clock its times are of, unless it does.
    fn journal_clock(&mut self) {
        if let (false, Some(entry)) = (self.clock_written, self.clock()) {
            entry.write(&mut self.journal);
            self.clock_written = true;
        }
    }

    fn clock(&self) -> Option<LogEntry> {
        let (boot_id, Clocks { boot, wall, .. }) = (self.boot_id?, self.clocks?);
        Some(LogEntry::Clock { boot_id, now: boot, wall })
    }

    /// Adds a start. A topic has one open event: one that is open still ends first. Returns how many events were dropped for it.
    pub(super) fn start(&mut self, topic: &Arc<str>, record: EventRecord, now: Clocks) -> u64 {
        self.follow_clock(now);
        let before = self.open.iter().copied().find(|event| self.events.get(event).is_some_and(|e| e.topic == *topic));
        if let Some(event) = before {
            self.end_at_last_touch(event, now);
        }
        let entry = LogEntry::Started { event: self.next_event, stored_at: now.wall, topic: Arc::clone(topic), record };
        self.change(entry, now);
        self.trim(now.boot)
    }

    /// Adds an end, if its start is known, and returns how many events were dropped for it.
    pub(super) fn end(&mut self, record: &EventRecord, now: Clocks) -> u64 {
        self.follow_clock(now);
        let open = |event: &&u64| self.events.get(event).is_some_and(|e| e.record.id == record.id);
        let Some(event) = self.open.iter().find(open).copied() else { return 0 };
        let duration = record.duration.unwrap_or_default();
        if let Some(levels) = record.levels {
            self.change(LogEntry::Metered { event, levels }, now);
        }
        self.change(
            LogEntry::Ended { event, stored_at: now.wall, score: record.score, peak: record.peak, duration },
            now,
        );
        self.trim(now.boot)
    }

    /// The topic's event, if one is open, was still going on when a window ended, `lasted` after the event had begun.
    pub(super) fn touch(&mut self, topic: &Arc<str>, lasted: Duration, score: f32) {
        for event in &self.open {
            if let Some(event) = self.events.get_mut(event)
                && event.topic == *topic
            {
                event.last_touch = LastTouch { lasted, score, peak: event.last_touch.peak.max(score), written: false };
            }
        }
    }

    /// Journals when open events were touched last.
    pub(super) fn journal_touches(&mut self) {
        for number in &self.open {
            if let Some(event) = self.events.get_mut(number)
                && !event.last_touch.written
            {
                event.last_touch.written = true;
                let LastTouch { lasted, score, peak, .. } = event.last_touch;
                LogEntry::Touched { event: *number, lasted, score, peak }.write(&mut self.journal);
            }
        }
    }

    /// The next message below `limit` that this connection was not given yet.
    pub(super) fn next(&mut self, limit: u64) -> Option<PendingMessage> {
        let (message, (number, part)) =
            self.waiting.range(self.cursor..limit.max(self.cursor)).next().map(|(m, of)| (*m, *of))?;
        self.cursor = message + 1;
        let event = self.events.get_mut(&number)?;
        let mut record = event.record.clone();
        record.started_at = match (part, &mut event.end) {
            (Part::End, Some(end)) => {
                (record.score, record.peak, record.duration) = (end.score, end.peak, Some(end.duration));
                *end.sent.get_or_insert(record.started_at)
            }
            _ => {
                record.levels = None;
                *event.start_sent.get_or_insert(record.started_at)
            }
        };
        Some(PendingMessage { number: message, topic: Arc::clone(&event.topic), record })
    }

    /// The topic of a message that waits.
    pub(super) fn topic(&self, message: u64) -> Option<Arc<str>> {
        let (event, _) = self.waiting.get(&message)?;
        self.events.get(event).map(|event| Arc::clone(&event.topic))
    }

    /// Whether there is a message that this connection was not given yet.
    pub(super) fn has_next(&self) -> bool {
        self.waits_since(self.cursor)
    }

    /// A new connection knows nothing of what the one before it was given; what is too old is dropped, and counted.
    pub(super) fn rewind(&mut self, now: Clocks) -> u64 {
        self.follow_clock(now);
        self.cursor = 0;
        self.trim(now.boot)
    }

    /// The broker has this message.
    pub(super) fn acknowledge(&mut self, message: u64, now: Clocks) {
        match self.waiting.get(&message) {
            Some((event, Part::Start)) => self.change(LogEntry::StartAcked { event: *event }, now),
            Some((event, Part::End)) => self.change(LogEntry::Removed { event: *event }, now),
            None => {}
        }
    }

    fn end_at_last_touch(&mut self, event: u64, now: Clocks) {
        let Some(QueuedEvent { last_touch: LastTouch { lasted, score, peak, .. }, .. }) = self.events.get(&event)
        else {
            return;
        };
        let (score, peak, duration) = (*score, *peak, *lasted);
        self.change(LogEntry::Ended { event, stored_at: now.wall, score, peak, duration }, now);
    }

    fn change(&mut self, entry: LogEntry, now: Clocks) {
        self.journal_clock();
        entry.write(&mut self.journal);
        self.apply(entry, now);
    }

    /// Makes the change of an entry, of this or an earlier run. One that does not fit (its start was lost) is passed over.
    pub(super) fn apply(&mut self, entry: LogEntry, now: Clocks) {
        match entry {
            LogEntry::Started { event, stored_at, topic, record } => self.insert(event, stored_at, topic, record),
            LogEntry::Ended { event: number, stored_at, score, peak, duration } => {
                let Some(event) = self.events.get_mut(&number).filter(|event| event.end.is_none()) else { return };
                let (message, expires) = (self.next_message, expiry(self.limits, stored_at, now));
                event.end = Some(EventEnd { message, stored_at, score, peak, duration, expires, sent: None });
                self.open.retain(|open| *open != number);
                self.waiting.insert(self.next_message, (number, Part::End));
                self.next_message += 1;
            }
            LogEntry::StartAcked { event } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.start_acked = true;
                    self.waiting.remove(&event.start);
                }
            }
            LogEntry::Removed { event } => self.remove(event),
            LogEntry::Metered { event, levels } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.record.levels = Some(levels);
                }
            }
            LogEntry::TouchedAt { event: number, at, score, peak } => {
                if let Some(event) = self.events.get_mut(&number) {
                    // A damaged log may say that it was touched before it began.
                    let lasted = at.duration_since(event.record.started_at).unwrap_or_default();
                    event.last_touch = LastTouch { lasted, score, peak, written: true };
                }
            }
            LogEntry::Touched { event, lasted, score, peak } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.last_touch = LastTouch { lasted, score, peak, written: true };
                }
            }
            LogEntry::Sent { event, ended, started_at } => {
                let event = self.events.get_mut(&event);
                match event.map(|event| (&mut event.start_sent, &mut event.end)) {
                    Some((_, Some(end))) if ended => end.sent = Some(started_at),
                    Some((start_sent, _)) if !ended => *start_sent = Some(started_at),
                    _ => {}
                }
            }
            LogEntry::Clock { boot_id, now, wall } => {
                self.read_clock(boot_id, Clocks { boot: now, suspended: Duration::ZERO, wall });
            }
        }
    }

    /// The log says that times from here on are of this clock. One of the same start of the computer was set in between; of another,
    /// nobody knows how it was set.
    fn read_clock(&mut self, boot_id: u128, clocks: Clocks) {
        if self.boot_id == Some(boot_id) {
            self.correct_times(clocks);
        } else {
            (self.first_own, self.boot_id, self.clocks) = (self.next_event, Some(boot_id), Some(clocks));
        }
        self.clock_written = true;
    }

    /// A number comes once, and none of ours grows so far: a log that says otherwise was not written by us.
    fn insert(&mut self, number: u64, stored_at: SystemTime, topic: Arc<str>, record: EventRecord) {
        if self.events.contains_key(&number) || number > MAX_NUMBER {
            return;
        }
        let (start, score, peak) = (self.next_message, record.score, record.peak);
        // Until a window is scored, all that is known is that it had begun.
        let last_touch = LastTouch { lasted: Duration::ZERO, score, peak, written: true };
        let event = QueuedEvent {
            topic,
            record,
            stored_at,
            start,
            start_acked: false,
            start_sent: None,
            end: None,
            last_touch,
        };
        self.events.insert(number, event);
        self.waiting.insert(start, (number, Part::Start));
        self.open.push(number);
        self.next_event = self.next_event.max(number + 1);
        self.next_message += 1;
    }

    /// Drops what is over a bound, and returns how many events that were.
    fn trim(&mut self, now: BootTime) -> u64 {
        let mut dropped = 0;
        while let Some(event) = self.expired(now).or_else(|| self.surplus()) {
            LogEntry::Removed { event }.write(&mut self.journal);
            self.remove(event);
            dropped += 1;
        }
        dropped
    }

    fn remove(&mut self, number: u64) {
        if let Some(event) = self.events.remove(&number) {
            self.waiting.remove(&event.start);
            event.end.map(|end| self.waiting.remove(&end.message));
        }
        self.open.retain(|open| *open != number);
    }

    /// The oldest event of all, if it ended longer ago than is allowed.
    fn expired(&self, now: BootTime) -> Option<u64> {
        let ended = self.events.iter().find_map(|(number, event)| Some((*number, event.end.as_ref()?.expires)))?;
        (ended.1 <= now).then_some(ended.0)
    }

    /// The oldest event that the broker cannot know of, or else the oldest, if too many wait: an end whose start was handed out
    /// is worth more than another pair.
    fn surplus(&self) -> Option<u64> {
        if self.events.len() - self.open.len() <= self.limits.max_events {
            return None;
        }
        let mut ended = self.events.iter().filter(|(_, event)| event.end.is_some());
        let unknown = ended.clone().find(|(_, event)| !event.is_known());
        unknown.or_else(|| ended.next()).map(|(number, _)| *number)
    }

    /// The entries that make a queue like this one; those of its own clock come behind the entry that tells which one that is.
    pub(super) fn snapshot(&mut self) -> Vec<u8> {
        let mut messages = BTreeMap::new();
        let mut known = Vec::new();
        let mut first_own = u64::MAX;
        for (number, event) in &self.events {
            let (number, stored_at) = (*number, event.stored_at);
            let (topic, record) = (Arc::clone(&event.topic), event.record.clone());
            if number >= self.first_own {
                first_own = first_own.min(event.start);
            }
            messages.insert(event.start, LogEntry::Started { event: number, stored_at, topic, record });
            if event.start_acked {
                known.push(LogEntry::StartAcked { event: number });
            }
            known.extend(event.sent(number));
            known.extend(event.record.levels.map(|levels| LogEntry::Metered { event: number, levels }));
            match &event.end {
                Some(EventEnd { message, stored_at, score, peak, duration, .. }) => {
                    let (stored_at, score, peak, duration) = (*stored_at, *score, *peak, *duration);
                    messages.insert(*message, LogEntry::Ended { event: number, stored_at, score, peak, duration });
                }
                None => {
                    let LastTouch { lasted, score, peak, .. } = event.last_touch;
                    known.push(LogEntry::Touched { event: number, lasted, score, peak });
                }
            }
        }
        let (clock, mut bytes) = (self.clock(), Vec::new());
        self.clock_written = !messages.is_empty();
        messages.range(..first_own).for_each(|(_, entry)| entry.write(&mut bytes));
        clock.filter(|_| self.clock_written).iter().for_each(|entry| entry.write(&mut bytes));
        messages.range(first_own..).for_each(|(_, entry)| entry.write(&mut bytes));
        known.iter().for_each(|entry| entry.write(&mut bytes));
        bytes
    }

    /// Takes the entries of the changes since the last call.
    pub(super) fn take_journal(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.journal)
    }

    /// The log is emptied: what is journalled from now on stands at its beginning.
    pub(super) fn begin_log(&mut self) {
        self.journal.clear();
        self.clock_written = false;
    }

    /// Bytes of changes that the log does not have.
    pub(super) fn journal_len(&self) -> usize {
        self.journal.len()
    }

    /// The events' ids of the messages that wait, and which are ends.
    #[cfg(test)]
    pub(super) fn waiting_ids(&self) -> Vec<(String, bool)> {
        self.waiting.values().map(|(event, part)| (self.events[event].record.id.clone(), *part == Part::End)).collect()
    }

    /// Messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Events that it holds: those that wait, and those that are open.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether an event is open.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The number that the next message will have.
    pub(super) fn next_message(&self) -> u64 {
        self.next_message
    }

    /// Whether the message with `number` or a later one waits.
    pub(super) fn waits_since(&self, number: u64) -> bool {
        self.waiting.last_key_value().is_some_and(|(last, _)| *last >= number)
    }
}

/// When an end that was stored then is too old.
fn expiry(limits: Limits, stored_at: SystemTime, now: Clocks) -> BootTime {
    now.boot + limits.max_age.saturating_sub(age(stored_at, now.wall))
}

/// How long ago it was stored, as far as that can be known: a clock that was not set yet says nothing.
fn age(stored_at: SystemTime, wall: SystemTime) -> Duration {
    let known = stored_at.duration_since(UNIX_EPOCH).is_ok_and(|since| since >= EARLIEST_SET_TIME);
    if known { wall.duration_since(stored_at).unwrap_or_default() } else { Duration::ZERO }
}

#[cfg(test)]
mod tests;
