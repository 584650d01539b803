//! Scores into events.
//!
//! In: one [`Score`] a prompt and window, on the sample clock. Out: [`Event`]s: something began, it ended.
//! Never: knows no embeddings, no topics, no time of day, and holds no more than the last few windows.

use std::time::Duration;

use crate::time::SampleTime;

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
