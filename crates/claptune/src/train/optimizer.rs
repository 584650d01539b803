//! How gradients change parameters: AdamW, with rates by part and depth.
//!
//! Biases, norms, position tables and temperatures do not decay: nothing of them grows with the size of a layer. The
//! rate is a function of the step, so that a run resumes exactly.
//!
//! AdamW: Loshchilov and Hutter, arXiv 1711.05101. Layer-wise rates: Howard and Ruder, arXiv 1801.06146.

use anyhow::{Context, Result};
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::host_state::HostStateOptimizer;

/// PyTorch's; Burn's own, 1e-5, would hold back weights whose gradients are small.
const EPSILON: f32 = 1e-8;
/// Beyond it a gradient's length is divided by a little more than itself, as in PyTorch's `clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;
/// What does not decay.
const NO_DECAY: &str = r"(bias|gamma|beta|scale)$";

/// How fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningRates {
    /// Of the step after warm-up.
    pub peak: f64,
    /// Steps in which it grows from nothing.
    pub warm_up: u64,
    /// Steps in all: it falls along half a cosine to 0.
    pub steps: u64,
    /// Share of a weight that a step at the rate 1 takes off.
    pub weight_decay: f32,
    /// Length that all gradients together are cut to; none: they are not.
    pub clip: Option<f64>,
}

impl LearningRates {
    /// The audio tower's last layer's rate in step `step`, from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f64 / self.warm_up as f64;
        }
        let (done, all) = (step - self.warm_up, self.steps.saturating_sub(self.warm_up).max(1));
        let share = (done as f64 / all as f64).min(1.0);
        self.peak * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}

/// Parameters whose paths match a regular expression, and their rate over the peak. Of several that match, the last counts.
pub type RateGroup = (String, f64);

/// AdamW and its state.
pub struct Optimizer {
    rates: LearningRates,
    /// Layers, and their rate over the peak; a later one that matches counts.
    groups: Vec<(ParamGroup, f64)>,
    inner: ModuleOptimizer,
}

impl Optimizer {
    /// Without a state yet; parameters in no group have the peak's rate.
    ///
    /// # Errors
    /// A group whose pattern is no regular expression.
    pub fn new(rates: LearningRates, groups: &[RateGroup]) -> Result<Self> {
        let config = AdamWConfig::new().with_epsilon(EPSILON);
        let inner =
            ModuleOptimizer::from(HostStateOptimizer(config.clone().with_weight_decay(rates.weight_decay).build()))
                .with_group(pattern(NO_DECAY)?, HostStateOptimizer(config.with_weight_decay(0.0).build()), None);
        let groups = groups.iter().map(|(text, factor)| Ok((pattern(text)?, *factor))).collect::<Result<_>>()?;
        Ok(Self { rates, groups, inner })
    }

    /// The model after step `step`, from 0, and the length of its gradients before they were cut.
    pub fn step<M: Module>(&mut self, step: u64, model: M, mut gradients: GradientsParams) -> (M, f64) {
        let gradient_length = gradient_length(&model, &gradients);
        if let Some(most) = self.rates.clip.filter(|most| gradient_length > *most) {
            model.visit(&mut GradientScaler { gradients: &mut gradients, by: most / (gradient_length + CLIP_EPSILON) });
        }
        let rate = self.rate(self.rates.at(step));
        (self.inner.step(rate, model, gradients), gradient_length)
    }

    fn rate(&self, base: f64) -> ModuleLearningRate {
        let groups = self.groups.iter();
        groups
            .fold(ModuleLrScheduler::new(base), |all, (group, factor)| all.with_group(group.clone(), base * factor))
            .step()
    }

    /// Writes the state to a file.
    ///
    /// # Errors
    /// A disk that is full or read-only.
    pub fn save(&self, path: &std::path::Path) -> Result<()> {
        self.inner.save(path).with_context(|| format!("writing {}", path.display()))
    }

    /// Goes on from the state in a file.
    ///
    /// # Errors
    /// A file that can't be read, or holds no such state.
    pub fn load(self, path: &std::path::Path) -> Result<Self> {
        let inner = self.inner.load(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { inner, ..self })
    }
}

/// Parameters by a regular expression over their paths.
///
/// # Errors
/// No regular expression.
pub fn pattern(text: &str) -> Result<ParamGroup> {
    ParamGroup::from_regex(text).map_err(|error| anyhow::anyhow!("{text}: {error:?}"))
}

/// The length of all gradients as one vector.
pub fn gradient_length<M: Module>(model: &M, gradients: &GradientsParams) -> f64 {
    let mut squares = GradientSquares { gradients, sum: 0.0 };
    model.visit(&mut squares);
    squares.sum.sqrt()
}

struct GradientSquares<'a> {
    gradients: &'a GradientsParams,
    sum: f64,
}

impl ModuleVisitor for GradientSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            // Row by row: the sum of 4 million values at once is made by all cores in whatever order they come.
            self.sum += f64::from(gradient.square().sum_dim(D - 1).sum().into_scalar::<f32>());
        }
    }
}

struct GradientScaler<'a> {
    gradients: &'a mut GradientsParams,
    by: f64,
}

impl ModuleVisitor for GradientScaler<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul_scalar(self.by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_grows_and_then_falls_to_nothing() {
        let rates = LearningRates { peak: 1e-4, warm_up: 10, steps: 110, weight_decay: 0.01, clip: None };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(rates.at(0), 1e-5) && near(rates.at(9), 1e-4) && near(rates.at(10), 1e-4));
        assert!(near(rates.at(60), 0.5e-4) && near(rates.at(110), 0.0) && near(rates.at(1000), 0.0));
        let none = LearningRates { warm_up: 0, ..rates };
        assert!(near(none.at(0), 1e-4));
    }
}
