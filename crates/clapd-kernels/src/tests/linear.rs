//! Linears, against sums in f64.

use half::f16;
use proptest::prelude::*;

use super::super::{Epilogue, Isa, Linear, Workspace};
use super::{bytes, noise};

/// x W^T + b in f64, and the sums of |x| |w| that rounding errors are measured by.
fn product(x: &[f32], w: &[f64], b: &[f32], k: usize) -> Vec<(f64, f64)> {
    let mut y = vec![];
    for x in x.chunks_exact(k) {
        for (o, w) in w.chunks_exact(k).enumerate() {
            let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * w);
            let bias = b.get(o).map_or(0.0, |b| f64::from(*b));
            y.push((terms.clone().sum::<f64>() + bias, terms.map(f64::abs).sum::<f64>() + bias.abs()));
        }
    }
    y
}

fn run(linear: &Linear, x: &[f32], epilogue: Epilogue, threads: usize) -> Vec<f32> {
    let mut out = vec![0.25; x.len() / linear.k() * linear.n()];
    linear.run(x, &mut out, epilogue, &mut Workspace::new(threads)).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn floats_are_near(m in 1usize..30, n in 1usize..70, k in 1usize..150, seed: u64, biased: bool) {
        let (x, w) = (noise(seed, m * k), noise(seed ^ 1, n * k));
        let b = if biased { noise(seed ^ 2, n) } else { vec![] };
        let halves: Vec<f16> = w.iter().map(|w| f16::from_f32(*w)).collect();
        let exact = product(&x, &w.iter().map(|w| f64::from(*w)).collect::<Vec<_>>(), &b, k);
        let half = product(&x, &halves.iter().map(|w| w.to_f64()).collect::<Vec<_>>(), &b, k);
        for isa in Isa::available() {
            let y = run(&Linear::f32(isa, n, k, &w, &b).unwrap(), &x, Epilogue::Store, 1);
            let z = run(&Linear::f16(isa, n, k, &halves, &b).unwrap(), &x, Epilogue::Store, 1);
            for (found, (exact, size)) in y.iter().zip(&exact).chain(z.iter().zip(&half)) {
                // Each of k roundings is at most 2^-24 of the terms so far.
                prop_assert!((f64::from(*found) - exact).abs() <= 6e-8 * (k + 2) as f64 * size, "{}", isa.name());
            }
        }
    }

    #[test]
    fn int8_is_as_near_as_8_bits_allow(m in 1usize..30, n in 1usize..70, spans in 1usize..5, part in 1usize..12, seed: u64) {
        // A scale for each span of 4 * part; or one for all of k, which may then be any number.
        let k = if spans == 1 { 4 * part - seed as usize % 4 } else { 4 * part * spans };
        let (x, w, b) = (noise(seed, m * k), bytes(seed ^ 1, n * k), noise(seed ^ 2, n));
        let scales: Vec<f32> = noise(seed ^ 3, n * spans).iter().map(|s| 0.01 + 0.001 * s).collect();
        let span = k / spans;
        let weight = |at: usize| f64::from(w[at]) * f64::from(scales[at % k / span * n + at / k]);
        let wide: Vec<f64> = (0..n * k).map(weight).collect();
        let exact = product(&x, &wide, &b, k);
        let scalar = run(&Linear::int8(Isa::Scalar, n, k, &w, &scales, &b).unwrap(), &x, Epilogue::Store, 1);
        for isa in Isa::available() {
            let y = run(&Linear::int8(isa, n, k, &w, &scales, &b).unwrap(), &x, Epilogue::Store, 1);
            for (at, (found, (exact, size))) in y.iter().zip(&exact).enumerate() {
                // A quantised number is off by up to 1/2 for the number and 1/2 for the zero; x has a range of at most 2.
                let row: f64 = wide[at % n * k..][..k].iter().map(|w| w.abs()).sum();
                prop_assert!((f64::from(*found) - exact).abs() <= row * 2.0 / 255.0 + 1e-5 * size, "{}", isa.name());
                // Integer sums are equal; what is left is rounding in the last steps, a few for each span.
                let bound = 2e-6 * (size + row) as f32;
                prop_assert!((found - scalar[at]).abs() <= bound, "{}: {found}, scalar {}", isa.name(), scalar[at]);
            }
            let precise = run(&Linear::int8(isa, n, k, &w, &scales, &b).unwrap().with_16bit_activations(), &x, Epilogue::Store, 1);
            for (at, (found, (exact, size))) in precise.iter().zip(&exact).enumerate() {
                // The same of steps 257 times as small.
                let row: f64 = wide[at % n * k..][..k].iter().map(|w| w.abs()).sum();
                prop_assert!((f64::from(*found) - exact).abs() <= row * 2.0 / 65535.0 + 1e-5 * size, "{}", isa.name());
            }
        }
    }
}

