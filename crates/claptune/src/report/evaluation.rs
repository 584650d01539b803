//! What the tuned model and the one that it began as say of pairs that people rated: their scores, pair by pair, and
//! the figures of both, by the way of `claptune eval`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clapd_core::model::manifest::Manifest;
use clapd_core::score::Calibration;
use tempfile::TempDir;

use super::run::LoggedRun;
use crate::checkpoint::source::locate;
use crate::data::{self, Screening, Split};
use crate::eval::{self, BundleScorer, ScoredPairs};
use crate::export::Precision;
use crate::import;
use crate::metrics::BootstrapPlan;

/// Which ratings to judge by, and how.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Manifests; empty: the run's own.
    pub manifests: Vec<PathBuf>,
    /// Where their audio lies; none: as in the run.
    pub audio_root: Option<PathBuf>,
    /// None: the test split, or validation where there is no test.
    pub split: Option<Split>,
    /// The model before training: a bundle or a checkpoint; none: the run's `init`.
    pub start: Option<String>,
    /// How listeners are screened.
    pub screening: Screening,
    /// Share of audio files that may be skipped, 0 to 1.
    pub skip: f64,
    /// The bootstrap's draws.
    pub plan: BootstrapPlan,
}

impl ReportOptions {
    /// The manifests that were asked for, or the run's.
    pub(super) fn manifests(&self, run: &LoggedRun) -> Vec<PathBuf> {
        if self.manifests.is_empty() { run.manifests() } else { self.manifests.clone() }
    }
}

/// Models and what they said.
pub struct Evaluation {
    /// The tuned model's manifest.
    pub manifest: Manifest,
    /// Its curve from cosine to score.
    pub curve: Calibration,
    /// The tuned model's columns first, then those of the start, if it could be had.
    pub scored: ScoredPairs,
    /// Figures, in the same order.
    pub figures: eval::EvalReport,
    /// The split that was judged by.
    pub split: Split,
}

/// Judges a run. What can't be had but can be done without goes into `notes`.
///
/// # Errors
/// No model to judge, no ratings, or audio that can't be used.
pub fn evaluate(run: &LoggedRun, ratings: &ReportOptions, notes: &mut Vec<String>) -> Result<Evaluation> {
    let manifests = ratings.manifests(run);
    ensure!(!manifests.is_empty(), "run.json names no data; name a manifest with --data");
    let audio_root = ratings.audio_root.clone().or_else(|| run.text("audio_root").map(PathBuf::from));
    let split = match ratings.split {
        Some(split) => split,
        None => default_split(&manifests, audio_root.as_deref())?,
    };
    if split != Split::Test {
        notes.push(format!(
            "There is no test split here: the {split} split is judged, which the training has looked at."
        ));
    }
    let scratch = tempfile::tempdir().context("a folder for models that have to be made into bundles")?;
    let mut models = vec![tuned(run, &scratch, notes)?];
    match start(run, ratings.start.as_deref(), &scratch) {
        Ok(start) => models.push(start),
        Err(error) => notes.push(format!("The model before training could not be judged: {error:#}")),
    }
    let chosen = eval::RatingSelection {
        manifests: &manifests,
        audio_root: audio_root.as_deref(),
        split,
        screening: ratings.screening,
        skip: ratings.skip,
        plan: ratings.plan,
    };
    let scored = eval::score_ratings(&models, &chosen)?;
    let figures = scored.report(&models, &chosen);
    let bundle = models[0].bundle();
    Ok(Evaluation { manifest: bundle.manifest().clone(), curve: bundle.calibration()?, scored, figures, split })
}

/// The test split, or validation where nothing is for the test.
fn default_split(manifests: &[PathBuf], audio_root: Option<&Path>) -> Result<Split> {
    let mut splits = Vec::new();
    for manifest in manifests {
        splits.extend(data::read(manifest, audio_root)?.rows.into_iter().filter_map(|row| row.split));
    }
    let only_validation = splits.contains(&Split::Validation) && !splits.contains(&Split::Test);
    Ok(if only_validation { Split::Validation } else { Split::Test })
}

/// The run's bundle, or, where it did not come to write one, its best checkpoint so far.
fn tuned(run: &LoggedRun, scratch: &TempDir, notes: &mut Vec<String>) -> Result<BundleScorer> {
    let (bundle, best) = (run.dir.join("bundle"), run.dir.join("best"));
    if bundle.join("bundle.toml").is_file() {
        return BundleScorer::open(&bundle);
    }
    ensure!(best.is_dir(), "the run has neither a bundle nor a best checkpoint yet; let it go on with --resume");
    notes.push(
        "The run is unfinished: the best checkpoint so far is judged, with a scale that was not calibrated.".into(),
    );
    open(&best.to_string_lossy(), None, &scratch.path().join("best"))
}

fn start(run: &LoggedRun, given: Option<&str>, scratch: &TempDir) -> Result<BundleScorer> {
    let init = given.or_else(|| run.text("init")).context("run.json names no init; name a model with --start")?;
    open(init, run.text("processor"), &scratch.path().join("start"))
}

/// A bundle as it is, a checkpoint as the bundle that `claptune import` makes of it in `scratch`.
fn open(name: &str, processor: Option<&str>, scratch: &Path) -> Result<BundleScorer> {
    let folder = Path::new(name);
    if folder.join("bundle.toml").is_file() || folder.join("bundle/bundle.toml").is_file() {
        return BundleScorer::open(folder);
    }
    import::import(&locate(name, processor)?, scratch, Precision::F32)?;
    BundleScorer::open(scratch)
}
