//! The embeddings and layers of RoBERTa and BERT, as operators.
//!
//! An embedding table stays in its stored form: only the rows that a text has are read and widened.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapTextEmbeddings`, `ClapTextLayer`.

use anyhow::{Context, Result, ensure};
use clapd_kernels::{Isa, Norm, TransformerLayer, TransformerLayers, Workspace, norm_rows};
use tract_nnef::internal::*;

use super::OpParams;
use super::params::Lookup;
use super::schema::{Field, OpSpec, PackedLayer, Signature};
use crate::model::compute::Compute;

/// Heads: 12 in every CLAP.
const MAX_HEADS: usize = 256;
/// Added to the attention scores of padding: exp of it is 0 in f32 beside any score that occurs.
const MASKED: f32 = -1e4;
/// A text's tokens: 77 in CLAP, 514 positions in RoBERTa. Scores grow with the square.
const MAX_TOKENS: usize = 1024;

/// Rows of words, positions and the one type, then a norm.
pub(super) static TEXT_EMBEDDINGS: OpSpec = OpSpec {
    name: "clapd_text_embeddings",
    inputs: &["ids"],
    fields: &[
        // Of a RoBERTa, whose positions count the tokens that are no padding from pad id + 1; a BERT's count all from 0.
        Field::Size("pad_id"),
        Field::Real("epsilon"),
        Field::Rows("words"),
        Field::Rows("positions"),
        Field::Table("kind"),
        Field::Norm("norm"),
    ],
    signature: |params| {
        let width = params.matrix("words")?[1];
        Ok(Signature {
            inputs: vec![(i64::datum_type(), vec![Some(1), None])],
            output: vec![Some(1), None, Some(width)],
        })
    },
    pack: |params, compute| Ok(Box::new(Embeddings::new(params, compute)?)),
};

/// Attention, then two linears; each with a residual and a norm after it.
pub(super) static TRANSFORMER_BLOCK: OpSpec = OpSpec {
    name: "clapd_transformer_block",
    inputs: &["hidden", "mask"],
    fields: &[
        Field::Size("heads"),
        // 1 where int8 is only how linears are stored, and what goes through them is not to be rounded.
        Field::Size("wide"),
        Field::Real("epsilon"),
        // Rows of queries, then of keys, then of values; queries are not yet divided by the root of a head's size.
        Field::Linear("qkv"),
        Field::Linear("output"),
        Field::Norm("attention_norm"),
        Field::Linear("inner"),
        Field::Linear("outer"),
        Field::Norm("norm"),
    ],
    signature: |params| {
        let shape = vec![Some(1), None, Some(params.matrix("qkv_weight")?[1])];
        let mask = (i64::datum_type(), vec![Some(1), None]);
        Ok(Signature { inputs: vec![(f32::datum_type(), shape.clone()), mask], output: shape })
    },
    pack: |params, compute| Ok(Box::new(block(params, compute)?)),
};

struct Embeddings {
    isa: Isa,
    pad_id: Option<usize>,
    words: Lookup,
    positions: Lookup,
    kind: Vec<f32>,
    norm: Norm,
}

impl Embeddings {
    fn new(params: &OpParams, compute: Compute) -> Result<Self> {
        let ([_, width], [_, same]) = (params.matrix("words")?, params.matrix("positions")?);
        ensure!(width == same, "rows of words have {width} numbers, those of positions {same}");
        Ok(Self {
            isa: compute.isa(),
            pad_id: params.has("pad_id").then(|| params.size("pad_id", 0, usize::MAX)).transpose()?,
            words: Lookup::new(params, "words")?,
            positions: Lookup::new(params, "positions")?,
            kind: params.floats("kind", width)?.to_vec(),
            norm: params.norm("norm", width)?,
        })
    }
}

impl PackedLayer for Embeddings {
    fn run(&self, inputs: TVec<TValue>, _: &mut Workspace) -> Result<Tensor> {
        let ids = inputs[0].try_as_plain_ram()?;
        let ids = ids.as_slice::<i64>()?;
        ensure!((1..=MAX_TOKENS).contains(&ids.len()), "{} tokens; 1 to {MAX_TOKENS} are allowed", ids.len());
        let width = self.kind.len();
        let mut output = Tensor::zero::<f32>(&[1, ids.len(), width])?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let hidden = plain.as_slice_mut::<f32>()?;
        let mut next = self.pad_id.map_or(0, |pad| pad + 1);
        for (id, row) in ids.iter().zip(hidden.chunks_exact_mut(width)) {
            let id = usize::try_from(*id).with_context(|| format!("the token {id}"))?;
            self.words.add(id, row).context("the token's embedding")?;
            row.iter_mut().zip(&self.kind).for_each(|(x, kind)| *x += kind);
            // Padding is at the pad id.
            let padding = self.pad_id == Some(id);
            self.positions.add(if padding { id } else { next }, row).context("the position's embedding")?;
            next += usize::from(!padding);
        }
        norm_rows(self.isa, &self.norm, hidden)?;
        Ok(output)
    }
}

fn block(params: &OpParams, compute: Compute) -> Result<TransformerLayer> {
    let isa = compute.isa();
    let [_, width] = params.matrix("qkv_weight")?;
    let weight_only_int8 = params.has("wide") && params.size("wide", 0, 1)? == 1;
    let linear = |name| if weight_only_int8 { params.weight_only_int8(name, isa) } else { params.linear(name, isa) };
    let layers = TransformerLayers {
        qkv: linear("qkv")?,
        output: linear("output")?,
        attention_norm: params.norm("attention_norm", width)?,
        inner: linear("inner")?,
        outer: linear("outer")?,
        norm: params.norm("norm", width)?,
    };
    TransformerLayer::new(params.size("heads", 1, MAX_HEADS)?, layers)
}

impl PackedLayer for TransformerLayer {
    fn run(&self, mut inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let mask = inputs[1].try_as_plain_ram()?;
        let mask: Vec<f32> = mask.as_slice::<i64>()?.iter().map(|m| if *m == 0 { MASKED } else { 0.0 }).collect();
        ensure!((1..=MAX_TOKENS).contains(&mask.len()), "{} tokens; 1 to {MAX_TOKENS} are allowed", mask.len());
        let mut hidden = inputs.remove(0).into_tensor();
        Self::run(self, hidden.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, &mask, workspace)?;
        Ok(hidden)
    }
}
