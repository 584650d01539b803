//! A run from its options to its bundle.
//!
//! It writes `run.json`, `metrics.jsonl`, `state/`, `best/` and `bundle/`. After a kill at any moment the same call,
//! asked to resume, goes on from the newest state and ends with the same numbers.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::batch_plan::BatchPlan;
use super::dataset::Dataset;
use super::metrics_log::MetricsLog;
use super::optimizer::Optimizer;
use super::progress_display::ProgressDisplay;
use super::recipe::Recipe;
use super::run_record::{self, RunRecord};
use super::settings::RunSettings;
use super::state::{self, RunProgress, SavedState};
use super::train_loop::TrainLoop;
use super::trainable_model::TrainableModel;
use crate::data::{Clips, MelCache, Split};

/// Trains, and leaves the best model as a checkpoint and a bundle.
///
/// # Errors
/// Options, data or a checkpoint at fault; a folder that holds another run; a loss that is no number; a full disk.
pub fn train<T: TrainableModel>(model: T, recipe: &Recipe, settings: &RunSettings) -> Result<()> {
    let objective = recipe.check()?;
    let existing = open_folder(&settings.out, settings.resume)?;
    let (spec, patch_hop) = model.frontend();
    let cache = MelCache::open(&settings.cache, settings.cache_bytes)?;
    let mut clips = Clips::new(spec, patch_hop, Some(cache));
    let dataset = Dataset::read(recipe, &mut clips)?;
    if objective.needs_listeners() && dataset.splits.get(&Split::Train).is_some_and(|train| train.listeners == 0) {
        log::warn!("the loss {} looks at how each listener rates, but no rating names its listener", recipe.loss);
    }
    let batch_plan = BatchPlan::new(&dataset.train, recipe)?;
    let run = describe(&model, recipe, &dataset, &batch_plan)?;
    match existing {
        Some(existing) => existing.ensure_same_options(&run)?,
        None => run.write(&settings.out)?,
    }
    let net = model.begin()?;
    ensure!(!state::trained_paths(&net).is_empty(), "--freeze leaves nothing to train");
    let optimizer = Optimizer::new(recipe.rates(batch_plan.steps()), &model.groups())?;
    let saved = SavedState::newest(&settings.out)?;
    let metrics_log = MetricsLog::open(&settings.out, saved.as_ref().map(|saved| saved.progress.step))?;
    let (net, optimizer, progress) = match &saved {
        Some(saved) => {
            let (net, optimizer) = saved.load(net, optimizer)?;
            (net, optimizer, saved.progress)
        }
        None => (net, optimizer, RunProgress::initial()),
    };
    let display = ProgressDisplay::new(batch_plan.steps(), progress.step);
    display.print_line(&start_message(&dataset, &batch_plan, &progress));
    let mut running = TrainLoop {
        model,
        recipe,
        settings,
        dataset,
        batch_plan,
        objective,
        clips,
        optimizer,
        metrics_log,
        display,
        progress,
    };
    running.run(net)?;
    running.finish()
}

/// The run that is in the folder, if there is one to go on with; otherwise a folder that is there and holds none.
fn open_folder(out: &Path, resume: bool) -> Result<Option<RunRecord>> {
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let place = out.display();
    if !out.join(run_record::FILE).exists() {
        ensure!(
            !out.join("state").exists(),
            "{place} holds the state of a run without its {}; give another --out, or remove it",
            run_record::FILE
        );
        return Ok(None);
    }
    ensure!(resume, "{place} holds a run; --resume goes on with it, another --out begins one");
    RunRecord::read(out).map(Some)
}

fn describe<T: TrainableModel>(
    model: &T,
    recipe: &Recipe,
    dataset: &Dataset,
    batch_plan: &BatchPlan,
) -> Result<RunRecord> {
    let mut cut = vec![];
    for text in dataset.texts() {
        if model.is_cut(text)? {
            cut.push(text);
        }
    }
    if let Some(text) = cut.first() {
        log::warn!("{} texts are longer than the model allows, and cut there, as clapd will: {text:?}", cut.len());
    }
    let (version, revision) = RunRecord::versions();
    Ok(RunRecord {
        version,
        revision,
        recipe: recipe.clone(),
        manifests_sha256: dataset.sha256.clone(),
        splits: dataset.splits.clone(),
        excluded: dataset.excluded,
        screened: dataset.screened.into(),
        skipped: run_record::reasons(&dataset.skipped),
        texts_cut: cut.len(),
        steps_in_all: batch_plan.steps(),
    })
}

fn start_message(dataset: &Dataset, batch_plan: &BatchPlan, progress: &RunProgress) -> String {
    let pairs = |pairs: usize| format!("{pairs} pairs");
    let mut text = format!(
        "{} to learn from, {} to validate with, {} steps",
        pairs(dataset.train.len()),
        pairs(dataset.validation.len()),
        batch_plan.steps()
    );
    if !dataset.skipped.is_empty() {
        text += &format!("; {} audio files can't be used (run.json has them)", dataset.skipped.len());
    }
    if progress.step > 0 {
        text += &format!("; going on after step {}", progress.step);
    }
    text
}
