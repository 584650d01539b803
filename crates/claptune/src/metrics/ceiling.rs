//! How well people agree with each other: what a model can reach at most on their ratings.
//!
//! A pair's listeners are split at random into two halves; the rank correlation of the halves' means is the reliability
//! of half as many listeners as there are. Spearman and Brown (1910) give the reliability of all: 2r / (1 + r). A model
//! that knew the true relevance would correlate with the mean of all listeners by the root of that. All three assume
//! what is roughly so: listeners that err independently, the same number of them for each pair.

use fastrand::Rng;

use super::bootstrap::{self, BootstrapPlan, Interval};
use super::correlation::spearman;

/// Splits that are averaged for the figure: a split's own spread (0.01 to 0.02 for a thousand pairs) shrinks to a tenth.
const SPLITS: usize = 100;
/// Splits that are averaged in each draw of the bootstrap, so that the interval is about recordings and hardly about splits.
const SPLITS_A_DRAW: usize = 8;

/// People's agreement, as rank correlations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// Pairs that two listeners or more have rated.
    pub pairs: usize,
    /// Half the listeners against the other half.
    pub halves: Interval,
    /// All listeners against as many others: the reliability of the mean ratings.
    pub reliability: Interval,
    /// A perfect model against the mean of all listeners.
    pub model: Interval,
}

impl Ceiling {
    /// Of `ratings[i]`, one a listener, of a pair whose recording is `recordings[i]`; `None` where fewer than three pairs
    /// have two listeners.
    pub fn of(ratings: &[Vec<f64>], recordings: &[usize], plan: BootstrapPlan) -> Option<Self> {
        let (rated, clusters): (Vec<&[f64]>, Vec<usize>) =
            ratings.iter().zip(recordings).filter(|(r, _)| r.len() >= 2).map(|(r, c)| (r.as_slice(), *c)).unzip();
        if rated.len() < 3 {
            return None;
        }
        let mut random = Rng::with_seed(plan.seed);
        let all: Vec<usize> = (0..rated.len()).collect();
        let value = mean_of_splits(&rated, &all, SPLITS, &mut random);
        let [draws] =
            bootstrap::draws(&clusters, plan, |rows| [mean_of_splits(&rated, rows, SPLITS_A_DRAW, &mut random)]);
        let halves = Interval::of(value, &draws);
        // Halves that disagree leave nothing to reach.
        let reliability = halves.map(|r| if r > 0.0 { 2.0 * r / (1.0 + r) } else { r.min(0.0) });
        Some(Self { pairs: rated.len(), halves, reliability, model: reliability.map(|r| r.max(0.0).sqrt()) })
    }
}

fn mean_of_splits(ratings: &[&[f64]], rows: &[usize], splits: usize, random: &mut Rng) -> f64 {
    (0..splits).map(|_| split(ratings, rows, random)).sum::<f64>() / splits as f64
}

/// The agreement of two random halves; of an odd number, the odd one goes to either side.
fn split(ratings: &[&[f64]], rows: &[usize], random: &mut Rng) -> f64 {
    let mut shuffled = Vec::new();
    let (one, other): (Vec<f64>, Vec<f64>) = rows
        .iter()
        .map(|&row| {
            shuffled.clear();
            shuffled.extend_from_slice(ratings[row]);
            random.shuffle(&mut shuffled);
            let odd = shuffled.len() % 2 == 1 && random.bool();
            let (left, right) = shuffled.split_at(shuffled.len() / 2 + usize::from(odd));
            (mean(left), mean(right))
        })
        .unzip();
    spearman(&one, &other)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_is_what_a_perfect_model_reaches() {
        let mut random = Rng::with_seed(3);
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let truth: Vec<f64> = (0..1500).map(|_| normal()).collect();
        let ratings: Vec<Vec<f64>> = truth.iter().map(|t| (0..4).map(|_| t + 1.5 * normal()).collect()).collect();
        let means: Vec<f64> = ratings.iter().map(|r| mean(r)).collect();
        let recordings: Vec<usize> = (0..truth.len()).collect();
        let ceiling = Ceiling::of(&ratings, &recordings, BootstrapPlan { resamples: 100, seed: 2 }).unwrap();
        let reached = spearman(&truth, &means);
        assert!((ceiling.model.value - reached).abs() < 0.02, "{ceiling:?} against {reached}");
        assert!((ceiling.model.low..ceiling.model.high).contains(&reached));
        // Pearson's: 1 / (1 + 2.25 / 2) between halves of two.
        assert!((ceiling.halves.value - 1.0 / 2.125).abs() < 0.04, "{ceiling:?}");
        assert_eq!(ceiling.pairs, 1500);
    }

    #[test]
    fn people_who_agree_fully_and_people_who_do_not_agree() {
        let plan = BootstrapPlan { resamples: 50, seed: 1 };
        let recordings: Vec<usize> = (0..50).collect();
        let same: Vec<Vec<f64>> = recordings.iter().map(|&n| vec![n as f64; 3]).collect();
        let ceiling = Ceiling::of(&same, &recordings, plan).unwrap();
        assert!((ceiling.model.value - 1.0).abs() < 1e-12);
        let one_listener: Vec<Vec<f64>> = recordings.iter().map(|&n| vec![n as f64]).collect();
        assert_eq!(Ceiling::of(&one_listener, &recordings, plan), None);
        let mut random = Rng::with_seed(8);
        let noise: Vec<Vec<f64>> = recordings.iter().map(|_| vec![random.f64(), random.f64()]).collect();
        let ceiling = Ceiling::of(&noise, &recordings, plan).unwrap();
        assert!(ceiling.halves.low < 0.0 && ceiling.model.low == 0.0, "{ceiling:?}");
    }
}
