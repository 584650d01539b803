//! `metrics.jsonl`: what a run did, a line a step and a line a validation. A resume cuts the file back to its state, so
//! that no line is there twice.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, write_atomically};
use serde::{Deserialize, Serialize};

/// The file in a run's folder.
pub const FILE: &str = "metrics.jsonl";

/// A line. Its keys are frozen; a figure that does not exist (a correlation of a constant) is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MetricsLine {
    /// After a step.
    Step {
        /// Steps done.
        step: u64,
        /// From 0.
        epoch: u64,
        /// The objective's value, mean over the step's pairs.
        loss: Option<f64>,
        /// The rate of what has no factor of its own.
        rate: f64,
        /// Length of all gradients before they were cut.
        gradient: Option<f64>,
        /// Speed.
        pairs_per_second: f64,
        /// Time spent since the run began, pauses not counted.
        seconds: f64,
    },
    /// After a validation.
    Validation {
        /// Steps done; 0 is the start.
        step: u64,
        /// From 0.
        epoch: u64,
        /// Spearman's correlation of cosine and mean rating.
        srcc: Option<f64>,
        /// Pearson's.
        lcc: Option<f64>,
        /// Kendall's tau-b.
        ktau: Option<f64>,
        /// Mean squared error of the score, in points of the 0 to 10 scale, before any calibration.
        mse: Option<f64>,
        /// The objective on validation pairs.
        loss: Option<f64>,
        /// Whether it is the best so far.
        best: bool,
        /// Time spent since the run began, pauses not counted.
        seconds: f64,
    },
}

impl MetricsLine {
    /// Steps done.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step { step, .. } | Self::Validation { step, .. } => *step,
        }
    }
}

/// A number, or null in JSON.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Reads a run's lines; of one that was cut off in the middle, nothing.
///
/// # Errors
/// A file that can't be read.
pub fn read(folder: &Path) -> Result<Vec<MetricsLine>> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("{}: can't read it", path.display()))?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// The file, open to be added to.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the file of a run's folder, cut back to lines of at most `done` steps; without a number it begins empty.
    ///
    /// # Errors
    /// A disk that is full or read-only.
    pub fn open(folder: &Path, done: Option<u64>) -> Result<Self> {
        let path = folder.join(FILE);
        let old = match done {
            Some(_) => fs::read_to_string(&path).with_context(|| format!("{}: can't read it", path.display()))?,
            None => String::new(),
        };
        // As they stand: a number that is read and written again may end otherwise.
        let is_done = |text: &&str| serde_json::from_str(text).is_ok_and(|line: MetricsLine| Some(line.step()) <= done);
        let text: String = old.split_inclusive('\n').filter(|text| text.ends_with('\n')).filter(is_done).collect();
        write_atomically(&path, text.as_bytes(), Access::Public, Durability::Synced)?;
        let file = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, file })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn add(&mut self, line: &MetricsLine) -> Result<()> {
        let text = serde_json::to_string(line)? + "\n";
        self.file.write_all(text.as_bytes()).with_context(|| format!("writing {}", self.path.display()))
    }

    /// Waits until all lines are on disk.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("writing {}", self.path.display()))
    }
}
