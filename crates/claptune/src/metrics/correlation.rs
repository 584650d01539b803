//! Pearson's and Spearman's correlations, and the mean squared error. The correlation of a constant column is NaN, as
//! scipy has it.

/// Pearson's correlation; NaN where a side is constant or shorter than two.
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    if is_constant(a) || is_constant(b) {
        return f64::NAN;
    }
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    // Roots apart: the product of two small sums could underflow. Rounding may pass the ends.
    (ab / aa.sqrt() / bb.sqrt()).clamp(-1.0, 1.0)
}

/// Spearman's rank correlation; equal values share their mean rank. NaN where a side is constant or shorter than two.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

/// Mean squared error; NaN of nothing.
pub fn mse(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>() / a.len() as f64
}

/// Ranks from 0, equal values at the middle of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut begin = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = begin as f64 + (equal.len() as f64 - 1.0) / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        begin += equal.len();
    }
    ranks
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn is_constant(values: &[f64]) -> bool {
    values.len() < 2 || values.iter().all(|value| *value == values[0])
}