#[test]
fn what_follows_a_sum() {
    // 13 * 31 floats: a tail of rows and of columns on every instruction set.
    let (m, n, k) = (13, 31, 9);
    let (x, w) = (noise(1, m * k), noise(2, n * k));
    for isa in Isa::available() {
        let linear = Linear::f32(isa, n, k, &w, &[]).unwrap();
        let plain = run(&linear, &x, Epilogue::Store, 1);
        let relu: Vec<f32> = plain.iter().map(|y| y.max(0.0)).collect();
        let sum: Vec<f32> = plain.iter().map(|y| y + 0.25).collect();
        assert_eq!(run(&linear, &x, Epilogue::Relu, 1), relu);
        assert_eq!(run(&linear, &x, Epilogue::Add, 1), sum);
        let gelu = run(&linear, &x, Epilogue::Gelu, 1);
        // GELU lies between ReLU and ReLU - 0.17.
        assert!(gelu.iter().zip(&relu).all(|(g, r)| *g <= *r && *g > r - 0.1701), "{}", isa.name());
    }
}

#[test]
fn threads_change_nothing() {
    let (m, n, k) = (500, 40, 30);
    let (x, w) = (noise(1, m * k), bytes(2, n * k));
    for isa in Isa::available() {
        let linear = Linear::int8(isa, n, k, &w, &vec![0.01; n], &[]).unwrap();
        assert_eq!(run(&linear, &x, Epilogue::Store, 1), run(&linear, &x, Epilogue::Store, 4));
    }
}

#[test]
fn what_cannot_be_computed_is_refused() {
    for isa in Isa::available() {
        let linear = Linear::f32(isa, 5, 3, &noise(1, 15), &[]).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error =
                linear.run(&[1.0, 2.0, 3.0, 4.0, bad, 6.0], &mut [0.0; 10], Epilogue::Store, &mut Workspace::new(1));
            assert!(error.unwrap_err().to_string().contains("row 1"));
            assert!(Linear::f32(isa, 1, 1, &[bad], &[]).is_err());
            assert!(Linear::f32(isa, 1, 1, &[1.0], &[bad]).is_err());
            assert!(Linear::int8(isa, 1, 1, &[1], &[bad], &[]).is_err());
        }
        assert!(linear.run(&[1.0; 6], &mut [0.0; 9], Epilogue::Store, &mut Workspace::new(1)).is_err());
        assert!(linear.run(&[1.0; 5], &mut [0.0; 5], Epilogue::Store, &mut Workspace::new(1)).is_err());
        assert!(Linear::int8(isa, 1, 2, &[1, -128], &[1.0], &[]).is_err());
        assert!(Linear::int8(isa, 1, 6, &[1; 6], &[1.0; 2], &[]).is_err());
        assert!(Linear::int8(isa, 1, 65_537, &[1; 65_537], &[1.0], &[]).is_err());
        assert!(Linear::f32(isa, 0, 1, &[], &[]).is_err());
    }
}
