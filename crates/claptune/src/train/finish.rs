//! The end of a run: its best model as a bundle, with scores as people rate.
//!
//! In: the best model's folder, the validation split. Out: the bundle, whose curve from cosine to score is fitted to that split.
//! The cosines are those of the bundle itself, as clapd will hear, and not of the network in training.
//! Never: looks at the test split.

use std::path::Path;

use anyhow::{Context, Result};

use super::recipe::Recipe;
use super::study::Study;
use super::towers::Towers;
use crate::calibrate;
use crate::eval::{self, Listener};
use crate::export::Precision;
use crate::metrics::Plan;

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
    let judged = eval::score(&[Listener::open(out)?], &study.validation, recipe.skip).context("calibrating")?;
    let columns = &judged.columns[0];
    let plan = Plan { seed: recipe.seed, ..Plan::default() };
    let fitted = calibrate::fit(&columns.cosine, &columns.rating, &judged.recordings, plan)?;
    // Without their folders: a bundle is given away, and where its maker keeps files is nobody's business.
    let names: Vec<_> =
        recipe.data.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect();
    calibrate::write(out, &fitted, &format!("{} (validation)", names.join(", ")))?;
    if let Some(error) = fitted.error {
        let [mse, mae] = [error.mse, error.mae].map(|error| error.value);
        eprintln!("scores on recordings that the curve was not fitted to: MSE {mse:.2}, MAE {mae:.2}");
    }
    Ok(())
}
