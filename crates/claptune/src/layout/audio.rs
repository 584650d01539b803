//! HTSAT, laid out: `mel`, [1, 1 or 4, frames, mels], to `embedding`, [1, output].
//!
//! Batch norms become what they are when nothing is trained: a factor and a summand, of a mel band or inside a linear.
//! The front stays in f32: it has few weights and sees every sound first.

use anyhow::Result;
use burn::prelude::Device;
use clapd_core::model::ops::Fused;
use tract_onnx::prelude::*;

use super::weights::{LayerBuilder, TowerWeights};
use crate::checkpoint::clap::ClapCheckpoint;
use crate::checkpoint::clap_names::Tower;
use crate::export::Precision;
use crate::net::htsat::HtsatConfig;
use crate::net::projection::Activation;
use crate::quantize::{self, calibration};

/// PyTorch's epsilon of norms, where the reference gives none: all batch norms, the norms of patches, mergings and the end.
const EPSILON: f32 = 1e-5;

/// The audio tower.
///
/// # Errors
/// A weight that can't be read, or is not finite; for int8, a network that overflows on the calibration.
pub fn audio(checkpoint: &ClapCheckpoint, precision: Precision) -> Result<TypedModel> {
    let config = &checkpoint.config.audio;
    let source = |path: &str| checkpoint.weight(Tower::Audio, path);
    let mut weights = TowerWeights::new(&source, precision);
    if precision == Precision::Int8 {
        let network = checkpoint.audio(&Device::flex())?;
        weights.set_int8(quantize::audio(&network, config, &calibration::patches(&checkpoint.frontend)?)?);
    }
    let mut model = TypedModel::default();
    let shape = [1, config.input_channels(), config.frames, config.mels];
    let mel = model.add_source("mel", f32::fact(shape))?;
    let mut x = model.wire_node("tokens", tokens(&mut weights, config)?, &[mel])?[0];
    for (stage, &depth) in config.depths.iter().enumerate() {
        for index in 0..depth {
            let block = block(&mut weights, config, stage, index)?;
            x = model.wire_node(format!("stage_{stage}_block_{index}"), block, &[x])?[0];
        }
        if stage + 1 < config.depths.len() {
            x = model.wire_node(format!("stage_{stage}_merge"), merge(&mut weights, config, stage)?, &[x])?[0];
        }
    }
    let x = model.wire_node("embedding", head(&mut weights, config)?, &[x])?;
    model.select_output_outlets(&x)?;
    Ok(model)
}

/// A batch norm as a factor and a summand of each channel.
fn affine(weights: &TowerWeights, path: &str) -> Result<(Vec<f32>, Vec<f32>)> {
    let part = |name: &str| Ok::<_, anyhow::Error>(weights.read(&format!("{path}.{name}"))?.values);
    let (gamma, beta, mean, variance) = (part("gamma")?, part("beta")?, part("running_mean")?, part("running_var")?);
    let factors: Vec<f64> =
        gamma.iter().zip(&variance).map(|(g, v)| f64::from(*g) / (f64::from(*v) + f64::from(EPSILON)).sqrt()).collect();
    let summands = beta.iter().zip(&mean).zip(&factors).map(|((b, m), f)| (f64::from(*b) - f64::from(*m) * f) as f32);
    let summands = summands.collect();
    Ok((factors.iter().map(|f| *f as f32).collect(), summands))
}

fn tokens(weights: &mut TowerWeights, config: &HtsatConfig) -> Result<Fused> {
    let (factors, summands) = affine(weights, "batch_norm")?;
    let mut layer = weights.layer("clapd_htsat_tokens")?;
    layer.sizes(&[
        ("frames", config.frames),
        ("mels", config.mels),
        ("image", config.image),
        ("patch_height", config.patch[0]),
        ("patch_width", config.patch[1]),
        ("stride_height", config.stride[0]),
        ("stride_width", config.stride[1]),
    ]);
    layer.parts.set_real("epsilon", EPSILON);
    layer.floats("mel_scale", &[factors.len()], &factors)?;
    layer.floats("mel_shift", &[summands.len()], &summands)?;
    convolution(&mut layer, "patch", "patch", None)?;
    if config.patch_norm {
        layer.norm("patch_norm", "patch_norm")?;
    }
    if config.fusion.is_some() {
        convolution(&mut layer, "crops", "fusion.crops", None)?;
        for squeeze in ["local", "global"] {
            for half in ["reduce", "expand"] {
                let path = format!("fusion.{squeeze}.{half}");
                convolution(&mut layer, &format!("{squeeze}_{half}"), &path, Some(&format!("{path}_norm")))?;
            }
        }
    }
    Fused::new(layer.parts)
}

