//! YAMNet, laid out: `mel`, [1, 1, frames, mels], to `probabilities`, [1, classes].
//!
//! The stem and the depthwise convolutions stay in f32: they are a twentieth of the sums, and have few weights, each of
//! which counts much.

use anyhow::Result;
use clapd_core::model::ops::Fused;
use tract_onnx::prelude::*;

use super::weights::TowerWeights;
use crate::checkpoint::Weight;
use crate::net::yamnet::{BANDS, FRAMES, YamnetConfig};

/// The network.
///
/// # Errors
/// A weight that is missing or beyond what its precision holds.
pub fn yamnet(weights: &mut TowerWeights, config: &YamnetConfig) -> Result<TypedModel> {
    let mut model = TypedModel::default();
    let mel = model.add_source("mel", f32::fact([1, 1, FRAMES, BANDS]))?;
    let mut x = model.wire_node("stem", stem(weights)?, &[mel])?[0];
    let [mut height, mut width] = [FRAMES / 2, BANDS / 2];
    for (index, &(stride, _)) in config.blocks.iter().enumerate() {
        let block = block(weights, index, [height, width, stride])?;
        x = model.wire_node(format!("block_{index}"), block, &[x])?[0];
        [height, width] = [height / stride, width / stride];
    }
    let mut layer = weights.layer("clapd_mobilenet_head")?;
    layer.sizes(&[("count", height * width)]);
    layer.head("classes", "classes")?;
    let x = model.wire_node("probabilities", Fused::new(layer.parts)?, &[x])?;
    model.select_output_outlets(&x)?;
    Ok(model)
}

fn stem(weights: &mut TowerWeights) -> Result<Fused> {
    let Weight { shape, values } = weights.read("stem.weight")?;
    let mut layer = weights.layer("clapd_mobilenet_stem")?;
    layer.sizes(&[("frames", FRAMES), ("mels", BANDS)]);
    layer.floats("kernel_weight", &[shape[0], values.len() / shape[0]], &values)?;
    layer.table("kernel_bias", "stem.bias")?;
    Fused::new(layer.parts)
}

fn block(weights: &mut TowerWeights, index: usize, [height, width, stride]: [usize; 3]) -> Result<Fused> {
    let path = |name: &str| format!("blocks.{index}.{name}");
    let Weight { shape, values } = weights.read(&path("depthwise.weight"))?;
    let (channels, taps) = (shape[0], values.len() / shape[0]);
    let depthwise = Weight { shape: vec![channels, taps], values }.transposed();
    let mut layer = weights.layer("clapd_separable_block")?;
    layer.sizes(&[("height", height), ("width", width), ("stride", stride)]);
    layer.floats("depthwise_weight", &depthwise.shape, &depthwise.values)?;
    layer.table("depthwise_bias", &path("depthwise.bias"))?;
    layer.body("pointwise", &[path("pointwise")], true)?;
    Fused::new(layer.parts)
}
