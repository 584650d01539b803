//! YAMNet's TensorFlow variables, as `models/mini/lab/unpack.py` names them, under the names and layouts of
//! [`crate::net::yamnet`]: convolutions [out, in, y, x] with the batch normalisations folded in.

use anyhow::{Context, Result, ensure};

use super::weights::{Weight, Weights};
use crate::net::yamnet::{BATCH_NORM_EPSILON, YamnetConfig};

/// Renames, transposes and folds. The layers are numbered in order: convolution, normalisation, and so on; the dense
/// layer is the last.
///
/// # Errors
/// Names the first layer whose tensors are missing or don't belong together.
pub fn rename(mut source: Weights, config: &YamnetConfig) -> Result<Weights> {
    let mut renamed = Weights::default();
    let mut paths = vec![("stem".to_string(), "kernel")];
    for block in 0..config.blocks.len() {
        paths.push((format!("blocks.{block}.depthwise"), "depthwise_kernel"));
        paths.push((format!("blocks.{block}.pointwise"), "kernel"));
    }
    for (i, (path, kernel)) in paths.iter().enumerate() {
        let (weight, bias) =
            convolution(&mut source, 2 * i, kernel).with_context(|| format!("YAMNet's layer {} ({path})", 2 * i))?;
        renamed.insert(format!("{path}.weight"), weight);
        renamed.insert(format!("{path}.bias"), bias);
    }
    let dense = 2 * paths.len();
    renamed.insert("classes.weight", take(&mut source, dense, "kernel")?);
    renamed.insert("classes.bias", take(&mut source, dense, "bias")?);
    // What is not known keeps its name, so that loading reports it.
    renamed.append(source);
    Ok(renamed)
}

fn take(source: &mut Weights, layer: usize, name: &str) -> Result<Weight> {
    let name = format!("layers.{layer}.{name}");
    source.take(&name).with_context(|| format!("the checkpoint has no {name}"))
}

/// The convolution of `layer` with the normalisation of the next layer: y = (conv(x) - mean) / sqrt(var + eps) + beta.
fn convolution(source: &mut Weights, layer: usize, kernel: &str) -> Result<(Weight, Weight)> {
    let kernel = take(source, layer, kernel)?;
    let beta = take(source, layer + 1, "beta")?.values;
    let mean = take(source, layer + 1, "moving_mean")?.values;
    let variance = take(source, layer + 1, "moving_variance")?.values;
    let &[y, x, from, to] = kernel.shape.as_slice() else {
        anyhow::bail!("its kernel has shape {:?}, not [y, x, in, out]", kernel.shape);
    };
    // A depthwise kernel is [y, x, channels, 1]: one input channel for each output channel.
    let (from, to) = if to == 1 && from > 1 { (1, from) } else { (from, to) };
    for (name, length) in [("beta", beta.len()), ("mean", mean.len()), ("variance", variance.len())] {
        ensure!(length == to, "its normalisation's {name} has {length} values, the kernel {to} channels");
    }
    let scale: Vec<f32> = variance.iter().map(|v| 1.0 / (v + BATCH_NORM_EPSILON).sqrt()).collect();
    let area = y * x;
    let values = (0..to * from * area)
        .map(|i| {
            let (out, rest) = (i / (from * area), i % (from * area));
            let (input, position) = (rest / area, rest % area);
            kernel.values[(position * from + input) * to + out] * scale[out]
        })
        .collect();
    let bias = (0..to).map(|c| beta[c] - mean[c] * scale[c]).collect();
    Ok((Weight { shape: vec![to, from, y, x], values }, Weight { shape: vec![to], values: bias }))
}
