//! The text tower of CLAP: RoBERTa, its pooler and a projection. Token ids and mask [N, S] to unit embeddings [N,
//! output].
//!
//! Architecture: Liu et al., arXiv 1907.11692. Reference: transformers 5.23, models/clap/modeling_clap.py,
//! `ClapTextModel`, `ClapTextPooler`.

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::tanh;

use super::bert::{Bert, BertConfig};
use super::observer::{ActivationObserver, TextNetwork, ignore_activations};
use super::projection::{Projection, ProjectionConfig};
use crate::export::Tracer;

/// Sizes of the tower.
#[derive(Clone, Debug)]
pub struct RobertaConfig {
    /// The encoder.
    pub bert: BertConfig,
    /// The projection; its input has the encoder's width.
    pub projection: ProjectionConfig,
}

impl RobertaConfig {
    /// The tower with zeros for weights, to be loaded.
    pub fn init(&self, device: &Device) -> Roberta {
        let width = self.bert.width;
        Roberta {
            bert: self.bert.init(device),
            pooler: LinearConfig::new(width, width).with_initializer(Initializer::Zeros).init(device),
            projection: self.projection.init(device),
        }
    }
}

/// The tower.
#[derive(Module, Debug)]
pub struct Roberta {
    bert: Bert,
    pooler: Linear,
    projection: Projection,
}

impl Roberta {
    /// Ids and mask [N, S] (1 for a token, 0 for padding) to unit embeddings [N, output].
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> Tensor<2> {
        self.forward_observed(ids, mask, &mut ignore_activations)
    }

    /// What is exported: one text of `length` tokens in, its embedding out.
    pub fn trace(&self, tracer: &mut Tracer, length: usize) {
        let ids = tracer.int_input("ids", [1, length]);
        let mask = tracer.int_input("mask", [1, length]);
        tracer.output("embedding", &self.forward(ids, mask));
    }
}

impl TextNetwork for Roberta {
    fn forward_observed(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        observer: &mut ActivationObserver,
    ) -> Tensor<2> {
        let hidden = self.bert.forward_observed(ids, mask.float(), observer);
        let [n, _, width] = hidden.dims();
        let first = hidden.narrow(1, 0, 1).reshape([n, width]);
        self.projection.forward(tanh(self.pooler.forward(first)))
    }
}
