//! RoBERTa's embeddings and layers, as operators.
//!
//! In: token ids and a mask, `[1, S]`. Out: hidden states `[1, S, width]`.
//! Never: widens a whole embedding table; of the stored rows only those that a text has are read.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapTextEmbeddings`, `ClapTextLayer`.

use anyhow::{Context, Result, ensure};
use tract_nnef::internal::*;

use super::Parts;
use super::parts::Lookup;
use super::schema::{Field, Kind, Packed, Signature};
use crate::clap::compute::Compute;
use crate::clap::kernels::{Finish, Isa, Linear, Norm, Workspace, norm_rows};

/// Heads: 12 in every CLAP.
const MAX_HEADS: usize = 256;
/// Added to the attention scores of padding: exp of it is 0 in f32 beside any score that occurs.
const MASKED: f32 = -1e4;
/// A text's tokens: 77 in CLAP, 514 positions in RoBERTa. Scores grow with the square.
const MAX_TOKENS: usize = 1024;

/// Rows of words, positions and the one type, then a norm.
pub(super) static TEXT_EMBEDDINGS: Kind = Kind {
    name: "clapd_text_embeddings",
    inputs: &["ids"],
    fields: &[
        Field::Size("pad_id"),
        Field::Real("epsilon"),
        Field::Rows("words"),
        Field::Rows("positions"),
        Field::Table("kind"),
        Field::Norm("norm"),
    ],
    signature: |parts| {
        let width = parts.matrix("words")?[1];
        Ok(Signature {
            inputs: vec![(i64::datum_type(), vec![Some(1), None])],
            output: vec![Some(1), None, Some(width)],
        })
    },
    pack: |parts, compute| Ok(Box::new(Embeddings::new(parts, compute)?)),
};

/// Attention, then two linears; each with a residual and a norm after it.
pub(super) static TRANSFORMER_BLOCK: Kind = Kind {
    name: "clapd_transformer_block",
    inputs: &["hidden", "mask"],
    fields: &[
        Field::Size("heads"),
        Field::Real("epsilon"),
        // Rows of queries, then of keys, then of values; queries are not yet divided by the root of a head's size.
        Field::Linear("qkv"),
        Field::Linear("output"),
        Field::Norm("attention_norm"),
        Field::Linear("inner"),
        Field::Linear("outer"),
        Field::Norm("norm"),
    ],
    signature: |parts| {
        let shape = vec![Some(1), None, Some(parts.matrix("qkv_weight")?[1])];
        let mask = (i64::datum_type(), vec![Some(1), None]);
        Ok(Signature { inputs: vec![(f32::datum_type(), shape.clone()), mask], output: shape })
    },
    pack: |parts, compute| Ok(Box::new(Block::new(parts, compute)?)),
};

struct Embeddings {
    isa: Isa,
    pad_id: usize,
    words: Lookup,
    positions: Lookup,
    kind: Vec<f32>,
    norm: Norm,
}

impl Embeddings {
    fn new(parts: &Parts, compute: Compute) -> Result<Self> {
        let ([_, width], [_, same]) = (parts.matrix("words")?, parts.matrix("positions")?);
        ensure!(width == same, "rows of words have {width} numbers, those of positions {same}");
        Ok(Self {
            isa: compute.isa(),
            pad_id: parts.size("pad_id", 0, usize::MAX)?,
            words: Lookup::new(parts, "words")?,
            positions: Lookup::new(parts, "positions")?,
            kind: parts.floats("kind", width)?.to_vec(),
            norm: parts.norm("norm", width)?,
        })
    }
}

impl Packed for Embeddings {
    fn run(&self, inputs: TVec<TValue>, _: &mut Workspace) -> Result<Tensor> {
        let ids = inputs[0].try_as_plain_ram()?;
        let ids = ids.as_slice::<i64>()?;
        ensure!((1..=MAX_TOKENS).contains(&ids.len()), "{} tokens; 1 to {MAX_TOKENS} are allowed", ids.len());
        let width = self.kind.len();
        let mut output = Tensor::zero::<f32>(&[1, ids.len(), width])?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let hidden = plain.as_slice_mut::<f32>()?;
        // Tokens are counted from pad id + 1; padding itself is at the pad id.
        let mut position = self.pad_id;
        for (id, row) in ids.iter().zip(hidden.chunks_exact_mut(width)) {
            let id = usize::try_from(*id).with_context(|| format!("the token {id}"))?;
            let padding = id == self.pad_id;
            position += usize::from(!padding);
            self.words.add(id, row).context("the token's embedding")?;
            row.iter_mut().zip(&self.kind).for_each(|(x, kind)| *x += kind);
            let position = if padding { self.pad_id } else { position };
            self.positions.add(position, row).context("the position's embedding")?;
        }
        norm_rows(self.isa, &self.norm, hidden)?;
        Ok(output)
    }
}

