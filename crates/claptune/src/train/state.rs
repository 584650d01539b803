//! Folders of a run that are there whole or not at all, and the state that a resume goes on from.
//!
//! A state, `state/STEP/`, is written beside the older ones, brought to disk and then given its name, so that a kill or
//! a power cut at any moment leaves the newest that was whole. `best/` is replaced in the same way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::prelude::*;
use burn::store::ModuleRecord;
use clapd_core::files::sync_folder;
use serde::{Deserialize, Serialize};

use super::optimizer::Optimizer;

const NETWORK: &str = "network.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const PROGRESS: &str = "progress.json";
/// The end of a name that is not final yet.
const UNFINISHED: &str = "unfinished";

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Steps done.
    pub step: u64,
    /// Steps after which the best model was found.
    pub best_step: u64,
    /// Its validation SRCC, as bits: read from decimals it could be another number.
    best_bits: u64,
    /// Validations since then.
    pub since_best: u64,
    /// Whether the run has ended.
    pub ended: bool,
    /// Time spent, in seconds.
    pub seconds: f64,
}

impl RunProgress {
    /// At the start, with no best model.
    pub fn initial() -> Self {
        let best_bits = f64::NEG_INFINITY.to_bits();
        Self { step: 0, best_step: 0, best_bits, since_best: 0, ended: false, seconds: 0.0 }
    }

    /// The best model's SRCC on validation; none before the first, or where it is none (of a constant).
    pub fn best(&self) -> Option<f64> {
        Some(f64::from_bits(self.best_bits)).filter(|srcc| *srcc >= -1.0)
    }

    /// Takes a validation into account; whether it is the best so far. The first is, whatever its SRCC.
    pub fn record_validation(&mut self, srcc: f64) -> bool {
        let srcc = if srcc.is_nan() { f64::MIN } else { srcc };
        let better = srcc > f64::from_bits(self.best_bits);
        if better {
            (self.best_bits, self.best_step, self.since_best) = (srcc.to_bits(), self.step, 0);
        } else {
            self.since_best += 1;
        }
        better
    }
}

/// Saves a state in a run's folder, if there is none of that step; older ones are removed. What is frozen is left out.
///
/// # Errors
/// A disk that is full or read-only.
pub fn save<M: Module>(folder: &Path, net: &M, optimizer: &Optimizer, progress: &RunProgress) -> Result<()> {
    let states = folder.join("state");
    fs::create_dir_all(&states).with_context(|| format!("creating {}", states.display()))?;
    let new = states.join(format!("{:07}", progress.step));
    let place = || format!("writing {}", new.display());
    if new.exists() {
        return Ok(());
    }
    replace_folder(&new, |unfinished| {
        net.clone().into_record_group(trained_group(net)).save(unfinished.join(NETWORK)).with_context(place)?;
        optimizer.save(&unfinished.join(OPTIMIZER))?;
        fs::write(unfinished.join(PROGRESS), serde_json::to_vec(progress)?).with_context(place)
    })?;
    for old in entries(&states)? {
        if old != new {
            fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    Ok(())
}

/// A state that was saved.
#[derive(Debug)]
pub struct SavedState {
    folder: PathBuf,
    /// How far the run was.
    pub progress: RunProgress,
}

impl SavedState {
    /// The newest state in a run's folder; none if there is none yet.
    ///
    /// # Errors
    /// A folder that can't be read.
    pub fn newest(folder: &Path) -> Result<Option<Self>> {
        let states = folder.join("state");
        if !states.is_dir() {
            return Ok(None);
        }
        let finished = |path: &PathBuf| path.extension().is_none();
        let Some(newest) = entries(&states)?.into_iter().filter(finished).max() else { return Ok(None) };
        let path = newest.join(PROGRESS);
        let text = fs::read(&path).with_context(|| format!("{}: can't read it", path.display()))?;
        let progress = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(Some(Self { folder: newest, progress }))
    }

    /// Brings a network and an optimizer, as a run begins them, to where they were.
    ///
    /// # Errors
    /// A file that can't be read, or is of another network.
    pub fn load<M: Module>(&self, net: M, optimizer: Optimizer) -> Result<(M, Optimizer)> {
        let path = self.folder.join(NETWORK);
        let place = || format!("reading {}", path.display());
        let record = ModuleRecord::load(&path).with_context(place)?.allow_partial(true);
        Ok((net.try_load_record(record).with_context(place)?, optimizer.load(&self.folder.join(OPTIMIZER))?))
    }
}

/// The parameters that are trained.
fn trained_group<M: Module>(net: &M) -> ParamGroup {
    ParamGroup::from_paths(trained_paths(net))
}

/// Paths of the parameters that are trained.
pub fn trained_paths<M: Module>(net: &M) -> Vec<String> {
    #[derive(Default)]
    struct Trained {
        path: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Trained {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.found.push(self.path.join("."));
            }
        }
    }
    let mut visitor = Trained::default();
    net.visit(&mut visitor);
    visitor.found
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Makes a folder that takes the place of an older one once all of it is on disk. A kill between the last two renames leaves
/// no folder of that name; the state is older then, and the resumed run makes it again.
///
/// # Errors
/// What `fill` says, or a disk that is full or read-only.
pub fn replace_folder(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let beside = |ending: &str| {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(".{ending}"));
        PathBuf::from(name)
    };
    let (unfinished, old) = (beside(UNFINISHED), beside("old"));
    let place = || format!("writing {}", folder.display());
    for left in [&unfinished, &old] {
        if left.exists() {
            fs::remove_dir_all(left).with_context(place)?;
        }
    }
    fs::create_dir_all(&unfinished).with_context(place)?;
    fill(&unfinished)?;
    for path in entries(&unfinished)?.iter().filter(|path| path.is_file()) {
        File::open(path).and_then(|file| file.sync_all()).with_context(place)?;
    }
    sync_folder(&unfinished).with_context(place)?;
    if folder.exists() {
        fs::rename(folder, &old).with_context(place)?;
    }
    fs::rename(&unfinished, folder).with_context(place)?;
    if let Some(parent) = folder.parent() {
        sync_folder(parent).with_context(place)?;
    }
    if old.exists() {
        fs::remove_dir_all(&old).with_context(place)?;
    }
    Ok(())
}
