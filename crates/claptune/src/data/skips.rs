//! Audio that can't be used: it is listed and skipped, and too much of it is an error.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, bail, ensure};

/// Failures that an error shows; the log has them all.
const SHOWN: usize = 5;

/// A file that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub audio: PathBuf,
    /// Why.
    pub reason: String,
}

/// The files that were skipped, and how many may be.
#[derive(Clone, Debug)]
pub struct Skips {
    files: usize,
    most: f64,
    skipped: Vec<Skipped>,
}

impl Skips {
    /// Of so many files, at most the share `most` (0 to 1) may fail.
    ///
    /// # Errors
    /// A share that is not 0 to 1.
    pub fn new(files: usize, most: f64) -> Result<Self> {
        ensure!((0.0..=1.0).contains(&most), "the share of files to skip is {most}; 0 to 1 is allowed");
        Ok(Self { files, most, skipped: vec![] })
    }

    /// Lists a file.
    ///
    /// # Errors
    /// More than the share has failed: a wrong folder, say, and not some broken files.
    pub fn add(&mut self, audio: &Path, error: &Error) -> Result<()> {
        let reason = format!("{error:#}");
        log::warn!("skipped: {reason}");
        self.skipped.push(Skipped { audio: audio.to_path_buf(), reason });
        if self.skipped.len() as f64 > self.most * self.files as f64 {
            let shown: Vec<&str> = self.skipped.iter().take(SHOWN).map(|skipped| skipped.reason.as_str()).collect();
            bail!(
                "{} of {} audio files can't be used, and at most {:.0}% may be skipped (--skip); is --audio-root right?\n  {}",
                self.skipped.len(),
                self.files,
                100.0 * self.most,
                shown.join("\n  ")
            );
        }
        Ok(())
    }

    /// What was skipped, in order.
    pub fn into_list(self) -> Vec<Skipped> {
        self.skipped
    }
}
