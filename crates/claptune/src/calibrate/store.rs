//! A calibration is written into a bundle: `bundle.toml` is replaced by one with another curve, its measured error and
//! a new pipeline id. The towers are not touched.

use std::path::Path;

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, write_atomically};
use clapd_core::model::Bundle;
use clapd_core::model::manifest::{CalibrationTable, Manifest};
use toml::{Table, Value};

use super::Fitted;
use crate::metrics::Interval;

/// Puts the curve into the bundle in `folder`, beside its error under `[quality.calibration]`; `data` names the ratings that it
/// was fitted to. Gives the bundle's new pipeline id. A reader meets the old manifest or the new one.
///
/// # Errors
/// A folder that is no bundle, or can't be written.
pub fn write(folder: &Path, fitted: &Fitted, data: &str) -> Result<String> {
    let mut manifest = Bundle::open(folder)?.manifest().clone();
    manifest.calibration = CalibrationTable { points: fitted.points.clone() };
    manifest.quality.insert("calibration".into(), Value::Table(card(fitted, data)));
    manifest.pipeline_id = manifest.computed_pipeline_id();
    let text = toml::to_string(&manifest).context("writing the manifest")?;
    Manifest::parse(&text).context("the manifest would be refused by clapd")?;
    let path = folder.join("bundle.toml");
    write_atomically(&path, text.as_bytes(), Access::Unchanged, Durability::Synced)?;
    Ok(manifest.pipeline_id)
}

/// What the bundle states of its curve.
fn card(fitted: &Fitted, data: &str) -> Table {
    let mut card = Table::new();
    card.insert("method".into(), "logistic curve, least squares".into());
    card.insert("data".into(), data.into());
    let count = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    card.insert("pairs".into(), count(fitted.pairs));
    card.insert("recordings".into(), count(fitted.recordings));
    if let Some(error) = &fitted.error {
        card.insert("folds".into(), count(error.folds));
        for (name, interval) in [("mse", error.mse), ("mae", error.mae), ("expected_calibration_error", error.ece)] {
            card.insert(name.into(), figures(interval));
        }
    }
    card
}

/// A figure and the ends of its 95% interval, with as many decimals as mean something.
fn figures(Interval { value, low, high }: Interval) -> Value {
    Value::Array([value, low, high].map(|x| Value::Float((x * 1e3).round() / 1e3)).to_vec())
}
