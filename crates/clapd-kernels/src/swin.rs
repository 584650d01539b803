//! A block of a Swin transformer: norm, attention inside windows that may be shifted, norm, two linears; two residuals.
//!
//! A few windows at a time go through the whole block, so that what is between its layers stays in the cache. Windows and
//! their shift are index arithmetic; nothing is moved. An image must be whole windows: nothing is padded.
//!
//! Architecture: Liu et al., arXiv 2103.14030. Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapAudioLayer`.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::activations::{RowOffsets, row_stride};
use super::attention::{AttentionShape, MASKED_SCORE, WIDTH};
use super::buffer::Aligned;
use super::gemm::OutputRows;
use super::linear::{Linear, check_block};
use super::norm::Norm;
use super::scratch::{ScoreBias, Scratch};
use super::simd::{Kernel, Simd};
use super::workspace::{DisjointRows, Workspace};

/// Added to the score of two tokens that the shift brought together from opposite edges of the image, as the reference does.
const SHIFT_MASK: f32 = -100.0;

/// Rows that go through a block's layers together if its weights are small. Large weights are read from far away, and read
/// once for as many rows as this allows.
const MANY_ROWS: usize = 256;
/// Bytes of weights that the second cache is sure to hold beside what else is in it.
const SMALL: usize = 512 * 1024;

/// Sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwinShape {
    /// Tokens down.
    pub height: usize,
    /// Tokens across.
    pub width: usize,
    /// Side of a window, in tokens.
    pub window: usize,
    /// Tokens by which windows are shifted down and across; 0 for none.
    pub shift: usize,
    /// Attention heads.
    pub heads: usize,
}

/// The layers of a block, in the order in which they run.
#[derive(Clone, Debug)]
pub struct SwinLayers {
    /// Before attention.
    pub norm_before: Norm,
    /// channels to 3 * channels: queries, keys, values, each of them head by head. Not yet divided by the root of a head's size.
    pub qkv: Linear,
    /// channels to channels.
    pub output: Linear,
    /// Before the two linears.
    pub norm_after: Norm,
    /// channels to as many as there are between the two linears; GELU follows.
    pub inner: Linear,
    /// Back to channels.
    pub outer: Linear,
}

/// A block.
#[derive(Clone, Debug)]
pub struct SwinBlock {
    shape: SwinShape,
    layers: SwinLayers,
    /// [heads][tokens][padded tokens], in units of ln 2.
    bias: Aligned<f32>,
    /// For windows at the lower edge, the right edge, and both: [tokens][padded tokens]. Empty without a shift.
    masks: Vec<Aligned<f32>>,
    attention: AttentionShape,
}

impl SwinBlock {
    /// `position_bias` is the table `[(2 * window - 1)^2][heads]` of the reference.
    ///
    /// # Errors
    /// Sizes that don't fit each other, or linears that were packed for different instruction sets.
    pub fn new(shape: SwinShape, layers: SwinLayers, position_bias: &[f32]) -> Result<Self> {
        let SwinShape { height, width, window, shift, heads } = shape;
        let channels = layers.norm_before.len();
        ensure!(
            window > 0
                && height > 0
                && width > 0
                && height.is_multiple_of(window)
                && width.is_multiple_of(window)
                && shift < window,
            "windows of {window}, shifted by {shift}, don't tile an image of {height} x {width} tokens"
        );
        ensure!(heads > 0 && channels > 0 && channels.is_multiple_of(heads), "{channels} channels and {heads} heads");
        layers.check(channels)?;
        let table = (2 * window - 1).pow(2) * heads;
        ensure!(position_bias.len() == table, "a table of {} position biases instead of {table}", position_bias.len());
        ensure!(position_bias.iter().all(|b| b.is_finite()), "a position bias is not finite");
        let tokens = window * window;
        let attention = AttentionShape {
            tokens,
            size: channels / heads,
            stride: row_stride(3 * channels, size_of::<f32>()),
            out_stride: row_stride(channels, size_of::<f32>()),
            width: tokens.next_multiple_of(WIDTH),
        };
        let masks = if shift == 0 {
            vec![]
        } else {
            [(true, false), (false, true), (true, true)].map(|edge| shift_mask(shape, edge)).into()
        };
        let bias = gather_position_bias(shape, position_bias, attention.width);
        Ok(Self { shape, layers, bias, masks, attention })
    }

