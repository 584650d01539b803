//! Operators of a transformer with derivatives of their own, where a network is trained on the processor.
//!
//! They give what Burn's operators of the same names give. Burn's automatic derivatives take a norm or a softmax apart
//! into passes over memory, forward and back, and its GELU takes one number at a time: together half of a training
//! step. `flex` computes on the processor, `autodiff` joins it to Burn's graph of derivatives. On other backends, and
//! in a recording for export, Burn's own are used.

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
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let [order, back] = &self.0;
        reordered(x, order, back)
    }

    /// What [`apply`](Self::apply) brought into this order, as it was.
    pub fn invert(&self, x: Tensor<3>) -> Tensor<3> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator on rows, with a weight and a bias.
    type Operator = fn(Tensor<2>, Tensor<1>, Tensor<1>) -> Tensor<2>;

    /// The first of `n` becomes the last.
    fn turn(n: usize) -> Vec<usize> {
        (0..n).map(|i| (i + 1) % n).collect()
    }

    /// What learns: rows, weight and bias; all, rows alone as beneath frozen norms, or the two alone as above a frozen part.
    const LEARN: [[bool; 3]; 3] = [[true; 3], [true, false, false], [false, true, true]];
    /// Ours, and Burn's.
    const OPERATORS: [(&str, Operator, Operator); 4] = [
        ("gelu", |x, _, _| gelu(x), |x, _, _| activation::gelu(x)),
        ("softmax", |x, _, _| softmax(x), |x, _, _| activation::softmax(x, 1)),
        (
            "layer norm",
            |x, weight, bias| layer_norm(x, weight, bias, 1e-5),
            |x, weight, bias| module::layer_norm(x, weight, Some(bias), 1e-5),
        ),
        (
            "order",
            |x, _, _| Order::new(&turn(x.dims()[0]), &x.device()).apply(x.unsqueeze()).squeeze_dim(0),
            |x, _, _| Tensor::cat(vec![x.clone().narrow(0, 1, x.dims()[0] - 1), x.narrow(0, 0, 1)], 0),
        ),
    ];

    /// What an operator gives, and the gradients by all that goes into it and learns. Rows come as a view of a larger tensor.
    fn outputs_and_gradients(
        operator: Operator,
        [count, width]: [usize; 2],
        learns: [bool; 3],
        device: &Device,
    ) -> Vec<Vec<f32>> {
        let noise = |n: usize, seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..n).map(|_| 4.0 * random.f32() - 2.0).collect::<Vec<f32>>()
        };
        let row = |seed, learns| {
            Tensor::<1>::from_data(TensorData::new(noise(width, seed), [width]), device).set_require_grad(learns)
        };
        let wide = TensorData::new(noise((count + 1) * width, 1), [width, count + 1]);
        let wide = Tensor::<2>::from_data(wide, device).set_require_grad(learns[0]);
        let (weight, bias) = (row(2, learns[1]), row(3, learns[2]));
        // Something before and after, so that there is something to be computed again, and something that always learns.
        let rows = wide.clone().swap_dims(0, 1).narrow(0, 1, count).mul_scalar(1.5);
        let after = row(5, true);
        let y = operator(rows, weight.clone(), bias.clone());
        let by_y = Tensor::from_data(TensorData::new(noise(count * width, 4), [count, width]), device);
        let gradients = ((y.clone() * after.clone().unsqueeze::<2>()).tanh() * by_y).sum().backward();
        let numbers = |data: TensorData| data.try_to_vec::<f32>().unwrap();
        let rows = [weight, bias, after].into_iter().filter_map(|row| row.grad(&gradients));
        let rows = rows.map(|gradient| numbers(gradient.into_data()));
        let wide = wide.grad(&gradients).map(|gradient| numbers(gradient.into_data()));
        [numbers(y.into_data())].into_iter().chain(wide).chain(rows).collect()
    }

    #[test]
    fn operators_and_their_derivatives_are_burns() {
        let device = Device::flex().autodiff();
        // The last has more numbers than one thread takes at a time.
        for (shape, learns) in [[3, 1], [3, 2], [4, 17], [5, 96], [500, 97]].into_iter().zip(LEARN.into_iter().cycle())
        {
            for (name, ours, burns) in OPERATORS {
                for device in [device.clone(), device.clone().gradient_checkpointing()] {
                    let (ours, burns) = (
                        outputs_and_gradients(ours, shape, learns, &device),
                        outputs_and_gradients(burns, shape, learns, &device),
                    );
                    assert_eq!(ours.len(), burns.len(), "{name}");
                    for (ours, burns) in ours.iter().flatten().zip(burns.iter().flatten()) {
                        // Sums of 500 rows, added in another order.
                        let bound = 1e-5 * (shape[0] as f32).sqrt() * (1.0 + burns.abs());
                        assert!((ours - burns).abs() < bound, "{name} of {shape:?}: {ours}, Burn's {burns}");
                    }
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let device = Device::flex().autodiff();
        let on = |threads: usize, operator: Operator| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| outputs_and_gradients(operator, [500, 97], LEARN[0], &device))
        };
        for (name, operator, _) in OPERATORS {
            let bits = |outputs_and_gradients: Vec<Vec<f32>>| {
                outputs_and_gradients.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(bits(on(1, operator)), bits(on(3, operator)), "{name}");
        }
    }

    #[test]
    fn what_was_put_in_an_order_comes_back() {
        let device = Device::flex();
        let x = Tensor::<3>::from_data([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]], &device);
        let order = Order::new(&turn(3), &device);
        let turned = order.apply(x.clone());
        assert_eq!(turned.to_data(), TensorData::from([[[3.0f32, 4.0], [5.0, 6.0], [1.0, 2.0]]]));
        assert_eq!(order.invert(turned).to_data(), x.to_data());
    }
}
