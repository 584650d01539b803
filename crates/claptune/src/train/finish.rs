//! The end of a run: its best model as a bundle, with scores as people rate.
//!
//! The curve from cosine to score is fitted to the validation split. The cosines are those of the bundle itself, as
//! clapd will compute them, and not of the network in training.

use std::path::Path;

use anyhow::{Context, Result};

use super::dataset::Dataset;
use super::recipe::Recipe;
use super::trainable_model::TrainableModel;
use crate::calibrate;
use crate::eval::{self, BundleScorer};
use crate::export::Precision;
use crate::metrics::BootstrapPlan;

/// Makes a bundle at `out` of the model in `best`, and calibrates it.
///
/// # Errors
/// Says which step failed.
pub(super) fn bundle<T: TrainableModel>(
    model: &T,
    recipe: &Recipe,
    dataset: &Dataset,
    best: &Path,
    out: &Path,
    precision: Precision,
) -> Result<()> {
    model.bundle(best, out, precision)?;
    let scored = eval::score(&[BundleScorer::open(out)?], &dataset.validation, recipe.skip).context("calibrating")?;
    let columns = &scored.columns[0];
    let plan = BootstrapPlan { seed: recipe.seed, ..BootstrapPlan::default() };
    let fitted = calibrate::fit(&columns.cosine, &columns.rating, &scored.recordings, plan)?;
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
