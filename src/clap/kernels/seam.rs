//! Tests of the seam: every operation of [`Simd`] on every instruction set that this CPU has, against plain arithmetic.
//!
//! Integers, codes and all that IEEE 754 rounds once must be the same bit for bit; the rest within the bound that stands at it.
//! Never: part of a build.
#![cfg(test)]

use proptest::prelude::*;

use super::buffer::Aligned;
use super::isa::Isa;
use super::norm::{Rows, quantize};
use super::pack::pack;
use super::scalar::Scalar;
use super::simd::{Kernel, Simd};

fn on_every_isa<K: Kernel>(kernel: impl Fn() -> K, check: impl Fn(&str, K::Output)) {
    for isa in Isa::available() {
        check(isa.name(), isa.checked().unwrap().run(kernel()));
    }
}

/// Accumulators of `rows` [m][k] of codes and `weights` [n][k], in tiles of every height and whole panels: [m][n].
struct Sums<'a> {
    codes: &'a [u8],
    weights: &'a [i8],
    k: usize,
}

impl Kernel for Sums<'_> {
    /// Of each height of tiles.
    type Output = Vec<Vec<i32>>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let (m, k) = (self.codes.len() / self.k, self.k);
        let mut rows = Rows::default();
        rows.fit::<S>(m, k, true);
        for (i, codes) in self.codes.chunks_exact(k).enumerate() {
            let mut floats: Vec<f32> = codes.iter().map(|c| f32::from(*c)).collect();
            floats.resize(k.next_multiple_of(S::LANES), 0.0);
            let at = rows.codes.as_mut_slice().as_mut_ptr().cast::<S::Code>().wrapping_add(i * rows.stride);
            for (j, floats) in floats.chunks_exact(S::LANES).enumerate() {
                // SAFETY: `fit` made room for m rows of k codes, rounded up to whole vectors.
                unsafe { s.store_codes(at.add(j * S::LANES), s.load(floats.as_ptr())) }
            }
        }
        macro_rules! heights {
            ($($M:literal)*) => { vec![$(match S::VECTORS {
                2 => tiles::<S, $M, 2>(s, &rows, m, &self),
                3 => tiles::<S, $M, 3>(s, &rows, m, &self),
                _ => tiles::<S, $M, 4>(s, &rows, m, &self),
            }),*] };
        }
        heights!(1 2 4 6 8 12)
    }
}

#[inline(always)]
fn tiles<S: Simd, const M: usize, const V: usize>(s: S, rows: &Rows, m: usize, of: &Sums) -> Vec<i32> {
    let (k, width) = (of.k, V * S::LANES);
    let n = of.weights.len() / k;
    let padded = k.next_multiple_of(S::GROUP);
    let packed = pack(of.weights, k, width, S::GROUP, k);
    let mut sums: Vec<i32> = of.weights.chunks_exact(k).map(|w| w.iter().map(|w| i32::from(*w)).sum()).collect();
    sums.resize(n.next_multiple_of(width), 0);
    let mut out = vec![0; m * n];
    for column in (0..n).step_by(width) {
        for row in (0..m - m % M).step_by(M) {
            let mut lanes = vec![0; width];
            // SAFETY: M rows of codes, a panel of weights and its sums are there; `lanes` has room for a row of the tile.
            unsafe {
                let codes = rows.codes.as_slice().as_ptr().cast::<S::Code>().add(row * rows.stride);
                let weights = packed.as_slice().as_ptr().add(column * padded);
                let acc = s.tile::<M, V>(codes, rows.stride, weights, sums.as_ptr().add(column), padded / S::GROUP);
                for (r, acc) in acc.into_iter().enumerate() {
                    for (j, acc) in acc.into_iter().enumerate() {
                        s.store_sums(lanes.as_mut_ptr().add(j * S::LANES), acc);
                    }
                    let columns = width.min(n - column);
                    out[(row + r) * n + column..][..columns].copy_from_slice(&lanes[..columns]);
                }
            }
        }
    }
    out
}

