//! Operations on short vectors, against plain arithmetic: those that IEEE 754 rounds once the same bit for bit, the rest within
//! the bound that stands at it.

use super::super::simd::{Kernel, Simd};
use super::super::{Isa, scalar::Scalar};

fn on_every_isa<K: Kernel>(kernel: impl Fn() -> K, check: impl Fn(&str, K::Output)) {
    for isa in Isa::available() {
        check(isa.name(), isa.supported().unwrap().run(kernel()));
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
            assert_eq!(s.reduce_max(a), self.a[i..][..S::LANES].iter().copied().fold(f32::MIN, f32::max));
            assert_eq!(s.reduce_min(a), self.a[i..][..S::LANES].iter().copied().fold(f32::MAX, f32::min));
            totals.push(s.reduce_add(a) - self.a[i..][..S::LANES].iter().map(|a| f64::from(*a)).sum::<f64>() as f32);
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

/// Parts of vectors, and which of two is passed on where one is NaN.
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
        let (nan, one) = (s.splat(f32::NAN), s.splat(1.0));
        assert!(
            s.reduce_max(s.max(nan, one)) == 1.0 && s.reduce_max(s.min(nan, one)) == 1.0,
            "the second, where the first is NaN"
        );
        assert!(
            s.reduce_add(s.max(one, nan)).is_nan() && s.reduce_add(s.min(one, nan)).is_nan(),
            "the second, where it is NaN"
        );
    }
}

#[test]
fn parts_and_nan() {
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
