//! Scores into events: when what a prompt describes began, and when it ended.
//!
//! A [`Detector`] takes one [`Score`] a prompt and window, on the sample clock, and holds no more than the last few windows.

pub mod suggest;
mod tracker;
mod verdict;

use std::collections::HashMap;

use crate::prompts::{PromptId, Rule};
use crate::score::Score;
use crate::time::SampleTime;
use tracker::Tracker;
pub use verdict::Verdict;

/// A window of which more was lost than this tells too little: the detector holds its state.
pub const MAX_LOST: f32 = 0.2;

/// Whether an event began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The sound is there.
    Started,
    /// It is gone.
    Ended,
}

/// The start or the end of a sound that a prompt describes.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Start or end.
    pub kind: EventKind,
    /// Numbers the events of a detector from 0; a start and its end carry the same number.
    pub sequence: u64,
    /// The prompt.
    pub prompt: PromptId,
    /// Score of the window that decided.
    pub score: f32,
    /// Highest score since the start.
    pub peak: f32,
    /// When the sound began.
    pub started_at: SampleTime,
    /// When it ended; none for a start.
    pub ended_at: Option<SampleTime>,
}

/// Follows every prompt's score and says when it becomes an event.
#[derive(Debug)]
pub struct Detector {
    /// One a prompt, in the order of the scores.
    trackers: Vec<Tracker>,
    /// One a tracker, of the last window.
    verdicts: Vec<Verdict>,
    next_sequence: u64,
}

impl Detector {
    /// A detector of these prompts by their rules; scores come in the same order. Ids are unique.
    pub fn new(prompts: impl IntoIterator<Item = (PromptId, Rule)>) -> Self {
        let trackers = prompts.into_iter().map(|(id, rule)| Tracker::new(id, rule)).collect();
        Self { trackers, verdicts: Vec::new(), next_sequence: 0 }
    }

    /// Takes the scores of the window from `start` to `end`, a score a prompt, of which the share `lost` was lost.
    pub fn observe(
        &mut self,
        start: SampleTime,
        end: SampleTime,
        lost: f32,
        scores: &[Score],
        mut sink: impl FnMut(Event),
    ) {
        self.verdicts.clear();
        if lost > MAX_LOST {
            self.verdicts.resize(self.trackers.len(), Verdict::Lost);
            return;
        }
        // A sound that fills the window from its onset on has half the window at its centre: the centre is the
        // least biased moment for a start as well as for an end, for short windows and long ones.
        let moment = start.midpoint(end);
        for (tracker, score) in self.trackers.iter_mut().zip(scores) {
            let (verdict, event) = tracker.observe(moment, score.score, self.next_sequence);
            self.verdicts.push(verdict);
            if let Some(event) = event {
                self.next_sequence += u64::from(event.kind == EventKind::Started);
                sink(event);
            }
        }
    }

    /// What the window that was observed last meant for each prompt, in order; empty before there was one.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Goes on with other prompts. Those of an id that was there before and for which `is_same` holds go on, open event and
    /// all, by their new rule. What is open of the others ends at `at`.
    pub fn change(
        &mut self,
        prompts: impl IntoIterator<Item = (PromptId, Rule)>,
        is_same: impl Fn(&PromptId) -> bool,
        at: SampleTime,
        mut sink: impl FnMut(Event),
    ) {
        let mut before: Vec<_> = std::mem::take(&mut self.trackers).into_iter().map(Some).collect();
        let places: HashMap<_, _> = before.iter().flatten().map(|tracker| tracker.id().clone()).zip(0..).collect();
        let prompts = prompts.into_iter().map(|(id, rule)| {
            let same = places.get(&id).filter(|_| is_same(&id)).and_then(|place: &usize| before[*place].take());
            match same {
                Some(tracker) => tracker.with_rule(rule),
                None => Tracker::new(id, rule),
            }
        });
        self.trackers = prompts.collect();
        before.into_iter().flatten().filter_map(|mut tracker| tracker.finish(at)).for_each(&mut sink);
    }

    /// Ends what is open at `at` and forgets what was counted: the source is over, or was away for so long that what was
    /// heard before says nothing of what is heard next.
    pub fn finish(&mut self, at: SampleTime, sink: impl FnMut(Event)) {
        self.trackers.iter_mut().filter_map(|tracker| tracker.finish(at)).for_each(sink);
    }
}
