//! The transformer encoder of the BERT family: token ids [N, S] and a mask [N, S] of ones and zeros to hidden states
//! [N, S, width].
//!
//! BERT's positions count all tokens from 0. RoBERTa's count those that are no padding, from pad id + 1; padding itself
//! is at the pad id (transformers 5.23, models/clap/modeling_clap.py, `create_position_ids_from_input_ids`).
//!
//! Architecture: Devlin et al., arXiv 1810.04805; layer norm after the residual, exact GELU.

use burn::module::Param;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::module::embedding;

use super::norm::Norm;
use super::observer::{ActivationObserver, ignore_activations};
use super::ops::{gelu, softmax};

/// Sizes of an encoder.
#[derive(Clone, Debug)]
pub struct BertConfig {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// The padding token, for a RoBERTa; none for a BERT.
    pub pad_id: Option<usize>,
    /// Token types; all tokens are of type 0.
    pub types: usize,
    /// Width of a hidden state.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width between the two linears of a layer.
    pub inner: usize,
    /// Epsilon of the layer norms.
    pub epsilon: f64,
}

impl BertConfig {
    /// The encoder with zeros for weights, to be loaded.
    pub fn init(&self, device: &Device) -> Bert {
        let zeros = |rows: usize| Param::from_tensor(Tensor::zeros([rows, self.width], device));
        let embedding = EmbeddingConfig::new(self.vocabulary, self.width).with_initializer(Initializer::Zeros);
        Bert {
            words: embedding.init(device),
            positions: zeros(self.positions),
            types: zeros(self.types),
            norm: self.norm(device),
            layers: (0..self.layers).map(|_| self.layer(device)).collect(),
            pad_id: self.pad_id,
        }
    }

    fn norm(&self, device: &Device) -> Norm {
        Norm::new(self.width, self.epsilon, device)
    }

    fn layer(&self, device: &Device) -> BertLayer {
        let linear = |from, to| LinearConfig::new(from, to).with_initializer(Initializer::Zeros).init(device);
        let width = self.width;
        BertLayer {
            query: linear(width, width),
            key: linear(width, width),
            value: linear(width, width),
            output: linear(width, width),
            attention_norm: self.norm(device),
            inner: linear(width, self.inner),
            outer: linear(self.inner, width),
            norm: self.norm(device),
            heads: self.heads,
        }
    }
}

/// One layer: attention, then two linears, each with a residual and a norm after it.
#[derive(Module, Debug)]
pub struct BertLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: Norm,
    inner: Linear,
    outer: Linear,
    norm: Norm,
    heads: usize,
}

impl BertLayer {
    /// [N, S, width] and the additive mask [N, 1, 1, S] to [N, S, width].
    fn forward(&self, x: Tensor<3>, mask: Tensor<4>, observer: &mut ActivationObserver) -> Tensor<3> {
        let x = self.attention_norm.forward(x.clone() + self.attend(x, mask, observer));
        observer(&[&self.inner], &x);
        let inner = gelu(self.inner.forward(x.clone()));
        observer(&[&self.outer], &inner);
        self.norm.forward(x + self.outer.forward(inner))
    }

    fn attend(&self, x: Tensor<3>, mask: Tensor<4>, observer: &mut ActivationObserver) -> Tensor<3> {
        observer(&[&self.query, &self.key, &self.value], &x);
        let [n, s, width] = x.dims();
        let size = width / self.heads;
        let heads = |x: Tensor<3>| x.reshape([n, s, self.heads, size]).swap_dims(1, 2);
        let query = heads(self.query.forward(x.clone())).mul_scalar((size as f64).powf(-0.5));
        let (key, value) = (heads(self.key.forward(x.clone())), heads(self.value.forward(x)));
        let weights = softmax(query.matmul(key.swap_dims(2, 3)) + mask);
        let mixed = weights.matmul(value).swap_dims(1, 2).reshape([n, s, width]);
        observer(&[&self.output], &mixed);
        self.output.forward(mixed)
    }
}

/// The encoder.
#[derive(Module, Debug)]
pub struct Bert {
    words: Embedding,
    positions: Param<Tensor<2>>,
    types: Param<Tensor<2>>,
    norm: Norm,
    layers: Vec<BertLayer>,
    pad_id: Option<usize>,
}

/// Added to the attention scores of padding: exp of it is 0 in f32 beside any score that occurs.
const MASKED: f32 = -1e4;

impl Bert {
    /// Ids [N, S] and mask [N, S] (1 for a token, 0 for padding, as floats) to hidden states [N, S, width].
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2>) -> Tensor<3> {
        self.forward_observed(ids, mask, &mut ignore_activations)
    }

    /// The same, while `observer` sees what goes into the linears.
    pub fn forward_observed(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2>,
        observer: &mut ActivationObserver,
    ) -> Tensor<3> {
        let [n, s] = ids.dims();
        let positions = self.positions(ids.clone()) + self.types.val().narrow(0, 0, 1).unsqueeze::<3>();
        let mut x = self.norm.forward(self.words.forward(ids) + positions);
        let mask = (mask - 1.0).mul_scalar(-MASKED).reshape([n, 1, 1, s]);
        for layer in &self.layers {
            x = layer.forward(x, mask.clone(), observer);
        }
        x
    }

    /// The embeddings of the tokens' positions, [N or 1, S, width].
    fn positions(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, s] = ids.dims();
        let table = self.positions.val();
        let Some(pad) = self.pad_id else { return table.narrow(0, 0, s).unsqueeze::<3>() };
        // Counting by a product with ones above the diagonal: ONNX's CumSum would be a loop in NNEF.
        let longest = table.dims()[0] - (pad + 1);
        let ones: Vec<f32> = (0..longest * longest).map(|i| f32::from(u8::from(i / longest <= i % longest))).collect();
        let ones = Tensor::<2>::from_data(TensorData::new(ones, [longest, longest]), &table.device());
        let token = ids.not_equal_elem(pad as i64).float();
        let count = token.clone().matmul(ones.slice([0..s, 0..s])) * token;
        embedding(table, count.add_scalar(pad as f32).int())
    }
}
