//! What waits for the broker, in its order and within its bounds: the outbox as a state machine, without a clock or a
//! file.
//!
//! Every change writes an entry to the journal, and the entries of an earlier run make the queue again. An event is a
//! start and its end; it stays until the broker has both, and while it is open also then, so that a later run can end
//! it. Open events are one a topic, the others at most `max_events`; the tests below hold these bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::log_entry::LogEntry;
use super::{EventRecord, PendingMessage};
use crate::time::{ClockStep, Clocks};

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
    /// As it started.
    record: EventRecord,
    stored_at: SystemTime,
    /// Its start's number among the messages.
    start: u64,
    start_acked: bool,
    end: Option<EventEnd>,
    /// Part of it was handed out: the broker may know it.
    handed_out: bool,
    last_touch: LastTouch,
}

#[derive(Debug)]
struct EventEnd {
    message: u64,
    stored_at: SystemTime,
    score: f32,
    peak: f32,
    duration: Duration,
    expires: Instant,
}

#[derive(Debug, Clone, Copy)]
struct LastTouch {
    at: SystemTime,
    score: f32,
    peak: f32,
    written: bool,
}

impl QueuedEvent {
    /// The time of day was set. What was handed out stays as the broker may know it.
    fn correct(&mut self, step: ClockStep, own: bool) {
        self.stored_at = step.correct(self.stored_at);
        if let Some(end) = &mut self.end {
            end.stored_at = step.correct(end.stored_at);
        }
        if own && !self.handed_out {
            self.record.started_at = step.correct(self.record.started_at);
            self.last_touch.at = step.correct(self.last_touch.at);
        }
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
    /// The clocks as they were last compared; none before the first time.
    clocks: Option<Clocks>,
    /// Events below this number are of an earlier run.
    first_own: u64,
    /// The times in the log are of a clock that has been set since.
    outdated: bool,
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
            first_own: 0,
            outdated: false,
        }
    }

    /// Finds out whether the time of day was set. Then nothing has grown older by it, for the next run either, and what this run
    /// holds and has not handed out happened at another time of day: a small computer listens before it knows the time.
    pub(super) fn follow_clock(&mut self, now: Clocks) {
        let before = self.clocks.get_or_insert(now);
        let Some(step) = now.step_since(before) else { return };
        *before = now;
        for (number, event) in &mut self.events {
            event.correct(step, *number >= self.first_own);
        }
        self.outdated = !self.events.is_empty();
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
        self.trim(now.steady)
    }

    /// Adds an end, if its start is known, and returns how many events were dropped for it.
    pub(super) fn end(&mut self, record: &EventRecord, now: Clocks) -> u64 {
        self.follow_clock(now);
        let open = |event: &&u64| self.events.get(event).is_some_and(|e| e.record.id == record.id);
        let Some(event) = self.open.iter().find(open).copied() else { return 0 };
        let duration = record.duration.unwrap_or_default();
        self.change(
            LogEntry::Ended { event, stored_at: now.wall, score: record.score, peak: record.peak, duration },
            now,
        );
        self.trim(now.steady)
    }

    /// The topic's event, if one is open, was still going on when a window ended, `lasted` after the event had begun.
    pub(super) fn touch(&mut self, topic: &Arc<str>, lasted: Duration, score: f32) {
        for event in &self.open {
            if let Some(event) = self.events.get_mut(event)
                && event.topic == *topic
            {
                let at = event.record.started_at.checked_add(lasted).unwrap_or(event.record.started_at);
                event.last_touch = LastTouch { at, score, peak: event.last_touch.peak.max(score), written: false };
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
                let LastTouch { at, score, peak, .. } = event.last_touch;
                LogEntry::Touched { event: *number, at, score, peak }.write(&mut self.journal);
            }
        }
    }

    /// The next message that this connection was not given yet.
    pub(super) fn next(&mut self) -> Option<PendingMessage> {
        let (message, (number, part)) = self.waiting.range(self.cursor..).next().map(|(m, of)| (*m, *of))?;
        self.cursor = message + 1;
        let event = self.events.get_mut(&number)?;
        event.handed_out = true;
        let mut record = event.record.clone();
        if let (Part::End, Some(end)) = (part, &event.end) {
            (record.score, record.peak, record.duration) = (end.score, end.peak, Some(end.duration));
        }
        Some(PendingMessage { number: message, topic: Arc::clone(&event.topic), record })
    }

    /// The topic of a message that waits.
    pub(super) fn topic(&self, message: u64) -> Option<Arc<str>> {
        let (event, _) = self.waiting.get(&message)?;
        self.events.get(event).map(|event| Arc::clone(&event.topic))
    }

    /// Whether there is such a message.
    pub(super) fn has_next(&self) -> bool {
        self.waits_since(self.cursor)
    }

    /// A new connection knows nothing of what the one before it was given; what is too old is dropped, and counted.
    pub(super) fn rewind(&mut self, now: Clocks) -> u64 {
        self.follow_clock(now);
        self.cursor = 0;
        self.trim(now.steady)
    }

    /// The broker has this message.
    pub(super) fn acknowledge(&mut self, message: u64, now: Clocks) {
        match self.waiting.get(&message) {
            Some((event, Part::Start)) => self.change(LogEntry::StartAcked { event: *event }, now),
            Some((event, Part::End)) => self.change(LogEntry::Removed { event: *event }, now),
            None => {}
        }
    }

    /// Begins this run: ends every open event, which another has left behind, at the time at which it was touched last.
    pub(super) fn begin_run(&mut self, now: Clocks) {
        self.first_own = self.next_event;
        self.open.clone().iter().for_each(|event| self.end_at_last_touch(*event, now));
    }

    fn end_at_last_touch(&mut self, event: u64, now: Clocks) {
        let Some(QueuedEvent { last_touch, record, .. }) = self.events.get(&event) else { return };
        // A damaged log may say that it was touched before it began.
        let duration = last_touch.at.duration_since(record.started_at).unwrap_or_default();
        let (score, peak) = (last_touch.score, last_touch.peak);
        self.change(LogEntry::Ended { event, stored_at: now.wall, score, peak, duration }, now);
    }

    fn change(&mut self, entry: LogEntry, now: Clocks) {
        entry.write(&mut self.journal);
        self.apply(entry, now);
    }

    /// Makes the change of an entry, of this or an earlier run. One that does not fit (its start was lost) is passed over.
    pub(super) fn apply(&mut self, entry: LogEntry, now: Clocks) {
        match entry {
            LogEntry::Started { event, stored_at, topic, record } => self.insert(event, stored_at, topic, record),
            LogEntry::Ended { event: number, stored_at, score, peak, duration } => {
                let Some(event) = self.events.get_mut(&number).filter(|event| event.end.is_none()) else { return };
                let expires = now.steady + self.limits.max_age.saturating_sub(age(stored_at, now.wall));
                event.end = Some(EventEnd { message: self.next_message, stored_at, score, peak, duration, expires });
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
            LogEntry::Removed { event } => {
                if let Some(event) = self.events.remove(&event) {
                    self.waiting.remove(&event.start);
                    event.end.map(|end| self.waiting.remove(&end.message));
                }
                self.open.retain(|open| *open != event);
            }
            LogEntry::Touched { event, at, score, peak } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.last_touch = LastTouch { at, score, peak, written: true };
                }
            }
        }
    }

    /// A number comes once, and none of ours grows so far: a log that says otherwise was not written by us.
    fn insert(&mut self, number: u64, stored_at: SystemTime, topic: Arc<str>, record: EventRecord) {
        if self.events.contains_key(&number) || number > MAX_NUMBER {
            return;
        }
        let (start, score, peak) = (self.next_message, record.score, record.peak);
        // Until a window is scored, all that is known is that it had begun.
        let last_touch = LastTouch { at: record.started_at, score, peak, written: true };
        let event = QueuedEvent {
            topic,
            record,
            stored_at,
            start,
            start_acked: false,
            end: None,
            handed_out: false,
            last_touch,
        };
        self.events.insert(number, event);
        self.waiting.insert(start, (number, Part::Start));
        self.open.push(number);
        self.next_event = self.next_event.max(number + 1);
        self.next_message += 1;
    }

    /// Drops what is over a bound, and returns how many events that were.
    fn trim(&mut self, now: Instant) -> u64 {
        let mut dropped = 0;
        while let Some(event) = self.expired(now).or_else(|| self.surplus()) {
            LogEntry::Removed { event }.write(&mut self.journal);
            self.apply(LogEntry::Removed { event }, Clocks { steady: now, wall: UNIX_EPOCH });
            dropped += 1;
        }
        dropped
    }

    /// The oldest event of all, if it ended longer ago than is allowed.
    fn expired(&self, now: Instant) -> Option<u64> {
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
        let unknown = ended.clone().find(|(_, event)| !event.handed_out && !event.start_acked);
        unknown.or_else(|| ended.next()).map(|(number, _)| *number)
    }

    /// The entries that make a queue like this one.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut messages = BTreeMap::new();
        let mut known = Vec::new();
        for (number, event) in &self.events {
            let (number, stored_at) = (*number, event.stored_at);
            let (topic, record) = (Arc::clone(&event.topic), event.record.clone());
            messages.insert(event.start, LogEntry::Started { event: number, stored_at, topic, record });
            if event.start_acked {
                known.push(LogEntry::StartAcked { event: number });
            }
            match &event.end {
                Some(EventEnd { message, stored_at, score, peak, duration, .. }) => {
                    let (stored_at, score, peak, duration) = (*stored_at, *score, *peak, *duration);
                    messages.insert(*message, LogEntry::Ended { event: number, stored_at, score, peak, duration });
                }
                None => {
                    let LastTouch { at, score, peak, .. } = event.last_touch;
                    known.push(LogEntry::Touched { event: number, at, score, peak });
                }
            }
        }
        let mut bytes = Vec::new();
        messages.values().chain(&known).for_each(|entry| entry.write(&mut bytes));
        bytes
    }

    /// Takes the entries of the changes since the last call.
    pub(super) fn take_journal(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.journal)
    }

    /// Whether there are changes that the log does not have.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.journal.is_empty() || self.outdated
    }

    /// Whether the log has to be written anew, as times in it are wrong; once.
    pub(super) fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
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

    /// The number that the next message will have, and whether one with `number` or a later one waits.
    pub(super) fn next_message(&self) -> u64 {
        self.next_message
    }

    pub(super) fn waits_since(&self, number: u64) -> bool {
        self.waiting.last_key_value().is_some_and(|(last, _)| *last >= number)
    }
}

/// How long ago it was stored, as far as that can be known: a clock that was not set yet says nothing.
fn age(stored_at: SystemTime, wall: SystemTime) -> Duration {
    let known = stored_at.duration_since(UNIX_EPOCH).is_ok_and(|since| since >= EARLIEST_SET_TIME);
    if known { wall.duration_since(stored_at).unwrap_or_default() } else { Duration::ZERO }
}

#[cfg(test)]
mod tests;
