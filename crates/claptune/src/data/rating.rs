//! One listener's rating of how well a text describes a recording.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The scale: 0 "does not match at all" to 10 "matches exactly".
pub const SCORES: RangeInclusive<f64> = 0.0..=10.0;
/// The kind of a recording that no generator made.
pub const NATURAL: &str = "natural";

/// What a rating is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// A model learns from it.
    Train,
    /// It decides when to stop, and the calibration.
    Validation,
    /// It is looked at once.
    Test,
}

impl Split {
    /// All three, in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The split of this name: `train`, `validation` or `test`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.to_string() == name)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// One rating.
#[derive(Clone, Debug, PartialEq)]
pub struct Rating {
    /// The audio file.
    pub audio: PathBuf,
    /// What the file is a take of; files of one recording never cross splits, and are drawn together by a bootstrap.
    pub recording: String,
    /// The text.
    pub text: String,
    /// 0 to 10.
    pub score: f64,
    /// Who rated; where it is unknown, each such rating counts as somebody else's.
    pub listener: Option<String>,
    /// What it is for, if that was decided.
    pub split: Option<Split>,
    /// [`NATURAL`], or the name of the generator that made the sound.
    pub kind: Option<String>,
    /// Kind of sound, for tables.
    pub category: Option<String>,
    /// The text was chosen not to fit, to see whether the listener listens. No model sees such a rating.
    pub anchor: bool,
}

/// What a manifest holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ratings {
    /// In the file's order.
    pub rows: Vec<Rating>,
    /// Rows that the publisher marks as excluded.
    pub excluded: usize,
}

impl Rating {
    /// Checks the score and the text.
    ///
    /// # Errors
    /// A score that is not 0 to 10, or a text without a letter.
    pub fn checked(self) -> Result<Self> {
        ensure!(
            SCORES.contains(&self.score),
            "score is {}; {} to {} are allowed: bring other scales to that one",
            self.score,
            SCORES.start(),
            SCORES.end()
        );
        ensure!(!self.text.trim().is_empty(), "text is empty; describe a sound");
        ensure!(!self.recording.is_empty(), "audio is empty; name a file");
        Ok(self)
    }
}
