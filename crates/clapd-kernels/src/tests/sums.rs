//! Codes and integer sums: the same on every instruction set, bit for bit.

use proptest::prelude::*;

use super::super::isa::Checked;
use super::super::norm::{Coding, Rows};
use super::super::pack::{Shape, pack};
use super::super::simd::{AHEAD, Kernel, Simd};
use super::super::{Isa, buffer::Aligned};
use super::{bytes, noise};

/// Scales, shifts and all sums [m][n] of rows of x with weights, tile by tile of M rows.
struct Sums<'a> {
    x: &'a [f32],
    weights: &'a [i8],
    k: usize,
    coding: Coding,
    isa: Checked,
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
    let shape = Shape::of(of.isa);
    let panels = pack(of.weights, k, shape.panel, shape.group, k);
    let padded = k.next_multiple_of(shape.group);
    let mut columns = Aligned::<i32>::zeros(shape.width(n));
    for (o, row) in of.weights.chunks_exact(k).enumerate() {
        columns.as_mut_slice()[o] = row.iter().map(|w| i32::from(*w)).sum();
    }
    let mut rows = Rows::default();
    rows.fit::<S>(m, k, of.coding);
    for (i, x) in of.x.chunks_exact(k).enumerate() {
        // SAFETY: the row has k floats, and room was made for it.
        unsafe { rows.code(s, i, x.as_ptr(), k) };
    }
    let mut found = vec![0; m * n];
    // The high bytes' sums count 256 times the low ones'.
    let parts: &[(usize, i64)] = if of.coding == Coding::Byte { &[(0, 1)] } else { &[(0, 256), (rows.low, 1)] };
    let mut lanes = Aligned::<i32>::zeros(12 * V * S::LANES);
    for column in (0..n).step_by(V * S::LANES) {
        let mut i = 0;
        while i < m {
            // Every height that kernels use comes up, as m shrinks.
            let height = [12, 8, 6, 4, 1].into_iter().find(|h| *h <= S::ROWS && i + h <= m).unwrap();
            for &(from, share) in parts {
                // SAFETY: rows i..i + height are coded, and the panel at `column` exists.
                unsafe {
                    let codes = rows.codes.as_slice().as_ptr().cast::<S::Code>().add(i * rows.stride + from);
                    let weights = panels.as_slice().as_ptr().add(column * padded);
                    let start = columns.as_slice().as_ptr().add(column);
                    let (stride, groups) = (rows.stride, padded / S::GROUP);
                    let mut keep = |acc: &[[S::I; V]]| {
                        for (at, acc) in acc.iter().flatten().enumerate() {
                            s.store_sums(lanes.as_mut_slice().as_mut_ptr().add(at * S::LANES), *acc);
                        }
                    };
                    match height {
                        12 => keep(&s.tile::<12, V>(codes, stride, weights, start, groups, AHEAD)),
                        8 => keep(&s.tile::<8, V>(codes, stride, weights, start, groups, AHEAD)),
                        6 => keep(&s.tile::<6, V>(codes, stride, weights, start, groups, AHEAD)),
                        4 => keep(&s.tile::<4, V>(codes, stride, weights, start, groups, AHEAD)),
                        _ => keep(&s.tile::<1, V>(codes, stride, weights, start, groups, AHEAD)),
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
    Found { scales: rows.scales[..m].to_vec(), shifts: rows.shifts[..m].to_vec(), sums: found }
}

/// The same in plain integers: code by the definition, then sums in i64.
fn expected(x: &[f32], weights: &[i8], k: usize, most: f32) -> Found {
    let mut found = Found { scales: vec![], shifts: vec![], sums: vec![] };
    for x in x.chunks_exact(k) {
        let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = (high / most - low / most).max(1e-30);
        let inverse = 1.0 / scale;
        let zero = (-low * inverse).clamp(0.0, most).round_ties_even();
        let codes: Vec<i64> =
            x.iter().map(|x| (x * inverse + zero).clamp(0.0, most).round_ties_even() as i64).collect();
        found.scales.push(scale);
        found.shifts.push(-scale * zero);
        for row in weights.chunks_exact(k) {
            found.sums.push(row.iter().zip(&codes).map(|(w, c)| i64::from(*w) * c).sum());
        }
    }
    found
}

fn compare(x: &[f32], weights: &[i8], k: usize) {
    for (coding, most) in [(Coding::Byte, 255.0), (Coding::TwoBytes, 65_535.0)] {
        let expected = expected(x, weights, k, most);
        for isa in Isa::available() {
            let checked = isa.checked().unwrap();
            let found = checked.run(Sums { x, weights, k, coding, isa: checked });
            assert_eq!(found.scales, expected.scales, "{} {coding:?}", isa.name());
            assert_eq!(found.shifts, expected.shifts, "{} {coding:?}", isa.name());
            assert_eq!(found.sums, expected.sums, "{} {coding:?}", isa.name());
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
    // A row of equal numbers has codes of 255 (or 0, below zero); weights of 127 or -127 then give the largest sums.
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
fn zeros_denormals_and_giants_have_codes() {
    let k = 37;
    compare(&vec![0.0; 2 * k], &bytes(1, 5 * k), k);
    compare(&noise(2, k).iter().map(|x| x * 1e-40).collect::<Vec<_>>(), &bytes(3, 5 * k), k);
    compare(&noise(4, k).iter().map(|x| x * 3e38).collect::<Vec<_>>(), &bytes(5, 5 * k), k);
}
