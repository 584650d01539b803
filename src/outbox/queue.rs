//! What waits for the broker, in its order and within its bounds.
//!
//! In: starts and ends, the broker's acknowledgements, and the records of an earlier run. Out: the next message to send, and
//! in the journal a record of every change. An event is a start and its end; it is kept until the broker has both, and
//! while it is open also then, so that a later run can end it.
//! Never: grows without a bound (open events are one a topic, the others at most `max_events`); forgets an event without an
//! acknowledgement, but for the oldest over a bound; asks for the time, or touches a file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::record::Record;
use super::{Notice, Waiting};
use crate::time::{Clocks, Step};

/// Before this the time of day was not set when it was read: a small computer without a clock of its own starts at 1970.
const CLOCK_WAS_SET: Duration = Duration::from_secs(1_735_689_600);

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
struct Event {
    topic: Arc<str>,
    /// As it started.
    notice: Notice,
    kept_at: SystemTime,
    /// Its start's number among the messages.
    start: u64,
    start_told: bool,
    end: Option<End>,
    /// Part of it was handed out: the broker may know it.
    handed_out: bool,
    heard: Heard,
}

#[derive(Debug)]
struct End {
    message: u64,
    kept_at: SystemTime,
    score: f32,
    peak: f32,
    duration: Duration,
    expires: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: SystemTime,
    score: f32,
    peak: f32,
    written: bool,
}

