//! One thread's memory for what is between a block's linears, and the steps that blocks with attention share.
//!
//! A block fills the rows of [`Scratch::input`] or [`Scratch::input_mut`], and each step takes them from there: what a buffer
//! must have room for is said once, beside the step that needs it.

use super::activations::{RowOffsets, Rows, row_stride};
use super::attention::{AttentionHead, AttentionScratch, AttentionShape, HeadPointers, MASKED_SCORE};
use super::buffer::Aligned;
use super::gemm::{Epilogue, Gemm, OutputRows};
use super::simd::Simd;
use super::weights::PackedLinear;

/// What is added to the scores of a window or a text, in units of ln 2, in rows of the shape's width.
#[derive(Clone, Copy)]
pub(super) enum ScoreBias<'a> {
    /// The row of [`Scratch::set_padding`], for every head and query.
    Padding,
    /// A matrix for each head, one behind the other, and perhaps one more for all of them.
    Matrices { heads: &'a Aligned<f32>, mask: Option<&'a Aligned<f32>> },
}

/// One thread's memory. It grows to what the largest layer needs.
#[derive(Default)]
pub(super) struct Scratch {
    /// What goes into a linear.
    input: Rows,
    /// Queries, keys and values, row by row.
    qkv: Aligned<f32>,
    /// What attention makes.
    context: Rows,
    /// Between the two linears of a block.
    hidden: Rows,
    attention: AttentionScratch,
    /// A row of biases of scores.
    padding: Aligned<f32>,
    offsets: Vec<usize>,
}

impl Scratch {
    /// Room for `m` rows as `linear` takes them.
    pub(super) fn input<S: Simd>(&mut self, m: usize, linear: &PackedLinear) -> &mut Rows {
        self.input.fit::<S>(m, linear.k, linear.format);
        &mut self.input
    }

    /// The same, and `len` floats to gather what its rows are made of.
    pub(super) fn input_and_gathered<S: Simd>(
        &mut self,
        m: usize,
        linear: &PackedLinear,
        len: usize,
    ) -> (&mut Rows, &mut [f32]) {
        self.input.fit::<S>(m, linear.k, linear.format);
        self.qkv.fit(len);
        (&mut self.input, &mut self.qkv.as_mut_slice()[..len])
    }

