//! Rows of activations in the format that a linear takes: f32, or quantised to 8 or 16 bits row by row.
//!
//! A quantised row has a scale and a zero of its own, so that no row's result depends on another's.

use super::buffer::Aligned;
use super::norm::{Norm, layer_norm, vectors};
use super::simd::Simd;

/// The number format of a linear's inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ActivationFormat {
    /// As they are.
    #[default]
    F32,
    /// Quantised to 8 bits.
    U8,
    /// Quantised to 16 bits, held as two rows of bytes: the high ones, then the low ones.
    U16,
}

impl ActivationFormat {
    /// Bytes of a quantised number.
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 0,
            Self::U8 => 1,
            Self::U16 => 2,
        }
    }

    /// The largest quantised number.
    fn max(self) -> f32 {
        if self == Self::U16 { 65_535.0 } else { 255.0 }
    }
}

/// Where rows begin, in floats from a base.
#[derive(Clone, Copy)]
pub(super) enum RowOffsets<'a> {
    /// Row i at i times this.
    Strided(usize),
    /// Row i where the list says.
    Listed(&'a [usize]),
}

impl RowOffsets<'_> {
    /// Where row `i` begins.
    #[inline(always)]
    pub(super) fn get(self, i: usize) -> usize {
        match self {
            Self::Strided(stride) => i * stride,
            Self::Listed(offsets) => offsets[i],
        }
    }
}

/// Rows in the format that a linear takes.
#[derive(Default)]
pub(super) struct Rows {
    format: ActivationFormat,
    /// f32, `float_stride` from one row to the next.
    floats: Aligned<f32>,
    float_stride: usize,
    /// Quantised rows, `stride` from one to the next; what is behind `k` meets weights of zero. Bytes, read as `Simd::Quantized`.
    quantized: Aligned<u8>,
    stride: usize,
    /// From a row's high bytes to its low ones, where it has both.
    low: usize,
    /// Of each row: x = scale * quantised + shift.
    scales: Vec<f32>,
    /// Of each row: -scale * zero.
    shifts: Vec<f32>,
}

/// Elements of `size` bytes from one row of `k` to the next: whole cache lines, and an odd number of them. Rows that are a
/// multiple of a power of two apart would compete for the same few sets of the first cache.
pub(super) fn row_stride(k: usize, size: usize) -> usize {
    let line = 64 / size;
    (k.div_ceil(line) | 1) * line
}

impl Rows {
    /// Makes room for `m` rows of `k`.
    pub(super) fn fit<S: Simd>(&mut self, m: usize, k: usize, format: ActivationFormat) {
        self.format = format;
        self.float_stride = row_stride(k, size_of::<f32>());
        self.floats.fit(m * self.float_stride);
        if self.is_quantized() {
            self.low = row_stride(k, size_of::<S::Quantized>());
            self.stride = format.bytes() * self.low;
            // The last group of a row that is cut into spans may be read whole, behind the row.
            self.quantized.fit((m * self.stride + S::GROUP) * size_of::<S::Quantized>());
            self.scales.resize(self.scales.len().max(m), 0.0);
            self.shifts.resize(self.shifts.len().max(m), 0.0);
        }
    }

    /// The number format.
    pub(super) fn format(&self) -> ActivationFormat {
        self.format
    }

    fn is_quantized(&self) -> bool {
        self.format != ActivationFormat::F32
    }

    /// The rows before they are quantised, and the floats from one to the next: for those who fill them in place and call
    /// [`quantize_rows`](Self::quantize_rows).
    pub(super) fn floats_mut(&mut self) -> (&mut [f32], usize) {
        (self.floats.as_mut_slice(), self.float_stride)
    }

    /// The rows of f32.
    #[inline(always)]
    pub(super) fn floats(&self) -> (*const f32, usize) {
        (self.floats.as_slice().as_ptr(), self.float_stride)
    }

    /// The quantised rows, the elements from one to the next, and those from a row's high bytes to its low ones.
    #[inline(always)]
    pub(super) fn quantized<S: Simd>(&self) -> (*const S::Quantized, usize, usize) {
        (self.quantized.as_slice().as_ptr().cast(), self.stride, self.low)
    }

    /// Scales and shifts of the quantised rows: x = scale * quantised + shift.
    #[inline(always)]
    pub(super) fn scales_and_shifts(&self) -> (&[f32], &[f32]) {
        (&self.scales, &self.shifts)
    }

    /// Takes all rows of `x`, which are of `k`.
    ///
    /// # Safety
    /// [`fit`](Self::fit) must have made room for as many rows of `k`, for this instruction set.
    #[inline(always)]
    pub(super) unsafe fn set<S: Simd>(&mut self, s: S, x: &[f32], k: usize) {
        for (i, x) in x.chunks_exact(k).enumerate() {
            if self.is_quantized() {
                // SAFETY: x has k floats; by this function's contract there is room for the row.
                unsafe { self.quantize_row(s, i, x.as_ptr(), k) };
            } else {
                self.floats.as_mut_slice()[i * self.float_stride..][..k].copy_from_slice(x);
            }
        }
    }

