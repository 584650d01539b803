//! The two linears that bring a tower's output [N, input] into the space that audio and text share, as unit rows [N,
//! output].
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapProjectionLayer` and the normalisation in
//! `ClapModel.get_audio_features`.

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;

use super::norm::unit_rows;
use super::ops::gelu;

/// What stands between the two linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x/2 (1 + erf(x/sqrt 2)).
    Gelu,
}

/// Sizes of a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectionConfig {
    /// Width of what comes in.
    pub input: usize,
    /// Length of an embedding.
    pub output: usize,
    /// Between the linears.
    pub activation: Activation,
}

impl ProjectionConfig {
    /// The projection with zeros for weights, to be loaded.
    pub fn init(&self, device: &Device) -> Projection {
        let linear = |from, to| LinearConfig::new(from, to).with_initializer(Initializer::Zeros).init(device);
        Projection {
            linear1: linear(self.input, self.output),
            linear2: linear(self.output, self.output),
            activation: self.activation,
        }
    }
}

/// The projection.
#[derive(Module, Debug)]
pub struct Projection {
    linear1: Linear,
    linear2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Projection {
    /// [N, input] to unit embeddings [N, output].
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.linear1.forward(x);
        let x = match self.activation {
            Activation::Relu => relu(x),
            Activation::Gelu => gelu(x),
        };
        unit_rows(self.linear2.forward(x))
    }
}
