//! The end of a run: its best model as a bundle, with scores as people rate.
//!
//! In: the best model's folder, the validation split. Out: the bundle, whose curve from cosine to score is fitted to that split.
//! The cosines are those of the bundle itself, as clapd will hear, and not of the network in training.
//! Never: looks at the test split.

use std::path::Path;

use anyhow::{Context, Result};

use super::recipe::Recipe;
use super::study::Study;
use super::towers::{Towers, distinct};
use crate::tune::calibrate;
use crate::tune::data::Pair;
use crate::tune::eval::Listener;
use crate::tune::export::Precision;
use crate::tune::metrics::Plan;

/// Makes a bundle at `out` of the model in `best`, and calibrates it.
///
/// # Errors
/// Says which step failed.
pub(super) fn bundle<T: Towers>(
    towers: &T,
    recipe: &Recipe,
    study: &Study,
    best: &Path,
    out: &Path,
    precision: Precision,
) -> Result<()> {
    towers.bundle(best, out, precision)?;
    let (scored, skipped) = Listener::open(out)?.score(&study.validation, recipe.skip).context("calibrating")?;
    // A file that went away since it was looked at leaves the pairs of the others.
    let heard = |pair: &&Pair| skipped.iter().all(|skipped| skipped.audio != pair.audio);
    let pairs: Vec<&Pair> = study.validation.iter().filter(heard).collect();
    let cosines = scored.iter().map(|(cosine, _)| f64::from(*cosine)).filter(|cosine| cosine.is_finite());
    let ratings: Vec<f64> = pairs.iter().map(|pair| pair.mean()).collect();
    let (_, recordings) = distinct(pairs.iter().map(|pair| pair.recording.as_str()));
    let plan = Plan { seed: recipe.seed, ..Plan::default() };
    let fitted = calibrate::fit(&cosines.collect::<Vec<_>>(), &ratings, &recordings, plan)?;
    let names: Vec<String> = recipe.data.iter().map(|path| path.display().to_string()).collect();
    calibrate::write(out, &fitted, &format!("{} (validation)", names.join(", ")))?;
    if let Some(error) = fitted.error {
        let [mse, mae] = [error.mse, error.mae].map(|error| error.value);
        eprintln!("scores on recordings that the curve was not fitted to: MSE {mse:.2}, MAE {mae:.2}");
    }
    Ok(())
}
