//! The frequency weighting A of IEC 61672-1 as a digital filter for any rate.
//!
//! The standard defines A by six poles and four zeros of an analogue filter. The bilinear transform of it is wrong where sound
//! still counts: at 48 kHz it lacks 2 dB at 12 kHz and everything at 24 kHz, and at 16 kHz far more. Here the poles are the analogue
//! ones at the same decay (matched), the four zeros at 0 Hz stay, and two more zeros are fitted, for each rate, to what is then
//! missing. Tests hold the filter to the curve (tests/suite/sound_level.rs).

use std::f64::consts::TAU;

/// The pole frequencies of A in Hz (IEC 61672-1:2013, annex E); the first and the last are double.
const POLES: [f64; 4] = [20.598_997, 107.652_65, 737.862_23, 12_194.217];
/// A is 0 dB here, in Hz.
const REFERENCE_HZ: f64 = 1_000.0;
/// The fit goes up to this share of half the rate: what is above lies in the slope of every converter's own filter, and the last
/// zeros of a digital filter can't follow the curve there. Without this bound the error of all the rest is three times as large.
const FITTED_SHARE: f64 = 0.93;
/// And up to here in Hz: no higher sound is heard, and A is 9 dB down and falling.
const HIGHEST_FITTED_HZ: f64 = 20_000.0;
/// And from here in Hz: below it, the matched poles and the zeros at 0 Hz are the curve.
const LOWEST_FITTED_HZ: f64 = 50.0;
/// Frequencies at which the fit looks. More change the third decimal of the error in dB.
const FITTED_POINTS: usize = 200;

/// The gain of A at a frequency in Hz, in dB, as the standard defines it.
pub fn a_weighting_db(hz: f64) -> f64 {
    20.0 * (analogue_gain(hz) / analogue_gain(REFERENCE_HZ)).log10()
}

fn analogue_gain(hz: f64) -> f64 {
    let [f1, f2, f3, f4] = POLES.map(|pole| pole * pole);
    let square = hz * hz;
    f4 * square * square / ((square + f1) * ((square + f2) * (square + f3)).sqrt() * (square + f4))
}

/// Two poles and two zeros, in the transposed direct form II, of which rounding is smallest.
#[derive(Debug, Clone, Copy, Default)]
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
    state: [f64; 2],
}

impl Biquad {
    /// With real poles, given as what is left of them after a sample.
    fn with_poles(b: [f64; 3], first: f64, second: f64) -> Self {
        Self { b, a: [-(first + second), first * second], state: [0.0; 2] }
    }

    #[inline]
    fn filter(&mut self, x: f64) -> f64 {
        let y = self.b[0] * x + self.state[0];
        self.state[0] = self.b[1] * x - self.a[0] * y + self.state[1];
        self.state[1] = self.b[2] * x - self.a[1] * y;
        y
    }

    /// The power gain at an angle in radians a sample.
    fn power_gain(&self, angle: f64) -> f64 {
        let power = |c: [f64; 3]| {
            let (sin, cos) = angle.sin_cos();
            let (sin2, cos2) = (2.0 * angle).sin_cos();
            (c[0] + c[1] * cos + c[2] * cos2).powi(2) + (c[1] * sin + c[2] * sin2).powi(2)
        };
        power(self.b) / power([1.0, self.a[0], self.a[1]])
    }
}

/// The filter with its memory.
#[derive(Debug, Clone)]
pub(super) struct AWeighting {
    stages: [Biquad; 3],
}

impl AWeighting {
    /// For so many samples a second.
    pub(super) fn new(rate: u32) -> Self {
        const AT_ZERO_HZ: [f64; 3] = [1.0, -2.0, 1.0];
        let rate = f64::from(rate);
        let [p1, p2, p3, p4] = POLES.map(|hz| (-TAU * hz / rate).exp());
        let mut stages = [
            Biquad::with_poles(AT_ZERO_HZ, p1, p1),
            Biquad::with_poles(AT_ZERO_HZ, p2, p3),
            Biquad::with_poles([1.0, 0.0, 0.0], p4, p4),
        ];
        stages[2].b = fit_zeros(&stages, rate);
        let gain = power_gain(&stages, TAU * REFERENCE_HZ / rate).sqrt();
        stages[2].b = stages[2].b.map(|b| b / gain);
        Self { stages }
    }

