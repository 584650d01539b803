//! How well a model agrees with people, and how sure that is.
//!
//! SRCC, LCC, KTAU and MSE are as the literature defines them (and as scipy computes them), with 95% intervals, a
//! paired test of two models, and what agreement people reach. A figure that does not exist, because one side is
//! constant, is NaN.

pub mod bootstrap;
mod ceiling;
mod correlation;
mod kendall;
mod rates;

pub use bootstrap::{BootstrapPlan, Difference, Interval};
pub use ceiling::Ceiling;
pub use correlation::{mse, pearson, spearman};
pub use kendall::kendall;
pub use rates::{per_hour, share};

/// Names of the four metrics, in the order of [`Metrics::to_array`].
pub const NAMES: [&str; 4] = ["srcc", "lcc", "ktau", "mse"];

/// What a model said of pairs of a recording and a text, and what people did; all of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Cosine of the two embeddings, -1 to 1. The correlations are taken of it, as in the literature: a calibration curve
    /// that is flat somewhere must not blur the order.
    pub cosine: Vec<f64>,
    /// The calibrated score, 0 to 10; the error is taken of it, for it is what a user sees.
    pub score: Vec<f64>,
    /// Mean of people's ratings, 0 to 10.
    pub rating: Vec<f64>,
}

impl Columns {
    /// The rows at these indices, in their order; an index may come several times.
    pub fn pick(&self, rows: &[usize]) -> Self {
        let pick = |column: &[f64]| rows.iter().map(|&row| column[row]).collect();
        Self { cosine: pick(&self.cosine), score: pick(&self.score), rating: pick(&self.rating) }
    }
}

/// The four figures; a correlation of a constant is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Spearman's rank correlation of cosine and rating.
    pub srcc: f64,
    /// Pearson's linear correlation of cosine and rating.
    pub lcc: f64,
    /// Kendall's tau-b of cosine and rating.
    pub ktau: f64,
    /// Mean squared error of score and rating, in squared points of the 0 to 10 scale.
    pub mse: f64,
}

impl Metrics {
    /// Of all rows.
    pub fn of(columns: &Columns) -> Self {
        let Columns { cosine, score, rating } = columns;
        Self {
            srcc: spearman(cosine, rating),
            lcc: pearson(cosine, rating),
            ktau: kendall(cosine, rating),
            mse: mse(score, rating),
        }
    }

    /// In the order of [`NAMES`].
    pub fn to_array(self) -> [f64; 4] {
        [self.srcc, self.lcc, self.ktau, self.mse]
    }
}

/// The four metrics with their intervals, in the order of [`NAMES`]. `recordings[i]` names the recording of row i: rows
/// of one recording are drawn together (see [`bootstrap`]).
pub fn intervals(columns: &Columns, recordings: &[usize], plan: BootstrapPlan) -> [Interval; 4] {
    let draws = bootstrap::draws(recordings, plan, |rows| Metrics::of(&columns.pick(rows)).to_array());
    let values = Metrics::of(columns).to_array();
    std::array::from_fn(|metric| Interval::of(values[metric], &draws[metric]))
}

/// How much `new` is above `old` in each metric, in the order of [`NAMES`]: both are seen on the same draws of
/// recordings, so that what is hard for both does not widen the interval.
pub fn differences(new: &Columns, old: &Columns, recordings: &[usize], plan: BootstrapPlan) -> [Difference; 4] {
    let minus = |a: Metrics, b: Metrics| -> [f64; 4] {
        let (a, b) = (a.to_array(), b.to_array());
        std::array::from_fn(|metric| a[metric] - b[metric])
    };
    let draws =
        bootstrap::draws(recordings, plan, |rows| minus(Metrics::of(&new.pick(rows)), Metrics::of(&old.pick(rows))));
    let values = minus(Metrics::of(new), Metrics::of(old));
    std::array::from_fn(|metric| Difference::of(values[metric], &draws[metric]))
}
