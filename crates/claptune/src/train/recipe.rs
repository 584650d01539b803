//! How a run trains, and `run.json`, which says so.
//!
//! In: options. Out: a checked [`Recipe`], and the file that a resume is held to.
//! Never: holds what may differ between a run and its resume (where patches are cached, how often the state is saved).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clapd_core::files::{Access, Durability, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backend::Backend;
use super::objective::Objective;
use super::optimizer::Rates;
use super::parts::{Depth, Part};
use super::study::Counts;
use crate::data::{Screened, Skipped, Split};

/// The file in a run's folder.
pub const FILE: &str = "run.json";
/// Raised whenever the same options would give another run.
const REVISION: u32 = 1;
/// Largest batch and accumulation; a slip of the pen above it.
const MAX_BATCH: usize = 4096;

/// Options as used. Every name is one of `run.json`'s keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Manifests of ratings, whole paths.
    pub data: Vec<PathBuf>,
    /// Where their audio lies, if not beside them.
    pub audio_root: Option<PathBuf>,
    /// The checkpoint to begin with.
    pub init: String,
    /// Its processor, if that is elsewhere.
    pub processor: Option<String>,
    /// The objective, as `wsce+0.5*mae`.
    pub loss: String,
    /// Passes over the training split.
    pub epochs: u64,
    /// Steps after which it ends instead.
    pub steps: Option<u64>,
    /// Pairs embedded at once.
    pub batch: usize,
    /// Batches a step.
    pub accumulate: usize,
    /// The rate after warm-up.
    pub rate: f64,
    /// The share of the steps in which the rate grows from 0.
    pub warm_up: f64,
    /// The text tower's rate over the audio tower's.
    pub text_rate: f64,
    /// Each layer's rate over that of the layer behind it.
    pub layer_decay: f64,
    /// AdamW's.
    pub weight_decay: f32,
    /// The length that gradients are cut to; 0: they are not.
    pub clip: f64,
    /// Parts that are not trained.
    pub freeze: Vec<Part>,
    /// Rank of LoRA's factors.
    pub lora: Option<usize>,
    /// Whether spectrograms are masked.
    pub spec_augment: bool,
    /// Whether activations are computed again on the way back.
    pub gradient_checkpointing: bool,
    /// Where the network is. Runs from before there was a choice were all on the processor.
    #[serde(default)]
    pub device: Backend,
    /// Steps from one validation to the next; none: an epoch.
    pub validate_every: Option<u64>,
    /// Validations without a new best after which it stops.
    pub patience: u64,
    /// Of the order of pairs, masks and LoRA's factors.
    pub seed: u64,
    /// Whether ratings are screened first.
    pub screen: bool,
    /// Whether listeners may be in several splits.
    pub listeners_shared: bool,
    /// Share of audio files that may be skipped.
    pub skip: f64,
}

impl Recipe {
    /// Checks the numbers.
    ///
    /// # Errors
    /// The first that is out of its bounds, with the option.
    pub fn check(&self) -> Result<Objective> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            ensure!((low..=high).contains(&value), "--{name} is {value}; {low} to {high} is allowed");
            Ok(())
        };
        within("batch", self.batch as f64, 1.0, MAX_BATCH as f64)?;
        within("accumulate", self.accumulate as f64, 1.0, MAX_BATCH as f64)?;
        ensure!(
            self.rate > 0.0 && self.rate <= 1.0,
            "--rate is {}; above 0 to 1 is allowed (1e-5 is usual)",
            self.rate
        );
        within("warm-up", self.warm_up, 0.0, 1.0)?;
        within("text-rate", self.text_rate, 0.0, 1000.0)?;
        ensure!(
            self.layer_decay > 0.0 && self.layer_decay <= 1.0,
            "--layer-decay is {}; above 0 to 1 is allowed (0.9 is usual)",
            self.layer_decay
        );
        within("weight-decay", f64::from(self.weight_decay), 0.0, 1.0)?;
        within("clip", self.clip, 0.0, f64::MAX)?;
        for (name, count) in [("epochs", self.epochs), ("patience", self.patience)] {
            ensure!(count > 0, "--{name} is 0; 1 or more is needed");
        }
        for (name, count) in [("steps", self.steps), ("validate-every", self.validate_every)] {
            ensure!(count != Some(0), "--{name} is 0; 1 or more is needed");
        }
        self.loss.parse()
    }

    /// The rates of a run of so many steps.
    pub fn rates(&self, steps: u64) -> Rates {
        Rates {
            peak: self.rate,
            warm_up: (self.warm_up * steps as f64).round() as u64,
            steps,
            weight_decay: self.weight_decay,
            clip: (self.clip > 0.0).then_some(self.clip),
        }
    }

    /// Rates by tower and layer.
    pub fn depth(&self) -> Depth {
        Depth { text: self.text_rate, layer_decay: self.layer_decay }
    }
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
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
    pub splits: BTreeMap<Split, Counts>,
    /// Rows that the publisher excludes.
    pub excluded: usize,
    /// What was screened out.
    pub screened: Screening,
    /// Audio files that can't be used.
    pub skipped: Vec<String>,
    /// Texts that are longer than the model allows, and cut.
    pub texts_cut: usize,
    /// Steps in all.
    pub steps_in_all: u64,
}

/// What was screened out, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screening {
    /// Listeners who rated anchors too high.
    pub listeners: usize,
    /// Their ratings.
    pub by_anchors: usize,
    /// Ratings of others that nobody came near.
    pub by_disagreement: usize,
}

impl From<Screened> for Screening {
    fn from(seen: Screened) -> Self {
        let Screened { listeners, by_anchors, by_disagreement } = seen;
        Self { listeners, by_anchors, by_disagreement }
    }
}

/// Why a file was skipped, as written.
pub fn reasons(skipped: &[Skipped]) -> Vec<String> {
    skipped.iter().map(|skipped| skipped.reason.clone()).collect()
}

impl Run {
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
    pub fn same(&self, resumed: &Self) -> Result<()> {
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
