//! What an evaluation found, as JSON and as a table. The JSON's names are frozen.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::alarms::Alarms;
use super::records::{CeilingRecord, DifferenceRecord, IntervalRecord, ModelName, interval};
use crate::data::{Screened, Skipped};
use crate::metrics::NAMES;

/// Pairs of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairGroup {
    /// `all`, `natural`, `synthesised`, `generator:NAME`, `category:NAME`.
    pub group: String,
    /// Pairs in it.
    pub pairs: usize,
    /// Recordings in it.
    pub recordings: usize,
    /// `srcc`, `lcc`, `ktau` (of cosines) and `mse` (of scores, in squared points) of each model.
    pub models: Vec<BTreeMap<&'static str, IntervalRecord>>,
    /// The first model less the second, of the same four.
    pub difference: Option<BTreeMap<&'static str, DifferenceRecord>>,
    /// What people reach.
    pub ceiling: Option<CeilingRecord>,
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EvalReport {
    /// The models, the one under test first.
    pub models: Vec<ModelName>,
    /// The split, where the manifests have splits.
    pub split: Option<String>,
    /// Ratings that were used.
    pub ratings: usize,
    /// Listeners that are known by name.
    pub listeners: usize,
    /// Rows that the publisher excludes.
    pub excluded: usize,
    /// Ratings that were screened out.
    pub screened: Screened,
    /// Audio that could not be used.
    pub skipped: Vec<Skipped>,
    /// Draws of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
    /// Agreement, all pairs first.
    pub groups: Vec<PairGroup>,
    /// False alarms and misses, a model and a threshold each.
    pub alarms: Vec<Alarms>,
}

/// The four metrics by name.
pub(super) fn named<T>(figures: [T; 4]) -> BTreeMap<&'static str, T> {
    NAMES.into_iter().zip(figures).collect()
}

impl EvalReport {
    /// A table to read; ends with a line break.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (number, model) in self.models.iter().enumerate() {
            let _ = writeln!(out, "model {}: {} ({})", number + 1, model.name, model.folder);
        }
        if !self.groups.is_empty() {
            self.agreement(&mut out);
        }
        for alarms in &self.alarms {
            alarms.table(&mut out);
        }
        out
    }

    fn agreement(&self, out: &mut String) {
        let split = self.split.as_ref().map_or_else(String::new, |split| format!("split {split}: "));
        let _ = writeln!(
            out,
            "{split}{} ratings of {} listeners; 95% intervals by {} draws of recordings",
            self.ratings, self.listeners, self.resamples
        );
        let Screened { listeners, by_anchors, by_disagreement } = self.screened;
        let _ = writeln!(
            out,
            "left out: {} rows excluded by the publisher, {by_anchors} ratings of {listeners} listeners by anchors, \
             {by_disagreement} by disagreement, {} audio files",
            self.excluded,
            self.skipped.len()
        );
        let _ = writeln!(
            out,
            "\n{:<26}{:>6}{:>6}  {:<9}{:<22}{:<22}{:<22}{:<20}",
            "group", "pairs", "rec.", "", "SRCC", "LCC", "KTAU", "MSE"
        );
        for group in &self.groups {
            let head = format!("{:<26}{:>6}{:>6}", group.group, group.pairs, group.recordings);
            for (number, model) in group.models.iter().enumerate() {
                let head = if number == 0 { &head } else { "" };
                let _ = writeln!(
                    out,
                    "{head:<38}  {:<9}{}",
                    format!("model {}", number + 1),
                    cells(model, |i| interval(*i))
                );
            }
            if let Some(difference) = &group.difference {
                let cell = |d: &DifferenceRecord| interval(IntervalRecord { value: d.value, low: d.low, high: d.high });
                let _ = writeln!(out, "{:<38}  {:<9}{}", "", "1 less 2", cells(difference, cell));
                let _ = writeln!(out, "{:<38}  {:<9}{}", "", "p", cells(difference, |d| format!("{:.4}", d.p)));
            }
            if let Some(ceiling) = group.ceiling {
                let (halves, most) = (interval(ceiling.halves), interval(ceiling.model));
                let _ =
                    writeln!(out, "{:<38}  {:<9}{most:<22}(half the listeners against half {halves})", "", "people");
            }
        }
    }
}

fn cells<T>(figures: &BTreeMap<&'static str, T>, cell: impl Fn(&T) -> String) -> String {
    let cells = NAMES.iter().filter_map(|name| figures.get(name));
    cells.map(|figure| format!("{:<22}", cell(figure))).collect::<String>().trim_end().to_owned()
}
