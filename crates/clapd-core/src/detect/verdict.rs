//! What a window meant for a prompt's event: above all, why none began.

use std::time::Duration;

/// What one window meant for one prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Too much of the window was lost ([`MAX_LOST`](super::MAX_LOST)): it counts neither for a start nor for an end.
    Lost,
    /// The score is below the start.
    Below,
    /// The prompt alone would have reached the start with this score, but a contrast scored higher.
    Contrasted(f32),
    /// The score reaches the start, and not as many windows as the rule wants do: so many of so many.
    Confirming(u32, u32),
    /// The last event ended too recently: for so long nothing starts yet.
    Cooling(Duration),
    /// An event began.
    Started,
    /// An event goes on.
    Open,
    /// An event ended.
    Ended,
    /// An event would begin or be open, and somebody wants none now. No detector gives it, but whoever withholds its events.
    Quiet,
}