/// Whether sums are the exact ones, whatever the height of the tiles.
fn same_sums(codes: &[u8], weights: &[i8], k: usize) {
    let n = weights.len() / k;
    let mut expected = Vec::new();
    for codes in codes.chunks_exact(k) {
        for weights in weights.chunks_exact(k) {
            expected.push(codes.iter().zip(weights).map(|(c, w)| i32::from(*c) * i32::from(*w)).sum::<i32>());
        }
    }
    let check = |isa: &str, of_heights: Vec<Vec<i32>>| {
        for (out, height) in of_heights.into_iter().zip([1, 2, 4, 6, 8, 12]) {
            let whole = (codes.len() / k / height) * height * n;
            assert_eq!(out[..whole], expected[..whole], "{isa}: rows of {n} sums over {k}, {height} rows at a time");
        }
    };
    on_every_isa(|| Sums { codes, weights, k }, check);
}

#[test]
fn sums_are_exact_at_the_extremes() {
    for k in [1, 2, 15, 16, 17, 60, 64, 96, 3072, 65_536] {
        for code in [0, 1, 127, 128, 255] {
            for weight in [-127, 0, 127] {
                same_sums(&vec![code; k], &vec![weight; k], k);
            }
        }
    }
    // Neighbours of either sign, and a row of zeros between them.
    let codes: Vec<u8> = (0..12 * 96).map(|i| if i / 96 == 5 { 0 } else { [0, 255][i % 2] }).collect();
    let weights: Vec<i8> = (0..33 * 96).map(|i| [-127, 127, 127, -127, 1][i % 5]).collect();
    same_sums(&codes, &weights, 96);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sums_are_exact(m in 1..=13usize, n in 1..=50usize, k in 1..=200usize, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let codes: Vec<u8> = (0..m * k).map(|_| random.u8(..)).collect();
        let weights: Vec<i8> = (0..n * k).map(|_| random.i8(-127..=127)).collect();
        same_sums(&codes, &weights, k);
    }

    #[test]
    fn codes_are_the_same_everywhere(len in 1..=70usize, size in -44..=38i32, offset in -2.0..2.0f32, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let size = 10f32.powi(size);
        same_codes(&(0..len).map(|_| (random.f32() - 0.5 + offset) * size).collect::<Vec<_>>());
    }
}

/// Codes of a row (as many as it has elements), its scale and its zero.
struct Codes<'a>(&'a [f32]);

impl Kernel for Codes<'_> {
    type Output = (Vec<i32>, f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let k = self.0.len();
        let mut rows = Rows::default();
        rows.fit::<S>(1, k, true);
        // SAFETY: `fit` made room for k codes.
        let (scale, zero) = unsafe { quantize(s, self.0.as_ptr(), k, rows.codes.as_mut_slice().as_mut_ptr().cast()) };
        // How a set holds a code is its own affair: weights of 1 at one place each say what it counts as.
        let unit: Vec<i8> = (0..k * k).map(|i| i8::from(i / k == i % k)).collect();
        let of = Sums { codes: &[], weights: &unit, k };
        let codes = match S::VECTORS {
            2 => tiles::<S, 1, 2>(s, &rows, 1, &of),
            3 => tiles::<S, 1, 3>(s, &rows, 1, &of),
            _ => tiles::<S, 1, 4>(s, &rows, 1, &of),
        };
        (codes, scale, zero)
    }
}

fn same_codes(row: &[f32]) {
    let expected = Codes(row).run(Scalar);
    on_every_isa(|| Codes(row), |isa, codes| assert_eq!(codes, expected, "{isa}: {row:?}"));
    let (codes, scale, zero) = expected;
    for (x, code) in row.iter().zip(codes) {
        let (back, scale) = (f64::from(scale) * (f64::from(code) - f64::from(zero)), f64::from(scale));
        // Half a step for the code, half a step for the zero, and what f32 rounds.
        assert!((f64::from(*x) - back).abs() <= scale * 1.001, "{x} became {back}, scale {scale}");
    }
}

#[test]
fn codes_of_odd_rows_are_the_same_everywhere() {
    let most = f32::MAX;
    for row in [
        vec![0.0; 96],
        vec![-0.0; 5],
        vec![1e-45; 17],
        vec![f32::MIN_POSITIVE / 2.0, -1e-40, 0.0],
        vec![3.5; 8],
        vec![-3.5; 8],
        vec![most, -most, 0.0, 1.0],
        // Halves: -0.5 to 254.5 in steps of 1 round to even.
        (0..256).map(|i| i as f32 - 0.5).collect(),
    ] {
        same_codes(&row);
    }
}

