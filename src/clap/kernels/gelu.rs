//! GELU and its derivative over a slice, for training: the library that trains has both one number at a time.
//!
//! In: slices of f32. Out: the same, changed in place. A number that is not finite becomes NaN, and whoever trains hears of it.
//! Never: is called on a device, whose linears have GELU in them.

use anyhow::Result;

use super::isa::{Checked, Isa};
use super::math::{gelu, gelu_slope};
use super::norm::vectors;
use super::simd::{Kernel, Simd};

/// GELU on one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Gelu(Checked);

impl Gelu {
    /// On `isa`.
    ///
    /// # Errors
    /// An instruction set that the CPU lacks.
    pub fn new(isa: Isa) -> Result<Self> {
        isa.checked().map(Self)
    }

    /// On the fastest that the CPU has.
    pub fn fastest() -> Self {
        Self(Isa::fastest())
    }

    /// GELU of each, to 3e-7 (1 + |x|).
    pub fn forward(self, x: &mut [f32]) {
        self.0.run(All(x));
    }

    /// Each of `gradient`, which is by GELU(x), becomes that by x; to 5e-7 (1 + |x|) of it. If there are more of one than of the
    /// other, those are left alone.
    pub fn backward(self, x: &[f32], gradient: &mut [f32]) {
        self.0.run(Back { x, gradient });
    }
}

struct All<'a>(&'a mut [f32]);

impl Kernel for All<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (n, x) = (self.0.len(), self.0.as_mut_ptr());
        // SAFETY: x has n floats.
        unsafe {
            vectors!(
                S,
                n,
                |i| {
                    let at = s.load(x.add(i));
                    s.store(x.add(i), s.add(gelu(s, at), s.sub(at, at)));
                },
                |i, left| {
                    let at = s.load_part(x.add(i), left);
                    s.store_part(x.add(i), s.add(gelu(s, at), s.sub(at, at)), left);
                },
            );
        }
    }
}

struct Back<'a> {
    x: &'a [f32],
    gradient: &'a mut [f32],
}

impl Kernel for Back<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.x.len().min(self.gradient.len());
        let (x, gradient) = (self.x.as_ptr(), self.gradient.as_mut_ptr());
        // SAFETY: both have n floats or more.
        unsafe {
            vectors!(
                S,
                n,
                |i| {
                    let at = s.load(x.add(i));
                    let slope = s.add(gelu_slope(s, at), s.sub(at, at));
                    s.store(gradient.add(i), s.mul(s.load(gradient.add(i)), slope));
                },
                |i, left| {
                    let at = s.load_part(x.add(i), left);
                    let slope = s.add(gelu_slope(s, at), s.sub(at, at));
                    s.store_part(gradient.add(i), s.mul(s.load_part(gradient.add(i), left), slope), left);
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distribution function of the normal distribution, by its series.
    fn below(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 + density(x) * sum
    }

    fn density(x: f64) -> f64 {
        (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn gelu_and_its_derivative_are_their_formulas_on_every_instruction_set() {
        // 16 lanes and a rest, from -8 to 8.
        let x: Vec<f32> = (0..2005).map(|i| (i - 1002) as f32 / 125.25).collect();
        for isa in Isa::available() {
            let (mut y, mut slope) = (x.clone(), vec![3.0; x.len()]);
            let gelu = Gelu::new(isa).unwrap();
            gelu.forward(&mut y);
            gelu.backward(&x, &mut slope);
            for ((x, y), slope) in x.iter().zip(y).zip(slope) {
                let x = f64::from(*x);
                let bound = 1.0 + x.abs();
                assert!((f64::from(y) - x * below(x)).abs() <= 3e-7 * bound, "{isa:?}: {x} {y}");
                let exact = below(x) + x * density(x);
                assert!((f64::from(slope) / 3.0 - exact).abs() <= 5e-7 * bound, "{isa:?}: {x} {slope} {exact}");
            }
        }
    }

    #[test]
    fn far_out_it_is_a_line_and_what_is_not_finite_is_told() {
        for isa in Isa::available() {
            let mut y = [1e30, -1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            let x = y;
            let mut slope = [1.0; 5];
            let gelu = Gelu::new(isa).unwrap();
            gelu.forward(&mut y);
            gelu.backward(&x, &mut slope);
            assert!(
                y[0] == 1e30 && y[1].abs() < 1e-20 && slope[0] == 1.0 && slope[1].abs() < 1e-20,
                "{isa:?}: {y:?} {slope:?}"
            );
            assert!(y[2..].iter().chain(&slope[2..]).all(|y| y.is_nan()), "{isa:?}: {y:?} {slope:?}");
        }
    }
}
