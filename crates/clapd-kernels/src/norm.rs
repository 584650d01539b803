//! Rows of activations: layer norm, and codes of 8 or 16 bits.
//!
//! In: rows of f32. Out: rows of f32, or codes with a scale and a zero for each row.
//! Never: mixes rows.

use anyhow::{Result, ensure};

use super::buffer::Aligned;
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
        vectors!(S, n, |i| sum = s.add(sum, s.load(x.add(i))), |i, left| rest = s.sum(s.load_part(x.add(i), left)));
        let mean = (s.sum(sum) + rest) / n as f32;
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
        let variance = (s.sum(squares) + more) / n as f32;
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

/// How a linear wants its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are.
    #[default]
    Floats,
    /// Codes of 8 bits.
    Byte,
    /// Codes of 16 bits, held as two rows of bytes: the high ones, then the low ones.
    TwoBytes,
}

impl Coding {
    /// Bytes of a code.
    fn bytes(self) -> usize {
        match self {
            Self::Floats => 0,
            Self::Byte => 1,
            Self::TwoBytes => 2,
        }
    }

    /// The largest code.
    fn most(self) -> f32 {
        if self == Self::TwoBytes { 65_535.0 } else { 255.0 }
    }
}

/// Rows as a linear wants them: as they are, or as codes.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) coding: Coding,
    /// f32, `float_stride` from one row to the next.
    pub(super) floats: Aligned<f32>,
    pub(super) float_stride: usize,
    /// Codes, `stride` from one row to the next; codes behind `k` meet weights of zero. Bytes, read as `Simd::Code`.
    pub(super) codes: Aligned<u8>,
    pub(super) stride: usize,
    /// From a row's high bytes to its low ones, where it has both.
    pub(super) low: usize,
    /// Of each row: x = scale * code + shift.
    pub(super) scales: Vec<f32>,
    /// Of each row: -scale * zero.
    pub(super) shifts: Vec<f32>,
}

/// Elements of `size` bytes from one row of `k` to the next: whole cache lines, and an odd number of them. Rows that are a
/// multiple of a power of two apart would compete for the same few places of the first cache.
pub(super) fn spread(k: usize, size: usize) -> usize {
    let line = 64 / size;
    (k.div_ceil(line) | 1) * line
}

impl Rows {
    /// Room for `m` rows of `k`.
    pub(super) fn fit<S: Simd>(&mut self, m: usize, k: usize, coding: Coding) {
        self.coding = coding;
        self.float_stride = spread(k, size_of::<f32>());
        self.floats.fit(m * self.float_stride);
        if self.coded() {
            self.low = spread(k, size_of::<S::Code>());
            self.stride = coding.bytes() * self.low;
            // The last group of a row that is cut into spans may be read whole, behind the row.
            self.codes.fit((m * self.stride + S::GROUP) * size_of::<S::Code>());
            self.scales.resize(self.scales.len().max(m), 0.0);
            self.shifts.resize(self.shifts.len().max(m), 0.0);
        }
    }

    /// Whether rows are codes.
    pub(super) fn coded(&self) -> bool {
        self.coding != Coding::Floats
    }

    /// Makes codes of `k` floats at `x`, as row `i`.
    ///
    /// # Safety
    /// They must be readable, and `fit` must have made room for the row.
    #[inline(always)]
    pub(super) unsafe fn code<S: Simd>(&mut self, s: S, i: usize, x: *const f32, k: usize) {
        debug_assert!((i + 1) * self.stride * size_of::<S::Code>() <= self.codes.as_slice().len());
        // SAFETY: by this function's contract; the row of codes is as long as k rounded up to whole vectors.
        unsafe {
            let codes = self.codes.as_mut_slice().as_mut_ptr().cast::<S::Code>().add(i * self.stride);
            let (scale, zero) = quantize(s, x, k, codes, self.coding, self.low);
            *self.scales.get_unchecked_mut(i) = scale;
            *self.shifts.get_unchecked_mut(i) = -scale * zero;
        }
    }
}

/// Makes codes of a row: the range from its least to its greatest element (and 0) in 255 or 65,535 steps. Gives scale and
/// zero. Low bytes are stored `low` codes behind high ones.
///
/// Codes are the same on every instruction set: no operation here may be fused or reordered.
///
/// # Safety
/// `k` floats must be readable at `x`, and k codes, rounded up to whole vectors, writable at `codes` and, for 16 bits, at
/// `codes + low_bytes`.
#[inline(always)]
pub(super) unsafe fn quantize<S: Simd>(
    s: S,
    x: *const f32,
    k: usize,
    codes: *mut S::Code,
    coding: Coding,
    low_bytes: usize,
) -> (f32, f32) {
    let most = coding.most();
    // SAFETY: all offsets are below k, or below k rounded up for codes.
    unsafe {
        let (mut high, mut low) = (s.splat(0.0), s.splat(0.0));
        let mut end = (s.splat(0.0), s.splat(0.0));
        vectors!(
            S,
            k,
            |i| {
                let x = s.load(x.add(i));
                high = s.max(high, x);
                low = s.min(low, x);
            },
            |i, left| end = (s.load_part(x.add(i), left), s.load_part(x.add(i), left)),
        );
        let (high, low) = (s.top(s.max(high, end.0)), s.bottom(s.min(low, end.1)));
        // The floor keeps 1 / scale finite for rows of zeros and of denormals: what is below it counts as zero.
        let scale = (high / most - low / most).max(1e-30);
        let inverse = 1.0 / scale;
        let zero = (-low * inverse).clamp(0.0, most).round_ties_even();
        let coder = Coder {
            inverse: s.splat(inverse),
            zero: s.splat(zero),
            most: s.splat(most),
            low: (coding == Coding::TwoBytes).then_some(low_bytes),
        };
        vectors!(S, k, |i| coder.store(s, s.load(x.add(i)), codes.add(i)), |i, left| {
            coder.store(s, s.load_part(x.add(i), left), codes.add(i));
        });
        (scale, zero)
    }
}

/// What makes codes of a row's numbers.
struct Coder<S: Simd> {
    inverse: S::F,
    zero: S::F,
    most: S::F,
    /// From high bytes to low ones, for codes of 16 bits.
    low: Option<usize>,
}

impl<S: Simd> Coder<S> {
    /// Writes the codes of a vector.
    ///
    /// # Safety
    /// LANES codes must be writable at `codes`, and at the low bytes if there are any.
    #[inline(always)]
    unsafe fn store(&self, s: S, x: S::F, codes: *mut S::Code) {
        let code = s.min(s.max(s.add(s.mul(x, self.inverse), self.zero), s.splat(0.0)), self.most);
        // SAFETY: by this function's contract.
        unsafe {
            if let Some(low_bytes) = self.low {
                let (high, low) = bytes(s, code);
                s.store_codes(codes, high);
                s.store_codes(codes.add(low_bytes), low);
            } else {
                s.store_codes(codes, code);
            }
        }
    }
}

/// High and low byte of codes of 16 bits, before they are rounded.
#[inline(always)]
fn bytes<S: Simd>(s: S, code: S::F) -> (S::F, S::F) {
    let code = s.round(code);
    // A whole number less 127.5 is never half way between two multiples of 256.
    let high = s.round(s.mul(s.sub(code, s.splat(127.5)), s.splat(1.0 / 256.0)));
    (high, s.sub(code, s.mul(high, s.splat(256.0))))
}
