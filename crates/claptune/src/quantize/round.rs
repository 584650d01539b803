//! Rounding a linear's weights to int8 so that what one weight's rounding adds to the output, the next ones take away.
//!
//! G is the Gram matrix of the linear's inputs, the sum of x x' over calibration. With e the rounding errors of an
//! output's weights, e G e' is the squared error of that output over the calibration; with G = L L' it is a sum over j
//! of (sum over i >= j of e_i L_ij)^2. From the last input to the first, each weight is rounded after the errors so far
//! are taken off it. This is GPTQ (Frantar et al., arXiv 2210.17323) without its inverse, and Babai's nearest plane
//! (Chen et al., arXiv 2507.18553). Inputs of large energy come first. An output for which the compensation loses keeps
//! the nearest integers (`never_worse_than_nearest` holds it).

use nalgebra::DMatrix;

use super::factor;

/// The largest integer used; -128 is left out so that a weight and its negative are stored alike.
const LIMIT: f32 = 127.0;
/// Added to the Gram's diagonal, in its mean: calibration shows fewer directions than there are, and GPTQ's own value
/// stood up to 0.3% and 5% on CLAP's towers.
const DAMPING: f64 = 0.01;
/// Columns between which errors are carried singly; from earlier ones they come as one matrix product.
const BLOCK: usize = 64;
/// A row below this has no weight that matters beside any other row of a trained network, and scales stay normal numbers.
const SMALLEST: f32 = 1e-30;

/// A linear's weights as integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// `[outputs][inputs]`, each in -127..=127.
    pub weights: Vec<i8>,
    /// One for each output; positive.
    pub scales: Vec<f32>,
    /// Squared error of the outputs over the calibration, relative to their energy.
    pub error: f64,
    /// The same of rounding to nearest.
    pub nearest_error: f64,
}

/// What decides how errors count: the inputs' Gram matrix, factored.
pub struct ErrorMetric {
    gram: DMatrix<f32>,
    factor: Option<DMatrix<f32>>,
    /// Inputs in ascending energy, which is the order of the factor.
    order: Vec<usize>,
}

