//! How sure a figure is: a bootstrap over recordings.
//!
//! Recordings are drawn, each with all its rows, not rows: several texts are rated with one recording, and a model that
//! mishears the recording is wrong with all of them. Rows drawn one by one would count as independent evidence what is
//! one mistake, and the interval would come out too narrow (a test below shows by how much).
//!
//! The interval says what other recordings would have given. Listeners and texts are taken as they are.

use std::collections::BTreeMap;

use fastrand::Rng;

/// How many draws, from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootstrapPlan {
    /// Draws; 2,000 leave 50 beyond each end of a 95% interval.
    pub resamples: usize,
    /// The same seed gives the same draws.
    pub seed: u64,
}

impl Default for BootstrapPlan {
    fn default() -> Self {
        Self { resamples: 2000, seed: 1 }
    }
}

/// A figure and its 95% interval; the ends are NaN where there were too few draws that had the figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Of all rows.
    pub value: f64,
    /// The 2.5th percentile of the draws.
    pub low: f64,
    /// The 97.5th percentile of the draws.
    pub high: f64,
}

impl Interval {
    /// From the draws of a figure. Draws that don't have it (a correlation of one recording drawn again and again) are left
    /// out; where they are half or more, there is no interval.
    pub fn of(value: f64, draws: &[f64]) -> Self {
        let mut known: Vec<f64> = draws.iter().copied().filter(|draw| draw.is_finite()).collect();
        if known.len() * 2 <= draws.len() {
            return Self { value, low: f64::NAN, high: f64::NAN };
        }
        known.sort_unstable_by(f64::total_cmp);
        Self { value, low: percentile(&known, 0.025), high: percentile(&known, 0.975) }
    }

    /// The same figure on another scale; `map` must rise.
    pub fn map(self, map: impl Fn(f64) -> f64) -> Self {
        Self { value: map(self.value), low: map(self.low), high: map(self.high) }
    }
}

/// What one model has over another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The difference and its interval.
    pub interval: Interval,
    /// Probability, two-sided, of draws at least as far on the other side of zero; at least 2 in the number of draws.
    pub p: f64,
}

impl Difference {
    /// From the draws of a difference.
    pub fn of(value: f64, draws: &[f64]) -> Self {
        let known = draws.iter().filter(|draw| draw.is_finite()).count();
        let up = draws.iter().filter(|draw| **draw >= 0.0).count();
        let down = draws.iter().filter(|draw| **draw <= 0.0).count();
        // One more each: no finite number of draws shows a probability of zero.
        let p = (2.0 * (up.min(down) + 1) as f64 / (known + 1) as f64).min(1.0);
        Self { interval: Interval::of(value, draws), p: if value.is_finite() { p } else { f64::NAN } }
    }
}

/// Draws as many clusters as there are, with replacement, `plan.resamples` times, and takes the figures of all their rows.
/// `clusters[i]` names the cluster of row i.
pub fn draws<const K: usize>(
    clusters: &[usize],
    plan: BootstrapPlan,
    mut figures: impl FnMut(&[usize]) -> [f64; K],
) -> [Vec<f64>; K] {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, cluster) in clusters.iter().enumerate() {
        members.entry(*cluster).or_default().push(row);
    }
    let members: Vec<Vec<usize>> = members.into_values().collect();
    let mut random = Rng::with_seed(plan.seed);
    let mut out = [const { Vec::new() }; K];
    let mut rows = Vec::with_capacity(clusters.len());
    for _ in 0..if members.is_empty() { 0 } else { plan.resamples } {
        rows.clear();
        for _ in 0..members.len() {
            rows.extend_from_slice(&members[random.usize(..members.len())]);
        }
        out.iter_mut().zip(figures(&rows)).for_each(|(column, figure)| column.push(figure));
    }
    out
}

/// Of sorted values, straight between two of them, as numpy has it.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, part) = (at as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + part * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::super::pearson;
    use super::*;

    fn normal(random: &mut Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    /// 40 recordings with 5 rows each, which share most of the model's error and of people's.
    fn dataset(random: &mut Rng) -> (Vec<f64>, Vec<f64>, Vec<usize>) {
        let (mut model, mut people, mut recordings) = (vec![], vec![], vec![]);
        for recording in 0..40 {
            let (truth, error) = (normal(random), normal(random));
            for _ in 0..5 {
                model.push(truth + error + 0.3 * normal(random));
                people.push(truth + 0.3 * normal(random));
                recordings.push(recording);
            }
        }
        (model, people, recordings)
    }

    /// How often in 200 studies the interval holds the true correlation: 1 / sqrt(2.09 * 1.09).
    fn coverage(clusters: impl Fn(Vec<usize>) -> Vec<usize>) -> usize {
        let truth = 1.0 / f64::sqrt(2.09 * 1.09);
        let mut random = Rng::with_seed(4);
        let holds = |_: &usize| {
            let (model, people, recordings) = dataset(&mut random);
            let pick = |column: &[f64], rows: &[usize]| rows.iter().map(|row| column[*row]).collect::<Vec<f64>>();
            let plan = BootstrapPlan { resamples: 200, seed: 9 };
            let [draws] =
                draws(&clusters(recordings), plan, |rows| [pearson(&pick(&model, rows), &pick(&people, rows))]);
            let interval = Interval::of(0.0, &draws);
            (interval.low..interval.high).contains(&truth)
        };
        (0..200).filter(holds).count()
    }

    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_says_and_rows_one_by_one_do_not() {
        let (by_recording, by_row) = (coverage(|recordings| recordings), coverage(|all| (0..all.len()).collect()));
        assert!((180..=198).contains(&by_recording), "{by_recording} of 200 by recording; 190 are meant");
        assert!(by_row < 150, "{by_row} of 200 by row: a wrong method should show");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let clusters = [0, 0, 1, 2, 2, 3];
        let run =
            |seed| draws(&clusters, BootstrapPlan { resamples: 9, seed }, |rows| [rows.iter().sum::<usize>() as f64]);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        // Cluster 0 has two rows: a draw of four clusters has four to eight.
        let [sizes] = draws(&clusters, BootstrapPlan::default(), |rows| [rows.len() as f64]);
        assert!(sizes.iter().all(|size| (4.0..=8.0).contains(size)) && sizes.len() == 2000);
    }

    #[test]
    fn percentiles_and_probabilities_as_defined() {
        let draws: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
        let interval = Interval::of(500.0, &draws);
        assert_eq!((interval.low, interval.high), (25.0, 975.0));
        // 26 of 1,001 draws are at most 25.
        let p = Difference::of(475.0, &draws.iter().map(|x| x - 25.0).collect::<Vec<f64>>()).p;
        assert!((p - 2.0 * 27.0 / 1002.0).abs() < 1e-12, "{p}");
        assert_eq!(Difference::of(0.0, &[0.0; 50]).p, 1.0, "two models that are one");
        let none = Interval::of(f64::NAN, &[f64::NAN, 1.0]);
        assert!(none.low.is_nan() && none.high.is_nan());
    }
}