/// Every operation on floats, on vectors of `a`, `b` and `c`: those that must be exact, and those that need not.
struct Floats<'a> {
    a: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
}

impl Kernel for Floats<'_> {
    type Output = (Vec<[u32; 8]>, Vec<f32>, Vec<f32>);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let (mut exact, mut fused, mut lanes) = (Vec::new(), Vec::new(), [0.0; 16]);
        let mut of = |f: S::F| {
            // SAFETY: no vector has more than 16 lanes.
            unsafe { s.store(lanes.as_mut_ptr(), f) };
            lanes
        };
        let mut totals = Vec::new();
        for i in (0..self.a.len()).step_by(S::LANES) {
            // SAFETY: the three are as long, a multiple of 16.
            let (a, b, c) =
                unsafe { (s.load(self.a[i..].as_ptr()), s.load(self.b[i..].as_ptr()), s.load(self.c[i..].as_ptr())) };
            // A sum with 0 has no -0: whose sign a zero keeps when it is rounded is not promised.
            let round = s.max(s.min(a, s.splat(4e6)), s.splat(-4e6));
            let n = s.round(s.max(s.min(b, s.splat(127.0)), s.splat(-126.0)));
            let all = [
                s.add(a, b),
                s.sub(a, b),
                s.mul(a, b),
                s.max(a, b),
                s.min(a, b),
                s.abs(a),
                s.add(s.round(round), s.splat(0.0)),
                s.scale2(a, n),
            ];
            let all = all.map(&mut of);
            exact.extend((0..S::LANES).map(|lane| all.map(|lanes| lanes[lane].to_bits())));
            fused.extend(of(s.fma(a, b, c)).into_iter().take(S::LANES));
            assert_eq!(s.top(a), self.a[i..][..S::LANES].iter().copied().fold(f32::MIN, f32::max));
            assert_eq!(s.bottom(a), self.a[i..][..S::LANES].iter().copied().fold(f32::MAX, f32::min));
            totals.push(s.sum(a) - self.a[i..][..S::LANES].iter().map(|a| f64::from(*a)).sum::<f64>() as f32);
        }
        (exact, fused, totals)
    }
}

#[test]
fn floats_are_the_same_everywhere() {
    let mut random = fastrand::Rng::with_seed(1);
    let odd = [
        0.0,
        -0.0,
        1e-45,
        -1e-40,
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        126.5,
        127.0,
        -126.0,
        3.3e6 + 0.5,
        1e15,
        -1e15,
        f32::MIN_POSITIVE,
    ];
    let mut numbers = || {
        (0..512)
            .map(|i| {
                if i % 4 == 0 {
                    odd[random.usize(..odd.len())]
                } else {
                    (random.f32() - 0.5) * 10f32.powi(random.i32(-6..=6))
                }
            })
            .collect::<Vec<_>>()
    };
    let (a, b, c) = (numbers(), numbers(), numbers());
    let (expected, ..) = Floats { a: &a, b: &b, c: &c }.run(Scalar);
    on_every_isa(
        || Floats { a: &a, b: &b, c: &c },
        |isa, (exact, fused, totals)| {
            for (i, (got, expected)) in exact.iter().zip(&expected).enumerate() {
                assert_eq!(
                    got, expected,
                    "{isa}: add, sub, mul, max, min, abs, round, scale2 of {} and {}",
                    a[i], b[i]
                );
            }
            for (i, got) in fused.iter().enumerate() {
                let (x, y, z) = (f64::from(a[i]), f64::from(b[i]), f64::from(c[i]));
                // Rounded once or twice: half a unit in the last place each.
                let bound = (x * y).abs() * 1.2e-7 + z.abs() * 1.2e-7 + 1e-44;
                assert!((f64::from(*got) - (x * y + z)).abs() <= bound, "{isa}: {x} * {y} + {z} = {got}");
            }
            // 15 additions, each of which rounds to half a unit of at most the sum of magnitudes.
            for (i, wrong) in totals.iter().enumerate() {
                let size = a.chunks_exact(a.len() / totals.len()).nth(i).unwrap().iter().map(|a| a.abs()).sum::<f32>();
                assert!(wrong.abs() <= size * 15.0 * 6e-8, "{isa}: a sum is wrong by {wrong}");
            }
        },
    );
}

