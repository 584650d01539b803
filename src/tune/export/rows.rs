//! 8-bit integers with one scale a row.
//!
//! In: f32 weights and their shape. Out: integers of -127..=127, scales, and the axis along which the scales run.
//! The scale is not simply the largest magnitude over 127: clipping a few outliers buys finer steps for all the rest, so
//! for each row the scale with the least squared error is taken out of a grid.
//! Never: uses a zero point (weights are near symmetric and a product with a scale is all that has to be undone).

/// Quantised weights.
pub struct Rows {
    /// In the order of the weights.
    pub values: Vec<i8>,
    /// One for each index of `axis`.
    pub scales: Vec<f32>,
    /// The axis that the scales run along.
    pub axis: usize,
}

/// The largest integer used; -128 is left out so that a weight and its negative are stored alike.
const LIMIT: f32 = 127.0;
/// Fractions of the largest magnitude that are tried as the clipping point. Below 0.7 the error only grew, for every
/// weight of MiniLM and YAMNet.
const CLIPS: [f32; 13] = [1.0, 0.975, 0.95, 0.925, 0.9, 0.875, 0.85, 0.825, 0.8, 0.775, 0.75, 0.725, 0.7];

/// Quantises along `axis`, or along that of the outermost and innermost axis which loses less.
pub fn quantize(weights: &[f32], shape: &[usize], axis: Option<usize>) -> Rows {
    let candidates = match axis {
        Some(axis) => vec![axis],
        None => vec![shape.iter().position(|d| *d > 1).unwrap_or(0), shape.len().saturating_sub(1)],
    };
    let tried = candidates.into_iter().map(|axis| along(weights, shape, axis));
    let best = tried.min_by(|a, b| a.1.total_cmp(&b.1));
    best.map_or(Rows { values: vec![], scales: vec![], axis: 0 }, |(rows, _)| rows)
}

/// Quantises along one axis; also the sum of squared errors.
fn along(weights: &[f32], shape: &[usize], axis: usize) -> (Rows, f64) {
    let inner: usize = shape[axis + 1..].iter().product();
    let length = shape[axis];
    let mut rows = vec![Vec::with_capacity(weights.len() / length.max(1)); length];
    for (i, &weight) in weights.iter().enumerate() {
        rows[i / inner % length].push(weight);
    }
    let fitted: Vec<(f32, f64)> = rows.iter().map(|row| fit(row)).collect();
    let scales: Vec<f32> = fitted.iter().map(|f| f.0).collect();
    let values = weights.iter().enumerate().map(|(i, &w)| nearest(w, scales[i / inner % length])).collect();
    (Rows { values, scales, axis }, fitted.iter().map(|f| f.1).sum())
}

/// The best scale of a row and its squared error. A row of zeros has scale 1 and error 0.
fn fit(row: &[f32]) -> (f32, f64) {
    let largest = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    if largest == 0.0 {
        return (1.0, 0.0);
    }
    let error =
        |scale: f32| -> f64 { row.iter().map(|&w| f64::from(w - f32::from(nearest(w, scale)) * scale).powi(2)).sum() };
    let mut best = (largest / LIMIT, f64::INFINITY);
    for clip in CLIPS {
        let scale = (largest * clip / LIMIT).max(f32::MIN_POSITIVE);
        let candidate = (scale, error(scale));
        if candidate.1 < best.1 {
            best = candidate;
        }
    }
    best
}

fn nearest(weight: f32, scale: f32) -> i8 {
    (weight / scale).round().clamp(-LIMIT, LIMIT) as i8
}