/// A convolution over patches that don't share a kernel's columns is a linear; a batch norm behind it goes into it.
fn convolution(layer: &mut LayerBuilder, name: &str, path: &str, norm: Option<&str>) -> Result<()> {
    let (weight, bias) = (layer.weights.read(&format!("{path}.weight"))?, layer.weights.read(&format!("{path}.bias"))?);
    let outputs = weight.shape[0];
    let inputs = weight.values.len() / outputs.max(1);
    let (mut values, mut biases) = (weight.values, bias.values);
    if let Some(norm) = norm {
        let (factors, summands) = affine(layer.weights, norm)?;
        for (row, factor) in values.chunks_exact_mut(inputs.max(1)).zip(&factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        let scaled = biases.iter().zip(&factors).zip(&summands).map(|((bias, f), s)| bias * f + s);
        biases = scaled.collect();
    }
    layer.floats(&format!("{name}_weight"), &[outputs, inputs], &values)?;
    layer.floats(&format!("{name}_bias"), &[outputs], &biases)
}

fn block(weights: &mut TowerWeights, config: &HtsatConfig, stage: usize, index: usize) -> Result<Fused> {
    let sizes = config.stage(stage);
    let [height, width] = sizes.grid;
    let path = |name: &str| format!("stages.{stage}.blocks.{index}.{name}");
    let attention = |name: &str| path(&format!("attention.{name}"));
    let mut layer = weights.layer("clapd_swin_block")?;
    layer.sizes(&[("height", height), ("width", width), ("window", sizes.window), ("shift", sizes.shift(index))]);
    layer.sizes(&[("heads", sizes.heads)]);
    layer.parts.set_real("epsilon", config.epsilon as f32);
    layer.norm("norm_before", &path("norm_before"))?;
    layer.body("qkv", &[attention("query"), attention("key"), attention("value")], config.qkv_bias)?;
    layer.table("position_bias", &attention("position_bias"))?;
    layer.body("output", &[attention("output")], true)?;
    layer.norm("norm_after", &path("norm_after"))?;
    layer.body("inner", &[path("inner")], true)?;
    layer.body("outer", &[path("outer")], true)?;
    Fused::new(layer.parts)
}

fn merge(weights: &mut TowerWeights, config: &HtsatConfig, stage: usize) -> Result<Fused> {
    let [height, width] = config.stage(stage).grid;
    let path = format!("stages.{stage}.merge");
    let mut layer = weights.layer("clapd_patch_merge")?;
    layer.sizes(&[("height", height), ("width", width)]);
    layer.parts.set_real("epsilon", EPSILON);
    layer.norm("norm", &format!("{path}.norm"))?;
    layer.body("reduction", &[format!("{path}.reduction")], false)?;
    Fused::new(layer.parts)
}

fn head(weights: &mut TowerWeights, config: &HtsatConfig) -> Result<Fused> {
    let last = config.depths.len() - 1;
    let count = config.grid().iter().map(|side| side >> last).product();
    let mut layer = weights.layer("clapd_htsat_head")?;
    layer.sizes(&[("count", count), ("gelu", (config.projection.activation == Activation::Gelu).into())]);
    layer.parts.set_real("epsilon", EPSILON);
    layer.norm("norm", "norm")?;
    layer.head("linear1", "projection.linear1")?;
    layer.head("linear2", "projection.linear2")?;
    Fused::new(layer.parts)
}
