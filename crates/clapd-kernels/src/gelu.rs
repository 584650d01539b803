//! GELU and its derivative over a slice, for training: the library that trains has both one number at a time.
//!
//! A number that is not finite becomes NaN, so that training can't overlook it. Inference needs none of this: its linears have GELU
//! in them.

use anyhow::Result;

use super::isa::{Isa, SupportedIsa};
use super::math::{gelu, gelu_slope};
use super::norm::vectors;
use super::simd::{Kernel, Simd};

/// GELU on one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Gelu(SupportedIsa);

impl Gelu {
    /// On `isa`.
    ///
    /// # Errors
    /// An instruction set that the CPU lacks.
    pub fn new(isa: Isa) -> Result<Self> {
        isa.supported().map(Self)
    }

    /// On the fastest that the CPU has.
    pub fn fastest() -> Self {
        Self(Isa::fastest())
    }

    /// GELU of each, to 3e-7 (1 + |x|).
    pub fn forward(self, x: &mut [f32]) {
        self.0.run(GeluForward(x));
    }

    /// Each of `gradient`, which is by GELU(x), becomes that by x; to 5e-7 (1 + |x|) of it. If there are more of one than of the
    /// other, those are left alone.
    pub fn backward(self, x: &[f32], gradient: &mut [f32]) {
        self.0.run(GeluBackward { x, gradient });
    }
}

struct GeluForward<'a>(&'a mut [f32]);

impl Kernel for GeluForward<'_> {
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
                    s.store(x.add(i), propagate_nonfinite(s, at, gelu(s, at)));
                },
                |i, left| {
                    let at = s.load_part(x.add(i), left);
                    s.store_part(x.add(i), propagate_nonfinite(s, at, gelu(s, at)), left);
                },
            );
        }
    }
}

struct GeluBackward<'a> {
    x: &'a [f32],
    gradient: &'a mut [f32],
}

impl Kernel for GeluBackward<'_> {
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
                    let slope = propagate_nonfinite(s, at, gelu_slope(s, at));
                    s.store(gradient.add(i), s.mul(s.load(gradient.add(i)), slope));
                },
                |i, left| {
                    let at = s.load_part(x.add(i), left);
                    let slope = propagate_nonfinite(s, at, gelu_slope(s, at));
                    s.store_part(gradient.add(i), s.mul(s.load_part(gradient.add(i), left), slope), left);
                },
            );
        }
    }
}

/// `y`, or NaN where the `x` that it is of is not finite: the functions take no notice of that.
#[inline(always)]
fn propagate_nonfinite<S: Simd>(s: S, x: S::F, y: S::F) -> S::F {
    s.add(y, s.sub(x, x))
}