impl Event {
    /// The time of day was set. What the broker may have been told stays as it was told.
    fn correct(&mut self, step: Step, own: bool) {
        self.kept_at = step.correct(self.kept_at);
        if let Some(end) = &mut self.end {
            end.kept_at = step.correct(end.kept_at);
        }
        if own && !self.handed_out {
            self.notice.started_at = step.correct(self.notice.started_at);
            self.heard.at = step.correct(self.heard.at);
        }
    }
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// By number, which is their order.
    events: BTreeMap<u64, Event>,
    /// Messages that the broker has not acknowledged, by number, with their event.
    waiting: BTreeMap<u64, (u64, Part)>,
    /// Numbers of the events that have not ended.
    open: Vec<u64>,
    next_event: u64,
    next_message: u64,
    /// Messages below this number were handed out on this connection.
    cursor: u64,
    /// Bytes of records that the log does not have yet.
    journal: Vec<u8>,
    /// When it was looked whether the time of day was set; none before the first look.
    clocks: Option<Clocks>,
    /// Events below this number are of an earlier run.
    own_from: u64,
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
            own_from: 0,
            outdated: false,
        }
    }

    /// Looks whether the time of day was set. Then nothing has grown older by it, for the next run either, and what this run
    /// keeps and has told nobody happened at another time of day: a small computer hears before it knows the time.
    pub(super) fn follow_clock(&mut self, now: Clocks) {
        let before = self.clocks.get_or_insert(now);
        let Some(step) = now.step_since(before) else { return };
        *before = now;
        for (number, event) in &mut self.events {
            event.correct(step, *number >= self.own_from);
        }
        self.outdated = !self.events.is_empty();
    }

    /// Keeps a start. A topic has one open event: one that is open still ends first. Returns how many events were dropped for it.
    pub(super) fn start(&mut self, topic: &Arc<str>, notice: Notice, now: Clocks) -> u64 {
        self.follow_clock(now);
        let before = self.open.iter().copied().find(|event| self.events.get(event).is_some_and(|e| e.topic == *topic));
        if let Some(event) = before {
            self.end_as_heard(event, now);
        }
        let record = Record::Started { event: self.next_event, kept_at: now.wall, topic: Arc::clone(topic), notice };
        self.change(record, now);
        self.trim(now.steady)
    }

    /// Keeps an end, if its start was ever heard of, and returns how many events were dropped for it.
    pub(super) fn end(&mut self, notice: &Notice, now: Clocks) -> u64 {
        self.follow_clock(now);
        let open = |event: &&u64| self.events.get(event).is_some_and(|e| e.notice.id == notice.id);
        let Some(event) = self.open.iter().find(open).copied() else { return 0 };
        let duration = notice.duration.unwrap_or_default();
        self.change(Record::Ended { event, kept_at: now.wall, score: notice.score, peak: notice.peak, duration }, now);
        self.trim(now.steady)
    }

    /// A window was heard in which the topic's event was open, if one is; it ended `lasted` after the event had begun.
    pub(super) fn hear(&mut self, topic: &Arc<str>, lasted: Duration, score: f32) {
        for event in &self.open {
            if let Some(event) = self.events.get_mut(event)
                && event.topic == *topic
            {
                let at = event.notice.started_at.checked_add(lasted).unwrap_or(event.notice.started_at);
                event.heard = Heard { at, score, peak: event.heard.peak.max(score), written: false };
            }
        }
    }

    /// Journals when open events were heard last.
    pub(super) fn journal_heard(&mut self) {
        for number in &self.open {
            if let Some(event) = self.events.get_mut(number)
                && !event.heard.written
            {
                event.heard.written = true;
                let Heard { at, score, peak, .. } = event.heard;
                Record::Heard { event: *number, at, score, peak }.write(&mut self.journal);
            }
        }
    }

    /// The next message that this connection was not given yet.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        let (message, (number, part)) = self.waiting.range(self.cursor..).next().map(|(m, of)| (*m, *of))?;
        self.cursor = message + 1;
        let event = self.events.get_mut(&number)?;
        event.handed_out = true;
        let mut notice = event.notice.clone();
        if let (Part::End, Some(end)) = (part, &event.end) {
            (notice.score, notice.peak, notice.duration) = (end.score, end.peak, Some(end.duration));
        }
        Some(Waiting { number: message, topic: Arc::clone(&event.topic), notice })
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
            Some((event, Part::Start)) => self.change(Record::StartTold { event: *event }, now),
            Some((event, Part::End)) => self.change(Record::Forgotten { event: *event }, now),
            None => {}
        }
    }

    /// Begins this run: ends every open event, which another has left behind, at the time that it was heard last.
    pub(super) fn begin(&mut self, now: Clocks) {
        self.own_from = self.next_event;
        self.open.clone().iter().for_each(|event| self.end_as_heard(*event, now));
    }

    fn end_as_heard(&mut self, event: u64, now: Clocks) {
        let Some(Event { heard, notice, .. }) = self.events.get(&event) else { return };
        // A damaged log may say that it was heard before it began.
        let duration = heard.at.duration_since(notice.started_at).unwrap_or_default();
        let (score, peak) = (heard.score, heard.peak);
        self.change(Record::Ended { event, kept_at: now.wall, score, peak, duration }, now);
    }

    fn change(&mut self, record: Record, now: Clocks) {
        record.write(&mut self.journal);
        self.apply(record, now);
    }

    /// Changes what a record says, now or in an earlier run. What does not fit (its start was lost) is passed over.
    pub(super) fn apply(&mut self, record: Record, now: Clocks) {
        match record {
            Record::Started { event, kept_at, topic, notice } => self.insert(event, kept_at, topic, notice),
            Record::Ended { event: number, kept_at, score, peak, duration } => {
                let Some(event) = self.events.get_mut(&number).filter(|event| event.end.is_none()) else { return };
                let expires = now.steady + self.limits.max_age.saturating_sub(age(kept_at, now.wall));
                event.end = Some(End { message: self.next_message, kept_at, score, peak, duration, expires });
                self.open.retain(|open| *open != number);
                self.waiting.insert(self.next_message, (number, Part::End));
                self.next_message += 1;
            }
            Record::StartTold { event } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.start_told = true;
                    self.waiting.remove(&event.start);
                }
            }
            Record::Forgotten { event } => {
                if let Some(event) = self.events.remove(&event) {
                    self.waiting.remove(&event.start);
                    event.end.map(|end| self.waiting.remove(&end.message));
                }
                self.open.retain(|open| *open != event);
            }
            Record::Heard { event, at, score, peak } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.heard = Heard { at, score, peak, written: true };
                }
            }
        }
    }

    /// A number comes once, and none of ours grows so far: a log that says otherwise was not written by us.
    fn insert(&mut self, number: u64, kept_at: SystemTime, topic: Arc<str>, notice: Notice) {
        if self.events.contains_key(&number) || number > MAX_NUMBER {
            return;
        }
        let (start, score, peak) = (self.next_message, notice.score, notice.peak);
        // Until a window is heard, all that is known is that it had begun.
        let heard = Heard { at: notice.started_at, score, peak, written: true };
        let event = Event { topic, notice, kept_at, start, start_told: false, end: None, handed_out: false, heard };
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
            Record::Forgotten { event }.write(&mut self.journal);
            self.apply(Record::Forgotten { event }, Clocks { steady: now, wall: UNIX_EPOCH });
            dropped += 1;
        }
        dropped
    }

    /// The oldest event of all, if it ended longer ago than is allowed.
    fn expired(&self, now: Instant) -> Option<u64> {
        let ended = self.events.iter().find_map(|(number, event)| Some((*number, event.end.as_ref()?.expires)))?;
        (ended.1 <= now).then_some(ended.0)
    }

    /// The oldest event that the broker cannot know of, or else the oldest, if too many wait: an end whose start was told
    /// is worth more than another pair.
    fn surplus(&self) -> Option<u64> {
        if self.events.len() - self.open.len() <= self.limits.max_events {
            return None;
        }
        let mut ended = self.events.iter().filter(|(_, event)| event.end.is_some());
        let unknown = ended.clone().find(|(_, event)| !event.handed_out && !event.start_told);
        unknown.or_else(|| ended.next()).map(|(number, _)| *number)
    }

    /// The records that make a queue like this one.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut messages = BTreeMap::new();
        let mut known = Vec::new();
        for (number, event) in &self.events {
            let (number, kept_at) = (*number, event.kept_at);
            let (topic, notice) = (Arc::clone(&event.topic), event.notice.clone());
            messages.insert(event.start, Record::Started { event: number, kept_at, topic, notice });
            if event.start_told {
                known.push(Record::StartTold { event: number });
            }
            match &event.end {
                Some(End { message, kept_at, score, peak, duration, .. }) => {
                    let (kept_at, score, peak, duration) = (*kept_at, *score, *peak, *duration);
                    messages.insert(*message, Record::Ended { event: number, kept_at, score, peak, duration });
                }
                None => {
                    let Heard { at, score, peak, .. } = event.heard;
                    known.push(Record::Heard { event: number, at, score, peak });
                }
            }
        }
        let mut bytes = Vec::new();
        messages.values().chain(&known).for_each(|record| record.write(&mut bytes));
        bytes
    }

    /// Takes the records of the changes since it was last asked.
    pub(super) fn take_journal(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.journal)
    }

    /// Whether there are changes that the log does not have.
    pub(super) fn has_news(&self) -> bool {
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

    /// Events that are kept: those that wait, and those that are open.
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

/// How long ago it was kept, as far as that can be known: a clock that was not set yet says nothing.
fn age(kept_at: SystemTime, wall: SystemTime) -> Duration {
    let known = kept_at.duration_since(UNIX_EPOCH).is_ok_and(|since| since >= CLOCK_WAS_SET);
    if known { wall.duration_since(kept_at).unwrap_or_default() } else { Duration::ZERO }
}

#[cfg(test)]
mod tests;
