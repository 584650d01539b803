//! A logistic curve by least squares, and the straight pieces that stand for it.
//!
//! The two parameters that enter the curve linearly are solved for, and the other two are searched on a grid before
//! they are refined, so that the result does not depend on where a search begins.

/// The curve's asymptotes may lie as far beyond the scale as the scale is wide: its middle third is then as good as a straight
/// line, which is what Human-CLAP is trained towards. Its values are cut to the scale.
const BEYOND: f64 = 10.0;
/// From flat over all cosines, to the whole scale within some 0.03 of cosine: a steeper curve would show int8's rounding of an
/// embedding (0.005 of cosine) as points.
const SLOPES: [f64; 2] = [1.0, 200.0];
/// Steps of the grid: a factor of 1.6 in slope, a twentieth of the cosines' range in the middle.
const GRID: [i32; 2] = [11, 40];
/// Pairs that nobody rated, so that the ends are held where there was no sound.
const ENDS: [(f64, f64); 2] = [(-1.0, 0.0), (1.0, 10.0)];
/// What each of them weighs: a hundredth of a pair, enough to decide where nothing else does.
const END: f64 = 0.01;
/// A quarter in the exponent between two points leaves 0.03 points between the curve and its straight pieces at most.
const STEP: f64 = 0.25;
/// Steps to either side of the middle, to 0.25% of the asymptotes.
const STEPS: i32 = 24;

/// `low + (high - low) / (1 + exp(-slope (cosine - middle)))`, cut to 0 to 10.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logistic {
    low: f64,
    high: f64,
    slope: f64,
    middle: f64,
}

impl Logistic {
    /// The curve with the least squared error; it rises.
    pub(super) fn fit(cosines: &[f64], ratings: &[f64]) -> Self {
        let pairs: Vec<(f64, f64)> = cosines.iter().copied().zip(ratings.iter().copied()).collect();
        let (least, most) =
            cosines.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &c| (low.min(c), high.max(c)));
        // Cosines that are all one still leave some way to go.
        let range = (most - least).max(0.02);
        let at = |slope: f64, middle: f64| solve(&pairs, slope.clamp(SLOPES[0], SLOPES[1]), middle.clamp(-1.0, 1.0));
        let factor = (SLOPES[1] / SLOPES[0]).powf(1.0 / f64::from(GRID[0]));
        let mut best = at(SLOPES[0], 0.0);
        for i in 0..=GRID[0] {
            for j in 0..=GRID[1] {
                // The middle may lie half the range beside the cosines that were seen: then only one bend of the curve is used.
                let middle = least - 0.5 * range + 2.0 * range * f64::from(j) / f64::from(GRID[1]);
                best = better(best, at(SLOPES[0] * factor.powi(i), middle));
            }
        }
        // From there along either parameter, with ever smaller steps: to a hundredth of the grid's.
        let mut step = 0.5;
        while step > 0.005 {
            let (slope, middle) = (best.0.slope, best.0.middle);
            let (faster, aside) = (factor.powf(step), step * 2.0 * range / f64::from(GRID[1]));
            let next =
                [(slope * faster, middle), (slope / faster, middle), (slope, middle - aside), (slope, middle + aside)]
                    .into_iter()
                    .fold(best, |best, (slope, middle)| better(best, at(slope, middle)));
            if next.1 < best.1 {
                best = next;
            } else {
                step /= 2.0;
            }
        }
        best.0
    }

    /// The score of a cosine.
    pub(super) fn score(&self, cosine: f64) -> f64 {
        let score = self.low + (self.high - self.low) * sigmoid(self.slope * (cosine - self.middle));
        score.clamp(0.0, 10.0)
    }

    /// Points of the curve from -1 to 1, with five decimals of cosine and three of score.
    pub(super) fn points(&self) -> Vec<[f32; 2]> {
        let mut cosines: Vec<f64> = (-STEPS..=STEPS).map(|n| self.middle + f64::from(n) * STEP / self.slope).collect();
        // Where it is cut, it bends.
        cosines.extend([0.0, 10.0].into_iter().filter_map(|score| self.cosine(score)));
        cosines.extend([-1.0, 1.0]);
        let mut places: Vec<i64> =
            cosines.into_iter().filter(|c| (-1.0..=1.0).contains(c)).map(|c| (c * 1e5).round() as i64).collect();
        places.sort_unstable();
        places.dedup();
        let point = |cosine: i64| {
            let cosine = cosine as f64 / 1e5;
            [cosine as f32, ((self.score(cosine) * 1e3).round() / 1e3) as f32]
        };
        places.into_iter().map(point).collect()
    }

    /// Where the uncut curve has this score, if it has.
    fn cosine(&self, score: f64) -> Option<f64> {
        let share = (score - self.low) / (self.high - self.low);
        (share > 0.0 && share < 1.0).then(|| self.middle + (share / (1.0 - share)).ln() / self.slope)
    }
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn better(a: (Logistic, f64), b: (Logistic, f64)) -> (Logistic, f64) {
    if b.1 < a.1 { b } else { a }
}

