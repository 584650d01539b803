//! RoBERTa, laid out.
//!
//! In: a checkpoint. Out: `ids` and `mask`, [1, S], to `embedding`, [1, output].
//! Never: pads.

use anyhow::Result;
use burn::prelude::Device;
use tract_onnx::prelude::*;

use super::weights::Weights;
use crate::clap::ops::Fused;
use crate::tune::checkpoint::clap::ClapCheckpoint;
use crate::tune::checkpoint::clap_names::Tower;
use crate::tune::export::Precision;
use crate::tune::export::rows::Rows;
use crate::tune::net::projection::Activation;
use crate::tune::quantize::{self, calibration};

/// The text tower.
///
/// # Errors
/// A weight that can't be read, or is not finite; for int8, a network that overflows on the calibration.
pub fn text(checkpoint: &ClapCheckpoint, precision: Precision) -> Result<TypedModel> {
    let mut weights = Weights { checkpoint, tower: Tower::Text, precision, int8: Default::default() };
    let mut words = None;
    if precision == Precision::Int8 {
        let network = checkpoint.text(&Device::flex())?;
        words = Some(quantize::words(&network)?);
        let rounded = quantize::text(&network, &calibration::texts(&checkpoint.tokenizer()?)?)?;
        weights.int8 = rounded.into_iter().map(|linear| (linear.path.clone(), linear)).collect();
    }
    let config = &checkpoint.config.text;
    let mut model = TypedModel::default();
    let length = model.symbols.sym("S");
    let shape: [TDim; 2] = [1.into(), length.into()];
    let ids = model.add_source("ids", i64::fact(&shape))?;
    let mask = model.add_source("mask", i64::fact(&shape))?;
    let mut x = model.wire_node("embeddings", embeddings(&mut weights, words)?, &[ids])?[0];
    for layer in 0..config.bert.layers {
        x = model.wire_node(format!("layer_{layer}"), block(&mut weights, layer)?, &[x, mask])?[0];
    }
    let x = model.wire_node("embedding", head(&mut weights)?, &[x])?;
    model.select_output_outlets(&x)?;
    Ok(model)
}

fn embeddings(weights: &mut Weights, words: Option<Rows>) -> Result<Fused> {
    let config = &weights.checkpoint.config;
    let (width, pad_id, epsilon) = (config.text.bert.width, config.pad_id, config.text.bert.epsilon);
    let kind = weights.read("bert.types")?.values;
    let positions = weights.read("bert.positions")?;
    let mut layer = weights.layer("clapd_text_embeddings")?;
    layer.sizes(&[("pad_id", pad_id)]);
    layer.parts.set_real("epsilon", epsilon as f32);
    layer.rows("words", "bert.words.weight", words)?;
    layer.floats("positions", &positions.shape, &positions.values)?;
    // All tokens are of type 0.
    layer.floats("kind", &[width], &kind[..width])?;
    layer.norm("norm", "bert.norm")?;
    Fused::new(layer.parts)
}

fn block(weights: &mut Weights, index: usize) -> Result<Fused> {
    let bert = &weights.checkpoint.config.text.bert;
    let (heads, epsilon) = (bert.heads, bert.epsilon);
    let path = |name: &str| format!("bert.layers.{index}.{name}");
    let mut layer = weights.layer("clapd_transformer_block")?;
    layer.sizes(&[("heads", heads)]);
    layer.parts.set_real("epsilon", epsilon as f32);
    layer.body("qkv", &[path("query"), path("key"), path("value")], true)?;
    layer.body("output", &[path("output")], true)?;
    layer.norm("attention_norm", &path("attention_norm"))?;
    layer.body("inner", &[path("inner")], true)?;
    layer.body("outer", &[path("outer")], true)?;
    layer.norm("norm", &path("norm"))?;
    Fused::new(layer.parts)
}

fn head(weights: &mut Weights) -> Result<Fused> {
    let gelu = weights.checkpoint.config.text.projection.activation == Activation::Gelu;
    let mut layer = weights.layer("clapd_text_head")?;
    layer.head("pooler", "pooler")?;
    layer.sizes(&[("gelu", gelu.into())]);
    layer.head("linear1", "projection.linear1")?;
    layer.head("linear2", "projection.linear2")?;
    Fused::new(layer.parts)
}
