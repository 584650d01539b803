//! Figures and models as a report writes them.
//!
//! The names are those of the JSON and frozen; a figure that does not exist is null there.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::data::{Screened, Skipped};
use crate::metrics;

/// A figure and its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct IntervalRecord {
    /// Of all rows.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What the first model has over the second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DifferenceRecord {
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
pub struct CeilingRecord {
    /// Pairs that two listeners or more have rated.
    pub pairs: usize,
    /// Half the listeners against the other half, SRCC.
    pub halves: IntervalRecord,
    /// All listeners against as many others.
    pub reliability: IntervalRecord,
    /// A perfect model against the mean of all listeners.
    pub model: IntervalRecord,
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

impl From<metrics::Interval> for IntervalRecord {
    fn from(metrics::Interval { value, low, high }: metrics::Interval) -> Self {
        Self { value, low, high }
    }
}

impl From<metrics::Difference> for DifferenceRecord {
    fn from(metrics::Difference { interval, p }: metrics::Difference) -> Self {
        Self { value: interval.value, low: interval.low, high: interval.high, p }
    }
}

impl From<metrics::Ceiling> for CeilingRecord {
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

/// A figure and its interval in a table.
pub(super) fn interval(IntervalRecord { value, low, high }: IntervalRecord) -> String {
    format!("{value:.3} [{low:.3}, {high:.3}]")
}
