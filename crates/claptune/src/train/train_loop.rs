//! The loop: steps, validations, states.
//!
//! All that the next step needs is in the network, the optimizer and [`RunProgress`], which are what a state holds.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;

use super::batch_plan::BatchPlan;
use super::dataset::Dataset;
use super::metrics_log::{MetricsLine, MetricsLog, finite};
use super::objective::Objective;
use super::optimizer::Optimizer;
use super::progress_display::ProgressDisplay;
use super::recipe::Recipe;
use super::settings::RunSettings;
use super::state::{self, RunProgress};
use super::trainable_model::{AudioView, TrainableModel, distinct, rows};
use super::validate::{targets, validate};
use super::{augment, finish};
use crate::checkpoint::source::BEST;
use crate::data::Clips;
use crate::net::clap::PairEmbeddings;

/// A run at work.
pub(super) struct TrainLoop<'a, T> {
    pub model: T,
    pub recipe: &'a Recipe,
    pub settings: &'a RunSettings,
    pub dataset: Dataset,
    pub batch_plan: BatchPlan,
    pub objective: Objective,
    pub clips: Clips,
    pub optimizer: Optimizer,
    pub metrics_log: MetricsLog,
    pub display: ProgressDisplay,
    pub progress: RunProgress,
}

impl<T: TrainableModel> TrainLoop<'_, T> {
    /// From where the network is to the end.
    pub fn run(&mut self, mut net: T::Net) -> Result<()> {
        let (begun, before) = (Instant::now(), self.progress.seconds);
        let mut saved = Instant::now();
        if self.progress.step == 0 {
            self.validate(&net)?;
        }
        let (mut epoch, mut batches) = (None, vec![]);
        while !self.progress.ended {
            let step = self.progress.step;
            let position = self.batch_plan.position(step);
            if epoch != Some(position.epoch) {
                (epoch, batches) = (Some(position.epoch), self.batch_plan.epoch(&self.dataset.train, position.epoch));
            }
            net = self.step(net, &batches[position.within as usize], position.epoch)?;
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            let done = self.progress.step;
            let last = done == self.batch_plan.steps();
            let due =
                self.recipe.validate_every.map_or(self.batch_plan.ends_epoch(step), |every| done.is_multiple_of(every));
            if due || last {
                self.validate(&net)?;
            }
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            self.progress.ended = last || self.progress.since_best >= self.recipe.patience;
            if due || last || saved.elapsed() >= self.settings.save_every {
                self.metrics_log.sync()?;
                state::save(&self.settings.out, &net, &self.optimizer, &self.progress)?;
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// One step: batches embedded one after another, their gradients together, one change.
    fn step(&mut self, net: T::Net, batches: &[Vec<usize>], epoch: u64) -> Result<T::Net> {
        let begun = Instant::now();
        let pairs: usize = batches.iter().map(Vec::len).sum();
        let (mut sum, mut loss) = (GradientsAccumulator::new(), 0.0);
        for batch in batches {
            // A mean over all pairs of the step, however they fell into batches.
            let share = batch.len() as f64 / pairs as f64;
            let own = self.loss(&net, batch, epoch)?;
            loss += share * f64::from(own.clone().into_scalar::<f32>());
            ensure!(own.is_tracked(), "nothing that is trained has a part in the loss {}", self.recipe.loss);
            let gradients = own.mul_scalar(share).backward();
            sum.accumulate(&net, GradientsParams::from_grads(gradients, &net));
        }
        let step = self.progress.step;
        let (net, gradient) = self.optimizer.step(step, net, sum.grads());
        ensure!(
            loss.is_finite() && gradient.is_finite(),
            "step {}: the loss is {loss}, its gradients' length {gradient}; a smaller --rate or --clip may do",
            step + 1
        );
        self.progress.step += 1;
        let seconds = begun.elapsed().as_secs_f64();
        let pairs_per_second = pairs as f64 / seconds.max(f64::MIN_POSITIVE);
        self.display.step(self.progress.step, loss, pairs_per_second);
        self.metrics_log.add(&MetricsLine::Step {
            step: self.progress.step,
            epoch,
            loss: finite(loss),
            rate: self.recipe.rates(self.batch_plan.steps()).at(step),
            gradient: finite(gradient),
            pairs_per_second,
            seconds: self.progress.seconds + seconds,
        })?;
        Ok(net)
    }

    /// The loss of training pairs, `[1]`.
    fn loss(&mut self, net: &T::Net, batch: &[usize], epoch: u64) -> Result<Tensor<1>> {
        let pairs = || batch.iter().map(|row| &self.dataset.train[*row]);
        let (files, sounds) = distinct(pairs().map(|pair| pair.audio.as_path()));
        let (texts, words) = distinct(pairs().map(|pair| pair.text.as_str()));
        let view = |(position, file)| {
            // A recording's mask is that of the first pair that it is in.
            let first = sounds.iter().position(|sound| *sound == position).map(|first| batch[first]);
            let mask =
                first.filter(|_| self.recipe.spec_augment).map(|row| augment::seed(self.recipe.seed, epoch, row));
            AudioView { file, mask }
        };
        let views: Vec<AudioView<'_>> = files.into_iter().enumerate().map(view).collect();
        let embedded = PairEmbeddings {
            audio: rows(self.model.audio(net, &mut self.clips, &views)?, &sounds),
            text: rows(self.model.text(net, &texts)?, &words),
        };
        let scales = self.model.scales(net);
        let targets = targets(&self.dataset, pairs(), &scales[0].device());
        Ok(self.objective.loss(&embedded, &scales, &targets))
    }

    /// Validates, and keeps the model if it is the best so far.
    fn validate(&mut self, net: &T::Net) -> Result<()> {
        let at = (self.recipe.batch, self.recipe.seed);
        let figures = validate(&mut self.model, &net.valid(), &mut self.clips, &self.dataset, &self.objective, at)?;
        let done = self.progress.step;
        let epoch = self.batch_plan.position(done.saturating_sub(1)).epoch;
        let best = self.progress.record_validation(figures.metrics.srcc);
        if best {
            state::replace_folder(&self.settings.out.join(BEST), |folder| self.model.save(net, folder))?;
        }
        self.display.validation(done, epoch, &figures, best);
        self.metrics_log.add(&MetricsLine::Validation {
            step: done,
            epoch,
            srcc: finite(figures.metrics.srcc),
            lcc: finite(figures.metrics.lcc),
            ktau: finite(figures.metrics.ktau),
            mse: finite(figures.metrics.mse),
            loss: finite(figures.loss),
            best,
            seconds: self.progress.seconds,
        })
    }

    /// Makes the best model a bundle.
    pub fn finish(self) -> Result<()> {
        let Self { model, recipe, settings, dataset, progress, display, .. } = self;
        let srcc = progress.best().map_or_else(|| "none".into(), |srcc| format!("{srcc:.3}"));
        display.print_line(&format!("the best model is that after step {}, SRCC {srcc}", progress.best_step));
        display.end();
        let out = &settings.out;
        finish::bundle(&model, recipe, &dataset, &out.join(BEST), &out.join("bundle"), settings.precision)
    }
}