    /// Channels of a token.
    pub fn channels(&self) -> usize {
        self.layers.norm_before.len()
    }

    /// The block on `x` `[height * width][channels]`, in place.
    ///
    /// # Errors
    /// A wrong length, a number that is not finite or beyond 1e18, or a thread that panics; `x` is then half done and of no
    /// use.
    pub fn run(&self, x: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let SwinShape { height, width, window, .. } = self.shape;
        let expected = height * width * self.channels();
        ensure!(
            x.len() == expected,
            "a block of {height} x {width} tokens got {} floats instead of {expected}",
            x.len()
        );
        let windows = height * width / (window * window);
        let (at_a_time, rows) = self.blocking(windows);
        let x = DisjointRows::new(x);
        let isa = self.layers.qkv.supported_isa();
        let finite = workspace.run_pieces(windows.div_ceil(at_a_time), |piece, scratch| {
            let windows = piece * at_a_time..((piece + 1) * at_a_time).min(windows);
            isa.run(SwinWindows { block: self, x, windows, rows, scratch })
        })?;
        if !finite {
            bail!("a token of the input of a block has a number that is not finite or beyond 1e18");
        }
        Ok(())
    }

    /// How many windows go through attention together, and how many rows through the two linears.
    fn blocking(&self, windows: usize) -> (usize, usize) {
        let tokens = self.attention.tokens;
        let bytes = |linears: [&Linear; 2]| linears.iter().map(|l| l.weight_bytes()).sum::<usize>();
        let many = (MANY_ROWS / tokens).max(1);
        let at_a_time = if bytes([&self.layers.qkv, &self.layers.inner]) <= SMALL { 1 } else { many };
        let rows = if bytes([&self.layers.inner, &self.layers.outer]) <= SMALL { 24 } else { MANY_ROWS.max(tokens) };
        (at_a_time.min(windows), rows)
    }
}

impl SwinLayers {
    fn check(&self, channels: usize) -> Result<()> {
        check_block(channels, [&self.qkv, &self.output, &self.inner, &self.outer])?;
        self.norm_before.check(channels)?;
        self.norm_after.check(channels)
    }
}

/// Position biases by head and pair of tokens, in units of ln 2.
fn gather_position_bias(shape: SwinShape, table: &[f32], width: usize) -> Aligned<f32> {
    let SwinShape { window, heads, .. } = shape;
    let tokens = window * window;
    let mut bias = Aligned::zeros(heads * tokens * width);
    for (at, bias) in bias.as_mut_slice().iter_mut().enumerate() {
        let (head, i, j) = (at / width / tokens, at / width % tokens, at % width);
        *bias = if j < tokens {
            let down = i / window + window - 1 - j / window;
            let across = i % window + window - 1 - j % window;
            table[(down * (2 * window - 1) + across) * heads + head] * std::f32::consts::LOG2_E
        } else {
            MASKED_SCORE
        };
    }
    bias
}

/// 0 where two tokens of a window at an edge were neighbours before the shift, and [`SHIFT_MASK`], in units of ln 2, where not.
fn shift_mask(shape: SwinShape, (lower, right): (bool, bool)) -> Aligned<f32> {
    let SwinShape { window, shift, .. } = shape;
    let tokens = window * window;
    let width = tokens.next_multiple_of(WIDTH);
    let side = |token: usize| (lower && token / window >= window - shift, right && token % window >= window - shift);
    let mut mask = Aligned::zeros(tokens * width);
    for (at, mask) in mask.as_mut_slice().iter_mut().enumerate() {
        let (i, j) = (at / width, at % width);
        if j < tokens && side(i) != side(j) {
            *mask = SHIFT_MASK * std::f32::consts::LOG2_E;
        }
    }
    mask
}

