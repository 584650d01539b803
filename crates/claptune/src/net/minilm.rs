//! all-MiniLM-L6-v2: a small BERT whose mean hidden state stands for a sentence. Token ids and mask [N, S] to unit
//! embeddings [N, 384].
//!
//! Model: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); Wang et al., arXiv 2002.10957.

use burn::prelude::*;

use super::bert::{Bert, BertConfig};
use super::norm::unit_rows;
use super::observer::{ActivationObserver, TextNetwork, ignore_activations};

/// Width of an embedding.
pub const WIDTH: usize = 384;

/// The sizes of all-MiniLM-L6-v2 (its config.json).
pub fn published() -> BertConfig {
    BertConfig {
        vocabulary: 30522,
        positions: 512,
        pad_id: None,
        types: 2,
        width: WIDTH,
        layers: 6,
        heads: 12,
        inner: 1536,
        epsilon: 1e-12,
    }
}

/// The sentence encoder.
#[derive(Module, Debug)]
pub struct MiniLm {
    bert: Bert,
}

impl MiniLm {
    /// With zeros for weights, to be loaded.
    pub fn new(config: &BertConfig, device: &Device) -> Self {
        Self { bert: config.init(device) }
    }

    /// Ids and mask [N, S] (1 for a token, 0 for padding) to unit embeddings [N, width].
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> Tensor<2> {
        self.forward_observed(ids, mask, &mut ignore_activations)
    }
}

impl TextNetwork for MiniLm {
    fn forward_observed(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        observer: &mut ActivationObserver,
    ) -> Tensor<2> {
        let mask = mask.float();
        let hidden = self.bert.forward_observed(ids, mask.clone(), observer);
        let [n, _, width] = hidden.dims();
        let weight = mask.unsqueeze_dim::<3>(2);
        let sum = (hidden * weight.clone()).sum_dim(1).reshape([n, width]);
        unit_rows(sum / weight.sum_dim(1).reshape([n, 1]))
    }
}