/// The best asymptotes for a slope and a middle, and the squared error of the pairs: least squares in two unknowns within
/// `-BEYOND <= low <= high <= 10 + BEYOND`, which lie inside, or on one of the three edges.
fn solve(pairs: &[(f64, f64)], slope: f64, middle: f64) -> (Logistic, f64) {
    // Sums of products of u = 1 - sigmoid, v = sigmoid and the rating y.
    let [mut uu, mut uv, mut vv, mut uy, mut vy, mut yy] = [0.0; 6];
    let ends = ENDS.iter().map(|end| (END, end));
    for (weight, &(cosine, y)) in pairs.iter().map(|pair| (1.0, pair)).chain(ends) {
        let v = sigmoid(slope * (cosine - middle));
        let (u, wy) = (1.0 - v, weight * y);
        (uu, uv, vv) = (uu + weight * u * u, uv + weight * u * v, vv + weight * v * v);
        (uy, vy, yy) = (uy + u * wy, vy + v * wy, yy + y * wy);
    }
    let (least, most) = (-BEYOND, 10.0 + BEYOND);
    let squares = |low: f64, high: f64| {
        yy - 2.0 * (low * uy + high * vy) + low * low * uu + 2.0 * low * high * uv + high * high * vv
    };
    let determinant = uu * vv - uv * uv;
    let inside = ((uy * vv - vy * uv) / determinant, (vy * uu - uy * uv) / determinant);
    let flat = (uy + vy) / (uu + 2.0 * uv + vv);
    // The ends keep both sums of squares above zero; where rounding says otherwise the edge is skipped as not finite.
    let edges = [
        (least, ((vy - least * uv) / vv).clamp(least, most)),
        (((uy - most * uv) / uu).clamp(least, most), most),
        (flat, flat),
    ];
    let allowed = |low: f64, high: f64| least <= low && low <= high && high <= most;
    let candidates = [inside].into_iter().chain(edges).filter(|(low, high)| allowed(*low, *high));
    let best =
        candidates.map(|(low, high)| (low, high, squares(low, high))).reduce(|a, b| if b.2 < a.2 { b } else { a });
    let (low, high, error) = best.unwrap_or((0.0, 10.0, f64::INFINITY));
    (Logistic { low, high, slope, middle }, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn follows(truth: impl Fn(f64) -> f64, from: f64, to: f64, within: f64) {
        let cosines: Vec<f64> = (0..=400).map(|n| from + (to - from) * f64::from(n) / 400.0).collect();
        let ratings: Vec<f64> = cosines.iter().map(|&c| truth(c)).collect();
        let curve = Logistic::fit(&cosines, &ratings);
        for (cosine, rating) in cosines.iter().zip(&ratings) {
            let score = curve.score(*cosine);
            assert!((score - rating).abs() < within, "{curve:?} at {cosine}: {score} instead of {rating}");
        }
    }

    #[test]
    fn a_logistic_curve_and_a_straight_line_are_found_again() {
        follows(|c| 1.0 + 8.0 * sigmoid(25.0 * (c - 0.3)), -0.2, 0.8, 0.05);
        follows(|c| 10.0 * sigmoid(150.0 * (c - 0.02)), -0.05, 0.09, 0.1);
        // Human-CLAP's own: what it is trained towards.
        follows(|c| (10.0 * c).max(0.0), 0.0, 1.0, 0.1);
    }

    #[test]
    fn its_pieces_are_the_curve() {
        for (low, high, slope, middle) in [(0.0, 10.0, 20.0, 0.3), (-10.0, 20.0, 1.4, 0.5), (-3.0, 14.0, 200.0, 0.0)] {
            let curve = Logistic { low, high, slope, middle };
            let pieces = clapd_core::score::Calibration::new(curve.points()).unwrap();
            for n in -2000..=2000 {
                let cosine = f64::from(n) / 2000.0;
                let (score, piece) = (curve.score(cosine), f64::from(pieces.score(cosine as f32).score));
                assert!((score - piece).abs() < 0.04, "{curve:?} at {cosine}: {score} and {piece}");
            }
        }
    }
}
