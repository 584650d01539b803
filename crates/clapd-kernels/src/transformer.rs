//! A layer of a text transformer: attention over all tokens, two linears; a residual and then a norm after each.
//!
//! In: tokens [tokens][width] and a number for each token that is added to all scores of it. Out: the same tokens, in place.
//! Never: embeds, pools; codes activations in fewer than 16 bits. A norm after the residual leaves a few channels that are
//! tens of times as large as the others in every token, and 8 bits from the least to the greatest would lose the others.
//!
//! Architecture: Devlin et al., arXiv 1810.04805. Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapTextLayer`.

use anyhow::{Result, bail, ensure};

use super::attention::{Attend, Head, NEVER, Shape, WIDTH};
use super::buffer::Aligned;
use super::gemm::{Gemm, Out};
use super::linear::{Finish, Linear, finite};
use super::norm::{Coding, Norm, Rows, layer_norm, spread};
use super::simd::{Kernel, Simd};
use super::swin::coded;
use super::workspace::{Scratch, Workspace};

/// The parts of a layer, in the order in which they run.
#[derive(Clone, Debug)]
pub struct TransformerLayers {
    /// width to 3 * width: queries, keys, values, each of them head by head. Not yet divided by the root of a head's size.
    pub qkv: Linear,
    /// width to width.
    pub output: Linear,
    /// After attention and its residual.
    pub attention_norm: Norm,
    /// width to as many as there are between the two linears; GELU follows.
    pub inner: Linear,
    /// Back to width.
    pub outer: Linear,
    /// After the two linears and their residual.
    pub norm: Norm,
}

/// A layer.
#[derive(Clone, Debug)]
pub struct TransformerLayer {
    layers: TransformerLayers,
    heads: usize,
}

impl TransformerLayer {
    /// # Errors
    /// Sizes that don't fit each other, or linears that were packed for different instruction sets.
    pub fn new(heads: usize, layers: TransformerLayers) -> Result<Self> {
        let width = layers.norm.len();
        ensure!(heads > 0 && width > 0 && width.is_multiple_of(heads), "a width of {width} and {heads} heads");
        let TransformerLayers { qkv, output, inner, outer, .. } = &layers;
        super::linear::check_block(width, [qkv, output, inner, outer])?;
        layers.attention_norm.check(width)?;
        layers.norm.check(width)?;
        let [qkv, output, inner, outer] = [layers.qkv, layers.output, layers.inner, layers.outer].map(Linear::fine);
        Ok(Self { layers: TransformerLayers { qkv, output, inner, outer, ..layers }, heads })
    }

    /// Floats of a token.
    pub fn width(&self) -> usize {
        self.layers.norm.len()
    }

    /// The layer on `x` `[tokens][width]`, in place. `mask` has a number for each token, added to the scores that all tokens have
    /// with it: 0, or as much below as hides it.
    ///
    /// # Errors
    /// A wrong length, no tokens, or a number that is not finite or beyond 1e18; `x` is then of no use.
    pub fn run(&self, x: &mut [f32], mask: &[f32], workspace: &mut Workspace) -> Result<()> {
        let (width, tokens) = (self.width(), mask.len());
        ensure!(
            tokens > 0 && x.len() == tokens * width,
            "a layer {width} wide got {} floats and a mask of {tokens}",
            x.len()
        );
        ensure!(mask.iter().all(|m| !m.is_nan() && *m < 1e18), "a mask has NaN or a number beyond 1e18");
        finite(x, width)?;
        let isa = self.layers.qkv.checked();
        if !isa.run(Pass { layer: self, x, mask, scratch: &mut workspace.shares[0] }) {
            bail!("a token inside a layer has a number that is not finite or beyond 1e18");
        }
        Ok(())
    }
}

struct Pass<'a> {
    layer: &'a TransformerLayer,
    x: &'a mut [f32],
    mask: &'a [f32],
    scratch: &'a mut Scratch,
}