/// Some windows of a block.
struct SwinWindows<'a> {
    block: &'a SwinBlock,
    x: DisjointRows,
    windows: Range<usize>,
    /// Rows that go through the two linears at a time.
    rows: usize,
    scratch: &'a mut Scratch,
}

impl Kernel for SwinWindows<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) -> bool {
        let mut offsets = self.scratch.take_offsets();
        self.block.row_offsets(self.windows.clone(), &mut offsets);
        // SAFETY: the offsets are rows of x, which no other piece has; the block's linears were packed for S and checked to fit.
        let finite = unsafe { self.attention(s, &offsets) & self.feed_forward(s, &offsets) };
        self.scratch.keep_offsets(offsets);
        finite
    }
}

impl SwinWindows<'_> {
    /// Norm, attention, linear, residual.
    ///
    /// # Safety
    /// Offsets must be rows of x that only this piece touches.
    #[inline(always)]
    unsafe fn attention<S: Simd>(&mut self, s: S, offsets: &[usize]) -> bool {
        let Self { block, windows, scratch, .. } = self;
        let SwinLayers { norm_before, qkv, output, .. } = &block.layers;
        let (qkv, output, shape, m) = (qkv.packed(), output.packed(), block.attention, offsets.len());
        let (x, offsets) = (self.x.as_ptr(), RowOffsets::Listed(offsets));
        let input = scratch.input::<S>(m, qkv);
        // SAFETY: there is room for m rows of input; offsets by this function's contract.
        unsafe {
            let finite = input.set_normalized(s, norm_before, x, offsets, m);
            scratch.project_qkv(s, [qkv, output], shape, m);
            for (at, window) in windows.clone().enumerate() {
                let bias = ScoreBias::Matrices { heads: &block.bias, mask: block.mask_for_window(window) };
                scratch.attend(s, shape, block.shape.heads, at * shape.tokens, bias);
            }
            scratch.add_context(s, output, m, OutputRows { base: x, offsets });
            finite
        }
    }

    /// Norm, linear, GELU, linear, residual, some rows at a time.
    ///
    /// # Safety
    /// As `attention`.
    #[inline(always)]
    unsafe fn feed_forward<S: Simd>(&mut self, s: S, offsets: &[usize]) -> bool {
        let SwinLayers { norm_after, inner, outer, .. } = &self.block.layers;
        let (inner, outer, x) = (inner.packed(), outer.packed(), self.x.as_ptr());
        let mut finite = true;
        for offsets in offsets.chunks(self.rows) {
            let (m, offsets) = (offsets.len(), RowOffsets::Listed(offsets));
            let input = self.scratch.input::<S>(m, inner);
            // SAFETY: there is room for m rows of input; offsets by this function's contract.
            unsafe {
                finite &= input.set_normalized(s, norm_after, x, offsets, m);
                self.scratch.feed_forward(s, [inner, outer], m, OutputRows { base: x, offsets });
            }
        }
        finite
    }
}

impl SwinBlock {
    /// Where the tokens of the windows lie: a shifted window's, up and to the left of where it stands, around the edges.
    fn row_offsets(&self, windows: Range<usize>, offsets: &mut Vec<usize>) {
        let SwinShape { height, width, window, shift, .. } = self.shape;
        let (channels, across) = (self.channels(), width / window);
        offsets.clear();
        for index in windows {
            let (top, left) = (index / across * window + shift, index % across * window + shift);
            for y in top..top + window {
                offsets.extend((left..left + window).map(|x| (y % height * width + x % width) * channels));
            }
        }
    }

    /// The mask of a window at an edge that the shift wraps around.
    #[inline(always)]
    fn mask_for_window(&self, index: usize) -> Option<&Aligned<f32>> {
        let SwinShape { height, width, window, .. } = self.shape;
        let (down, across) = (height / window, width / window);
        let edge = usize::from(index / across == down - 1) + 2 * usize::from(index % across == across - 1);
        self.masks.get(edge.checked_sub(1)?)
    }
}
