//! softmax(q k^T + bias) v for one head of one window or text.
//!
//! Queries, keys and values lie side by side in rows, as a linear made them. Scores are in units of ln 2, so that the softmax is of
//! powers of two. The columns behind the last token are scored as well: a bias of [`MASKED_SCORE`] makes their share nothing.

use super::buffer::Aligned;
use super::gemm::{by_height, float_tile};
use super::math::exp2;
use super::simd::{Kernel, Simd};

/// A score that no sum of others brings back: its share is 2^-100 of the largest ([`exp2`]), which is nothing in f32.
pub(super) const MASKED_SCORE: f32 = -1e30;

/// Sizes that all heads share.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionShape {
    /// Queries, and keys.
    pub(super) tokens: usize,
    /// Floats of a query, a key or a value.
    pub(super) size: usize,
    /// Floats from one token's query to the next one's, and so for keys and values.
    pub(super) stride: usize,
    /// Floats from one token's output to the next one's.
    pub(super) out_stride: usize,
    /// Floats of a row of biases and scores: a multiple of [`WIDTH`], at least `tokens`.
    pub(super) width: usize,
}

/// Rows of scores are padded to a multiple of this: no instruction set's tile is wider.
pub(super) const WIDTH: usize = 32;

/// Memory for one head: its keys, transposed, and some rows of scores.
#[derive(Default)]
pub(super) struct AttentionScratch {
    keys: Aligned<f32>,
    scores: Aligned<f32>,
}

/// Rows of queries that are scored at a time; a multiple of every tile's height but the last.
const QUERIES: usize = 24;

impl AttentionScratch {
    /// Makes room for heads of this shape.
    pub(super) fn fit(&mut self, shape: AttentionShape, lanes: usize) {
        self.keys.fit(shape.size.next_multiple_of(lanes) * shape.width);
        self.scores.fit(QUERIES * shape.width);
    }
}

/// One head's pointers.
#[derive(Clone, Copy)]
pub(super) struct HeadPointers {
    pub(super) query: *const f32,
    pub(super) key: *const f32,
    pub(super) value: *const f32,
    /// Added to scores: row i, column j at i * `bias_stride` + j, for j up to the width.
    pub(super) bias: *const f32,
    pub(super) bias_stride: usize,
    /// Added as well, with a stride of the width; or null.
    pub(super) mask: *const f32,
    pub(super) out: *mut f32,
}

/// Attention of one head, as a kernel of its own.
pub(super) struct AttentionHead<'a> {
    shape: AttentionShape,
    head: HeadPointers,
    scratch: &'a mut AttentionScratch,
}

impl<'a> AttentionHead<'a> {
    /// # Safety
    /// As [`attend`].
    pub(super) unsafe fn new(shape: AttentionShape, head: HeadPointers, scratch: &'a mut AttentionScratch) -> Self {
        Self { shape, head, scratch }
    }
}

impl Kernel for AttentionHead<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: by the contract of `new`.
        unsafe { attend(s, self.shape, self.head, self.scratch) }
    }
}

/// Attention of one head.
///
/// # Safety
/// `shape.tokens` rows of `shape.size` floats must be readable at query, key and value, and LANES^2 * 2 floats behind the
/// last of a row or column must lie in the same allocation as the keys and values (they are read and not used); `out` must be
/// writable likewise. `scratch` must have been fitted.
#[inline(always)]
unsafe fn attend<S: Simd>(s: S, shape: AttentionShape, head: HeadPointers, scratch: &mut AttentionScratch) {
    let keys = scratch.keys.as_mut_slice().as_mut_ptr();
    let scores = scratch.scores.as_mut_slice().as_mut_ptr();
    // SAFETY: by this function's contract, which holds for every block of queries.
    unsafe {
        transpose_keys(s, shape, head.key, keys);
        let mut first = 0;
        while first < shape.tokens {
            let m = QUERIES.min(shape.tokens - first);
            match S::VECTORS {
                2 => score::<S, 2>(s, shape, head, first, m, keys, scores),
                3 => score::<S, 1>(s, shape, head, first, m, keys, scores),
                _ => score::<S, 4>(s, shape, head, first, m, keys, scores),
            }
            mix(s, shape, head, first, m, scores);
            first += m;
        }
    }
}

/// Keys [tokens][size] to columns [size][width], zeros behind the last.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn transpose_keys<S: Simd>(s: S, shape: AttentionShape, from: *const f32, to: *mut f32) {
    // SAFETY: whole blocks are read by the contract, and written into memory that is as large.
    unsafe {
        for j in (0..shape.tokens).step_by(S::LANES) {
            for d in (0..shape.size).step_by(S::LANES) {
                s.transpose(from.add(j * shape.stride + d), shape.stride, to.add(d * shape.width + j), shape.width);
            }
        }
        if shape.tokens < shape.width {
            for d in 0..shape.size {
                let row = to.add(d * shape.width);
                (shape.tokens..shape.width).for_each(|j| row.add(j).write(0.0));
            }
        }
    }
}