impl ErrorMetric {
    /// Of a row-major symmetric matrix of `size` rows. One that can't be factored (a calibration that overflowed) leaves
    /// rounding to nearest.
    pub fn new(gram: &[f32], size: usize) -> Self {
        let gram = DMatrix::from_column_slice(size, size, gram);
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| gram[(a, a)].total_cmp(&gram[(b, b)]));
        let mean = (0..size).map(|i| f64::from(gram[(i, i)])).sum::<f64>() / size.max(1) as f64;
        let damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
        let damped = DMatrix::from_fn(size, size, |r, c| {
            f64::from(gram[(order[r], order[c])]) + if r == c { damping } else { 0.0 }
        });
        let factor = factor::lower(damped).map(|factor| factor.map(|x| x as f32));
        Self { gram, factor, order }
    }

    /// Rounds weights `[inputs][outputs]`, as Burn holds a linear's.
    pub fn round(&self, weights: &[f32], outputs: usize) -> Rounded {
        let inputs = self.order.len();
        let weights = DMatrix::from_column_slice(outputs, inputs, weights);
        let scales: Vec<f32> = weights.row_iter().map(|row| scale(row.amax())).collect();
        let nearest = DMatrix::from_fn(outputs, inputs, |o, i| nearest(weights[(o, i)], scales[o]));
        let base = self.errors(&self.residual(&weights, &nearest, &scales));
        let mut chosen = nearest;
        let mut errors = base.clone();
        if let Some(factor) = &self.factor {
            let compensated = self.compensate(factor, &weights, &scales);
            for (o, error) in self.errors(&self.residual(&weights, &compensated, &scales)).into_iter().enumerate() {
                if error < base[o] {
                    errors[o] = error;
                    chosen.set_row(o, &compensated.row(o));
                }
            }
        }
        let energy = self.errors(&weights).iter().sum::<f64>().max(f64::MIN_POSITIVE);
        Rounded {
            weights: chosen.transpose().iter().map(|&q| q as i8).collect(),
            scales,
            error: errors.iter().sum::<f64>() / energy,
            nearest_error: base.iter().sum::<f64>() / energy,
        }
    }

    /// Integers, from the input of the largest energy to that of the least.
    fn compensate(&self, factor: &DMatrix<f32>, weights: &DMatrix<f32>, scales: &[f32]) -> DMatrix<f32> {
        let (outputs, inputs) = weights.shape();
        let mut integers = DMatrix::zeros(outputs, inputs);
        // In the factor's order.
        let mut errors = DMatrix::<f32>::zeros(outputs, inputs);
        for begin in (0..inputs).step_by(BLOCK).rev() {
            let end = (begin + BLOCK).min(inputs);
            let mut carried =
                errors.columns(end, inputs - end) * factor.view((end, begin), (inputs - end, end - begin));
            for j in (begin..end).rev() {
                for i in j + 1..end {
                    carried.column_mut(j - begin).axpy(factor[(i, j)], &errors.column(i), 1.0);
                }
                let (input, pivot) = (self.order[j], factor[(j, j)]);
                for o in 0..outputs {
                    let weight = weights[(o, input)];
                    let q = nearest(weight + carried[(o, j - begin)] / pivot, scales[o]);
                    integers[(o, input)] = q;
                    errors[(o, j)] = weight - q * scales[o];
                }
            }
        }
        integers
    }

    /// What integers leave of the weights.
    fn residual(&self, weights: &DMatrix<f32>, integers: &DMatrix<f32>, scales: &[f32]) -> DMatrix<f32> {
        DMatrix::from_fn(weights.nrows(), weights.ncols(), |o, i| weights[(o, i)] - integers[(o, i)] * scales[o])
    }

    /// e G e' for each row e.
    fn errors(&self, rows: &DMatrix<f32>) -> Vec<f64> {
        let product = rows * &self.gram;
        let dot = |o| product.row(o).iter().zip(rows.row(o).iter()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        (0..rows.nrows()).map(dot).collect()
    }
}

/// The scale of a row of this largest magnitude; a row of zeros has 1.
fn scale(largest: f32) -> f32 {
    if largest < SMALLEST { 1.0 } else { largest / LIMIT }
}

