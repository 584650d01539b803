//! Layer norm of one row, and the loop over a row's vectors that all element-wise kernels share.

use anyhow::{Result, ensure};

use super::simd::Simd;

/// Weight, bias and epsilon of a layer norm.
#[derive(Clone, Debug)]
pub struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) epsilon: f32,
}

impl Norm {
    /// y = (x - mean) / sqrt(variance + `epsilon`) * `weight` + `bias`, over rows as long as `weight` and `bias`.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, epsilon: f32) -> Self {
        Self { weight, bias, epsilon }
    }

    /// Length of a row.
    pub fn len(&self) -> usize {
        self.weight.len()
    }

    /// Refuses a norm that is not over `width` elements, or has numbers that are not finite.
    pub(super) fn check(&self, width: usize) -> Result<()> {
        let (weights, biases) = (self.weight.len(), self.bias.len());
        ensure!((weights, biases) == (width, width), "a norm over {width} has {weights} weights and {biases} biases");
        ensure!(self.epsilon > 0.0, "a norm's epsilon is {}; it must be above 0", self.epsilon);
        ensure!(self.weight.iter().chain(&self.bias).all(|x| x.is_finite()), "a norm has a weight that is not finite");
        Ok(())
    }

    /// Whether rows have no elements.
    pub fn is_empty(&self) -> bool {
        self.weight.is_empty()
    }
}

/// `full` at every whole vector of a row of `n` floats, and `part` at what is left, if anything is.
///
/// Not a function that takes closures: a closure that the compiler does not inline has none of the set's instructions, and
/// calls a function for each (measured: the audio tower in int8 took 1.8 times as long).
macro_rules! vectors {
    ($S:ident, $n:expr, |$i:ident| $full:expr, |$rest:ident, $left:ident| $part:expr $(,)?) => {{
        let n = $n;
        let whole = n - n % $S::LANES;
        let mut i = 0;
        while i < whole {
            let $i = i;
            $full;
            i += $S::LANES;
        }
        if whole < n {
            let ($rest, $left) = (whole, n - whole);
            $part;
        }
    }};
}
pub(super) use vectors;

/// Layer norm of `x` into `y`. False if an element is not finite, or so large (1e18) that its square may not be.
///
/// # Safety
/// `norm.len()` floats must be readable at `x` and writable at `y`. They may be the same.
#[inline(always)]
pub(super) unsafe fn layer_norm<S: Simd>(s: S, norm: &Norm, x: *const f32, y: *mut f32) -> bool {
    let n = norm.weight.len();
    let (weight, bias) = (norm.weight.as_ptr(), norm.bias.as_ptr());
    // SAFETY: all offsets are below n, by this function's contract; `Norm`'s users checked that the two are as long.
    unsafe {
        let mut sum = s.splat(0.0);
        let mut rest = 0.0;
        vectors!(S, n, |i| sum = s.add(sum, s.load(x.add(i))), |i, left| rest =
            s.reduce_add(s.load_part(x.add(i), left)));
        let mean = (s.reduce_add(sum) + rest) / n as f32;
        let means = s.splat(mean);
        let mut squares = s.splat(0.0);
        let mut more = 0.0;
        vectors!(
            S,
            n,
            |i| {
                let d = s.sub(s.load(x.add(i)), means);
                squares = s.fma(d, d, squares);
            },
            |i, left| more = (i..i + left).map(|i| (*x.add(i) - mean).powi(2)).sum(),
        );
        let variance = (s.reduce_add(squares) + more) / n as f32;
        let scale = s.splat(1.0 / (variance + norm.epsilon).sqrt());
        vectors!(
            S,
            n,
            |i| {
                let d = s.mul(s.sub(s.load(x.add(i)), means), scale);
                s.store(y.add(i), s.fma(d, s.load(weight.add(i)), s.load(bias.add(i))));
            },
            |i, left| {
                let d = s.mul(s.sub(s.load_part(x.add(i), left), means), scale);
                let (weight, bias) = (s.load_part(weight.add(i), left), s.load_part(bias.add(i), left));
                s.store_part(y.add(i), s.fma(d, weight, bias), left);
            },
        );
        variance.is_finite()
    }
}