/// Reciprocals of 1..1e6 at `.0` places, and every half-precision number as f32.
struct Tables(usize);

impl Kernel for Tables {
    type Output = (Vec<(f32, f32)>, Vec<f32>);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let mut lanes = [0.0; 16];
        let recips = (0..=self.0).map(|i| {
            let x = 10f32.powf(6.0 * i as f32 / self.0 as f32).clamp(1.0, 1e6);
            // SAFETY: no vector has more than 16 lanes.
            unsafe { s.store(lanes.as_mut_ptr(), s.recip(s.splat(x))) };
            (x, lanes[S::LANES - 1])
        });
        let recips = recips.collect();
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let mut floats = vec![0.0; halves.len()];
        for i in (0..halves.len()).step_by(S::LANES) {
            // SAFETY: both have 65,536 elements, a multiple of any number of lanes.
            unsafe { s.store(floats.as_mut_ptr().add(i), s.load_half(halves.as_ptr().add(i))) }
        }
        (recips, floats)
    }
}

#[test]
fn reciprocals_and_half_precision() {
    on_every_isa(
        || Tables(20_000),
        |isa, (recips, floats)| {
            for (x, y) in recips {
                assert!((f64::from(y) * f64::from(x) - 1.0).abs() <= 3e-7, "{isa}: 1 / {x} = {y}");
            }
            for (bits, float) in (0..=u16::MAX).zip(floats) {
                let half = half::f16::from_bits(bits);
                assert!(float.to_bits() == half.to_f32().to_bits() || half.is_nan(), "{isa}: {half} became {float}");
            }
        },
    );
}

/// Parts of vectors, transposed blocks, and which of two is passed on where one is NaN.
struct Moves;

impl Kernel for Moves {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let row: Vec<f32> = (1..=16).map(|i| i as f32).collect();
        for n in 0..S::LANES {
            let (mut whole, mut part) = ([9.0; 16], [7.0; 16]);
            // A copy of exactly n: Miri and sanitizers see what is read behind it.
            let exactly = row[..n].to_vec();
            // SAFETY: n floats are there; no vector has more than 16 lanes.
            unsafe {
                s.store(whole.as_mut_ptr(), s.load_part(exactly.as_ptr(), n));
                s.store_part(part.as_mut_ptr(), s.load(row.as_ptr()), n);
            }
            for lane in 0..S::LANES {
                assert_eq!(whole[lane], if lane < n { row[lane] } else { 0.0 }, "load_part of {n}, lane {lane}");
                assert_eq!(part[lane], if lane < n { row[lane] } else { 7.0 }, "store_part of {n}, lane {lane}");
            }
        }
        let from: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        let mut to = Aligned::zeros(16 * 18);
        // SAFETY: 16 rows of 20 and of 18 hold any block.
        unsafe { s.transpose(from.as_ptr(), 20, to.as_mut_slice().as_mut_ptr(), 18) };
        for r in 0..16 {
            for c in 0..18 {
                let inside = r < S::LANES && c < S::LANES;
                assert_eq!(
                    to.as_slice()[r * 18 + c],
                    if inside { (c * 20 + r) as f32 } else { 0.0 },
                    "row {r}, column {c}"
                );
            }
        }
        let (nan, one) = (s.splat(f32::NAN), s.splat(1.0));
        assert!(s.top(s.max(nan, one)) == 1.0 && s.top(s.min(nan, one)) == 1.0, "the second, where the first is NaN");
        assert!(s.sum(s.max(one, nan)).is_nan() && s.sum(s.min(one, nan)).is_nan(), "the second, where it is NaN");
    }
}

#[test]
fn parts_and_transposes() {
    on_every_isa(|| Moves, |_, ()| ());
}

/// The emulator says which CPU it plays; on a real one nothing is known beforehand.
#[test]
#[cfg(target_arch = "aarch64")]
fn the_dot_product_is_used_where_it_is() {
    let Ok(cpu) = std::env::var("CLAPD_TEST_CPU") else { return };
    let fastest = if ["cortex-a53", "cortex-a72"].contains(&cpu.as_str()) { Isa::Neon } else { Isa::Dotprod };
    assert_eq!(Isa::available()[0], fastest, "on {cpu}");
}