fn nearest(weight: f32, scale: f32) -> f32 {
    (weight / scale).round().clamp(-LIMIT, LIMIT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The mean of x x' over tokens [tokens][width].
    fn gram(tokens: &DMatrix<f64>) -> Vec<f32> {
        (tokens.transpose() * tokens / tokens.nrows() as f64).iter().map(|x| *x as f32).collect()
    }

    fn rounded(gram: &[f32], size: usize, weights: &[f32]) -> Rounded {
        ErrorMetric::new(gram, size).round(weights, weights.len() / size)
    }

    /// tests/golden/make_quantize.py, `formula`.
    fn formula(rows: usize, columns: usize, a: usize, b: usize) -> DMatrix<f64> {
        DMatrix::from_fn(rows, columns, |r, c| ((r * a + c * b + r * c * 31) % 1009) as f64 / 504.0 - 1.0)
    }

    #[test]
    fn what_the_paper_computes_with_an_inverse() {
        let cases: Value = serde_json::from_str(include_str!("../../../../tests/golden/quantize.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let size = |key: &str| case[key].as_u64().unwrap() as usize;
            let (inputs, outputs, tokens) = (size("inputs"), size("outputs"), size("tokens"));
            let weights: Vec<f32> = formula(outputs, inputs, 7919, 104_729).iter().map(|w| *w as f32).collect();
            let mut x = formula(tokens, inputs, 5003, 65_537);
            (0..inputs).filter(|i| i % 5 == 2).for_each(|i| x.column_mut(i).scale_mut(4.0));
            x.column_mut(0).add_scalar_mut(2.0);
            let rounded = rounded(&gram(&x), inputs, &weights);
            let close = |ours: f64, key: &str, share: f64| {
                let theirs = case[key].as_f64().unwrap();
                assert!((ours / theirs - 1.0).abs() < share, "{key} of {inputs} inputs: {ours} against {theirs}");
            };
            close(rounded.nearest_error, "nearest_error", 1e-3);
            // A sum in f32 that falls on the other side of a half leads to other integers from there on.
            close(rounded.error, "error", 0.05);
            if let Some(rows) = case["integers"].as_array() {
                let theirs: Vec<i64> =
                    rows.iter().flat_map(|r| r.as_array().unwrap()).map(|q| q.as_i64().unwrap()).collect();
                let ours: Vec<i64> = rounded.weights.iter().map(|q| i64::from(*q)).collect();
                assert_eq!(ours, theirs);
            }
        }
    }

    proptest! {
        #[test]
        fn never_worse_than_nearest(
            seed in any::<u64>(), size in 1usize..90, outputs in 1usize..6, rank in 1usize..40, spread in 0f32..8.0,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            // Few tokens leave directions that the calibration does not show; a spread of 8 makes energies of 1e-16 to 1.
            let scales: Vec<f64> = (0..size).map(|_| f64::from(10f32.powf(-spread * random.f32()))).collect();
            let tokens = DMatrix::from_fn(rank, size, |_, i| scales[i] * (random.f64() + 0.2));
            let weights: Vec<f32> = (0..size * outputs).map(|_| random.f32() - 0.5).collect();
            let rounded = rounded(&gram(&tokens), size, &weights);
            prop_assert!(rounded.error <= rounded.nearest_error);
            prop_assert!(rounded.scales.iter().all(|s| *s > 0.0 && s.is_finite()));
            prop_assert!(rounded.weights.iter().all(|q| *q >= -127));
        }
    }

    #[test]
    fn correlated_inputs_gain_much() {
        let mut random = fastrand::Rng::with_seed(3);
        let common: Vec<f64> = (0..400).map(|_| random.f64() - 0.5).collect();
        let tokens = DMatrix::from_fn(400, 96, |t, _| common[t] + 0.2 * (random.f64() - 0.5));
        let weights: Vec<f32> = (0..96 * 8).map(|_| random.f32() - 0.5).collect();
        let rounded = rounded(&gram(&tokens), 96, &weights);
        assert!(rounded.error < 0.3 * rounded.nearest_error, "{} of {}", rounded.error, rounded.nearest_error);
        assert!(rounded.error > 0.0);
    }

    #[test]
    fn extremes() {
        // Row 0 zeros, row 1 one outlier, row 2 subnormal, row 3 huge; [inputs][outputs].
        let column = |big: f32| [0.0, big, 1e-40, 3e38];
        let weights: Vec<f32> = [column(1e6), column(1.0), column(-1.0)].concat();
        for gram in [vec![0.0; 9], vec![1.0; 9], vec![f32::INFINITY; 9]] {
            let Rounded { weights: integers, scales, .. } = rounded(&gram, 3, &weights);
            assert_eq!(integers[..6], [0, 0, 0, 127, 0, 0]);
            assert_eq!(integers[6..9], [0, 0, 0]);
            assert!(integers[9..].iter().all(|q| *q >= 126), "{integers:?}");
            assert!(scales.iter().all(|s| *s > 0.0 && s.is_finite()), "{scales:?}");
        }
    }

    #[test]
    fn the_same_each_time() {
        let weights: Vec<f32> = (0..640).map(|i| (i as f32).sin()).collect();
        let gram = gram(&formula(100, 80, 17, 29));
        assert_eq!(rounded(&gram, 80, &weights), rounded(&gram, 80, &weights));
    }
}
