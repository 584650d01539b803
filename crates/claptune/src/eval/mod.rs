//! `claptune eval`: does a model score as people do?
//!
//! An [`EvalReport`] has a bundle's agreement with people's ratings, another bundle's to compare it with, what people
//! themselves reach, and false alarms and misses on long recordings. All is run as clapd runs it: clips through
//! `ClipEmbedder`, recordings through `Pipeline`.

mod alarms;
mod bundle_scorer;
mod records;
mod report;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::data::{self, Pair, Screened, Screening, Skipped, Split};
use super::metrics::{self, BootstrapPlan, Ceiling, Columns};
pub use alarms::{AlarmCounts, AlarmRules, Alarms, measure_alarms};
pub use bundle_scorer::BundleScorer;
pub use records::{CeilingRecord, DifferenceRecord, IntervalRecord, ModelName};
pub use report::{EvalReport, PairGroup};

/// Below this a correlation is 1 or -1 whatever the model says.
const LEAST_PAIRS: usize = 3;

/// Which ratings, and how they are taken.
#[derive(Clone, Debug)]
pub struct RatingSelection<'a> {
    /// Manifests.
    pub manifests: &'a [PathBuf],
    /// Where their audio lies.
    pub audio_root: Option<&'a Path>,
    /// Only this split; where no row has one, all rows.
    pub split: Split,
    /// None for published test sets, whose screening is part of them.
    pub screening: Screening,
    /// Share of audio files that may be skipped, 0 to 1.
    pub skip: f64,
    /// The bootstrap's draws.
    pub plan: BootstrapPlan,
}

/// Pairs to evaluate on, and what was left out on the way.
struct SelectedPairs {
    pairs: Vec<Pair>,
    excluded: usize,
    screened: Screened,
}

/// What models said of pairs that people rated.
#[derive(Clone, Debug)]
pub struct ScoredPairs {
    /// The pairs whose audio could be used.
    pub pairs: Vec<Pair>,
    /// The number of each pair's recording.
    pub recordings: Vec<usize>,
    /// What each model said of them.
    pub columns: Vec<Columns>,
    /// Rows that the publisher excludes.
    pub excluded: usize,
    /// Ratings that were screened out.
    pub screened: Screened,
    /// Audio that could not be used.
    pub skipped: Vec<Skipped>,
}

/// Agreement of one or two models with people.
///
/// # Errors
/// As [`score_ratings`].
pub fn agreement(models: &[BundleScorer], ratings: &RatingSelection<'_>) -> Result<EvalReport> {
    Ok(score_ratings(models, ratings)?.report(models, ratings))
}

/// Has models score the pairs that people rated.
///
/// # Errors
/// A manifest at fault, no pair of the split, too much broken audio, or a model that fails.
pub fn score_ratings(models: &[BundleScorer], ratings: &RatingSelection<'_>) -> Result<ScoredPairs> {
    let SelectedPairs { pairs, excluded, screened } = select_pairs(ratings)?;
    Ok(ScoredPairs { excluded, screened, ..score(models, &pairs, ratings.skip)? })
}

/// Has models score these pairs, without those of audio that can't be used, at most the share `skip` of the files.
///
/// # Errors
/// Too much broken audio, or a model that fails.
pub fn score(models: &[BundleScorer], pairs: &[Pair], skip: f64) -> Result<ScoredPairs> {
    let mut scored = Vec::new();
    let mut skipped: BTreeMap<PathBuf, Skipped> = BTreeMap::new();
    for model in models {
        let (scores, failed) = model.score(pairs, skip)?;
        skipped.extend(failed.into_iter().map(|skip| (skip.audio.clone(), skip)));
        scored.push(scores);
    }
    let usable: Vec<usize> = (0..pairs.len()).filter(|&row| !skipped.contains_key(&pairs[row].audio)).collect();
    let pairs: Vec<Pair> = usable.iter().map(|&row| pairs[row].clone()).collect();
    ensure!(!pairs.is_empty(), "no pair is left: none has audio that can be used");
    let columns: Vec<Columns> = scored
        .into_iter()
        .map(|scores| {
            let rows = usable.iter().map(|&row| scores[row]);
            let (cosine, score) = rows.map(|(cosine, score)| (f64::from(cosine), f64::from(score))).unzip();
            Columns { cosine, score, rating: pairs.iter().map(Pair::mean).collect() }
        })
        .collect();
    let recordings = numbers(&pairs);
    let (excluded, screened, skipped) = (0, Screened::default(), skipped.into_values().collect());
    Ok(ScoredPairs { pairs, recordings, columns, excluded, screened, skipped })
}