    /// A list for offsets of rows, to be given back to [`keep_offsets`](Self::keep_offsets) so that its memory is used again.
    pub(super) fn take_offsets(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.offsets)
    }

    /// Keeps the memory of a list of offsets.
    pub(super) fn keep_offsets(&mut self, offsets: Vec<usize>) {
        self.offsets = offsets;
    }

    /// Makes one row of biases of what is added to the scores with each token; what is behind the last token is masked.
    pub(super) fn set_padding(&mut self, mask: &[f32], width: usize) {
        self.padding.fit(width);
        let (tokens, padding) = self.padding.as_mut_slice()[..width].split_at_mut(mask.len());
        let scaled = mask.iter().map(|mask| (mask * std::f32::consts::LOG2_E).max(MASKED_SCORE));
        tokens.iter_mut().zip(scaled).for_each(|(bias, mask)| *bias = mask);
        padding.fill(MASKED_SCORE);
    }

    /// Queries, keys and values of the `m` rows of the input, and room for what attention makes of them for `output`.
    ///
    /// # Safety
    /// The input must hold `m` rows for `qkv`, which must be packed for S, as `output` must, and make three times the shape's
    /// heads.
    #[inline(always)]
    pub(super) unsafe fn project_qkv<S: Simd>(
        &mut self,
        s: S,
        [qkv, output]: [&PackedLinear; 2],
        shape: AttentionShape,
        m: usize,
    ) {
        self.context.fit::<S>(m, output.k, output.format);
        // Whole blocks of keys and values are read behind the last token and the last head.
        self.qkv.fit((m + S::LANES) * shape.stride + S::LANES * S::LANES);
        self.attention.fit(shape, S::LANES);
        let base = self.qkv.as_mut_slice().as_mut_ptr();
        let out = OutputRows { base, offsets: RowOffsets::Strided(shape.stride) };
        // SAFETY: by this function's contract; there is room for m rows, `stride` floats apart.
        unsafe { s.run(Gemm::new(qkv, &self.input, m, out, Epilogue::Store)) };
    }

    /// Attention of all heads among the tokens of the shape from row `first` on.
    ///
    /// # Safety
    /// [`project_qkv`](Self::project_qkv) must have run with this shape and as many rows; matrices must have a row for each token,
    /// as wide as the shape says, and as many as there are `heads`.
    #[inline(always)]
    pub(super) unsafe fn attend<S: Simd>(
        &mut self,
        s: S,
        shape: AttentionShape,
        heads: usize,
        first: usize,
        bias: ScoreBias,
    ) {
        let channels = heads * shape.size;
        let (out, out_stride) = self.context.floats_mut();
        debug_assert_eq!(out_stride, row_stride(channels, size_of::<f32>()));
        let (out, base) = (out.as_mut_ptr(), self.qkv.as_mut_slice().as_mut_ptr());
        for head in 0..heads {
            // SAFETY: by this function's contract; rows of queries, keys, values and context were fitted by `project_qkv`.
            unsafe {
                let query = base.add(first * shape.stride + head * shape.size);
                let (matrix, bias_stride, mask) = match bias {
                    ScoreBias::Padding => (self.padding.as_slice().as_ptr(), 0, std::ptr::null()),
                    ScoreBias::Matrices { heads, mask } => (
                        heads.as_slice().as_ptr().add(head * shape.tokens * shape.width),
                        shape.width,
                        mask.map_or(std::ptr::null(), |mask| mask.as_slice().as_ptr()),
                    ),
                };
                let head = HeadPointers {
                    query,
                    key: query.add(channels),
                    value: query.add(2 * channels),
                    bias: matrix,
                    bias_stride,
                    mask,
                    out: out.add(first * out_stride + head * shape.size),
                };
                s.run(AttentionHead::new(shape, head, &mut self.attention));
            }
        }
    }

    /// Adds to rows of `x` what `output` makes of attention.
    ///
    /// # Safety
    /// `attend` must have run for all `m` rows; the first `m` rows of `x` must be rows of `output` that nobody else touches.
    #[inline(always)]
    pub(super) unsafe fn add_context<S: Simd>(&mut self, s: S, output: &PackedLinear, m: usize, x: OutputRows) {
        // SAFETY: by this function's contract.
        unsafe {
            self.context.quantize_rows(s, m, output.k);
            s.run(Gemm::new(output, &self.context, m, x, Epilogue::Add));
        }
    }

    /// Adds to rows of `x` what two linears, GELU between them, make of the `m` rows of the input.
    ///
    /// # Safety
    /// The input must hold `m` rows for `inner`, whose outputs `outer` takes, both packed for S; the first `m` rows of `x` must be
    /// rows of `outer` that nobody else touches.
    #[inline(always)]
    pub(super) unsafe fn feed_forward<S: Simd>(
        &mut self,
        s: S,
        [inner, outer]: [&PackedLinear; 2],
        m: usize,
        x: OutputRows,
    ) {
        self.hidden.fit::<S>(m, outer.k, outer.format);
        let (hidden, stride) = self.hidden.floats_mut();
        let out = OutputRows { base: hidden.as_mut_ptr(), offsets: RowOffsets::Strided(stride) };
        // SAFETY: by this function's contract; there is room for m hidden rows.
        unsafe {
            s.run(Gemm::new(inner, &self.input, m, out, Epilogue::Gelu));
            self.hidden.quantize_rows(s, m, outer.k);
            s.run(Gemm::new(outer, &self.hidden, m, x, Epilogue::Add));
        }
    }
}
