//! How far two sets of embeddings, or of scores, agree.
//!
//! Both sets are centred by the reference's mean: centred each by its own, they would hide an error that all rows
//! share.

use clapd_core::vector::{cosine, dot};

use super::metrics::spearman;

/// Agreement of embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Least cosine after the reference's mean is taken off both: embeddings of one tower lie in a narrow cone, inside
    /// which a plain cosine sees little.
    pub centred_least: f32,
    /// Mean of the same.
    pub centred_mean: f32,
    /// Least plain cosine.
    pub cosine_least: f32,
    /// Largest difference of two numbers.
    pub largest: f32,
}

/// Compares rows. A NaN anywhere becomes a NaN of the figure it belongs to, or a cosine of 0.
pub fn compare(reference: &[Vec<f32>], other: &[Vec<f32>]) -> Agreement {
    let mean = mean(reference);
    let centred = |row: &[f32]| -> Vec<f32> { row.iter().zip(&mean).map(|(x, m)| x - m).collect() };
    let pairs = || reference.iter().zip(other);
    let cosines: Vec<f32> = pairs().map(|(a, b)| cosine(&centred(a), &centred(b))).collect();
    let differences = pairs().flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    Agreement {
        centred_least: cosines.iter().copied().fold(1.0, f32::min),
        centred_mean: cosines.iter().sum::<f32>() / cosines.len() as f32,
        cosine_least: pairs().map(|(a, b)| cosine(a, b)).fold(1.0, f32::min),
        // A NaN must not hide behind a maximum.
        largest: differences.fold(0.0, |m: f32, d| if d > m || d.is_nan() { d } else { m }),
    }
}

/// The cosine of each pair of a row of `audio` and a row of `text`; rows are unit embeddings.
pub fn scores(audio: &[Vec<f32>], text: &[Vec<f32>]) -> Vec<f32> {
    audio.iter().flat_map(|a| text.iter().map(move |t| dot(a, t))).collect()
}

/// Spearman's rank correlation; equal values share their mean rank. NaN where one side is constant.
pub fn rank_correlation(a: &[f32], b: &[f32]) -> f64 {
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    spearman(&wide(a), &wide(b))
}

fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / rows.len() as f32);
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_all_rows_share_is_seen() {
        let reference = vec![vec![10.0, 1.0], vec![10.0, -1.0]];
        let shifted = vec![vec![10.0, 2.0], vec![10.0, 0.0]];
        let agreement = compare(&reference, &shifted);
        assert!(agreement.cosine_least > 0.99);
        assert_eq!(agreement.centred_least, 0.0, "the second row is now where the mean was");
        assert_eq!((agreement.largest, compare(&reference, &reference).centred_mean), (1.0, 1.0));
        assert!(compare(&reference, &[vec![10.0, 1.0], vec![f32::NAN, 0.0]]).largest.is_nan());
    }

    #[test]
    fn spearman_as_scipy_gives_it() {
        // scipy.stats.spearmanr([1, 2, 2, 3, 5], [2, 1, 3, 3, 9])
        let rank = rank_correlation(&[1.0, 2.0, 2.0, 3.0, 5.0], &[2.0, 1.0, 3.0, 3.0, 9.0]);
        assert!((rank - 0.763_157_894_736_842).abs() < 1e-12, "{rank}");
        assert!((rank_correlation(&[1.0, 2.0, 3.0], &[9.0, 5.0, 1.0]) + 1.0).abs() < 1e-12);
        assert!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
        assert_eq!(scores(&[vec![1.0, 0.0], vec![0.0, 1.0]], &[vec![0.6, 0.8]]), [0.6, 0.8]);
    }
}
