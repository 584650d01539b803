//! The curve of a bundle: cosines become scores, as people rated.
//!
//! The curve rises from -1 to 1 in cosine and 0 to 10 in score. It is fitted to pairs that no gradient saw (the
//! validation split), and its error is measured on recordings that it was not fitted to.
//!
//! It is a logistic one, as the quality of video and speech is mapped to people's opinions (ITU-T J.149 and P.1401),
//! written as the straight pieces that a bundle holds. An isotonic regression would follow a few hundred ratings too
//! closely, and its steps would make one score of many cosines.

mod error;
mod logistic;
mod store;

use std::path::Path;

use anyhow::{Result, ensure};
use clapd_core::score::Calibration;

use crate::data::SCORES;
use crate::eval::{self, BundleScorer, RatingSelection};
use crate::metrics::BootstrapPlan;
pub use error::CalibrationError;
use logistic::Logistic;
pub use store::write;

/// A curve that rises by less over all cosines tells sounds apart by less than a listener's own spread of a point.
const LEAST_RISE: f64 = 1.0;

/// A calibration, and how well it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The curve, as a bundle holds it.
    pub points: Vec<[f32; 2]>,
    /// The curve, to score with.
    pub curve: Calibration,
    /// Pairs that it was fitted to.
    pub pairs: usize,
    /// Recordings that they are of.
    pub recordings: usize,
    /// Its error on recordings that it was not fitted to; none where there is but one recording.
    pub error: Option<CalibrationError>,
}

/// Calibrates the bundle in `folder` (or `folder/bundle`) on people's ratings: has it score them, fits the curve, writes it. Gives
/// the fit and the bundle's new pipeline id. The ratings have to be some that the model did not learn from, and is not judged by.
///
/// # Errors
/// As [`eval::score_ratings`], [`fit`] and [`write()`].
pub fn bundle(folder: &Path, ratings: &RatingSelection<'_>) -> Result<(Fitted, String)> {
    let models = [BundleScorer::open(folder)?];
    let scored = eval::score_ratings(&models, ratings)?;
    let columns = &scored.columns[0];
    let fitted = fit(&columns.cosine, &columns.rating, &scored.recordings, ratings.plan)?;
    // Names without their folders: a bundle goes to others.
    let names = ratings.manifests.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
    let mut data = names.collect::<Vec<_>>().join(", ");
    if scored.pairs.iter().any(|pair| pair.split.is_some()) {
        data += &format!(" ({})", ratings.split);
    }
    let id = write(models[0].bundle().dir(), &fitted, &data)?;
    Ok((fitted, id))
}

/// Fits a curve to pairs: their cosines, the mean of people's ratings (0 to 10), and the number of their recording. `plan` is
/// that of the error's intervals, and its seed deals the recordings into folds.
///
/// Few pairs, equal ones and outliers do no harm: two pairs that nobody rated, (-1, 0) and (1, 10), hold the ends, and where
/// ratings fall with the cosine the curve is flat, which is said in the log.
///
/// # Errors
/// No pairs, columns of unequal length, a cosine outside -1 to 1, a rating outside 0 to 10.
pub fn fit(cosines: &[f64], ratings: &[f64], recordings: &[usize], plan: BootstrapPlan) -> Result<Fitted> {
    check(cosines, ratings, recordings)?;
    let logistic = Logistic::fit(cosines, ratings);
    let points = logistic.points();
    let curve = Calibration::new(points.clone())?;
    let score = |cosine: f64| f64::from(curve.score(cosine as f32).score);
    let (lowest, highest) =
        cosines.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &c| (low.min(c), high.max(c)));
    if score(highest) - score(lowest) < LEAST_RISE {
        log::warn!(
            "the ratings hardly rise with the cosine: all scores of these {} pairs lie between {:.1} and {:.1}; this model \
             does not tell what fits from what does not",
            cosines.len(),
            score(lowest),
            score(highest)
        );
    }
    let error = error::measure(cosines, ratings, recordings, plan)?;
    let mut known = recordings.to_vec();
    known.sort_unstable();
    known.dedup();
    Ok(Fitted { points, curve, pairs: cosines.len(), recordings: known.len(), error })
}

fn check(cosines: &[f64], ratings: &[f64], recordings: &[usize]) -> Result<()> {
    ensure!(!cosines.is_empty(), "there is no pair to calibrate on; the validation split needs some");
    ensure!(
        cosines.len() == ratings.len() && cosines.len() == recordings.len(),
        "{} cosines, {} ratings and {} recordings; one each a pair is needed",
        cosines.len(),
        ratings.len(),
        recordings.len()
    );
    for (pair, (cosine, rating)) in cosines.iter().zip(ratings).enumerate() {
        // f32's rounding may put a cosine a hair beyond 1. Written so that a NaN fails.
        ensure!(
            cosine.abs() <= 1.0 + 1e-5,
            "pair {pair} has the cosine {cosine}; -1 to 1 is allowed: leave out pairs whose audio was skipped"
        );
        ensure!(SCORES.contains(rating), "pair {pair} has the rating {rating}; 0 to 10 is allowed");
    }
    Ok(())
}