    /// Takes the norms of `m` rows of `x`. False if a number is not finite or too large.
    ///
    /// # Safety
    /// Rows as long as the norm must be readable at `x` and the offsets; `fit` must have made room for them.
    #[inline(always)]
    pub(super) unsafe fn set_normalized<S: Simd>(
        &mut self,
        s: S,
        norm: &Norm,
        x: *const f32,
        offsets: RowOffsets,
        m: usize,
    ) -> bool {
        let mut finite = true;
        for i in 0..m {
            // SAFETY: by this function's contract. Rows to be quantised pass through the first row, which stays in the cache.
            unsafe {
                let at = if self.is_quantized() { 0 } else { i * self.float_stride };
                let row = self.floats.as_mut_slice().as_mut_ptr().add(at);
                finite &= layer_norm(s, norm, x.add(offsets.get(i)), row);
                if self.is_quantized() {
                    self.quantize_row(s, i, row, norm.len());
                }
            }
        }
        finite
    }

    /// Quantises the first `m` rows of `k` that were written as floats, if the format asks for it.
    ///
    /// # Safety
    /// `fit` must have made room for them.
    #[inline(always)]
    pub(super) unsafe fn quantize_rows<S: Simd>(&mut self, s: S, m: usize, k: usize) {
        if self.is_quantized() {
            for i in 0..m {
                // SAFETY: by this function's contract.
                unsafe {
                    let row = self.floats.as_slice().as_ptr().add(i * self.float_stride);
                    self.quantize_row(s, i, row, k);
                }
            }
        }
    }

    /// Quantises `k` floats at `x`, as row `i`.
    ///
    /// # Safety
    /// They must be readable, and `fit` must have made room for the row.
    #[inline(always)]
    unsafe fn quantize_row<S: Simd>(&mut self, s: S, i: usize, x: *const f32, k: usize) {
        debug_assert!((i + 1) * self.stride * size_of::<S::Quantized>() <= self.quantized.as_slice().len());
        // SAFETY: by this function's contract; the quantised row is as long as k rounded up to whole vectors.
        unsafe {
            let quantized = self.quantized.as_mut_slice().as_mut_ptr().cast::<S::Quantized>().add(i * self.stride);
            let (scale, zero) = quantize(s, x, k, quantized, self.format, self.low);
            *self.scales.get_unchecked_mut(i) = scale;
            *self.shifts.get_unchecked_mut(i) = -scale * zero;
        }
    }
}

/// Quantises a row: the range from its least to its greatest element (and 0) in 255 or 65,535 steps. Returns scale and zero.
/// Low bytes are stored `low_bytes` elements behind high ones.
///
/// The result is the same on every instruction set: no operation here may be fused or reordered.
///
/// # Safety
/// `k` floats must be readable at `x`, and k elements, rounded up to whole vectors, writable at `quantized` and, for 16 bits,
/// at `quantized + low_bytes`.
#[inline(always)]
unsafe fn quantize<S: Simd>(
    s: S,
    x: *const f32,
    k: usize,
    quantized: *mut S::Quantized,
    format: ActivationFormat,
    low_bytes: usize,
) -> (f32, f32) {
    let max = format.max();
    // SAFETY: all offsets are below k, or below k rounded up for what is written.
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
        let (high, low) = (s.reduce_max(s.max(high, end.0)), s.reduce_min(s.min(low, end.1)));
        // The floor keeps 1 / scale finite for rows of zeros and of denormals: what is below it counts as zero.
        let scale = (high / max - low / max).max(1e-30);
        let inverse = 1.0 / scale;
        let zero = (-low * inverse).clamp(0.0, max).round_ties_even();
        let quantizer = Quantizer {
            inverse: s.splat(inverse),
            zero: s.splat(zero),
            max: s.splat(max),
            low: (format == ActivationFormat::U16).then_some(low_bytes),
        };
        vectors!(S, k, |i| quantizer.store(s, s.load(x.add(i)), quantized.add(i)), |i, left| {
            quantizer.store(s, s.load_part(x.add(i), left), quantized.add(i));
        });
        (scale, zero)
    }
}

/// What quantises a row's numbers.
struct Quantizer<S: Simd> {
    inverse: S::F,
    zero: S::F,
    max: S::F,
    /// From high bytes to low ones, for 16 bits.
    low: Option<usize>,
}

impl<S: Simd> Quantizer<S> {
    /// Quantises a vector and writes it.
    ///
    /// # Safety
    /// LANES elements must be writable at `quantized`, and at the low bytes if there are any.
    #[inline(always)]
    unsafe fn store(&self, s: S, x: S::F, quantized: *mut S::Quantized) {
        let q = s.min(s.max(s.add(s.mul(x, self.inverse), self.zero), s.splat(0.0)), self.max);
        // SAFETY: by this function's contract.
        unsafe {
            if let Some(low_bytes) = self.low {
                let (high, low) = bytes(s, q);
                s.store_quantized(quantized, high);
                s.store_quantized(quantized.add(low_bytes), low);
            } else {
                s.store_quantized(quantized, q);
            }
        }
    }
}

/// High and low byte of 16 bits, before they are rounded.
#[inline(always)]
fn bytes<S: Simd>(s: S, q: S::F) -> (S::F, S::F) {
    let q = s.round(q);
    // A whole number less 127.5 is never half way between two multiples of 256.
    let high = s.round(s.mul(s.sub(q, s.splat(127.5)), s.splat(1.0 / 256.0)));
    (high, s.sub(q, s.mul(high, s.splat(256.0))))
}