    #[inline]
    pub(super) fn filter(&mut self, x: f64) -> f64 {
        let [first, second, third] = &mut self.stages;
        third.filter(second.filter(first.filter(x)))
    }

    /// Forgets what came before, as of silence.
    pub(super) fn reset(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.state = [0.0; 2]);
    }

    /// The gain in dB of this filter at a frequency in Hz, for its own rate.
    #[cfg(test)]
    fn gain_db(&self, hz: f64, rate: u32) -> f64 {
        10.0 * power_gain(&self.stages, TAU * hz / f64::from(rate)).log10()
    }
}

fn power_gain(stages: &[Biquad], angle: f64) -> f64 {
    stages.iter().map(|stage| stage.power_gain(angle)).product()
}

/// The numerator with which the stages' gain is A's: least squares of the relative error of the power gain, as a polynomial
/// `c0 (1 - s) + c1 s + 4 c2 s (1 - s)` in `s = sin²(angle / 2)`, which every numerator of two zeros has.
fn fit_zeros(stages: &[Biquad], rate: f64) -> [f64; 3] {
    let highest = (FITTED_SHARE * rate / 2.0).min(HIGHEST_FITTED_HZ);
    let (mut matrix, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
    for point in 0..FITTED_POINTS {
        // Chebyshev's points: close at both ends, where a polynomial strays.
        let place = (point as f64 + 0.5) / FITTED_POINTS as f64 * TAU / 2.0;
        let hz = highest * (0.5 - 0.5 * place.cos());
        if hz < LOWEST_FITTED_HZ {
            continue;
        }
        let angle = TAU * hz / rate;
        let missing = (analogue_gain(hz) / analogue_gain(REFERENCE_HZ)).powi(2) / power_gain(stages, angle);
        let s = (angle / 2.0).sin().powi(2);
        let row = [(1.0 - s) / missing, s / missing, 4.0 * s * (1.0 - s) / missing];
        for (i, (of_row, sum)) in row.iter().zip(&mut right).enumerate() {
            *sum += of_row;
            for (j, other) in row.iter().enumerate() {
                matrix[i][j] += of_row * other;
            }
        }
    }
    let [c0, c1, c2] = solve(matrix, right);
    // The one of the numerators with that power gain whose zeros lie within the unit circle.
    let (root0, root1) = (c0.max(0.0).sqrt(), c1.max(0.0).sqrt());
    let half = (root0 + root1) / 2.0;
    let b0 = (half + (half * half + c2).max(0.0).sqrt()) / 2.0;
    [b0, (root0 - root1) / 2.0, -c2 / (4.0 * b0)]
}

/// Solves three equations by Cramer's rule.
fn solve(matrix: [[f64; 3]; 3], right: [f64; 3]) -> [f64; 3] {
    let determinant = |m: [[f64; 3]; 3]| {
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    };
    let whole = determinant(matrix);
    [0, 1, 2].map(|column| {
        let mut replaced = matrix;
        for (row, value) in replaced.iter_mut().zip(right) {
            row[column] = value;
        }
        determinant(replaced) / whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u32; 14] = [
        8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 47_999, 48_000, 64_000, 88_200, 96_000, 192_000,
    ];

    /// IEC 61672-1:2013, table 3: nominal frequency in Hz, A in dB, and the acceptance limits of class 2.
    const TABLE: [(f64, f64, f64, f64); 34] = [
        (10.0, -70.4, 5.0, f64::NEG_INFINITY),
        (12.5, -63.4, 5.0, f64::NEG_INFINITY),
        (16.0, -56.7, 5.0, f64::NEG_INFINITY),
        (20.0, -50.5, 3.0, -3.0),
        (25.0, -44.7, 3.0, -3.0),
        (31.5, -39.4, 3.0, -3.0),
        (40.0, -34.6, 2.0, -2.0),
        (50.0, -30.2, 2.0, -2.0),
        (63.0, -26.2, 2.0, -2.0),
        (80.0, -22.5, 2.0, -2.0),
        (100.0, -19.1, 1.5, -1.5),
        (125.0, -16.1, 1.5, -1.5),
        (160.0, -13.4, 1.5, -1.5),
        (200.0, -10.9, 1.5, -1.5),
        (250.0, -8.6, 1.5, -1.5),
        (315.0, -6.6, 1.5, -1.5),
        (400.0, -4.8, 1.5, -1.5),
        (500.0, -3.2, 1.5, -1.5),
        (630.0, -1.9, 1.5, -1.5),
        (800.0, -0.8, 1.5, -1.5),
        (1_000.0, 0.0, 1.0, -1.0),
        (1_250.0, 0.6, 1.5, -1.5),
        (1_600.0, 1.0, 2.0, -2.0),
        (2_000.0, 1.2, 2.0, -2.0),
        (2_500.0, 1.3, 2.5, -2.5),
        (3_150.0, 1.2, 2.5, -2.5),
        (4_000.0, 1.0, 3.0, -3.0),
        (5_000.0, 0.5, 3.5, -3.5),
        (6_300.0, -0.1, 4.5, -4.5),
        (8_000.0, -1.1, 5.0, -5.0),
        (10_000.0, -2.5, 5.0, f64::NEG_INFINITY),
        (12_500.0, -4.3, 5.0, f64::NEG_INFINITY),
        (16_000.0, -6.6, 5.0, f64::NEG_INFINITY),
        (20_000.0, -9.3, 5.0, f64::NEG_INFINITY),
    ];

    /// What the table's nominal frequency stands for: 1,000 Hz times a power of the tenth root of ten.
    fn exact(nominal: f64) -> f64 {
        1_000.0 * 10_f64.powf((10.0 * (nominal / 1_000.0).log10()).round() / 10.0)
    }

    #[test]
    fn the_curve_is_the_standards() {
        for (nominal, a, ..) in TABLE {
            assert!(
                (a_weighting_db(exact(nominal)) - a).abs() < 0.051,
                "{nominal} Hz: {}",
                a_weighting_db(exact(nominal))
            );
        }
    }

    #[test]
    fn the_filter_is_within_class_2_at_every_rate_up_to_half_of_it() {
        for rate in RATES {
            let (filter, half) = (AWeighting::new(rate), f64::from(rate) / 2.0);
            for (nominal, _, above, below) in TABLE.iter().copied().filter(|row| exact(row.0) <= half) {
                let error = filter.gain_db(exact(nominal), rate) - a_weighting_db(exact(nominal));
                assert!((below..=above).contains(&error), "{nominal} Hz at a rate of {rate}: off by {error:.2} dB");
            }
        }
    }

    /// Between the table's frequencies, too: off by no more than 0.16 dB up to 85% of half the rate, 0.4 dB up to 95%, and 0.9 dB up to
    /// half the rate, all as far as 20 kHz.
    #[test]
    fn the_filter_follows_the_curve_much_closer_than_that() {
        for rate in RATES {
            let (filter, half) = (AWeighting::new(rate), f64::from(rate) / 2.0);
            for step in 0..3_000 {
                let hz = 10.0 * (half / 10.0).powf(f64::from(step) / 3_000.0);
                let allowed = match hz / half {
                    _ if hz > 20_000.0 => continue,
                    share if share < 0.85 => 0.16,
                    share if share < 0.95 => 0.4,
                    _ => 0.9,
                };
                let error = filter.gain_db(hz, rate) - a_weighting_db(hz);
                assert!(error.abs() < allowed, "{hz:.0} Hz at a rate of {rate}: off by {error:.3} dB");
            }
        }
    }

    #[test]
    fn what_comes_out_has_the_gain_that_was_designed() {
        for rate in [8_000, 16_000, 44_100, 192_000] {
            for hz in [63.0, 1_000.0, 3_500.0] {
                let mut filter = AWeighting::new(rate);
                let output =
                    |n: u32, filter: &mut AWeighting| filter.filter((TAU * hz * f64::from(n) / f64::from(rate)).sin());
                // A second for what the beginning leaves.
                let _ = (0..rate).map(|n| output(n, &mut filter)).sum::<f64>();
                let power = (rate..2 * rate).map(|n| output(n, &mut filter).powi(2)).sum::<f64>() / f64::from(rate);
                let error = 10.0 * (2.0 * power).log10() - filter.gain_db(hz, rate);
                assert!(error.abs() < 0.001, "{hz} Hz at {rate}: {error}");
            }
        }
    }
}
