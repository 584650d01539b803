//! A layer of a text transformer: attention over all tokens, two linears; a residual and then a norm after each.
//!
//! Activations are quantised to 16 bits where linears are int8: a norm after the residual leaves a few channels that are tens of
//! times as large as the others in every token, and 8 bits from the least to the greatest would lose the others.
//!
//! Architecture: Devlin et al., arXiv 1810.04805. Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapTextLayer`.

use anyhow::{Result, bail, ensure};

use super::activations::{RowOffsets, row_stride};
use super::attention::{AttentionShape, WIDTH};
use super::gemm::OutputRows;
use super::linear::{Linear, check_block, ensure_finite};
use super::norm::{Norm, layer_norm};
use super::scratch::{ScoreBias, Scratch};
use super::simd::{Kernel, Simd};
use super::workspace::Workspace;

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
        check_block(width, [qkv, output, inner, outer])?;
        layers.attention_norm.check(width)?;
        layers.norm.check(width)?;
        let [qkv, output, inner, outer] =
            [layers.qkv, layers.output, layers.inner, layers.outer].map(Linear::with_16bit_activations);
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
        ensure_finite(x, width)?;
        let isa = self.layers.qkv.supported_isa();
        if !isa.run(TransformerPass { layer: self, x, mask, scratch: workspace.first() }) {
            bail!("a token inside a layer has a number that is not finite or beyond 1e18");
        }
        Ok(())
    }
}

/// All tokens of a text.
struct TransformerPass<'a> {
    layer: &'a TransformerLayer,
    x: &'a mut [f32],
    mask: &'a [f32],
    scratch: &'a mut Scratch,
}

impl Kernel for TransformerPass<'_> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Self { layer, x, mask, scratch } = self;
        let (width, tokens) = (layer.width(), mask.len());
        let TransformerLayers { qkv, output, attention_norm, inner, outer, norm } = &layer.layers;
        let [qkv, output, inner, outer] = [qkv, output, inner, outer].map(Linear::packed);
        let shape = AttentionShape {
            tokens,
            size: width / layer.heads,
            stride: row_stride(3 * width, size_of::<f32>()),
            out_stride: row_stride(width, size_of::<f32>()),
            width: tokens.next_multiple_of(WIDTH),
        };
        scratch.set_padding(mask, shape.width);
        let offsets = RowOffsets::Strided(width);
        // SAFETY: `x` has a row of the width for every token, as the inputs have room; the layers were checked to fit, and are packed
        // for S.
        unsafe {
            scratch.input::<S>(tokens, qkv).set(s, x, width);
            scratch.project_qkv(s, [qkv, output], shape, tokens);
            scratch.attend(s, shape, layer.heads, 0, ScoreBias::Padding);
            scratch.add_context(s, output, tokens, OutputRows { base: x.as_mut_ptr(), offsets });
            let finite = normalize_rows(s, attention_norm, x);
            scratch.input::<S>(tokens, inner).set(s, x, width);
            scratch.feed_forward(s, [inner, outer], tokens, OutputRows { base: x.as_mut_ptr(), offsets });
            finite & normalize_rows(s, norm, x)
        }
    }
}

/// Norms of all rows, in place. False if a number is not finite or too large.
#[inline(always)]
fn normalize_rows<S: Simd>(s: S, norm: &Norm, x: &mut [f32]) -> bool {
    let mut finite = true;
    // Not with fold(): a closure that is not inlined has none of the set's instructions (see `vectors`).
    for x in x.chunks_exact_mut(norm.len()) {
        // SAFETY: rows are as long as the norm.
        finite &= unsafe { layer_norm(s, norm, x.as_ptr(), x.as_mut_ptr()) };
    }
    finite
}
