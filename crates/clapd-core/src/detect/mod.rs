//! Scores into events.
//!
//! In: one [`Score`] a prompt and window, on the sample clock. Out: [`Event`]s: something began, it ended.
//! Never: knows no embeddings, no topics, no time of day, and holds no more than the last few windows.

mod calibration;
mod rule;
pub mod suggest;

use std::path::PathBuf;
use std::time::Duration;

use crate::time::SampleTime;
pub use calibration::{Calibration, contrasted};
use rule::Tracker;

/// A window of which more was lost than this tells too little: the detector holds its state.
pub const MAX_LOST: f32 = 0.2;

/// How well one window of sound matches one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// Cosine of the window's embedding and the prompt's, -1 to 1.
    pub cosine: f32,
    /// The same on the human scale of relevance, 0 to 10.
    pub score: f32,
}

/// When a prompt's score is an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// A window counts for a start at this score or above, 0 to 10.
    pub start: f32,
    /// A window counts for an end below this score; at most `start`, and the gap is the hysteresis.
    pub stop: f32,
    /// `(n, m)`: n of the last m windows have to agree, for a start and for an end.
    pub confirm: (u32, u32),
    /// After an end, nothing starts for this long.
    pub cooldown: Duration,
}

/// A sound that is listened for.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its name in topics: letters, digits, `_` and `-`.
    pub id: String,
    /// The sound in words; none where recordings alone say what it is.
    pub text: Option<String>,
    /// Recordings of the sound, for whoever embeds them; with a text, both count. Never both none and empty.
    pub audio: Vec<PathBuf>,
    /// When it is an event.
    pub rule: Rule,
    /// Sounds in words that it must not be taken for; scored against, never published.
    pub contrast: Vec<String>,
}

impl Prompt {
    /// What people call it: its text, or its id where there is none.
    pub fn name(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.id)
    }

    /// The texts that have to be embedded for it: its own, if it has one, and then those that it is contrasted with.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.text.iter().chain(&self.contrast).map(String::as_str)
    }
}

/// Whether an event began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The sound is there.
    Started,
    /// It is gone.
    Ended,
}

/// The start or the end of a sound that a prompt describes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// Start or end.
    pub kind: EventKind,
    /// Numbers the events of a detector from 0; a start and its end carry the same number.
    pub sequence: u64,
    /// Index of the prompt.
    pub prompt: usize,
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
    trackers: Vec<Tracker>,
    next_sequence: u64,
}

impl Detector {
    /// A detector with a rule a prompt, in the prompts' order.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { trackers: rules.into_iter().map(Tracker::new).collect(), next_sequence: 0 }
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
        if lost > MAX_LOST {
            return;
        }
        // A sound that fills the window from its onset on has half the window at its centre: the centre is the
        // least biased moment for a start as well as for an end, for short windows and long ones.
        let moment = start.midpoint(end);
        for (prompt, (tracker, score)) in self.trackers.iter_mut().zip(scores).enumerate() {
            let event = tracker.observe(moment, score.score, self.next_sequence);
            if let Some(event) = event {
                self.next_sequence += u64::from(event.kind == EventKind::Started);
                sink(Event { prompt, ..event });
            }
        }
    }

    /// Goes on with other prompts: a rule for each, and the index of the one before that it continues, open event and all.
    /// What is open of the others ends at `at`, under its old index.
    pub fn change(
        &mut self,
        prompts: impl IntoIterator<Item = (Rule, Option<usize>)>,
        at: SampleTime,
        mut sink: impl FnMut(Event),
    ) {
        let mut before: Vec<_> = std::mem::take(&mut self.trackers).into_iter().map(Some).collect();
        let prompts = prompts.into_iter();
        self.trackers = prompts
            .map(|(rule, kept)| match kept.and_then(|index| before.get_mut(index)?.take()) {
                Some(tracker) => tracker.with_rule(rule),
                None => Tracker::new(rule),
            })
            .collect();
        for (prompt, left) in before.into_iter().enumerate() {
            if let Some(event) = left.and_then(|mut tracker| tracker.finish(at)) {
                sink(Event { prompt, ..event });
            }
        }
    }

    /// Ends what is open at `at` and forgets what was counted: the source is over, or was away for so long that what was
    /// heard before says nothing of what is heard next.
    pub fn finish(&mut self, at: SampleTime, mut sink: impl FnMut(Event)) {
        for (prompt, tracker) in self.trackers.iter_mut().enumerate() {
            if let Some(event) = tracker.finish(at) {
                sink(Event { prompt, ..event });
            }
        }
    }
}
