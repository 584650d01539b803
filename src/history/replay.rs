//! What a rule would have made of the scores of the past: they go through the detector that listens, one after the other.

use clapd_core::detect::{Detector, Event, EventKind, MAX_LOST};
use clapd_core::prompts::{PromptId, Rule};
use clapd_core::score::Score;
use clapd_core::time::SampleTime;

use super::ring::{Link, StoredWindow};

/// An event as it would have been; times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct PastEvent {
    /// When the sound began.
    pub started_at: i64,
    /// When it ended; none where it goes on.
    pub ended_at: Option<i64>,
    /// The highest score.
    pub peak: f32,
    /// No event of the rule in force was at that time.
    pub is_new: bool,
}

impl PastEvent {
    fn overlaps(&self, other: &Self) -> bool {
        let end = |event: &Self| event.ended_at.unwrap_or(i64::MAX);
        self.started_at <= end(other) && other.started_at <= end(self)
    }
}

/// A prompt's windows on their way through a detector.
pub(super) struct Replay {
    id: PromptId,
    rule: Rule,
    detector: Detector,
    /// Milliseconds since 1970, and the same on the sample clock, of the end of the newest window.
    newest: Option<(i64, SampleTime)>,
    events: Vec<PastEvent>,
}

impl Replay {
    pub(super) fn new(id: PromptId, rule: Rule) -> Self {
        Self { detector: Detector::new([(id.clone(), rule)]), id, rule, newest: None, events: Vec::new() }
    }

    /// Takes the window that comes next, which ended `at` milliseconds after the beginning of 1970.
    pub(super) fn push(&mut self, at: i64, window: &StoredWindow, score: Score) {
        if window.link != Link::Continues {
            self.interrupt();
        }
        if window.link == Link::Anew {
            self.detector = Detector::new([(self.id.clone(), self.rule)]);
        }
        if window.lost <= MAX_LOST
            && let Some(open) = self.events.last_mut().filter(|event| event.ended_at.is_none())
        {
            open.peak = open.peak.max(score.score);
        }
        let events = &mut self.events;
        self.detector.observe(window.start, window.end, window.lost, &[score], |event| {
            take(events, &event, at, window.end);
        });
        self.newest = Some((at, window.end));
    }

    /// What is open ends with the newest window.
    fn interrupt(&mut self) {
        let Some((at, end)) = self.newest else { return };
        let events = &mut self.events;
        self.detector.finish(end, |event| take(events, &event, at, end));
    }

    /// What there was, in order. An event that is open is left open.
    pub(super) fn into_events(self) -> Vec<PastEvent> {
        self.events
    }
}

/// `end` on the sample clock is `at`.
fn take(events: &mut Vec<PastEvent>, event: &Event, at: i64, end: SampleTime) {
    // A window's times are far below the 292 million years that fit.
    let wall = |time: SampleTime| at - end.since(time).as_millis() as i64;
    match event.kind {
        EventKind::Started => {
            let (started_at, peak) = (wall(event.started_at), event.peak);
            events.push(PastEvent { started_at, ended_at: None, peak, is_new: false });
        }
        EventKind::Ended => {
            if let Some(open) = events.last_mut() {
                open.ended_at = event.ended_at.map(wall);
                open.peak = event.peak;
            }
        }
    }
}

/// Marks the events that none of `before` is at the time of, and counts those of `before` that are at the time of none.
pub(super) fn compare(events: &mut [PastEvent], before: &[PastEvent]) -> usize {
    let gone = before.iter().filter(|old| !events.iter().any(|event| event.overlaps(old))).count();
    for event in events {
        event.is_new = !before.iter().any(|old| old.overlaps(event));
    }
    gone
}
