//! What is published of an event: the one value that travels from the daemon through the outbox to the broker.

use std::time::{Duration, SystemTime};

use crate::levels::EventLevels;

/// A start or an end, in the time of day.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRecord {
    /// The same for a start and its end, and for no other event of this or another run.
    pub id: String,
    /// The prompt's text.
    pub prompt: String,
    /// Score of the window that decided, 0 to 10.
    pub score: f32,
    /// Highest score since the start, 0 to 10.
    pub peak: f32,
    /// When the sound began.
    pub started_at: SystemTime,
    /// How long it went on; none for a start.
    pub duration: Option<Duration>,
    /// How loud it was; none for a start, and where nobody metered it.
    pub levels: Option<EventLevels>,
}
