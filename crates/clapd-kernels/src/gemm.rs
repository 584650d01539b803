//! Rows times packed weights: the loops around a tile, and what is done with a tile's sums before they are stored.
//!
//! A panel of weights stays in the first cache while all rows go past it. Results go to rows anywhere in memory.

use super::activations::{ActivationFormat, RowOffsets, Rows};
use super::math::gelu;
use super::simd::{Kernel, PREFETCH_BYTES, Simd};
use super::weights::{Int8Weights, PackedLinear, Weights};

/// What is done with a sum before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    Store,
    /// x/2 (1 + erf(x / sqrt 2)).
    Gelu,
    /// max(x, 0).
    Relu,
    /// Added to what is in the output.
    Add,
}

/// Where rows go: row i to `base` and its offset.
#[derive(Clone, Copy)]
pub(super) struct OutputRows<'a> {
    pub(super) base: *mut f32,
    pub(super) offsets: RowOffsets<'a>,
}

/// The product of the first `m` rows and a linear's weights. Its fields are a promise: see [`Gemm::new`].
pub(super) struct Gemm<'a> {
    linear: &'a PackedLinear,
    rows: &'a Rows,
    m: usize,
    out: OutputRows<'a>,
    epilogue: Epilogue,
}

impl<'a> Gemm<'a> {
    /// # Safety
    /// `rows` must hold `m` rows of `linear.k` in `linear.format`, set by the instruction set that this is run with and that
    /// `linear` was packed for; at each of the first `m` offsets of `out`, `linear.n` floats must be writable and initialised.
    pub(super) unsafe fn new(
        linear: &'a PackedLinear,
        rows: &'a Rows,
        m: usize,
        out: OutputRows<'a>,
        epilogue: Epilogue,
    ) -> Self {
        debug_assert!(rows.format() == linear.format);
        Self { linear, rows, m, out, epilogue }
    }
}

/// Calls a generic function with the largest tile height that the instruction set and the rows left allow.
macro_rules! by_height {
    ($S:ty, $m:expr, |$i:ident, $M:ident| $body:expr) => {{
        let mut $i = 0;
        while $i < $m {
            let left = $m - $i;
            if <$S>::ROWS >= 12 && left >= 12 {
                const $M: usize = 12;
                $body;
                $i += 12;
            } else if <$S>::ROWS >= 8 && left >= 8 {
                const $M: usize = 8;
                $body;
                $i += 8;
            } else if <$S>::ROWS == 6 && left >= 6 {
                const $M: usize = 6;
                $body;
                $i += 6;
            } else if left >= 4 {
                const $M: usize = 4;
                $body;
                $i += 4;
            } else {
                const $M: usize = 1;
                $body;
                $i += 1;
            }
        }
    }};
}
pub(super) use by_height;

impl Kernel for Gemm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: by the contract of `Gemm::new`; V is the instruction set's number of vectors.
        unsafe {
            match S::VECTORS {
                2 => self.panels::<S, 2>(s),
                3 => self.panels::<S, 3>(s),
                _ => self.panels::<S, 4>(s),
            }
        }
    }
}

