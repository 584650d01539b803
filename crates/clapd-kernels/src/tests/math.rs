//! The functions on vectors, against f64.

use super::super::Isa;
use super::super::math::{exp2, gelu};
use super::super::simd::{Kernel, Simd};

enum Function {
    Exp2,
    Gelu,
    Transpose,
}

/// A function of all x, which must be whole vectors.
struct Apply<'a>(Function, &'a [f32]);

impl Kernel for Apply<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let mut out = vec![0.0; self.1.len()];
        if matches!(self.0, Function::Transpose) {
            // 16 x 16 numbers, block by block.
            let corners = || (0..16).step_by(S::LANES);
            for (y, x) in corners().flat_map(|y| corners().map(move |x| (y, x))) {
                // SAFETY: the block lies inside the 256 numbers of both.
                unsafe { s.transpose(self.1.as_ptr().add(y * 16 + x), 16, out.as_mut_ptr().add(x * 16 + y), 16) };
            }
            return out;
        }
        for (x, y) in self.1.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            // SAFETY: both have LANES floats.
            unsafe {
                let x = s.load(x.as_ptr());
                s.store(y.as_mut_ptr(), if matches!(self.0, Function::Exp2) { exp2(s, x) } else { gelu(s, x) });
            }
        }
        out
    }
}

pub(super) fn erf(x: f64) -> f64 {
    // The series converges for all x; beyond 4 it loses digits and erf is 1 to 1e-8.
    if x.abs() > 4.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn exp2_is_near() {
    let x: Vec<f32> = (0..16_000).map(|i| i as f32 * 0.014 - 100.0).collect();
    for isa in Isa::available() {
        let y = isa.supported().unwrap().run(Apply(Function::Exp2, &x));
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp2();
            assert!((f64::from(*y) - exact).abs() <= 3e-7 * exact, "{}: 2^{x} = {y}", isa.name());
        }
        let low = isa.supported().unwrap().run(Apply(Function::Exp2, &[-1e30; 16]));
        assert!(low.iter().all(|y| (0.0..1e-30).contains(y)), "{}: {low:?}", isa.name());
    }
}

#[test]
fn gelu_is_near() {
    let mut x: Vec<f32> = (0..16_000).map(|i| i as f32 * 0.001 - 8.0).collect();
    x.extend([0.0, -0.0, 1e-40, -1e-40, 1e4, -1e4, 1e30, -1e30, 150.0, -150.0, 20.0, -20.0, 3e38, -3e38, 99.0, -99.0]);
    for isa in Isa::available() {
        let y = isa.supported().unwrap().run(Apply(Function::Gelu, &x));
        for (x, y) in x.iter().zip(&y) {
            let wide = f64::from(*x);
            let exact = wide / 2.0 * (1.0 + erf(wide / std::f64::consts::SQRT_2));
            assert!((f64::from(*y) - exact).abs() <= 3e-7 * (1.0 + wide.abs()), "{}: gelu({x}) = {y}", isa.name());
        }
    }
}

#[test]
fn transposing_moves_every_number() {
    let x: Vec<f32> = (0..256).map(|i| i as f32).collect();
    for isa in Isa::available() {
        let y = isa.supported().unwrap().run(Apply(Function::Transpose, &x));
        let lanes = y.iter().filter(|y| **y != 0.0).count();
        assert!(lanes >= 255, "{}: {lanes} of 255 numbers arrived", isa.name());
        for (at, y) in y.iter().enumerate() {
            assert_eq!(*y, x[at % 16 * 16 + at / 16], "{} at {at}", isa.name());
        }
    }
}
