//! The journal: events of the past on disk, for the diary and for whoever asks what there was.
//!
//! It stands beside the pipe and promises less than the outbox: an event that ended is a line of JSON, appended by a thread of its own
//! without an fsync. A full disk or one that hangs costs lines, which are counted, and never an event or a moment of listening. The
//! file and its predecessor have a bound in bytes, and a line has one in age.
//!
//! Another process may read it at any time ([`JournalReader`]): a line is whole or not there, and a torn one is passed over.

mod line;
mod reader;
mod writer;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::levels::EventLevels;
pub use reader::{EventQuery, JournalPage, JournalReader};
pub use writer::Journal;

/// The file's name in the state folder.
const FILE: &str = "events.jsonl";

/// Where the journal is, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSpec {
    /// The folder, which is made where there is none.
    pub folder: PathBuf,
    /// Of both files together.
    pub max_bytes: u64,
    /// Events that ended longer ago are forgotten.
    pub max_age: Duration,
}

impl JournalSpec {
    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }
}

/// The file before this one.
fn older(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

/// An event of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// As in the messages of it.
    pub id: String,
    /// The source's id.
    pub source: String,
    /// The prompt's id.
    pub prompt_id: String,
    /// The prompt's text.
    pub prompt: String,
    /// Score of the window that decided its start, 0 to 10.
    pub score: f32,
    /// Its highest score.
    pub peak: f32,
    /// When the sound began.
    pub started_at: SystemTime,
    /// How long it went on.
    pub duration: Duration,
    /// How loud it was; none where nobody metered it.
    pub levels: Option<EventLevels>,
    /// The clip of it, where there is one.
    pub clip: Option<String>,
}

impl JournalEntry {
    /// When the sound ended.
    pub fn ended_at(&self) -> SystemTime {
        self.started_at.checked_add(self.duration).unwrap_or(self.started_at)
    }
}
