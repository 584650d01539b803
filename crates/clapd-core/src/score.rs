//! A cosine on the human scale: [`Score`]s from 0 (not there) to 10 (exactly that), and the curve that gives them.
//!
//! The curve is the bundle's; nothing here knows which model a cosine comes from.

use anyhow::{Result, bail};

/// More points than this are noise of the fit, not a curve.
const MAX_POINTS: usize = 256;

/// How well one window of sound matches one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// Cosine of the window's embedding and the prompt's, -1 to 1.
    pub cosine: f32,
    /// The same on the human scale of relevance, 0 to 10.
    pub score: f32,
}

/// A rising curve from cosine to score, straight between its points.
///
/// Points instead of a formula: they hold a logistic curve as well as the result of an isotonic regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    points: Vec<[f32; 2]>,
}

impl Calibration {
    /// A curve through `[cosine, score]` points.
    ///
    /// # Errors
    /// The cosines must rise strictly and span -1 to 1; the scores must not fall and lie in 0 to 10.
    pub fn new(points: Vec<[f32; 2]>) -> Result<Self> {
        if points.len() < 2 || points.len() > MAX_POINTS {
            bail!("calibration has {} points; 2 to {MAX_POINTS} are allowed", points.len());
        }
        if let Some([cosine, score]) = points.iter().find(|p| !p[0].is_finite() || !(0.0..=10.0).contains(&p[1])) {
            bail!("calibration point [{cosine}, {score}]: the cosine must be finite and the score within 0 to 10");
        }
        if let Some(pair) = points.windows(2).find(|w| w[0][0] >= w[1][0] || w[0][1] > w[1][1]) {
            bail!("calibration points {pair:?}: cosines must rise and scores must not fall");
        }
        let (first, last) = (points[0][0], points[points.len() - 1][0]);
        if first > -1.0 || last < 1.0 {
            bail!("calibration spans cosines {first} to {last}; it must reach from -1 to 1");
        }
        Ok(Self { points })
    }

    /// The score of a cosine.
    pub fn score(&self, cosine: f32) -> Score {
        // Rounding may put a cosine a hair outside the curve; NaN (an embedding that is not one) scores 0.
        let after = self.points.partition_point(|p| p[0] <= cosine).clamp(1, self.points.len() - 1);
        let ([x0, y0], [x1, y1]) = (self.points[after - 1], self.points[after]);
        let along = ((cosine - x0) / (x1 - x0)).clamp(0.0, 1.0);
        let score = if along.is_nan() { 0.0 } else { y0 + along * (y1 - y0) };
        Score { cosine, score }
    }
}

/// The score of a prompt after its contrasts have had their say.
///
/// While the prompt scores at least as high as each contrast nothing changes; where a contrast scores higher, the
/// prompt loses by as much as it was outscored. Continuous, and a contrast can never raise a score.
pub fn contrasted(own: Score, contrasts: impl IntoIterator<Item = f32>) -> Score {
    let rival = contrasts.into_iter().fold(0.0_f32, f32::max);
    Score { score: (own.score - (rival - own.score).max(0.0)).max(0.0), ..own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve() -> Calibration {
        Calibration::new(vec![[-1.0, 0.0], [0.2, 1.0], [0.4, 6.0], [1.0, 10.0]]).unwrap()
    }

    #[test]
    fn straight_between_points_and_flat_outside() {
        let curve = curve();
        assert_eq!(curve.score(-2.0).score, 0.0);
        assert!((curve.score(0.3).score - 3.5).abs() < 1e-6);
        assert_eq!(curve.score(1.0 + 1e-6).score, 10.0);
        assert_eq!(curve.score(f32::NAN).score, 0.0);
    }

    #[test]
    fn faulty_curves_are_refused() {
        for (points, word) in [
            (vec![[-1.0, 0.0]], "points"),
            (vec![[-1.0, 0.0], [1.0, 11.0]], "within 0 to 10"),
            (vec![[-1.0, 5.0], [1.0, 4.0]], "must not fall"),
            (vec![[-1.0, 0.0], [-1.0, 4.0], [1.0, 5.0]], "must rise"),
            (vec![[-0.5, 0.0], [1.0, 4.0]], "reach from -1 to 1"),
            (vec![[f32::NAN, 0.0], [1.0, 4.0]], "finite"),
        ] {
            let error = Calibration::new(points).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn higher_cosine_never_scores_lower(a in -1.0_f32..1.0, b in -1.0_f32..1.0) {
            let curve = curve();
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(curve.score(low).score <= curve.score(high).score);
        }

        #[test]
        fn a_contrast_only_ever_lowers(own in 0.0_f32..10.0, rivals in prop::collection::vec(0.0_f32..10.0, 0..4)) {
            let own = Score { cosine: 0.0, score: own };
            let after = contrasted(own, rivals.iter().copied()).score;
            prop_assert!((0.0..=own.score).contains(&after));
            if rivals.iter().all(|rival| *rival <= own.score) {
                prop_assert_eq!(after, own.score);
            }
        }
    }
}
