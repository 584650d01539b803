//! `run.json`: what a run trains, on what, and with which program.
//!
//! A resume is held to it ([`RunRecord::ensure_same_options`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clapd_core::files::{Access, Durability, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::recipe::Recipe;
use crate::data::{Pair, Screened, Skipped, Split};

/// The file in a run's folder.
pub const FILE: &str = "run.json";
/// Raised whenever the same options would give another run.
const REVISION: u32 = 1;
/// What a split holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Of a recording and a text.
    pub pairs: usize,
    /// Different recordings.
    pub recordings: usize,
    /// Different listeners; 0 where the manifest names none.
    pub listeners: usize,
    /// Ratings.
    pub ratings: usize,
}

impl SplitCounts {
    /// Of these pairs.
    pub fn of(pairs: &[Pair]) -> Self {
        let recordings: BTreeSet<&String> = pairs.iter().map(|pair| &pair.recording).collect();
        let listener_ratings = || pairs.iter().flat_map(|pair| &pair.listener_ratings);
        let listeners: BTreeSet<&String> = listener_ratings().filter_map(|rating| rating.listener.as_ref()).collect();
        let (pairs, recordings) = (pairs.len(), recordings.len());
        Self { pairs, recordings, listeners: listeners.len(), ratings: listener_ratings().count() }
    }
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// claptune's version.
    pub version: String,
    /// Of the loop: the same options give the same numbers.
    pub revision: u32,
    /// The options.
    #[serde(flatten)]
    pub recipe: Recipe,
    /// SHA-256 of the manifests, in order.
    pub manifests_sha256: Vec<String>,
    /// What each split holds.
    pub splits: BTreeMap<Split, SplitCounts>,
    /// Rows that the publisher excludes.
    pub excluded: usize,
    /// What was screened out.
    pub screened: ScreeningRecord,
    /// Audio files that can't be used.
    pub skipped: Vec<String>,
    /// Texts that are longer than the model allows, and cut.
    pub texts_cut: usize,
    /// Steps in all.
    pub steps_in_all: u64,
}

/// What was screened out, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreeningRecord {
    /// Listeners who rated anchors too high.
    pub listeners: usize,
    /// Their ratings.
    pub by_anchors: usize,
    /// Ratings of others that nobody came near.
    pub by_disagreement: usize,
}

impl From<Screened> for ScreeningRecord {
    fn from(screened: Screened) -> Self {
        let Screened { listeners, by_anchors, by_disagreement } = screened;
        Self { listeners, by_anchors, by_disagreement }
    }
}

/// Why a file was skipped, as written.
pub fn reasons(skipped: &[Skipped]) -> Vec<String> {
    skipped.iter().map(|skipped| skipped.reason.clone()).collect()
}

impl RunRecord {
    /// This program's version and the loop's.
    pub fn versions() -> (String, u32) {
        (env!("CARGO_PKG_VERSION").into(), REVISION)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A disk that is full or read-only.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_atomically(&path, text.as_bytes(), Access::Public, Durability::Synced)
    }

    /// Reads the file of a run's folder.
    ///
    /// # Errors
    /// No such file, or one that this version did not write.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("{}: can't read it", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: no run that this version can read", path.display()))
    }

    /// Holds a resume to the run that it goes on with.
    ///
    /// # Errors
    /// The first key that differs, and both values.
    pub fn ensure_same_options(&self, resumed: &Self) -> Result<()> {
        // Through a file and back: a number's last digit may change on the way.
        let resumed: Self = serde_json::from_str(&serde_json::to_string(resumed)?)?;
        let (Value::Object(old), Value::Object(new)) = (serde_json::to_value(self)?, serde_json::to_value(resumed)?)
        else {
            bail!("{FILE} is no object");
        };
        for (key, was) in &old {
            // A newer program of the same revision computes the same.
            if key != "version" && new.get(key) != Some(was) {
                let now = new.get(key).unwrap_or(&Value::Null);
                bail!("--resume: {key} is {now}, the run was begun with {was}; give that, or another --out");
            }
        }
        Ok(())
    }
}
