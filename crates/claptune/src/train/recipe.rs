//! How a run trains: its options, checked. What may differ between a run and its resume is in [`super::settings`].

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::objective::Objective;
use super::optimizer::LearningRates;
use super::parts::{FreezablePart, LayerRates};

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
    pub freeze: Vec<FreezablePart>,
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
    pub fn rates(&self, steps: u64) -> LearningRates {
        LearningRates {
            peak: self.rate,
            warm_up: (self.warm_up * steps as f64).round() as u64,
            steps,
            weight_decay: self.weight_decay,
            clip: (self.clip > 0.0).then_some(self.clip),
        }
    }

    /// Rates by tower and layer.
    pub fn depth(&self) -> LayerRates {
        LayerRates { text: self.text_rate, layer_decay: self.layer_decay }
    }
}