/// Scores of `m` queries from `first` on, as powers of two: rows of numbers up to 1, each row's largest 1.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn score<S: Simd, const V: usize>(
    s: S,
    shape: AttentionShape,
    head: HeadPointers,
    first: usize,
    m: usize,
    keys: *const f32,
    scores: *mut f32,
) {
    let scale = s.splat(std::f32::consts::LOG2_E / (shape.size as f32).sqrt());
    // SAFETY: `WIDTH` is a multiple of V * LANES, so that whole tiles of columns fit into a row.
    unsafe {
        by_height!(S, m, |i, M| {
            let query = head.query.add((first + i) * shape.stride);
            for j in (0..shape.width).step_by(V * S::LANES) {
                let load = |at| s.load(at);
                let tile =
                    float_tile::<S, M, V, f32>(s, query, shape.stride, keys.add(j), shape.width, shape.size, load);
                for (r, row) in tile.iter().enumerate() {
                    let bias = head.bias.add((first + i + r) * head.bias_stride + j);
                    for (v, value) in row.iter().enumerate() {
                        let at = v * S::LANES;
                        let mut value = s.fma(*value, scale, s.load(bias.add(at)));
                        if !head.mask.is_null() {
                            value = s.add(value, s.load(head.mask.add((first + i + r) * shape.width + j + at)));
                        }
                        s.store(scores.add((i + r) * shape.width + j + at), value);
                    }
                }
            }
        });
    }
}

/// Softmax of `m` rows of scores, and the values mixed by it.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn mix<S: Simd>(s: S, shape: AttentionShape, head: HeadPointers, first: usize, m: usize, scores: *mut f32) {
    let mut inverse = [0.0; QUERIES];
    // SAFETY: rows of scores are `width` floats, whole vectors; values by `attend`'s contract.
    unsafe {
        for (i, inverse) in inverse.iter_mut().enumerate().take(m) {
            *inverse = 1.0 / softmax_numerators(s, scores.add(i * shape.width), shape.width);
        }
        let mut d = 0;
        while d < shape.size {
            // Two vectors of a head's numbers at a time, or the last one.
            let pair = shape.size - d > S::LANES;
            by_height!(S, m, |i, M| {
                let (row, inverse) = (scores.add(i * shape.width), &inverse[i..]);
                if pair {
                    mix_tile::<S, M, 2>(s, shape, head, first + i, d, row, inverse);
                } else {
                    mix_tile::<S, M, 1>(s, shape, head, first + i, d, row, inverse);
                }
            });
            d += if pair { 2 * S::LANES } else { S::LANES };
        }
    }
}

/// A row of scores becomes the numerators of its softmax: powers of two, the largest 1. Returns their sum.
///
/// # Safety
/// `width` floats, whole vectors.
#[inline(always)]
unsafe fn softmax_numerators<S: Simd>(s: S, row: *mut f32, width: usize) -> f32 {
    // SAFETY: by this function's contract.
    unsafe {
        let mut max = s.load(row);
        for j in (S::LANES..width).step_by(S::LANES) {
            max = s.max(max, s.load(row.add(j)));
        }
        let max = s.splat(s.reduce_max(max));
        let mut sum = s.splat(0.0);
        for j in (0..width).step_by(S::LANES) {
            let numerator = exp2(s, s.sub(s.load(row.add(j)), max));
            sum = s.add(sum, numerator);
            s.store(row.add(j), numerator);
        }
        s.reduce_add(sum)
    }
}

/// M rows of scores times V vectors of values from column `d` on, divided by the rows' sums.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn mix_tile<S: Simd, const M: usize, const V: usize>(
    s: S,
    shape: AttentionShape,
    head: HeadPointers,
    row: usize,
    d: usize,
    scores: *const f32,
    inverse: &[f32],
) {
    // SAFETY: by this function's contract; no column at or behind `size` is written.
    unsafe {
        let values = head.value.add(d);
        let tile =
            float_tile::<S, M, V, f32>(s, scores, shape.width, values, shape.stride, shape.tokens, |at| s.load(at));
        for r in 0..M {
            let inverse = s.splat(*inverse.get_unchecked(r));
            for v in 0..V {
                let column = d + v * S::LANES;
                let at = head.out.add((row + r) * shape.out_stride + column);
                let value = s.mul(tile[r][v], inverse);
                if column + S::LANES <= shape.size {
                    s.store(at, value);
                } else if column < shape.size {
                    s.store_part(at, value, shape.size - column);
                }
            }
        }
    }
}
