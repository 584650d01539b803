//! Quantised activations and integer sums: the same on every instruction set, bit for bit.

use proptest::prelude::*;

use super::super::activations::{ActivationFormat, Rows};
use super::super::isa::SupportedIsa;
use super::super::simd::{Kernel, PREFETCH_BYTES, Simd};
use super::super::weights::{PanelShape, pack};
use super::super::{Isa, buffer::Aligned};
use super::{bytes, noise};

/// Scales, shifts and all sums [m][n] of rows of x with weights, tile by tile of M rows.
struct Sums<'a> {
    x: &'a [f32],
    weights: &'a [i8],
    k: usize,
    format: ActivationFormat,
    isa: SupportedIsa,
}

struct Found {
    scales: Vec<f32>,
    shifts: Vec<f32>,
    sums: Vec<i64>,
}

impl Kernel for Sums<'_> {
    type Output = Found;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Found {
        match S::VECTORS {
            2 => sums::<S, 2>(s, &self),
            3 => sums::<S, 3>(s, &self),
            _ => sums::<S, 4>(s, &self),
        }
    }
}

#[inline(always)]
fn sums<S: Simd, const V: usize>(s: S, of: &Sums) -> Found {
    let (k, m, n) = (of.k, of.x.len() / of.k, of.weights.len() / of.k);
    let shape = PanelShape::of(of.isa);
    let panels = pack(of.weights, k, shape.panel, shape.group, k);
    let padded = k.next_multiple_of(shape.group);
    let mut columns = Aligned::<i32>::zeros(shape.width(n));
    for (o, row) in of.weights.chunks_exact(k).enumerate() {
        columns.as_mut_slice()[o] = row.iter().map(|w| i32::from(*w)).sum();
    }
    let mut rows = Rows::default();
    rows.fit::<S>(m, k, of.format);
    // SAFETY: room was made for as many rows.
    unsafe { rows.set(s, of.x, k) };
    let (quantized, stride, low) = rows.quantized::<S>();
    let mut found = vec![0; m * n];
    // The high bytes' sums count 256 times the low ones'.
    let parts: &[(usize, i64)] = if of.format == ActivationFormat::U8 { &[(0, 1)] } else { &[(0, 256), (low, 1)] };
    let mut lanes = Aligned::<i32>::zeros(12 * V * S::LANES);
    for column in (0..n).step_by(V * S::LANES) {
        let mut i = 0;
        while i < m {
            // Every height that kernels use comes up, as m shrinks.
            let height = [12, 8, 6, 4, 1].into_iter().find(|h| *h <= S::ROWS && i + h <= m).unwrap();
            for &(from, share) in parts {
                // SAFETY: rows i..i + height are quantised, and the panel at `column` exists.
                unsafe {
                    let quantized = quantized.add(i * stride + from);
                    let weights = panels.as_slice().as_ptr().add(column * padded);
                    let start = columns.as_slice().as_ptr().add(column);
                    let groups = padded / S::GROUP;
                    let mut store = |acc: &[[S::I; V]]| {
                        for (at, acc) in acc.iter().flatten().enumerate() {
                            s.store_sums(lanes.as_mut_slice().as_mut_ptr().add(at * S::LANES), *acc);
                        }
                    };
                    match height {
                        12 => store(&s.tile::<12, V>(quantized, stride, weights, start, groups, PREFETCH_BYTES)),
                        8 => store(&s.tile::<8, V>(quantized, stride, weights, start, groups, PREFETCH_BYTES)),
                        6 => store(&s.tile::<6, V>(quantized, stride, weights, start, groups, PREFETCH_BYTES)),
                        4 => store(&s.tile::<4, V>(quantized, stride, weights, start, groups, PREFETCH_BYTES)),
                        _ => store(&s.tile::<1, V>(quantized, stride, weights, start, groups, PREFETCH_BYTES)),
                    }
                }
                for r in 0..height {
                    for c in 0..(V * S::LANES).min(n - column) {
                        found[(i + r) * n + column + c] += share * i64::from(lanes.as_slice()[r * V * S::LANES + c]);
                    }
                }
            }
            i += height;
        }
    }
    let (scales, shifts) = rows.scales_and_shifts();
    Found { scales: scales[..m].to_vec(), shifts: shifts[..m].to_vec(), sums: found }
}

/// The same in plain integers: quantised by the definition, then sums in i64.
fn expected(x: &[f32], weights: &[i8], k: usize, most: f32) -> Found {
    let mut found = Found { scales: vec![], shifts: vec![], sums: vec![] };
    for x in x.chunks_exact(k) {
        let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = (high / most - low / most).max(1e-30);
        let inverse = 1.0 / scale;
        let zero = (-low * inverse).clamp(0.0, most).round_ties_even();
        let quantized: Vec<i64> =
            x.iter().map(|x| (x * inverse + zero).clamp(0.0, most).round_ties_even() as i64).collect();
        found.scales.push(scale);
        found.shifts.push(-scale * zero);
        for row in weights.chunks_exact(k) {
            found.sums.push(row.iter().zip(&quantized).map(|(w, q)| i64::from(*w) * q).sum());
        }
    }
    found
}

fn compare(x: &[f32], weights: &[i8], k: usize) {
    for (format, most) in [(ActivationFormat::U8, 255.0), (ActivationFormat::U16, 65_535.0)] {
        let expected = expected(x, weights, k, most);
        for isa in Isa::available() {
            let checked = isa.supported().unwrap();
            let found = checked.run(Sums { x, weights, k, format, isa: checked });
            assert_eq!(found.scales, expected.scales, "{} {format:?}", isa.name());
            assert_eq!(found.shifts, expected.shifts, "{} {format:?}", isa.name());
            assert_eq!(found.sums, expected.sums, "{} {format:?}", isa.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sums_are_exact(m in 1usize..30, n in 1usize..70, k in 1usize..200, seed: u64, size in -30i32..30) {
        let mut x = noise(seed, m * k);
        x.iter_mut().for_each(|x| *x *= 2f32.powi(size));
        compare(&x, &bytes(seed ^ 1, n * k), k);
    }
}

#[test]
fn extremes_do_not_saturate() {
    // A row of equal numbers is quantised to 255 (or 0, below zero); weights of 127 or -127 then give the largest sums.
    for k in [1, 2, 3, 4, 63, 64, 65, 3072, 4096] {
        for weight in [127i8, -127] {
            let weights = vec![weight; 33 * k];
            compare(&vec![1.0; 13 * k], &weights, k);
            compare(&vec![-1.0; 13 * k], &weights, k);
            let alternating: Vec<i8> = (0..33 * k).map(|i| if i % 2 == 0 { weight } else { -weight }).collect();
            compare(&(0..13 * k).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect::<Vec<_>>(), &alternating, k);
        }
    }
}

#[test]
fn the_widest_linear_does_not_overflow() {
    let k = super::super::MAX_K;
    compare(&vec![1.0; k], &vec![127; k], k);
    compare(&vec![1.0; k], &vec![-127; k], k);
}

#[test]
fn zeros_denormals_and_giants_are_quantized() {
    let k = 37;
    compare(&vec![0.0; 2 * k], &bytes(1, 5 * k), k);
    compare(&noise(2, k).iter().map(|x| x * 1e-40).collect::<Vec<_>>(), &bytes(3, 5 * k), k);
    compare(&noise(4, k).iter().map(|x| x * 3e38).collect::<Vec<_>>(), &bytes(5, 5 * k), k);
}
