//! RoBERTa, laid out: `ids` and `mask`, [1, S], to `embedding`, [1, output].

use anyhow::Result;
use burn::prelude::Device;
use clapd_core::model::ops::Fused;
use tract_onnx::prelude::*;

use super::weights::{TowerWeights, stored};
use crate::checkpoint::clap::ClapCheckpoint;
use crate::checkpoint::clap_names::Tower;
use crate::export::Precision;
use crate::net::bert::BertConfig;
use crate::net::projection::Activation;
use crate::quantize::rows::Rows;
use crate::quantize::{self, calibration};

/// The text tower.
///
/// # Errors
/// A weight that can't be read, or is not finite; for int8, a network that overflows on the calibration.
pub fn text(checkpoint: &ClapCheckpoint, precision: Precision) -> Result<TypedModel> {
    let source = |path: &str| checkpoint.weight(Tower::Text, path);
    let mut weights = TowerWeights::new(&source, precision);
    let mut words = None;
    if precision == Precision::Int8 {
        let network = checkpoint.text(&Device::flex())?;
        words = Some(quantize::words(&network)?);
        weights.set_int8(quantize::text(&network, &calibration::texts(&checkpoint.tokenizer()?)?)?);
    }
    let config = &checkpoint.config.text;
    let mut model = TypedModel::default();
    let (hidden, _) = encoder(&mut model, &mut weights, &config.bert, words)?;
    let gelu = config.projection.activation == Activation::Gelu;
    let x = model.wire_node("embedding", head(&mut weights, gelu)?, &[hidden])?;
    model.select_output_outlets(&x)?;
    Ok(model)
}

/// The encoder of a RoBERTa or BERT: its hidden states [1, S, width], and the mask [1, S] that it is given.
///
/// # Errors
/// A weight that can't be read, or was not rounded for int8.
pub fn encoder(
    model: &mut TypedModel,
    weights: &mut TowerWeights,
    config: &BertConfig,
    words: Option<Rows>,
) -> Result<(OutletId, OutletId)> {
    let length = model.symbols.sym("S");
    let shape: [TDim; 2] = [1.into(), length.into()];
    let ids = model.add_source("ids", i64::fact(&shape))?;
    let mask = model.add_source("mask", i64::fact(&shape))?;
    let mut x = model.wire_node("embeddings", embeddings(weights, config, words)?, &[ids])?[0];
    for layer in 0..config.layers {
        x = model.wire_node(format!("layer_{layer}"), block(weights, config, layer)?, &[x, mask])?[0];
    }
    Ok((x, mask))
}

fn embeddings(weights: &mut TowerWeights, config: &BertConfig, words: Option<Rows>) -> Result<Fused> {
    let kind = weights.read("bert.types")?.values;
    let positions = weights.read("bert.positions")?;
    let mut layer = weights.layer("clapd_text_embeddings")?;
    if let Some(pad_id) = config.pad_id {
        layer.sizes(&[("pad_id", pad_id)]);
    }
    layer.parts.set_real("epsilon", config.epsilon as f32);
    layer.rows("words", "bert.words.weight", words)?;
    let half = layer.weights.precision != Precision::F32;
    layer.parts.set_tensor("positions", stored(&positions.shape, &positions.values, half)?);
    // All tokens are of type 0.
    layer.floats("kind", &[config.width], &kind[..config.width])?;
    layer.norm("norm", "bert.norm")?;
    Fused::new(layer.parts)
}

fn block(weights: &mut TowerWeights, config: &BertConfig, index: usize) -> Result<Fused> {
    let path = |name: &str| format!("bert.layers.{index}.{name}");
    let weight_only = weights.weight_only_int8 && weights.precision == Precision::Int8;
    let mut layer = weights.layer("clapd_transformer_block")?;
    layer.sizes(&[("heads", config.heads)]);
    if weight_only {
        layer.sizes(&[("wide", 1)]);
    }
    layer.parts.set_real("epsilon", config.epsilon as f32);
    layer.body("qkv", &[path("query"), path("key"), path("value")], true)?;
    layer.body("output", &[path("output")], true)?;
    layer.norm("attention_norm", &path("attention_norm"))?;
    layer.body("inner", &[path("inner")], true)?;
    layer.body("outer", &[path("outer")], true)?;
    layer.norm("norm", &path("norm"))?;
    Fused::new(layer.parts)
}

fn head(weights: &mut TowerWeights, gelu: bool) -> Result<Fused> {
    let mut layer = weights.layer("clapd_text_head")?;
    layer.head("pooler", "pooler")?;
    layer.sizes(&[("gelu", gelu.into())]);
    layer.head("linear1", "projection.linear1")?;
    layer.head("linear2", "projection.linear2")?;
    Fused::new(layer.parts)
}
