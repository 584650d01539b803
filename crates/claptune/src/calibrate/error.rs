//! How far a calibration is from people, by cross-validation: each pair is scored by a curve that has seen no pair of
//! its recording.

use anyhow::Result;
use fastrand::Rng;

use super::logistic::Logistic;
use crate::metrics::{BootstrapPlan, Interval, bootstrap};

/// Ten fits, each to nine tenths of the recordings: close to what all of them give, and done in a second for 10,000 pairs.
const FOLDS: usize = 10;
/// Bins of the calibration error, of equally many pairs; with fewer than ten pairs in one its mean says little.
const BINS: usize = 10;
const LEAST_IN_A_BIN: usize = 10;

/// Errors on recordings that the curve was not fitted to, with 95% intervals by drawing recordings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationError {
    /// Parts that the recordings were dealt into; each is scored by a curve fitted to the others.
    pub folds: usize,
    /// Mean squared error, in squared points.
    pub mse: Interval,
    /// Mean absolute error, in points.
    pub mae: Interval,
    /// Expected calibration error: how far the mean score is from the mean rating in a bin of equal scores, the mean over
    /// bins, in points. Chance alone gives a bin some of it, so it errs on the high side.
    pub ece: Interval,
}

/// By cross-validation over recordings; none for a single recording.
pub(super) fn measure(
    cosines: &[f64],
    ratings: &[f64],
    recordings: &[usize],
    plan: BootstrapPlan,
) -> Result<Option<CalibrationError>> {
    let (fold, folds) = deal(recordings, plan.seed);
    if folds < 2 {
        return Ok(None);
    }
    let mut scores = vec![0.0; cosines.len()];
    for out in 0..folds {
        let others = (0..cosines.len()).filter(|&row| fold[row] != out);
        let (known, rated): (Vec<f64>, Vec<f64>) = others.map(|row| (cosines[row], ratings[row])).unzip();
        let curve = Logistic::fit(&known, &rated);
        (0..cosines.len()).filter(|&row| fold[row] == out).for_each(|row| scores[row] = curve.score(cosines[row]));
    }
    let bins = bins(&scores);
    let all: Vec<usize> = (0..scores.len()).collect();
    let figures = |rows: &[usize]| figures(rows, &scores, ratings, &bins);
    let values = figures(&all);
    let draws = bootstrap::draws(recordings, plan, figures);
    let [mse, mae, ece] = std::array::from_fn(|figure| Interval::of(values[figure], &draws[figure]));
    // A draw's chance comes on top of the sample's own, so the draws lie too high by about as much as the sample does: the lower
    // end is the upper one turned about the value, and the upper one stays on the high side.
    let ece = Interval { low: (2.0 * ece.value - ece.high).max(0.0), ..ece };
    Ok(Some(CalibrationError { folds, mse, mae, ece }))
}

/// The fold of every row, whole recordings in each, and how many folds there are.
fn deal(recordings: &[usize], seed: u64) -> (Vec<usize>, usize) {
    let mut names = recordings.to_vec();
    names.sort_unstable();
    names.dedup();
    Rng::with_seed(seed).shuffle(&mut names);
    let folds = FOLDS.min(names.len());
    let places: std::collections::HashMap<usize, usize> =
        names.into_iter().enumerate().map(|(place, name)| (name, place % folds)).collect();
    (recordings.iter().map(|recording| places[recording]).collect(), folds)
}

/// The bin of every row, by score.
fn bins(scores: &[f64]) -> Vec<usize> {
    let count = (scores.len() / LEAST_IN_A_BIN).clamp(1, BINS);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut bins = vec![0; scores.len()];
    order.iter().enumerate().for_each(|(rank, &row)| bins[row] = rank * count / scores.len());
    bins
}

fn figures(rows: &[usize], scores: &[f64], ratings: &[f64], bins: &[usize]) -> [f64; 3] {
    let (mut squares, mut absolutes, mut differences) = (0.0, 0.0, [0.0; BINS]);
    for &row in rows {
        let difference = scores[row] - ratings[row];
        squares += difference * difference;
        absolutes += difference.abs();
        differences[bins[row]] += difference;
    }
    [squares, absolutes, differences.into_iter().map(f64::abs).sum()].map(|sum| sum / rows.len() as f64)
}
