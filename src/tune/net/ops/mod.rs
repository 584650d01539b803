//! Operators of a transformer with derivatives of their own, where a network is trained on the processor.
//!
//! In: tensors on any device. Out: what Burn's operators of the same names give. Burn's automatic derivatives take a norm or a softmax
//! apart into passes over memory, forward and back, and its GELU takes one number at a time: together half of a training step.
//! `flex` computes on the processor, `autodiff` joins it to Burn's graph of derivatives.
//! Never: touches another backend, or a recording for export: those have Burn's own.

mod autodiff;
mod flex;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::prelude::*;
use burn::tensor::{DType, TensorData, activation, module};

/// The operators.
#[backend_extension(Flex, Autodiff)]
pub trait TransformerOps: Backend {
    /// x/2 (1 + erf(x / sqrt 2)).
    fn gelu_of(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Shares of each row.
    fn softmax_of(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Rows without mean, of variance 1, times `weight`, plus `bias`.
    fn norm_of(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;
    /// `[N, T, C]` to the same, where token i is what was token `order[i]`; `back` is the other way round.
    fn reordered_of(x: FloatTensor<Self>, order: IntTensor<Self>, back: IntTensor<Self>) -> FloatTensor<Self>;
}

/// Whether the operators here have `x`.
fn is_ours<const D: usize>(x: &Tensor<D>) -> bool {
    x.device().without_autodiff() == Device::flex() && x.dtype() == DType::F32
}

/// GELU of each element, by the error function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_ours(&x) { Tensor::from_dispatch(Dispatch::gelu_of(x.into_dispatch())) } else { activation::gelu(x) }
}

/// Softmax over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_ours(&x) {
        Tensor::from_dispatch(Dispatch::softmax_of(x.into_dispatch()))
    } else {
        activation::softmax(x, D - 1)
    }
}

/// Layer norm over the last dimension.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<D> {
    if is_ours(&x) {
        let [x, weight, bias] = [x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
        Tensor::from_dispatch(Dispatch::norm_of(x, weight, bias, epsilon))
    } else {
        module::layer_norm(x, weight, Some(bias), epsilon)
    }
}

/// A permutation of tokens and its inverse.
pub struct Order([Tensor<1, Int>; 2]);

impl Order {
    /// In which place i is taken by token `order[i]`; each token must be there once.
    pub fn new(order: &[usize], device: &Device) -> Self {
        let mut back = vec![0; order.len()];
        for (place, token) in order.iter().enumerate() {
            back[*token] = place;
        }
        let tensor = |order: &[usize]| {
            let order: Vec<i64> = order.iter().map(|token| *token as i64).collect();
            Tensor::from_data(TensorData::new(order, [back.len()]), device)
        };
        Self([tensor(order), tensor(&back)])
    }

    /// `[N, T, C]` in this order.
    pub fn put(&self, x: Tensor<3>) -> Tensor<3> {
        let [order, back] = &self.0;
        reordered(x, order, back)
    }

    /// What was [`put`](Self::put) in this order, as it was.
    pub fn undo(&self, x: Tensor<3>) -> Tensor<3> {
        let [order, back] = &self.0;
        reordered(x, back, order)
    }
}

fn reordered(x: Tensor<3>, order: &Tensor<1, Int>, back: &Tensor<1, Int>) -> Tensor<3> {
    if !is_ours(&x) {
        return x.select(1, order.clone());
    }
    let [order, back] = [order, back].map(|order| order.clone().into_dispatch());
    Tensor::from_dispatch(Dispatch::reordered_of(x.into_dispatch(), order, back))
}
