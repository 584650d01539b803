//! A layer norm over the last dimension, and rows scaled to unit length.

use burn::module::Param;
use burn::prelude::*;

use super::ops::layer_norm;

/// Its weight and bias, by Burn's names for them.
#[derive(Module, Debug)]
pub struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    epsilon: f64,
}

impl Norm {
    /// Over rows of `width`, with ones and zeros, to be loaded. `epsilon` is added to a row's variance.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            gamma: Param::from_tensor(Tensor::ones([width], device)),
            beta: Param::from_tensor(Tensor::zeros([width], device)),
            epsilon,
        }
    }

    /// The norm of each row.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}

/// PyTorch's epsilon, where a network does not say its own.
pub const EPSILON: f64 = 1e-5;

/// Rows scaled to length 1. `length_min` keeps a row of zeros at zero.
pub fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(LENGTH_MIN);
    x / length
}

/// PyTorch's `normalize` divides by at least this.
const LENGTH_MIN: f32 = 1e-12;
