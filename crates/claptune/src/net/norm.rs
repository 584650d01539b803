//! A layer norm.
//!
//! In: rows along the last dimension. Out: the same without mean, of variance 1, scaled and moved.
//! Never: is without a bias; no network here is.

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