impl Gemm<'_> {
    /// # Safety
    /// As `new`; V must be `S::VECTORS`.
    #[inline(always)]
    unsafe fn panels<S: Simd, const V: usize>(&self, s: S) {
        let (n, width) = (self.linear.n, V * S::LANES);
        for column in (0..n).step_by(width) {
            // SAFETY: by this function's contract; columns are below n rounded up to panels, for which weights, scales, sums
            // and biases exist.
            unsafe {
                match &self.linear.weights {
                    Weights::Int8(w) => match (w.spans, self.rows.format()) {
                        (1, ActivationFormat::U16) => {
                            by_height!(S, self.m, |i, M| self.int8::<S, M, V, 2>(s, w, i, column));
                        }
                        (1, _) => by_height!(S, self.m, |i, M| self.int8::<S, M, V, 1>(s, w, i, column)),
                        (_, ActivationFormat::U16) => by_half_height::<S, V, 2>(self, s, w, column),
                        _ => by_half_height::<S, V, 1>(self, s, w, column),
                    },
                    Weights::F32(w) => {
                        let w = w.as_slice().as_ptr().add(column * self.linear.k);
                        by_height!(S, self.m, |i, M| self
                            .float::<S, M, V, f32>(s, w, i, column, |at| s.load(prefetch_behind(s, at))));
                    }
                    Weights::F16(w) => {
                        let w = w.as_slice().as_ptr().add(column * self.linear.k);
                        by_height!(S, self.m, |i, M| self
                            .float::<S, M, V, u16>(s, w, i, column, |at| s.load_half(prefetch_behind(s, at))));
                    }
                }
            }
        }
    }

    /// Sums of quantised activations times weights, from element `from` of rows i..i + M on, over `groups`; of B bytes each.
    ///
    /// # Safety
    /// As `panels`; `weights` and `sums` are a panel's, perhaps from a span of it on.
    #[inline(always)]
    unsafe fn sums<S: Simd, const M: usize, const V: usize, const B: usize>(
        &self,
        s: S,
        [i, from]: [usize; 2],
        weights: *const i8,
        sums: *const i32,
        groups: usize,
    ) -> [[S::F; V]; M] {
        let (quantized, stride, low) = self.rows.quantized::<S>();
        // SAFETY: by this function's contract; where B is 2, a row has low bytes too.
        unsafe {
            let quantized = quantized.add(i * stride + from);
            let mut values = [[s.splat(0.0); V]; M];
            let high = s.tile::<M, V>(quantized, stride, weights, sums, groups, PREFETCH_BYTES);
            for r in 0..M {
                for j in 0..V {
                    values[r][j] = s.to_f32(high[r][j]);
                }
            }
            if B == 2 {
                // These weights are in the cache by now. While they are used again, those of the next panel come.
                let panel = groups * S::GROUP * V * S::LANES;
                let low_sums = s.tile::<M, V>(quantized.add(low), stride, weights, sums, groups, panel);
                for r in 0..M {
                    for j in 0..V {
                        values[r][j] = s.fma(values[r][j], s.splat(256.0), s.to_f32(low_sums[r][j]));
                    }
                }
            }
            values
        }
    }

    /// A tile of int8 weights with one scale a column.
    ///
    /// # Safety
    /// As `panels`, for rows i..i + M and the panel that begins at `column`.
    #[inline(always)]
    unsafe fn int8<S: Simd, const M: usize, const V: usize, const B: usize>(
        &self,
        s: S,
        w: &Int8Weights,
        i: usize,
        column: usize,
    ) {
        let (row_scales, row_shifts) = self.rows.scales_and_shifts();
        // SAFETY: by this function's contract.
        unsafe {
            let weights = w.panels.as_slice().as_ptr().add(column * w.padded);
            let sums = w.sums.as_slice().as_ptr().add(column);
            let mut values = self.sums::<S, M, V, B>(s, [i, 0], weights, sums, w.padded / S::GROUP);
            for j in 0..V {
                let at = column + j * S::LANES;
                let scale = s.load(w.scales.as_slice().as_ptr().add(at));
                let shift = s.load(w.shifts.as_slice().as_ptr().add(at));
                let bias = s.load(self.linear.bias.as_slice().as_ptr().add(at));
                for r in 0..M {
                    let row_scale = s.splat(*row_scales.get_unchecked(i + r));
                    let row_shift = s.splat(*row_shifts.get_unchecked(i + r));
                    let value = s.mul(values[r][j], row_scale);
                    values[r][j] = s.fma(value, scale, s.fma(row_shift, shift, bias));
                }
            }
            self.store(s, &values, i, column);
        }
    }

    /// A tile of int8 weights with a scale for each column and span of k.
    ///
    /// # Safety
    /// As `int8`.
    #[inline(always)]
    unsafe fn spans<S: Simd, const M: usize, const V: usize, const B: usize>(
        &self,
        s: S,
        w: &Int8Weights,
        i: usize,
        column: usize,
    ) {
        let width = w.scales.as_slice().len() / w.spans;
        let (row_scales, row_shifts) = self.rows.scales_and_shifts();
        // SAFETY: by this function's contract; spans lie one behind the other in a row, and padded in the weights.
        unsafe {
            let mut total = [[s.splat(0.0); V]; M];
            for span in 0..w.spans {
                let weights =
                    w.panels.as_slice().as_ptr().add(column * w.padded * w.spans + span * w.padded * V * S::LANES);
                let at = span * width + column;
                let sums = w.sums.as_slice().as_ptr().add(at);
                let values = self.sums::<S, M, V, B>(s, [i, span * w.span], weights, sums, w.padded / S::GROUP);
                for j in 0..V {
                    let scale = s.load(w.scales.as_slice().as_ptr().add(at + j * S::LANES));
                    for r in 0..M {
                        total[r][j] = s.fma(values[r][j], scale, total[r][j]);
                    }
                }
            }
            for j in 0..V {
                let shift = s.load(w.shifts.as_slice().as_ptr().add(column + j * S::LANES));
                let bias = s.load(self.linear.bias.as_slice().as_ptr().add(column + j * S::LANES));
                for r in 0..M {
                    let row_scale = s.splat(*row_scales.get_unchecked(i + r));
                    let row_shift = s.splat(*row_shifts.get_unchecked(i + r));
                    total[r][j] = s.fma(total[r][j], row_scale, s.fma(row_shift, shift, bias));
                }
            }
            self.store(s, &total, i, column);
        }
    }

    /// A tile of floating-point weights, read by `load`.
    ///
    /// # Safety
    /// As `int8`; `w` is the panel, LANES elements of which `load` reads.
    #[inline(always)]
    unsafe fn float<S: Simd, const M: usize, const V: usize, T>(
        &self,
        s: S,
        w: *const T,
        i: usize,
        column: usize,
        load: impl Fn(*const T) -> S::F,
    ) {
        let k = self.linear.k;
        // SAFETY: by this function's contract.
        unsafe {
            let (rows, stride) = self.rows.floats();
            let rows = rows.add(i * stride);
            let mut values = float_tile::<S, M, V, T>(s, rows, stride, w, V * S::LANES, k, load);
            for j in 0..V {
                let bias = s.load(self.linear.bias.as_slice().as_ptr().add(column + j * S::LANES));
                for row in &mut values {
                    row[j] = s.add(row[j], bias);
                }
            }
            self.store(s, &values, i, column);
        }
    }

    /// Finishes a tile and writes those of its columns that exist.
    ///
    /// # Safety
    /// As `int8`.
    #[inline(always)]
    unsafe fn store<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        values: &[[S::F; V]; M],
        i: usize,
        column: usize,
    ) {
        let columns = self.linear.n - column;
        // SAFETY: offsets are those of `new`'s contract; no column at or behind n is touched.
        unsafe {
            for (r, row) in values.iter().enumerate() {
                let at = self.out.base.add(self.out.offsets.get(i + r) + column);
                for (j, value) in row.iter().enumerate() {
                    let at = at.add(j * S::LANES);
                    if columns >= (j + 1) * S::LANES {
                        let value = match self.epilogue {
                            Epilogue::Store => *value,
                            Epilogue::Gelu => gelu(s, *value),
                            Epilogue::Relu => s.max(*value, s.splat(0.0)),
                            Epilogue::Add => s.add(*value, s.load(at)),
                        };
                        s.store(at, value);
                    } else if columns > j * S::LANES {
                        let left = columns - j * S::LANES;
                        let value = match self.epilogue {
                            Epilogue::Store => *value,
                            Epilogue::Gelu => gelu(s, *value),
                            Epilogue::Relu => s.max(*value, s.splat(0.0)),
                            Epilogue::Add => s.add(*value, s.load_part(at, left)),
                        };
                        s.store_part(at, value, left);
                    }
                }
            }
        }
    }
}

