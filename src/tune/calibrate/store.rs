//! A calibration's way into a bundle.
//!
//! In: a bundle's folder, a fitted curve. Out: the same folder with another `bundle.toml`: curve, measured error, pipeline id.
//! Never: leaves a half-written manifest, or one that clapd would refuse; touches a tower.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;
use toml::{Table, Value};

use super::Fitted;
use crate::clap::Bundle;
use crate::clap::manifest::{CalibrationTable, Manifest};
use crate::tune::metrics::Interval;

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
    let place = || format!("can't write {}", path.display());
    let mut file = NamedTempFile::new_in(folder).with_context(place)?;
    file.write_all(text.as_bytes()).with_context(place)?;
    // Temporary files are private to their maker; the manifest stays as readable as it was.
    let permissions = fs::metadata(&path).with_context(place)?.permissions();
    file.as_file().set_permissions(permissions).with_context(place)?;
    // On disk before it has the name: a power cut leaves no empty manifest.
    file.as_file().sync_all().with_context(place)?;
    file.persist(&path).with_context(place)?;
    Ok(manifest.pipeline_id)
}

/// What the bundle tells of its curve.
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
