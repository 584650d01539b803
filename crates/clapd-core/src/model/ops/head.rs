//! The ends of both towers as operators: from what the last layer gives to a unit embedding.
//!
//! The output is `[1, output]` of length 1; zeros stay zeros.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapAudioModel`, `ClapTextPooler`, `ClapProjectionLayer`.

use anyhow::{Result, ensure};
use clapd_kernels::{Epilogue, Isa, Linear, Norm, Workspace, norm_rows};
use tract_nnef::internal::*;

use super::OpParams;
use super::schema::{Field, OpSpec, PackedLayer, Signature};
use crate::model::compute::Compute;
use crate::vector::normalize;

/// Tokens of an image's last stage: 64 in every CLAP.
const MAX_TOKENS: usize = 1 << 16;

/// Norm, mean over the tokens, projection.
pub(super) static HTSAT_HEAD: OpSpec = OpSpec {
    name: "clapd_htsat_head",
    inputs: &["tokens"],
    fields: &[
        Field::Size("count"),
        Field::Real("epsilon"),
        Field::Norm("norm"),
        Field::Size("gelu"),
        Field::Linear("linear1"),
        Field::Linear("linear2"),
    ],
    signature: |params| {
        let tokens = params.size("count", 1, MAX_TOKENS)?;
        let (input, output) = (params.matrix("linear1_weight")?[1], params.matrix("linear2_weight")?[0]);
        Ok(Signature {
            inputs: vec![(f32::datum_type(), vec![Some(1), Some(tokens), Some(input)])],
            output: vec![Some(1), Some(output)],
        })
    },
    pack: |params, compute| {
        let projection = Projection::new(params, compute)?;
        let norm = params.norm("norm", projection.first.k())?;
        Ok(Box::new(AudioHead { isa: compute.isa(), norm, projection }))
    },
};

/// The first token through a linear and tanh, projection.
pub(super) static TEXT_HEAD: OpSpec = OpSpec {
    name: "clapd_text_head",
    inputs: &["hidden"],
    fields: &[Field::Linear("pooler"), Field::Size("gelu"), Field::Linear("linear1"), Field::Linear("linear2")],
    signature: |params| {
        let (input, output) = (params.matrix("pooler_weight")?[1], params.matrix("linear2_weight")?[0]);
        Ok(Signature {
            inputs: vec![(f32::datum_type(), vec![Some(1), None, Some(input)])],
            output: vec![Some(1), Some(output)],
        })
    },
    pack: |params, compute| {
        let (pooler, projection) = (params.linear("pooler", compute.isa())?, Projection::new(params, compute)?);
        ensure!(
            pooler.n() == projection.first.k(),
            "pooler gives {} numbers, linear1 takes {}",
            pooler.n(),
            projection.first.k()
        );
        Ok(Box::new(TextHead { pooler, projection }))
    },
};

/// Two linears and what stands between them; then length 1.
struct Projection {
    first: Linear,
    between: Epilogue,
    second: Linear,
}

impl Projection {
    fn new(params: &OpParams, compute: Compute) -> Result<Self> {
        let isa: Isa = compute.isa();
        let (first, second) = (params.linear("linear1", isa)?, params.linear("linear2", isa)?);
        ensure!(first.n() == second.k(), "linear1 gives {} numbers, linear2 takes {}", first.n(), second.k());
        let between = if params.size("gelu", 0, 1)? == 1 { Epilogue::Gelu } else { Epilogue::Relu };
        Ok(Self { first, between, second })
    }

    fn run(&self, x: &[f32], workspace: &mut Workspace) -> Result<Tensor> {
        let (mut inner, mut output) = (vec![0.0; self.first.n()], vec![0.0; self.second.n()]);
        self.first.run(x, &mut inner, self.between, workspace)?;
        self.second.run(&inner, &mut output, Epilogue::Store, workspace)?;
        normalize(&mut output);
        Tensor::from_shape(&[1, output.len()], &output)
    }
}

struct AudioHead {
    isa: Isa,
    norm: Norm,
    projection: Projection,
}

impl PackedLayer for AudioHead {
    fn run(&self, mut inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let mut tensor = inputs.remove(0).into_tensor();
        let mut plain = tensor.try_as_plain_ram_mut()?;
        let tokens = plain.as_slice_mut::<f32>()?;
        norm_rows(self.isa, &self.norm, tokens)?;
        let mut mean = vec![0.0; self.norm.len()];
        let count = tokens.len() / mean.len();
        for token in tokens.chunks_exact(mean.len()) {
            mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += x);
        }
        mean.iter_mut().for_each(|mean| *mean /= count as f32);
        self.projection.run(&mean, workspace)
    }
}

struct TextHead {
    pooler: Linear,
    projection: Projection,
}

impl PackedLayer for TextHead {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let hidden = inputs[0].try_as_plain_ram()?;
        let hidden = hidden.as_slice::<f32>()?;
        ensure!(hidden.len() >= self.pooler.k(), "a text of no tokens");
        let mut pooled = vec![0.0; self.pooler.n()];
        self.pooler.run(&hidden[..self.pooler.k()], &mut pooled, Epilogue::Store, workspace)?;
        pooled.iter_mut().for_each(|x| *x = x.tanh());
        self.projection.run(&pooled, workspace)
    }
}
