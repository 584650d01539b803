//! The networks, each written once, as Burn modules. Loaded from checkpoints, trained, and exported from here.
//!
//! In: tensors. Out: tensors. Parameters have the names that [`crate::checkpoint`] gives them.
//! Never: reads files.

pub mod bert;
pub mod captions;
pub mod clap;
pub mod htsat;
pub mod minilm;
pub mod norm;
pub mod ops;
pub mod projection;
pub mod resize;
pub mod roberta;
pub mod swin;
pub mod watch;
pub mod yamnet;

use burn::prelude::*;

/// Rows scaled to length 1. `length_min` keeps a row of zeros at zero.
pub fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(LENGTH_MIN);
    x / length
}

/// PyTorch's `normalize` divides by at least this.
const LENGTH_MIN: f32 = 1e-12;
