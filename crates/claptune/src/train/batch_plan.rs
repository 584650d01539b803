//! Which pairs each step sees: for every step, by its number alone, its epoch and batches.

use anyhow::{Result, ensure};

use super::recipe::Recipe;
use crate::data::{Pair, batches};

/// A run may be a million steps at most: years on a processor, and a bound on what is counted beforehand.
const MAX_STEPS: u64 = 1_000_000;

/// The steps of a run.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// The first step of each epoch.
    firsts: Vec<u64>,
    steps: u64,
    batch: usize,
    accumulate: usize,
    seed: u64,
}

/// Where a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPosition {
    /// From 0.
    pub epoch: u64,
    /// Steps of the epoch before it.
    pub within: u64,
}

impl BatchPlan {
    /// Counts the steps: batches of an epoch differ in number a little, since no batch has a text twice.
    ///
    /// # Errors
    /// More steps than any run needs.
    pub fn new(train: &[Pair], recipe: &Recipe) -> Result<Self> {
        let (mut firsts, mut steps) = (vec![], 0);
        let (epochs, most) = match recipe.steps {
            Some(steps) => (u64::MAX, steps),
            None => (recipe.epochs, u64::MAX),
        };
        let mut epoch = 0;
        while epoch < epochs && steps < most {
            firsts.push(steps);
            let count = batches(train, recipe.batch, recipe.seed, epoch).len();
            steps += count.div_ceil(recipe.accumulate).max(1) as u64;
            ensure!(
                steps <= MAX_STEPS,
                "{steps} steps and more; {MAX_STEPS} are allowed: fewer --epochs or larger batches"
            );
            epoch += 1;
        }
        let (batch, accumulate, seed) = (recipe.batch, recipe.accumulate, recipe.seed);
        Ok(Self { firsts, steps: steps.min(most), batch, accumulate, seed })
    }

    /// Steps in all.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Where step `step`, from 0, is.
    pub fn position(&self, step: u64) -> StepPosition {
        let epoch = self.firsts.partition_point(|first| *first <= step).saturating_sub(1);
        StepPosition { epoch: epoch as u64, within: step - self.firsts.get(epoch).copied().unwrap_or(0) }
    }

    /// Whether an epoch ends with step `step`.
    pub fn ends_epoch(&self, step: u64) -> bool {
        step + 1 == self.steps || self.firsts.binary_search(&(step + 1)).is_ok()
    }

    /// The batches of all steps of an epoch: for each step, for each batch, rows of `train`.
    pub fn epoch(&self, train: &[Pair], epoch: u64) -> Vec<Vec<Vec<usize>>> {
        batches(train, self.batch, self.seed, epoch).chunks(self.accumulate).map(<[_]>::to_vec).collect()
    }
}
