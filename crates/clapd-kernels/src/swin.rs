//! A block of a Swin transformer: norm, attention inside windows that may be shifted, norm, two linears; two residuals.
//!
//! In: tokens [height * width][channels], row by row of an image. Out: the same, in place.
//! A few windows at a time go through the whole block, so that what is between its layers stays in the cache. Windows and
//! their shift are index arithmetic; nothing is moved.
//! Never: pads an image.
//!
//! Architecture: Liu et al., arXiv 2103.14030. Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapAudioLayer`.

use anyhow::{Result, bail, ensure};

use super::attention::{self, Attend, Head, NEVER, WIDTH};
use super::buffer::Aligned;
use super::gemm::{Gemm, Out};
use super::linear::{Finish, Linear, check_block};
use super::norm::{Norm, Rows, layer_norm, spread};
use super::simd::{Kernel, Simd};
use super::workspace::{Scratch, Shared, Workspace};

/// Added to the score of two tokens that the shift brought together from opposite edges of the image, as the reference does.
const APART: f32 = -100.0;

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
    attention: attention::Shape,
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
        let attention = attention::Shape {
            tokens,
            size: channels / heads,
            stride: spread(3 * channels, size_of::<f32>()),
            out_stride: spread(channels, size_of::<f32>()),
            width: tokens.next_multiple_of(WIDTH),
        };
        let masks = if shift == 0 {
            vec![]
        } else {
            [(true, false), (false, true), (true, true)].map(|edge| mask(shape, edge)).into()
        };
        let bias = gathered(shape, position_bias, attention.width);
        Ok(Self { shape, layers, bias, masks, attention })
    }

    /// Channels of a token.
    pub fn channels(&self) -> usize {
        self.layers.norm_before.len()
    }

    /// The block on `x` `[height * width][channels]`, in place.
    ///
    /// # Errors
    /// A wrong length, or a number that is not finite or beyond 1e18; `x` is then half done and of no use.
    pub fn run(&self, x: &mut [f32], workspace: &mut Workspace) -> Result<()> {
        let SwinShape { height, width, window, .. } = self.shape;
        let expected = height * width * self.channels();
        ensure!(
            x.len() == expected,
            "a block of {height} x {width} tokens got {} floats instead of {expected}",
            x.len()
        );
        let windows = height * width / (window * window);
        let (at_a_time, rows) = self.pace(windows);
        let shared = Shared(x.as_mut_ptr());
        let isa = self.layers.qkv.checked();
        let fine = workspace.each(windows.div_ceil(at_a_time), |piece, scratch| {
            let windows = piece * at_a_time..((piece + 1) * at_a_time).min(windows);
            isa.run(Piece { block: self, x: shared, windows, rows, scratch })
        });
        if !fine {
            bail!("a token of the input of a block has a number that is not finite or beyond 1e18");
        }
        Ok(())
    }

    /// How many windows go through attention together, and how many rows through the two linears.
    fn pace(&self, windows: usize) -> (usize, usize) {
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
fn gathered(shape: SwinShape, table: &[f32], width: usize) -> Aligned<f32> {
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
            NEVER
        };
    }
    bias
}

/// 0 where two tokens of a window at an edge were neighbours before the shift, and [`APART`], in units of ln 2, where not.
fn mask(shape: SwinShape, (lower, right): (bool, bool)) -> Aligned<f32> {
    let SwinShape { window, shift, .. } = shape;
    let tokens = window * window;
    let width = tokens.next_multiple_of(WIDTH);
    let place = |token: usize| (lower && token / window >= window - shift, right && token % window >= window - shift);
    let mut mask = Aligned::zeros(tokens * width);
    for (at, mask) in mask.as_mut_slice().iter_mut().enumerate() {
        let (i, j) = (at / width, at % width);
        if j < tokens && place(i) != place(j) {
            *mask = APART * std::f32::consts::LOG2_E;
        }
    }
    mask
}

/// Some windows of a block.
struct Piece<'a> {
    block: &'a SwinBlock,
    x: Shared,
    windows: std::ops::Range<usize>,
    rows: usize,
    scratch: &'a mut Scratch,
}

impl Kernel for Piece<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) -> bool {
        self.places();
        // SAFETY: places are rows of x, which no other piece has; the block's linears were packed for S and checked to fit.
        unsafe { self.attention(s) & feed_forward(s, &self.block.layers, self.x, self.rows, self.scratch) }
    }
}