/// Asks for the weights that come after those at `at`.
#[inline(always)]
fn prefetch_behind<S: Simd, T>(s: S, at: *const T) -> *const T {
    s.prefetch(at.wrapping_byte_add(PREFETCH_BYTES));
    at
}

/// Tiles of spans hold sums twice, as integers and as floats, so that they may have half as many rows.
///
/// # Safety
/// As [`Gemm::panels`].
#[inline(always)]
unsafe fn by_half_height<S: Simd, const V: usize, const B: usize>(gemm: &Gemm, s: S, w: &Int8Weights, column: usize) {
    let mut i = 0;
    while i < gemm.m {
        // SAFETY: by this function's contract; rows i.. exist.
        unsafe {
            if S::ROWS >= 8 && gemm.m - i >= 4 {
                gemm.spans::<S, 4, V, B>(s, w, i, column);
                i += 4;
            } else if gemm.m - i >= 2 {
                gemm.spans::<S, 2, V, B>(s, w, i, column);
                i += 2;
            } else {
                gemm.spans::<S, 1, V, B>(s, w, i, column);
                i += 1;
            }
        }
    }
}

/// M rows at `a` (`a_stride` floats from one to the next) times k rows of V vectors at `b` (`b_stride` elements apart).
///
/// # Safety
/// M rows of k floats must be readable at `a`, and V vectors at each of the k rows of `b`, by `load`.
#[inline(always)]
pub(super) unsafe fn float_tile<S: Simd, const M: usize, const V: usize, T>(
    s: S,
    a: *const f32,
    a_stride: usize,
    b: *const T,
    b_stride: usize,
    k: usize,
    load: impl Fn(*const T) -> S::F,
) -> [[S::F; V]; M] {
    let mut acc = [[s.splat(0.0); V]; M];
    for i in 0..k {
        // SAFETY: by this function's contract.
        unsafe {
            let b = b.add(i * b_stride);
            let mut weights = [s.splat(0.0); V];
            for (j, weights) in weights.iter_mut().enumerate() {
                *weights = load(b.add(j * S::LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.add(r * a_stride + i));
                for j in 0..V {
                    acc[j] = s.fma(x, weights[j], acc[j]);
                }
            }
        }
    }
    acc
}
