//! When the score of a prompt is an event: the rule, and its defaults.

use std::time::Duration;

/// Above the middle of the scale: in words, "clearly relevant". Where the model's false alarms end is in its card.
pub const DEFAULT_START: f32 = 6.0;
/// A single odd window is no event, a single missing one no end.
pub const DEFAULT_CONFIRM: (u32, u32) = (2, 3);
/// A dog that pauses is one dog.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(10);
/// Hysteresis: the score of a steady sound moves by about one between windows, and must not end its event.
const GAP: f32 = 1.5;

/// The stop that goes with a start by default: half of it for a low start, since an event has to end.
pub fn usual_stop(start: f32) -> f32 {
    (start - GAP).max(start / 2.0)
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

impl Default for Rule {
    fn default() -> Self {
        Self {
            start: DEFAULT_START,
            stop: usual_stop(DEFAULT_START),
            confirm: DEFAULT_CONFIRM,
            cooldown: DEFAULT_COOLDOWN,
        }
    }
}