impl Piece<'_> {
    /// Where the tokens of the windows lie: a shifted window's, up and to the left of where it stands, around the edges.
    fn places(&mut self) {
        let SwinShape { height, width, window, shift, .. } = self.block.shape;
        let (channels, across) = (self.block.channels(), width / window);
        let places = &mut self.scratch.places;
        places.clear();
        for index in self.windows.clone() {
            let (top, left) = (index / across * window + shift, index % across * window + shift);
            for y in top..top + window {
                places.extend((left..left + window).map(|x| (y % height * width + x % width) * channels));
            }
        }
        let dense = &mut self.scratch.dense;
        dense.clear();
        dense.extend(0..places.len());
    }

    /// # Safety
    /// Places must be rows of x that only this piece touches.
    #[inline(always)]
    unsafe fn attention<S: Simd>(&mut self, s: S) -> bool {
        let (block, layers) = (self.block, &self.block.layers);
        let (channels, tokens) = (block.channels(), block.attention.tokens);
        let attention::Shape { stride, out_stride, .. } = block.attention;
        let Scratch { input, qkv, context, room, places, dense, .. } = &mut *self.scratch;
        let m = places.len();
        input.fit::<S>(m, channels, layers.qkv.coding);
        context.fit::<S>(m, channels, layers.output.coding);
        // Whole blocks of keys and values are read behind the last token and the last head.
        qkv.fit((m + S::LANES) * stride + S::LANES * S::LANES);
        room.fit(block.attention, S::LANES);
        // SAFETY: all were fitted for m rows; places by this function's contract.
        unsafe {
            let fine = normalized(s, &layers.norm_before, self.x.0, places, input);
            dense.iter_mut().enumerate().for_each(|(i, place)| *place = i * stride);
            let base = qkv.as_mut_slice().as_mut_ptr();
            s.run(Gemm::new(&layers.qkv, input, m, Out { base, places: dense }, Finish::Store));
            for (at, window) in self.windows.clone().enumerate() {
                for head in 0..block.shape.heads {
                    let from = base.add(at * tokens * stride + head * block.attention.size);
                    let out = context.floats.as_mut_slice().as_mut_ptr();
                    let head = Head {
                        query: from,
                        key: from.add(channels),
                        value: from.add(2 * channels),
                        bias: block.bias.as_slice().as_ptr().add(head * tokens * block.attention.width),
                        bias_stride: block.attention.width,
                        mask: block.mask_of(window),
                        out: out.add(at * tokens * out_stride + head * block.attention.size),
                    };
                    s.run(Attend::new(block.attention, head, room));
                }
            }
            coded(s, context, m, channels);
            s.run(Gemm::new(&layers.output, context, m, Out { base: self.x.0, places }, Finish::Add));
            fine
        }
    }
}

impl SwinBlock {
    /// The mask of a window, or null.
    #[inline(always)]
    fn mask_of(&self, index: usize) -> *const f32 {
        let SwinShape { height, width, window, .. } = self.shape;
        let (down, across) = (height / window, width / window);
        let edge = usize::from(index / across == down - 1) + 2 * usize::from(index % across == across - 1);
        match edge {
            0 => std::ptr::null(),
            edge => self.masks.get(edge - 1).map_or(std::ptr::null(), |mask| mask.as_slice().as_ptr()),
        }
    }
}

/// Norms of the rows of x at `places`, as a linear wants them. False if a number is not finite or too large.
///
/// # Safety
/// Places must be rows of x; `into` must be fitted for as many.
#[inline(always)]
pub(super) unsafe fn normalized<S: Simd>(s: S, norm: &Norm, x: *const f32, places: &[usize], into: &mut Rows) -> bool {
    let k = norm.len();
    let mut fine = true;
    for (i, place) in places.iter().enumerate() {
        // SAFETY: by this function's contract. Rows that become codes pass through the first row, which stays in the cache.
        unsafe {
            let row = into.floats.as_mut_slice().as_mut_ptr().add(if into.coded() { 0 } else { i * into.float_stride });
            fine &= layer_norm(s, norm, x.add(*place), row);
            if into.coded() {
                into.code(s, i, row, k);
            }
        }
    }
    fine
}

/// Makes codes of the first `m` rows, if they are wanted.
///
/// # Safety
/// `rows` must be fitted for `m` rows of `k`.
#[inline(always)]
pub(super) unsafe fn coded<S: Simd>(s: S, rows: &mut Rows, m: usize, k: usize) {
    if rows.coded() {
        for i in 0..m {
            // SAFETY: by this function's contract.
            unsafe {
                let row = rows.floats.as_slice().as_ptr().add(i * rows.float_stride);
                rows.code(s, i, row, k);
            }
        }
    }
}

/// Norm, linear, GELU, linear, residual, for the rows at the scratch's places, `rows` of them at a time.
///
/// # Safety
/// Places must be rows of x that no one else touches; the layers must fit each other and be packed for S.
#[inline(always)]
unsafe fn feed_forward<S: Simd>(s: S, layers: &SwinLayers, x: Shared, rows: usize, scratch: &mut Scratch) -> bool {
    let (channels, width) = (layers.inner.k(), layers.inner.n());
    let Scratch { input, hidden, places, dense, .. } = scratch;
    let most = rows.min(places.len());
    input.fit::<S>(most, channels, layers.inner.coding);
    hidden.fit::<S>(most, width, layers.outer.coding);
    dense.iter_mut().enumerate().for_each(|(i, place)| *place = i * hidden.float_stride);
    let mut fine = true;
    for places in places.chunks(rows) {
        let m = places.len();
        // SAFETY: all were fitted for `most` rows; places by this function's contract.
        unsafe {
            fine &= normalized(s, &layers.norm_after, x.0, places, input);
            let base = hidden.floats.as_mut_slice().as_mut_ptr();
            s.run(Gemm::new(&layers.inner, input, m, Out { base, places: dense }, Finish::Gelu));
            coded(s, hidden, m, width);
            s.run(Gemm::new(&layers.outer, hidden, m, Out { base: x.0, places }, Finish::Add));
        }
    }
    fine
}
