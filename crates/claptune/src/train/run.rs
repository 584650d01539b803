//! A run from its options to its bundle.
//!
//! In: towers, a recipe, the folder of a run. Out: `run.json`, `metrics.jsonl`, `state/`, `best/`, `bundle/`.
//! After a kill at any moment the same call, asked to resume, goes on from the newest state and ends with the same numbers.
//! Never: knows a kind of model; starts over what is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::journal::Journal;
use super::looping::Loop;
use super::optimizer::Optimizer;
use super::recipe::{self, Recipe, Run};
use super::schedule::Schedule;
use super::show::Show;
use super::state::{self, Progress, Saved};
use super::study::Study;
use super::towers::Towers;
use crate::data::{Clips, MelCache, Split};
use crate::export::Precision;

/// Where a run writes, and all that may be different when it is resumed.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The run's folder.
    pub out: PathBuf,
    /// Whether to go on with the run that is there; if none is, it begins.
    pub resume: bool,
    /// The folder of decoded recordings.
    pub cache: PathBuf,
    /// Its bound in bytes.
    pub cache_bytes: u64,
    /// Time from one state to the next, beside those at validations.
    pub save_every: Duration,
    /// How the bundle's weights are stored.
    pub precision: Precision,
}

/// Trains, and leaves the best model as a checkpoint and a bundle.
///
/// # Errors
/// Options, data or a checkpoint at fault; a folder that holds another run; a loss that is no number; a full disk.
pub fn train<T: Towers>(towers: T, recipe: &Recipe, setting: &Setting) -> Result<()> {
    let objective = recipe.check()?;
    let begun = open_folder(&setting.out, setting.resume)?;
    let (spec, patch_hop) = towers.frontend();
    let cache = MelCache::open(&setting.cache, setting.cache_bytes)?;
    let mut clips = Clips::new(spec, patch_hop, Some(cache));
    let study = Study::read(recipe, &mut clips)?;
    if objective.needs_listeners() && study.splits.get(&Split::Train).is_some_and(|train| train.listeners == 0) {
        log::warn!("the loss {} looks at how each listener rates, but no rating names its listener", recipe.loss);
    }
    let schedule = Schedule::new(&study.train, recipe)?;
    let run = describe(&towers, recipe, &study, &schedule)?;
    match begun {
        Some(begun) => begun.same(&run)?,
        None => run.write(&setting.out)?,
    }
    let net = towers.begin()?;
    ensure!(!state::paths(&net).is_empty(), "--freeze leaves nothing to train");
    let optimizer = Optimizer::new(recipe.rates(schedule.steps()), &towers.groups())?;
    let saved = Saved::newest(&setting.out)?;
    let journal = Journal::open(&setting.out, saved.as_ref().map(|saved| saved.progress.step))?;
    let (net, optimizer, progress) = match &saved {
        Some(saved) => {
            let (net, optimizer) = saved.load(net, optimizer)?;
            (net, optimizer, saved.progress)
        }
        None => (net, optimizer, Progress::start()),
    };
    let show = Show::new(schedule.steps(), progress.step);
    show.say(&beginning(&study, &schedule, &progress));
    let mut running =
        Loop { towers, recipe, setting, study, schedule, objective, clips, optimizer, journal, show, progress };
    running.run(net)?;
    running.finish()
}

/// The run that is in the folder, if there is one to go on with; otherwise a folder that is there and holds none.
fn open_folder(out: &Path, resume: bool) -> Result<Option<Run>> {
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let place = out.display();
    if !out.join(recipe::FILE).exists() {
        ensure!(
            !out.join("state").exists(),
            "{place} holds the state of a run without its {}; give another --out, or remove it",
            recipe::FILE
        );
        return Ok(None);
    }
    ensure!(resume, "{place} holds a run; --resume goes on with it, another --out begins one");
    Run::read(out).map(Some)
}

fn describe<T: Towers>(towers: &T, recipe: &Recipe, study: &Study, schedule: &Schedule) -> Result<Run> {
    let mut cut = vec![];
    for text in study.texts() {
        if towers.is_cut(text)? {
            cut.push(text);
        }
    }
    if let Some(text) = cut.first() {
        log::warn!("{} texts are longer than the model allows, and cut there, as clapd will: {text:?}", cut.len());
    }
    let (version, revision) = Run::versions();
    Ok(Run {
        version,
        revision,
        recipe: recipe.clone(),
        manifests_sha256: study.sha256.clone(),
        splits: study.splits.clone(),
        excluded: study.excluded,
        screened: study.screened.into(),
        skipped: recipe::reasons(&study.skipped),
        texts_cut: cut.len(),
        steps_in_all: schedule.steps(),
    })
}

fn beginning(study: &Study, schedule: &Schedule, progress: &Progress) -> String {
    let pairs = |pairs: usize| format!("{pairs} pairs");
    let mut text = format!(
        "{} to learn from, {} to validate with, {} steps",
        pairs(study.train.len()),
        pairs(study.validation.len()),
        schedule.steps()
    );
    if !study.skipped.is_empty() {
        text += &format!("; {} audio files can't be used (run.json has them)", study.skipped.len());
    }
    if progress.step > 0 {
        text += &format!("; going on after step {}", progress.step);
    }
    text
}
