//! The loop: steps, validations, states.
//!
//! In: a network at some step. Out: the same at the last, and on the way lines of the journal, states and the best model.
//! Never: keeps anything that the next step needs outside network, optimizer and [`Progress`].

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;

use super::journal::{Journal, Line, finite};
use super::objective::Objective;
use super::optimizer::Optimizer;
use super::recipe::Recipe;
use super::run::Setting;
use super::schedule::Schedule;
use super::show::Show;
use super::state::{self, Progress};
use super::study::Study;
use super::towers::{Look, Towers, distinct, rows};
use super::validate::{opinions, validate};
use super::{augment, finish};
use crate::checkpoint::source::BEST;
use crate::data::Clips;
use crate::net::clap::Pairs;

/// A run at work.
pub(super) struct Loop<'a, T> {
    pub towers: T,
    pub recipe: &'a Recipe,
    pub setting: &'a Setting,
    pub study: Study,
    pub schedule: Schedule,
    pub objective: Objective,
    pub clips: Clips,
    pub optimizer: Optimizer,
    pub journal: Journal,
    pub show: Show,
    pub progress: Progress,
}

impl<T: Towers> Loop<'_, T> {
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
            let place = self.schedule.place(step);
            if epoch != Some(place.epoch) {
                (epoch, batches) = (Some(place.epoch), self.schedule.epoch(&self.study.train, place.epoch));
            }
            net = self.step(net, &batches[place.within as usize], place.epoch)?;
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            let done = self.progress.step;
            let last = done == self.schedule.steps();
            let due =
                self.recipe.validate_every.map_or(self.schedule.ends_epoch(step), |every| done.is_multiple_of(every));
            if due || last {
                self.validate(&net)?;
            }
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            self.progress.ended = last || self.progress.since_best >= self.recipe.patience;
            if due || last || saved.elapsed() >= self.setting.save_every {
                self.journal.sync()?;
                state::save(&self.setting.out, &net, &self.optimizer, &self.progress)?;
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
        self.show.step(self.progress.step, loss, pairs_per_second);
        self.journal.add(&Line::Step {
            step: self.progress.step,
            epoch,
            loss: finite(loss),
            rate: self.recipe.rates(self.schedule.steps()).at(step),
            gradient: finite(gradient),
            pairs_per_second,
            seconds: self.progress.seconds + seconds,
        })?;
        Ok(net)
    }

    /// The loss of training pairs, `[1]`.
    fn loss(&mut self, net: &T::Net, batch: &[usize], epoch: u64) -> Result<Tensor<1>> {
        let pairs = || batch.iter().map(|row| &self.study.train[*row]);
        let (files, sounds) = distinct(pairs().map(|pair| pair.audio.as_path()));
        let (texts, words) = distinct(pairs().map(|pair| pair.text.as_str()));
        let look = |(place, file)| {
            // A recording's mask is that of the first pair that it is in.
            let first = sounds.iter().position(|sound| *sound == place).map(|first| batch[first]);
            let mask =
                first.filter(|_| self.recipe.spec_augment).map(|row| augment::seed(self.recipe.seed, epoch, row));
            Look { file, mask }
        };
        let looks: Vec<Look<'_>> = files.into_iter().enumerate().map(look).collect();
        let embedded = Pairs {
            audio: rows(self.towers.audio(net, &mut self.clips, &looks)?, &sounds),
            text: rows(self.towers.text(net, &texts)?, &words),
        };
        let scales = self.towers.scales(net);
        let opinions = opinions(&self.study, pairs(), &scales[0].device());
        Ok(self.objective.loss(&embedded, &scales, &opinions))
    }

    /// Validates, and keeps the model if it is the best so far.
    fn validate(&mut self, net: &T::Net) -> Result<()> {
        let at = (self.recipe.batch, self.recipe.seed);
        let figures = validate(&mut self.towers, &net.valid(), &mut self.clips, &self.study, &self.objective, at)?;
        let done = self.progress.step;
        let epoch = self.schedule.place(done.saturating_sub(1)).epoch;
        let best = self.progress.judge(figures.metrics.srcc);
        if best {
            state::replace(&self.setting.out.join(BEST), |folder| self.towers.save(net, folder))?;
        }
        self.show.validation(done, epoch, &figures, best);
        self.journal.add(&Line::Validation {
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
        let Self { towers, recipe, setting, study, progress, show, .. } = self;
        let srcc = progress.best().map_or_else(|| "none".into(), |srcc| format!("{srcc:.3}"));
        show.say(&format!("the best model is that after step {}, SRCC {srcc}", progress.best_step));
        show.end();
        let out = &setting.out;
        finish::bundle(&towers, recipe, &study, &out.join(BEST), &out.join("bundle"), setting.precision)
    }
}
