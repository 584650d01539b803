//! The block and the merging of a Swin transformer, as operators.
//! Sizes come from the graph; [`clapd_kernels`] computes.

use anyhow::Result;
use clapd_kernels::{PatchMerge, SwinBlock, SwinLayers, SwinShape, Workspace};
use tract_nnef::internal::*;

use super::OpParams;
use super::schema::{Field, OpSpec, PackedLayer, Signature};
use crate::model::compute::Compute;

/// Side of an image in tokens: CLAP's first stage has 64. Sixteen times that is no tower for this daemon.
const MAX_SIDE: usize = 1024;
/// Side of a window in tokens: 8 in every CLAP. Memory grows with its fourth power.
const MAX_WINDOW: usize = 16;
/// Heads: 32 in the last stage of every CLAP.
const MAX_HEADS: usize = 256;

/// A block: attention in windows, then two linears; each after a norm and with a residual.
pub(super) static SWIN_BLOCK: OpSpec = OpSpec {
    name: "clapd_swin_block",
    inputs: &["tokens"],
    fields: &[
        Field::Size("height"),
        Field::Size("width"),
        Field::Size("window"),
        Field::Size("shift"),
        Field::Size("heads"),
        Field::Real("epsilon"),
        Field::Norm("norm_before"),
        // Rows of queries, then of keys, then of values; queries are not yet divided by the root of a head's size.
        Field::Linear("qkv"),
        // [(2 * window - 1)^2, heads].
        Field::Table("position_bias"),
        Field::Linear("output"),
        Field::Norm("norm_after"),
        Field::Linear("inner"),
        Field::Linear("outer"),
    ],
    signature: |params| {
        let tokens = params.size("height", 1, MAX_SIDE)? * params.size("width", 1, MAX_SIDE)?;
        let shape = vec![Some(1), Some(tokens), Some(params.matrix("qkv_weight")?[1])];
        Ok(Signature { inputs: vec![(f32::datum_type(), shape.clone())], output: shape })
    },
    pack: |params, compute| Ok(Box::new(block(params, compute)?)),
};

/// Four neighbours become one token of twice the channels.
pub(super) static PATCH_MERGE: OpSpec = OpSpec {
    name: "clapd_patch_merge",
    inputs: &["tokens"],
    fields: &[
        Field::Size("height"),
        Field::Size("width"),
        Field::Real("epsilon"),
        Field::Norm("norm"),
        Field::Linear("reduction"),
    ],
    signature: |params| {
        let tokens = params.size("height", 2, MAX_SIDE)? * params.size("width", 2, MAX_SIDE)?;
        let [n, k] = params.matrix("reduction_weight")?;
        let tokens_of = |tokens, channels| vec![Some(1), Some(tokens), Some(channels)];
        Ok(Signature { inputs: vec![(f32::datum_type(), tokens_of(tokens, k / 4))], output: tokens_of(tokens / 4, n) })
    },
    pack: |params, compute| Ok(Box::new(merge(params, compute)?)),
};

fn block(params: &OpParams, compute: Compute) -> Result<SwinBlock> {
    let shape = SwinShape {
        height: params.size("height", 1, MAX_SIDE)?,
        width: params.size("width", 1, MAX_SIDE)?,
        window: params.size("window", 1, MAX_WINDOW)?,
        shift: params.size("shift", 0, MAX_WINDOW)?,
        heads: params.size("heads", 1, MAX_HEADS)?,
    };
    let channels = params.matrix("qkv_weight")?[1];
    let isa = compute.isa();
    let layers = SwinLayers {
        norm_before: params.norm("norm_before", channels)?,
        qkv: params.linear("qkv", isa)?,
        output: params.linear("output", isa)?,
        norm_after: params.norm("norm_after", channels)?,
        inner: params.linear("inner", isa)?,
        outer: params.linear("outer", isa)?,
    };
    SwinBlock::new(shape, layers, params.floats("position_bias", (2 * shape.window - 1).pow(2) * shape.heads)?)
}

impl PackedLayer for SwinBlock {
    fn run(&self, mut inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        // In place where nobody else holds the tokens, which is so in a tower.
        let mut tokens = inputs.remove(0).into_tensor();
        Self::run(self, tokens.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, workspace)?;
        Ok(tokens)
    }
}

/// A merging and the shape of what it gives.
struct MergeLayer {
    merge: PatchMerge,
    output: [usize; 3],
}

fn merge(params: &OpParams, compute: Compute) -> Result<MergeLayer> {
    let (height, width) = (params.size("height", 2, MAX_SIDE)?, params.size("width", 2, MAX_SIDE)?);
    let [n, k] = params.matrix("reduction_weight")?;
    let merge = PatchMerge::new(height, width, params.norm("norm", k)?, params.linear("reduction", compute.isa())?)?;
    Ok(MergeLayer { merge, output: [1, height * width / 4, n] })
}

impl PackedLayer for MergeLayer {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let mut output = Tensor::zero::<f32>(&self.output)?;
        let tokens = inputs[0].try_as_plain_ram()?;
        self.merge.run(tokens.as_slice::<f32>()?, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, workspace)?;
        Ok(output)
    }
}
