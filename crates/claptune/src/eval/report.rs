//! What an evaluation found, as JSON and as a table.
//!
//! In: figures. Out: text. The JSON's names are frozen; a figure that does not exist is null.
//! Never: computes one.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::alarms::Alarms;
use crate::data::{Screened, Skipped};
use crate::metrics::{self, NAMES};

/// A figure and its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Of all rows.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What the first model has over the second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The first model's figure less the second's.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Two-sided probability of as much by chance of the recordings.
    pub p: f64,
}

/// People's agreement, see [`metrics::Ceiling`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceiling {
    /// Pairs that two listeners or more have rated.
    pub pairs: usize,
    /// Half the listeners against the other half, SRCC.
    pub halves: Interval,
    /// All listeners against as many others.
    pub reliability: Interval,
    /// A perfect model against the mean of all listeners.
    pub model: Interval,
}

/// Pairs of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// `all`, `natural`, `synthesised`, `generator:NAME`, `category:NAME`.
    pub group: String,
    /// Pairs in it.
    pub pairs: usize,
    /// Recordings in it.
    pub recordings: usize,
    /// `srcc`, `lcc`, `ktau` (of cosines) and `mse` (of scores, in squared points) of each model.
    pub models: Vec<BTreeMap<&'static str, Interval>>,
    /// The first model less the second, of the same four.
    pub difference: Option<BTreeMap<&'static str, Difference>>,
    /// What people reach.
    pub ceiling: Option<Ceiling>,
}

/// Which model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelName {
    /// Its folder.
    pub folder: String,
    /// Its name.
    pub name: String,
    /// Changes whenever a score could.
    pub pipeline_id: String,
}

/// All that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
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
    pub groups: Vec<Group>,
    /// False alarms and misses, a model and a threshold each.
    pub alarms: Vec<Alarms>,
}

impl From<metrics::Interval> for Interval {
    fn from(metrics::Interval { value, low, high }: metrics::Interval) -> Self {
        Self { value, low, high }
    }
}

impl From<metrics::Difference> for Difference {
    fn from(metrics::Difference { interval, p }: metrics::Difference) -> Self {
        Self { value: interval.value, low: interval.low, high: interval.high, p }
    }
}

impl From<metrics::Ceiling> for Ceiling {
    fn from(metrics::Ceiling { pairs, halves, reliability, model }: metrics::Ceiling) -> Self {
        Self { pairs, halves: halves.into(), reliability: reliability.into(), model: model.into() }
    }
}

impl Serialize for Screened {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Screened", 3)?;
        out.serialize_field("listeners", &self.listeners)?;
        out.serialize_field("by_anchors", &self.by_anchors)?;
        out.serialize_field("by_disagreement", &self.by_disagreement)?;
        out.end()
    }
}

impl Serialize for Skipped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Skipped", 2)?;
        out.serialize_field("audio", &self.audio.to_string_lossy())?;
        out.serialize_field("reason", &self.reason)?;
        out.end()
    }
}

/// The four metrics by name.
pub(super) fn named<T>(figures: [T; 4]) -> BTreeMap<&'static str, T> {
    NAMES.into_iter().zip(figures).collect()
}

impl Report {
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
                let cell = |d: &Difference| interval(Interval { value: d.value, low: d.low, high: d.high });
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

pub(super) fn interval(Interval { value, low, high }: Interval) -> String {
    format!("{value:.3} [{low:.3}, {high:.3}]")
}
