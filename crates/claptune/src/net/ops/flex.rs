//! The operators and their derivatives on the processor, over rows along the last dimension in f32. Sums over rows are
//! added up in one order on any number of cores.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Flex, TensorMetadata};
use burn::tensor::TensorData;
use clapd_kernels::Gelu;
use rayon::prelude::*;

use super::TransformerOps;

/// Derivatives, each from the gradient by what the operator gave.
pub trait Derivatives: Backend {
    /// By `x`, which went into GELU.
    fn gelu_back(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
    /// By what went into the softmax that gave `shares`.
    fn softmax_back(shares: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
    /// By `x`, by the norm's weight and by its bias.
    fn norm_back(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 3];
}

/// Numbers that one thread takes at a time, about: 64 KB of each operand, which stay in its cache.
const SHARE: usize = 1 << 14;

impl TransformerOps for Flex {
    fn gelu_of(x: FlexTensor) -> FlexTensor {
        let mut y = x.to_contiguous();
        // The last owner's numbers may be changed in place.
        drop(x);
        let gelu = Gelu::fastest();
        y.storage_mut::<f32>().par_chunks_mut(SHARE).for_each(|part| gelu.forward(part));
        y
    }

    fn softmax_of(x: FlexTensor) -> FlexTensor {
        let last = x.rank() - 1;
        Self::softmax(x, last)
    }

    fn norm_of(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, epsilon: f64) -> FlexTensor {
        Self::layer_norm(x, weight, Some(bias), epsilon)
    }

    fn reordered_of(x: FlexTensor, order: IntTensor<Self>, _: IntTensor<Self>) -> FlexTensor {
        Self::float_select(x, 1, order)
    }
}

impl Derivatives for Flex {
    fn gelu_back(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (x, mut by_x) = (x.to_contiguous(), gradient.to_contiguous());
        drop(gradient);
        let gelu = Gelu::fastest();
        let parts = by_x.storage_mut::<f32>().par_chunks_mut(SHARE).zip(x.storage::<f32>().par_chunks(SHARE));
        parts.for_each(|(part, x)| gelu.backward(x, part));
        by_x
    }

    fn softmax_back(shares: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let width = width(&shares);
        let (shares, mut by_x) = (shares.to_contiguous(), gradient.to_contiguous());
        drop(gradient);
        let part = rows(width) * width;
        let parts = by_x.storage_mut::<f32>().par_chunks_mut(part).zip(shares.storage::<f32>().par_chunks(part));
        parts.for_each(|(by_x, shares)| {
            for (by_x, shares) in by_x.chunks_exact_mut(width).zip(shares.chunks_exact(width)) {
                let mean = dot(by_x, shares);
                by_x.iter_mut().zip(shares).for_each(|(g, share)| *g = share * (*g - mean));
            }
        });
        by_x
    }

    fn norm_back(x: FlexTensor, weight: FlexTensor, gradient: FlexTensor, epsilon: f64) -> [FlexTensor; 3] {
        let width = width(&x);
        let (x, mut by_x) = (x.to_contiguous(), gradient.to_contiguous());
        drop(gradient);
        let weight = weight.to_contiguous();
        let (weights, part) = (weight.storage::<f32>(), rows(width) * width);
        let parts = by_x.storage_mut::<f32>().par_chunks_mut(part).zip(x.storage::<f32>().par_chunks(part));
        let sums: Vec<[Vec<f32>; 2]> = parts
            .map(|(by_x, x)| {
                let mut sums = [vec![0.0; width], vec![0.0; width]];
                let mut normal = vec![0.0; width];
                for (by_x, x) in by_x.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    norm_row(x, weights, by_x, epsilon as f32, &mut normal, &mut sums);
                }
                sums
            })
            .collect();
        let [mut by_weight, mut by_bias] = [vec![0.0; width], vec![0.0; width]];
        for [weight, bias] in &sums {
            add(&mut by_weight, weight);
            add(&mut by_bias, bias);
        }
        let [by_weight, by_bias] = [by_weight, by_bias].map(|sum| FlexTensor::from_data(TensorData::new(sum, [width])));
        [by_x, by_weight, by_bias]
    }
}

/// One row of a norm: `gradient` by y becomes that by x, and those by weight and bias are added to `sums`. `normal` is scratch.
///
/// With n = (x - mean) / deviation and g = gradient * weight, it is (g - mean of g - n * mean of g n) / deviation.
fn norm_row(
    x: &[f32],
    weight: &[f32],
    gradient: &mut [f32],
    epsilon: f32,
    normal: &mut [f32],
    sums: &mut [Vec<f32>; 2],
) {
    let count = x.len() as f32;
    let mean = total(x) / count;
    normal.iter_mut().zip(x).for_each(|(n, x)| *n = x - mean);
    let scale = 1.0 / (dot(normal, normal) / count + epsilon).sqrt();
    normal.iter_mut().for_each(|n| *n *= scale);
    let [by_weight, by_bias] = sums;
    by_weight.iter_mut().zip(&*gradient).zip(&*normal).for_each(|((sum, g), n)| *sum += g * n);
    add(by_bias, gradient);
    gradient.iter_mut().zip(weight).for_each(|(g, weight)| *g *= weight);
    let level = total(gradient) / count;
    let slope = dot(gradient, normal) / count;
    gradient.iter_mut().zip(&*normal).for_each(|(g, n)| *g = (*g - level - n * slope) * scale);
}

fn add(sum: &mut [f32], more: &[f32]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Sums side by side, which a processor adds to at once, and which lose fewer digits than one.
const SIDE: usize = 16;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; SIDE];
    let (a, b) = (a.chunks_exact(SIDE), b.chunks_exact(SIDE));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        (0..SIDE).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter().sum::<f32>() + rest
}

fn total(a: &[f32]) -> f32 {
    let mut sums = [0.0; SIDE];
    let a = a.chunks_exact(SIDE);
    let rest: f32 = a.remainder().iter().sum();
    for a in a {
        (0..SIDE).for_each(|i| sums[i] += a[i]);
    }
    sums.iter().sum::<f32>() + rest
}

/// Length of a row; 1 where there are no numbers at all.
fn width(x: &FlexTensor) -> usize {
    x.shape()[x.rank() - 1].max(1)
}

/// Rows that one thread takes at a time.
fn rows(width: usize) -> usize {
    (SHARE / width).max(1)
}