impl Kernel for Pass<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Self { layer, x, mask, scratch } = self;
        let width = layer.width();
        let layers = &layer.layers;
        scratch.places.clear();
        scratch.places.extend((0..mask.len()).map(|i| i * width));
        scratch.dense.clear();
        scratch.dense.resize(mask.len(), 0);
        // SAFETY: `x` has a row of the width at every place; the layers were checked to fit, and are packed for S.
        unsafe {
            attention(s, layer, x, mask, scratch);
            let fine = norms(s, &layers.attention_norm, x);
            let Scratch { input, hidden, places, dense, .. } = scratch;
            let m = places.len();
            rows_of(s, input, x, width, layers.inner.coding);
            hidden.fit::<S>(m, layers.inner.n(), layers.outer.coding);
            dense.iter_mut().enumerate().for_each(|(i, place)| *place = i * hidden.float_stride);
            let base = hidden.floats.as_mut_slice().as_mut_ptr();
            s.run(Gemm::new(&layers.inner, input, m, Out { base, places: dense }, Finish::Gelu));
            coded(s, hidden, m, layers.inner.n());
            s.run(Gemm::new(&layers.outer, hidden, m, Out { base: x.as_mut_ptr(), places }, Finish::Add));
            fine & norms(s, &layers.norm, x)
        }
    }
}

/// Adds what attention gives to x.
///
/// # Safety
/// Places must be rows of x; the layers must fit each other and be packed for S.
#[inline(always)]
unsafe fn attention<S: Simd>(s: S, layer: &TransformerLayer, x: &mut [f32], mask: &[f32], scratch: &mut Scratch) {
    let (width, tokens, layers) = (layer.width(), mask.len(), &layer.layers);
    let shape = Shape {
        tokens,
        size: width / layer.heads,
        stride: spread(3 * width, size_of::<f32>()),
        out_stride: spread(width, size_of::<f32>()),
        width: tokens.next_multiple_of(WIDTH),
    };
    let Scratch { input, qkv, context, room, places, dense, bias, .. } = scratch;
    scores_of_padding(bias, mask, shape.width);
    rows_of(s, input, x, width, layers.qkv.coding);
    context.fit::<S>(tokens, width, layers.output.coding);
    // Whole blocks of keys and values are read behind the last token and the last head.
    qkv.fit((shape.width + S::LANES) * shape.stride + S::LANES * S::LANES);
    room.fit(shape, S::LANES);
    dense.iter_mut().enumerate().for_each(|(i, place)| *place = i * shape.stride);
    // SAFETY: all were fitted for as many rows as there are tokens; places by this function's contract.
    unsafe {
        let base = qkv.as_mut_slice().as_mut_ptr();
        s.run(Gemm::new(&layers.qkv, input, tokens, Out { base, places: dense }, Finish::Store));
        for head in 0..layer.heads {
            let from = base.add(head * shape.size);
            let head = Head {
                query: from,
                key: from.add(width),
                value: from.add(2 * width),
                bias: bias.as_slice().as_ptr(),
                bias_stride: 0,
                mask: std::ptr::null(),
                out: context.floats.as_mut_slice().as_mut_ptr().add(head * shape.size),
            };
            s.run(Attend::new(shape, head, room));
        }
        coded(s, context, tokens, width);
        s.run(Gemm::new(&layers.output, context, tokens, Out { base: x.as_mut_ptr(), places }, Finish::Add));
    }
}

/// One row of biases, in units of ln 2, that all queries share.
fn scores_of_padding(bias: &mut Aligned<f32>, mask: &[f32], width: usize) {
    bias.fit(width);
    let (tokens, padding) = bias.as_mut_slice()[..width].split_at_mut(mask.len());
    tokens.iter_mut().zip(mask).for_each(|(bias, mask)| *bias = (mask * std::f32::consts::LOG2_E).max(NEVER));
    padding.fill(NEVER);
}

/// The rows of x as a linear wants them.
#[inline(always)]
fn rows_of<S: Simd>(s: S, rows: &mut Rows, x: &[f32], k: usize, coding: Coding) {
    rows.fit::<S>(x.len() / k, k, coding);
    for (i, x) in x.chunks_exact(k).enumerate() {
        if rows.coded() {
            // SAFETY: x has k floats, and `fit` made room for the row.
            unsafe { rows.code(s, i, x.as_ptr(), k) };
        } else {
            rows.floats.as_mut_slice()[i * rows.float_stride..][..k].copy_from_slice(x);
        }
    }
}

/// Norms of all rows, in place. False if a number is not finite or too large.
#[inline(always)]
fn norms<S: Simd>(s: S, norm: &Norm, x: &mut [f32]) -> bool {
    let mut fine = true;
    // Not with fold(): a closure that is not inlined has none of the set's instructions (see `vectors`).
    for x in x.chunks_exact_mut(norm.len()) {
        // SAFETY: rows are as long as the norm.
        fine &= unsafe { layer_norm(s, norm, x.as_ptr(), x.as_mut_ptr()) };
    }
    fine
}
