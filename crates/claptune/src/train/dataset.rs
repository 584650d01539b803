//! The pairs that a run learns from and those that it is judged by: training and validation pairs whose audio can be
//! used, and how each listener uses the scale.
//!
//! No recording may be in two splits, nor a listener unless that is asked for. The test split is only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clapd_core::files::HashingReader;

use super::objective::Spread;
use super::recipe::Recipe;
use super::run_record::SplitCounts;
use crate::data::{self, Clips, ListenerNorms, Pair, Rating, Screened, Screening, Skipped, Split, split};
use crate::progress;

/// Below this a correlation is 1 or -1 whatever the model says.
const LEAST_VALIDATION: usize = 3;
/// Names that an error lists.
const MAX_NAMES: usize = 5;

/// A run's data.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Pairs to learn from.
    pub train: Vec<Pair>,
    /// Pairs that decide which model is best.
    pub validation: Vec<Pair>,
    /// Training listeners' use of the scale.
    pub norms: ListenerNorms,
    /// What each split holds; of the test split before any screening, of the others as used.
    pub splits: BTreeMap<Split, SplitCounts>,
    /// Rows that the publisher excludes.
    pub excluded: usize,
    /// What was screened out of training and validation.
    pub screened: Screened,
    /// Audio files that can't be used.
    pub skipped: Vec<Skipped>,
    /// SHA-256 of the manifests.
    pub sha256: Vec<String>,
}

impl Dataset {
    /// Reads the manifests, and every recording once, which fills the cache of `clips`.
    ///
    /// # Errors
    /// A manifest at fault, splits that are missing or crossed, or too much broken audio.
    pub fn read(recipe: &Recipe, clips: &mut Clips) -> Result<Self> {
        let (mut rows, mut excluded, mut sha256) = (vec![], 0, vec![]);
        for manifest in &recipe.data {
            let read = data::read(manifest, recipe.audio_root.as_deref())?;
            rows.extend(read.rows);
            excluded += read.excluded;
            sha256.push(
                HashingReader::open(manifest, u64::MAX)?.finish().with_context(|| manifest.display().to_string())?,
            );
        }
        ensure!(
            rows.iter().any(|row| row.split.is_some()),
            "no rating has a split; claptune split makes splits that neither a recording nor a listener crosses"
        );
        refuse_crossings(&rows, recipe.listeners_shared)?;
        let (test, rows): (Vec<Rating>, Vec<Rating>) = rows.into_iter().partition(|r| r.split == Some(Split::Test));
        let rules = Screening::when(recipe.screen);
        let (rows, screened) = data::screen(rows, &rules);
        let pairs = data::pairs(&rows)?;
        let unsplit = pairs.iter().filter(|pair| pair.split.is_none()).count();
        if unsplit > 0 {
            log::warn!("{unsplit} pairs have no split, while others have one: they are left out");
        }
        let pairs = pairs.into_iter().filter(|pair| pair.split.is_some()).collect();
        let (pairs, skipped) = usable(pairs, clips, recipe.skip)?;
        let (train, validation): (Vec<Pair>, Vec<Pair>) =
            pairs.into_iter().partition(|pair| pair.split == Some(Split::Train));
        for (split, found, least) in
            [(Split::Train, train.len(), 1), (Split::Validation, validation.len(), LEAST_VALIDATION)]
        {
            ensure!(
                found >= least,
                "the {split} split has {found} pairs that can be used; {least} or more are needed (claptune split makes splits)"
            );
        }
        let counts = [&train, &validation, &data::pairs(&test)?].map(|pairs| SplitCounts::of(pairs));
        Ok(Self {
            norms: ListenerNorms::of(&train),
            splits: Split::ALL.into_iter().zip(counts).collect(),
            train,
            validation,
            excluded,
            screened,
            skipped,
            sha256,
        })
    }

    /// Mean and spread of the average training listener.
    pub fn spread(&self) -> Spread {
        let (mean, deviation) = self.norms.average();
        Spread { mean: mean as f32, deviation: deviation as f32 }
    }

    /// Different texts of training and validation.
    pub fn texts(&self) -> BTreeSet<&str> {
        self.train.iter().chain(&self.validation).map(|pair| pair.text.as_str()).collect()
    }
}

fn usable(pairs: Vec<Pair>, clips: &mut Clips, skip: f64) -> Result<(Vec<Pair>, Vec<Skipped>)> {
    let files: BTreeSet<PathBuf> = pairs.iter().map(|pair| pair.audio.clone()).collect();
    let bar = progress::count(files.len() as u64, "recordings");
    let prepared = clips.prepare(pairs, skip, |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok((prepared.pairs, prepared.skipped))
}

fn refuse_crossings(rows: &[Rating], listeners_shared: bool) -> Result<()> {
    let crossing = split::crossing(rows);
    let named = |names: &[String]| names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    let (recordings, listeners) = (&crossing.recordings, &crossing.listeners);
    ensure!(
        recordings.is_empty(),
        "{} recordings are in several splits ({}, ...): what was learned by heart would count as heard; claptune split makes \
         splits that no recording crosses",
        recordings.len(),
        named(recordings)
    );
    ensure!(
        listeners_shared || listeners.is_empty(),
        "{} listeners are in several splits ({}, ...): their habits would be known; claptune split makes splits that no listener \
         crosses, and --listeners shared trains with these, which a report has to say",
        listeners.len(),
        named(listeners)
    );
    Ok(())
}