struct Block {
    isa: Isa,
    heads: usize,
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    inner: Linear,
    outer: Linear,
    norm: Norm,
}

impl Block {
    fn new(parts: &Parts, compute: Compute) -> Result<Self> {
        let isa = compute.isa();
        let [_, width] = parts.matrix("qkv_weight")?;
        let block = Self {
            isa,
            heads: parts.size("heads", 1, MAX_HEADS)?,
            qkv: parts.linear("qkv", isa)?,
            output: parts.linear("output", isa)?,
            attention_norm: parts.norm("attention_norm", width)?,
            inner: parts.linear("inner", isa)?,
            outer: parts.linear("outer", isa)?,
            norm: parts.norm("norm", width)?,
        };
        let Self { heads, qkv, output, inner, outer, .. } = &block;
        ensure!(width.is_multiple_of(*heads), "{width} numbers and {heads} heads");
        let between = inner.n();
        let expected = [(3 * width, width), (width, width), (between, width), (width, between)];
        for (linear, (n, k)) in [qkv, output, inner, outer].into_iter().zip(expected) {
            ensure!(
                (linear.n(), linear.k()) == (n, k),
                "a layer of width {width} has a linear of {} to {} instead of {k} to {n}",
                linear.k(),
                linear.n()
            );
        }
        Ok(block)
    }

    /// What the heads make of the hidden states `x`; `mask` is added to the scores of each token.
    fn attend(&self, x: &[f32], mask: &[f32], workspace: &mut Workspace) -> Result<Vec<f32>> {
        let (width, tokens) = (self.qkv.k(), mask.len());
        let mut qkv = vec![0.0; 3 * x.len()];
        self.qkv.run(x, &mut qkv, Finish::Store, workspace)?;
        let (mut mixed, mut scores) = (vec![0.0; x.len()], vec![0.0; tokens]);
        let size = width / self.heads;
        let scale = 1.0 / (size as f32).sqrt();
        for head in (0..width).step_by(size) {
            let part = |token: usize, which: usize| &qkv[token * 3 * width + which * width + head..][..size];
            for token in 0..tokens {
                let query = part(token, 0);
                for (other, score) in scores.iter_mut().enumerate() {
                    *score = dot(query, part(other, 1)) * scale + mask[other];
                }
                softmax(&mut scores);
                let out = &mut mixed[token * width + head..][..size];
                for (other, score) in scores.iter().enumerate() {
                    out.iter_mut().zip(part(other, 2)).for_each(|(out, value)| *out += score * value);
                }
            }
        }
        Ok(mixed)
    }
}

impl Packed for Block {
    fn run(&self, mut inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let mask = inputs[1].try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
        let mask: Vec<f32> = mask.iter().map(|m| if *m == 0 { MASKED } else { 0.0 }).collect();
        let mut tensor = inputs.remove(0).into_tensor();
        let mut plain = tensor.try_as_plain_ram_mut()?;
        let x = plain.as_slice_mut::<f32>()?;
        ensure!(x.len() == mask.len() * self.qkv.k() && mask.len() <= MAX_TOKENS, "a mask of {} tokens", mask.len());
        let mixed = self.attend(x, &mask, workspace)?;
        self.output.run(&mixed, x, Finish::Add, workspace)?;
        norm_rows(self.isa, &self.attention_norm, x)?;
        let mut inner = vec![0.0; mask.len() * self.inner.n()];
        self.inner.run(x, &mut inner, Finish::Gelu, workspace)?;
        self.outer.run(&inner, x, Finish::Add, workspace)?;
        norm_rows(self.isa, &self.norm, x)?;
        Ok(tensor)
    }
}

/// In eight sums, which the compiler keeps in vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    let (a_rest, b_rest) = (a.chunks_exact(8).remainder(), b.chunks_exact(8).remainder());
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Powers of e over their sum.
fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - top).exp());
    let inverse = 1.0 / scores.iter().sum::<f32>();
    scores.iter_mut().for_each(|score| *score *= inverse);
}
