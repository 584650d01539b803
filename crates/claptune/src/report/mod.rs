//! `claptune report`: a training run as one page to read.
//!
//! The page is one HTML file that holds everything it shows: figures, pictures, sounds. It opens without a network, by
//! day and by night, on a desk and on a phone. Where a part is missing the rest is shown, and simulated listeners are
//! named as such in every part.
//!
//! ```text
//! run.json, metrics.jsonl -> run -------> curves -----.
//! bundle, ratings -> evaluation -> scatter, reliability, groups, worst -> page -> HTML
//! ```

mod chart;
mod curves;
mod evaluation;
mod format;
mod groups;
mod page;
mod reliability;
mod run;
mod scatter;
mod sound;
mod worst;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, folder_of, write_atomically};

use super::data;
pub use evaluation::ReportOptions;
use page::PageData;
use run::LoggedRun;

/// The word that marks ratings which no person gave: in run.json, or in the names of listeners.
const SIMULATED: &str = "simulated";

/// Writes the page of the run in `dir` to `out`.
///
/// Whatever can't be had is stated on the page and in the log, and the rest is shown; where `ratings` names manifests or a split
/// itself, they have to be there.
///
/// # Errors
/// A folder without a run, ratings that were asked for and can't be used, or a file that can't be written.
pub fn write(dir: &Path, ratings: &ReportOptions, out: &Path) -> Result<()> {
    let run = LoggedRun::read(dir)?;
    let mut notes = Vec::new();
    let is_required = !ratings.manifests.is_empty() || ratings.split.is_some();
    let evaluation = match evaluation::evaluate(&run, ratings, &mut notes) {
        Ok(evaluation) => Some(evaluation),
        Err(error) if is_required => return Err(error),
        Err(error) => {
            notes.push(format!("Nothing was judged: {error:#}"));
            None
        }
    };
    for note in &notes {
        log::warn!("{note}");
    }
    let worst = evaluation.as_ref().map_or_else(Vec::new, worst::find);
    let simulated = is_simulated(&run, ratings);
    let page = PageData { run: &run, evaluation: evaluation.as_ref(), worst: &worst, notes: &notes, simulated }.page();
    save(out, &page.into_string())
}

/// Whether any rating that this run has to do with was made up: it is said of the page even where nothing could be judged.
fn is_simulated(run: &LoggedRun, ratings: &ReportOptions) -> bool {
    let says = |text: &str| text.to_lowercase().contains(SIMULATED);
    let rows = ratings.manifests(run).into_iter().filter_map(|manifest| data::read(&manifest, None).ok());
    says(&run.options.to_string())
        || rows.flat_map(|read| read.rows).filter_map(|rating| rating.listener).any(|listener| says(&listener))
}

/// Whole or not at all, readable as other files are.
fn save(out: &Path, page: &str) -> Result<()> {
    let folder = folder_of(out);
    fs::create_dir_all(folder).with_context(|| format!("can't write {}", out.display()))?;
    write_atomically(out, page.as_bytes(), Access::Public, Durability::Synced)
}