impl ScoredPairs {
    /// Figures of it, of all pairs and of each group.
    pub fn report(&self, models: &[BundleScorer], ratings: &RatingSelection<'_>) -> EvalReport {
        let Self { pairs, recordings, columns, .. } = self;
        let group = |(name, rows): (String, Vec<usize>)| compare(name, &rows, pairs, columns, recordings, ratings.plan);
        let listeners: HashSet<&String> = pairs
            .iter()
            .flat_map(|pair| &pair.listener_ratings)
            .filter_map(|rating| rating.listener.as_ref())
            .collect();
        EvalReport {
            models: models.iter().map(BundleScorer::name).collect(),
            split: pairs.iter().any(|pair| pair.split.is_some()).then(|| ratings.split.to_string()),
            ratings: pairs.iter().map(|pair| pair.listener_ratings.len()).sum(),
            listeners: listeners.len(),
            excluded: self.excluded,
            screened: self.screened,
            skipped: self.skipped.clone(),
            resamples: ratings.plan.resamples,
            seed: ratings.plan.seed,
            groups: groups(pairs).into_iter().map(group).collect(),
            alarms: vec![],
        }
    }
}

fn select_pairs(ratings: &RatingSelection<'_>) -> Result<SelectedPairs> {
    let (mut rows, mut excluded) = (vec![], 0);
    for manifest in ratings.manifests {
        let read = data::read(manifest, ratings.audio_root)?;
        rows.extend(read.rows);
        excluded += read.excluded;
    }
    let crossing = data::split::crossing(&rows);
    if !crossing.recordings.is_empty() || !crossing.listeners.is_empty() {
        log::warn!(
            "{} recordings and {} listeners are in more than one split: a model trained on one has met the other \
             (claptune split makes splits that hold)",
            crossing.recordings.len(),
            crossing.listeners.len()
        );
    }
    let has_splits = rows.iter().any(|row| row.split.is_some());
    rows.retain(|row| row.anchor || !has_splits || row.split == Some(ratings.split));
    let (rows, screened) = data::screen(rows, &ratings.screening);
    let pairs = data::pairs(&rows)?;
    ensure!(!pairs.is_empty(), "there is no rating in the split {}; name another with --split", ratings.split);
    Ok(SelectedPairs { pairs, excluded, screened })
}

/// A number a recording.
fn numbers(pairs: &[Pair]) -> Vec<usize> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut number = |name| {
        let next = known.len();
        *known.entry(name).or_insert(next)
    };
    pairs.iter().map(|pair| number(pair.recording.as_str())).collect()
}

/// Rows of all pairs, and of each kind and category; those with too few are left out.
fn groups(pairs: &[Pair]) -> Vec<(String, Vec<usize>)> {
    let rows = |name: &str, of: &dyn Fn(&Pair) -> bool| {
        (name.to_owned(), (0..pairs.len()).filter(|&row| of(&pairs[row])).collect::<Vec<usize>>())
    };
    let mut found = vec![
        rows("all", &|_| true),
        rows("natural", &|pair| pair.is_natural() == Some(true)),
        rows("synthesised", &|pair| pair.is_natural() == Some(false)),
    ];
    let names = |of: fn(&Pair) -> Option<&String>| {
        let mut names: Vec<&String> = pairs.iter().filter_map(of).collect();
        names.sort();
        names.dedup();
        names
    };
    for name in names(|pair| pair.kind.as_ref()).into_iter().filter(|name| *name != data::NATURAL) {
        found.push(rows(&format!("generator:{name}"), &|pair| pair.kind.as_ref() == Some(name)));
    }
    for name in names(|pair| pair.category.as_ref()) {
        found.push(rows(&format!("category:{name}"), &|pair| pair.category.as_ref() == Some(name)));
    }
    found.retain(|(_, rows)| rows.len() >= LEAST_PAIRS);
    found
}

fn compare(
    name: String,
    rows: &[usize],
    pairs: &[Pair],
    columns: &[Columns],
    recordings: &[usize],
    plan: BootstrapPlan,
) -> PairGroup {
    let clusters: Vec<usize> = rows.iter().map(|&row| recordings[row]).collect();
    let picked: Vec<Columns> = columns.iter().map(|columns| columns.pick(rows)).collect();
    let listener_ratings: Vec<Vec<f64>> = rows.iter().map(|&row| pairs[row].by_listener()).collect();
    let difference = match picked.as_slice() {
        [new, old, ..] => Some(report::named(metrics::differences(new, old, &clusters, plan).map(Into::into))),
        _ => None,
    };
    PairGroup {
        group: name,
        pairs: rows.len(),
        recordings: clusters.iter().collect::<HashSet<_>>().len(),
        models: picked
            .iter()
            .map(|columns| report::named(metrics::intervals(columns, &clusters, plan).map(Into::into)))
            .collect(),
        difference,
        ceiling: Ceiling::of(&listener_ratings, &clusters, plan).map(Into::into),
    }
}
