//! Bicubic resizing of [N, C, H, W] along one axis, its corners aligned.
//!
//! Each output is a sum of four inputs with weights that are known beforehand: four lookups and products. One axis is
//! enough: PyTorch's weights of an axis that keeps its length are 0, 1, 0, 0.
//!
//! Weights: the cubic convolution of Keys (1981) with a = -0.75, in f32 step by step like PyTorch's
//! `aten/src/ATen/native/UpSample.h`: positions reach 1,000, and rounding them otherwise moves a weight by 3e-5.

use burn::prelude::*;
use burn::tensor::TensorData;

/// Keys' parameter, as PyTorch has it.
const A: f32 = -0.75;

/// Resizes `axis` (2 or 3) of `x` to `length`.
pub fn resize(x: &Tensor<4>, axis: usize, length: usize) -> Tensor<4> {
    let taps = taps(x.dims()[axis], length);
    let device = x.device();
    let mut shape = [1; 4];
    shape[axis] = length;
    let tap = |(indices, weights): (Vec<i64>, Vec<f32>)| {
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [length]), &device);
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [length]), &device);
        x.clone().select(axis, indices) * weights.reshape(shape)
    };
    let [a, b, c, d] = taps.map(tap);
    a + b + c + d
}

/// For each of the four inputs of an output: where it lies, and its weight.
fn taps(from: usize, to: usize) -> [(Vec<i64>, Vec<f32>); 4] {
    let scale = if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
    let mut taps: [(Vec<i64>, Vec<f32>); 4] = Default::default();
    for i in 0..to {
        let position = scale * i as f32;
        let left = (position.floor() as usize).min(from - 1);
        let weights = weights((position - left as f32).clamp(0.0, 1.0));
        for (k, (indices, all)) in taps.iter_mut().enumerate() {
            // The neighbours of an edge are the edge itself.
            indices.push((left + k).saturating_sub(1).min(from - 1) as i64);
            all.push(weights[k]);
        }
    }
    taps
}

/// The weights of the inputs at distance t + 1, t, 1 - t and 2 - t.
fn weights(t: f32) -> [f32; 4] {
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let rest = 1.0 - t;
    [far(t + 1.0), near(t), near(rest), far(rest + 1.0)]
}
