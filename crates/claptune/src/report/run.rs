//! What a training run left in its folder: `run.json` and `metrics.jsonl`. A run that was killed has a torn last line
//! and no bundle, and is read all the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A step of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct LoggedStep {
    /// Steps done.
    pub step: u64,
    /// Of its pairs; none where it was no number.
    pub loss: Option<f64>,
}

/// A look at the validation split.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct LoggedValidation {
    /// Steps done; 0 is the start.
    pub step: u64,
    /// Spearman's rank correlation of cosine and mean rating; none where a side was constant.
    pub srcc: Option<f64>,
    /// Pearson's.
    pub lcc: Option<f64>,
    /// Kendall's tau-b.
    pub ktau: Option<f64>,
    /// Mean squared error, in squared points.
    pub mse: Option<f64>,
    /// The objective on the split.
    pub loss: Option<f64>,
    /// Better than all before.
    #[serde(default)]
    pub best: bool,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum LoggedLine {
    Step(LoggedStep),
    Validation(LoggedValidation),
    #[serde(other)]
    Other,
}

/// A run.
#[derive(Clone, Debug)]
pub struct LoggedRun {
    /// Its folder.
    pub dir: PathBuf,
    /// `run.json`, an object.
    pub options: Value,
    /// In order.
    pub steps: Vec<LoggedStep>,
    /// In order, the start first.
    pub validations: Vec<LoggedValidation>,
    /// Lines of `metrics.jsonl` that are none.
    pub torn: usize,
}

impl LoggedRun {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// A folder without `run.json`, or with one that is no JSON object.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("run.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} can't be read; give the folder that claptune tune wrote", path.display()))?;
        let options: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(options.is_object(), "{} is no JSON object; it is not what claptune tune writes", path.display());
        let mut run = Self { dir: dir.to_path_buf(), options, steps: vec![], validations: vec![], torn: 0 };
        let path = dir.join("metrics.jsonl");
        if !path.exists() {
            return Ok(run);
        }
        // Killed in the middle of a character: what is no UTF-8 makes a line that is none, and no more.
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        for line in String::from_utf8_lossy(&bytes).lines().filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(LoggedLine::Step(step)) => run.steps.push(step),
                Ok(LoggedLine::Validation(validation)) => run.validations.push(validation),
                Ok(LoggedLine::Other) => {}
                Err(_) => run.torn += 1,
            }
        }
        Ok(run)
    }

    /// The best look at the validation split: the last one marked so.
    pub fn best(&self) -> Option<&LoggedValidation> {
        self.validations.iter().rev().find(|validation| validation.best)
    }

    /// The look before the first step.
    pub fn start(&self) -> Option<&LoggedValidation> {
        self.validations.first().filter(|validation| validation.step == 0)
    }

    /// The manifests that it learned from.
    pub fn manifests(&self) -> Vec<PathBuf> {
        match &self.options["data"] {
            Value::String(path) => vec![path.into()],
            Value::Array(paths) => paths.iter().filter_map(Value::as_str).map(PathBuf::from).collect(),
            _ => vec![],
        }
    }

    /// An option that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.options[name].as_str()
    }

    /// The options as names and values; what is nested has dots in its name.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        flatten("", &self.options, &mut facts);
        facts
    }
}

fn flatten(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            flatten(&if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, value, into);
        }),
        Value::Null => {}
        Value::Array(items) => {
            let texts: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            into.push((name.to_owned(), if texts.is_empty() { "none".into() } else { texts.join(", ") }));
        }
        Value::String(text) => into.push((name.to_owned(), text.clone())),
        other => into.push((name.to_owned(), other.to_string())),
    }
}
