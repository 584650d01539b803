//! Safetensors files.
//!
//! In: bytes. Out: [`Weights`] of the floating-point tensors; f16 and bf16 are widened.
//! Never: reads beyond the bytes it got (the safetensors crate checks the header against them).

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::{Weight, Weights};

/// Reads all tensors but those that `skip` names (buffers that are no weights).
///
/// # Errors
/// A damaged header, or a tensor of a type that weights don't have.
pub fn read(bytes: &[u8], skip: impl Fn(&str) -> bool) -> Result<Weights> {
    let file = SafeTensors::deserialize(bytes).context("not a sound safetensors file")?;
    let mut weights = Weights::default();
    for (name, view) in file.iter().filter(|(name, _)| !skip(name)) {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
            Dtype::F16 => data.chunks_exact(2).map(|c| f16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
            Dtype::BF16 => data.chunks_exact(2).map(|c| bf16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
            other => bail!("the tensor {name} has type {other:?}; weights are F32, F16 or BF16"),
        };
        weights.insert(name, Weight { shape: view.shape().to_vec(), values });
    }
    Ok(weights)
}
