//! The two sides of the shared space, as modules: one number for each AudioSet class.
//!
//! In: a sentence (ids, mask), or the mean class probabilities of a window. Out: [1, 521].
//! A sentence becomes a short list of the classes whose captions it resembles; a window becomes its probabilities, with
//! classes that fire all the time held down by their prior.
//! Never: reads the data files.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::softmax;

use super::method::{PoolMethod, TextMethod};
use super::whiten::Whitening;
use crate::tune::export::Tracer;
use crate::tune::net::minilm::MiniLm;
use crate::tune::net::unit_rows;
use crate::tune::net::yamnet::CLASSES;

/// A sentence into the space of classes.
#[derive(Module, Debug)]
pub struct TextTower {
    sentence: MiniLm,
    head: TextHead,
}

/// From a sentence embedding [1, 384] to weights of the classes.
#[derive(Module, Debug)]
pub struct TextHead {
    mean: Param<Tensor<2>>,
    whitening: Param<Tensor<2>>,
    /// Whitened unit embeddings of the captions, one a column; every class has the same number of them.
    keys: Param<Tensor<2>>,
    top: usize,
    temperature: f64,
}

/// A matrix as a parameter.
fn matrix(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

impl TextHead {
    /// `captions`: for each class the sentence embeddings of its captions, each of the width of the whitening.
    pub fn new(captions: &[Vec<Vec<f32>>], whitening: &Whitening, method: &TextMethod, device: &Device) -> Self {
        let width = whitening.mean.len();
        let each = captions.iter().map(Vec::len).max().unwrap_or(0);
        // Classes with fewer captions repeat theirs: only the best one counts.
        let rows: Vec<f32> =
            captions.iter().flat_map(|class| class.iter().cycle().take(each)).flatten().copied().collect();
        let mut head = Self {
            mean: matrix(whitening.mean.clone(), [1, width], device),
            whitening: matrix(whitening.matrix.clone(), [width, width], device),
            keys: matrix(vec![0.0; width], [width, 1], device),
            top: method.top,
            temperature: method.temperature,
        };
        let rows = Tensor::from_data(TensorData::new(rows, [captions.len() * each, width]), device);
        head.keys = Param::from_tensor(head.whiten(rows).transpose());
        head
    }

    fn whiten(&self, sentence: Tensor<2>) -> Tensor<2> {
        unit_rows((sentence - self.mean.val()).matmul(self.whitening.val()))
    }

    /// [1, width] to the weights of the classes [1, classes] and the best similarity [1].
    pub fn forward(&self, sentence: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let similar = self.whiten(sentence).matmul(self.keys.val());
        let [_, keys] = similar.dims();
        let classes = similar.reshape([CLASSES, keys / CLASSES]).max_dim(1).reshape([1, CLASSES]);
        let best = classes.clone().topk(self.top, 1);
        let coverage = best.clone().slice([0..1, 0..1]).reshape([1]);
        let least = best.slice([0..1, self.top - 1..self.top]);
        let left_out = classes.clone().lower(least);
        let weights = softmax(classes.div_scalar(self.temperature).mask_fill(left_out, LEFT_OUT), 1);
        (weights, coverage)
    }
}

/// Softmax gives nothing to a class with this logit; similarities over the temperature stay within +-100.
const LEFT_OUT: f32 = -1e4;

impl TextTower {
    /// A sentence encoder with a head behind it.
    pub fn new(sentence: MiniLm, head: TextHead) -> Self {
        Self { sentence, head }
    }

    /// Ids and mask [1, S] to the embedding and the coverage.
    pub fn forward(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> (Tensor<2>, Tensor<1>) {
        self.head.forward(self.sentence.forward(ids, mask))
    }

    /// What is exported.
    pub fn trace(&self, tracer: &mut Tracer, length: usize) {
        let ids = tracer.int_input("ids", [1, length]);
        let mask = tracer.int_input("mask", [1, length]);
        let (embedding, coverage) = self.forward(ids, mask);
        tracer.output("embedding", &embedding);
        tracer.output("coverage", &coverage);
    }
}

/// From the mean class probabilities of a window to its embedding.
#[derive(Module, Debug)]
pub struct Pool {
    weights: Param<Tensor<2>>,
    power: f64,
}

impl Pool {
    /// `priors`: the mean probability of every class over sound of all kinds.
    pub fn new(priors: &[f32], method: &PoolMethod, device: &Device) -> Self {
        let weights = priors.iter().map(|p| p.powf(-method.prior_power as f32)).collect();
        Self { weights: matrix(weights, [1, priors.len()], device), power: method.power }
    }

    /// [1, classes] to [1, classes]; the device scales it to length 1.
    pub fn forward(&self, probabilities: Tensor<2>) -> Tensor<2> {
        probabilities.powf_scalar(self.power) * self.weights.val()
    }

    /// What is exported.
    pub fn trace(&self, tracer: &mut Tracer) {
        let probabilities = tracer.float_input("probabilities", [1, CLASSES]);
        tracer.output("embedding", &self.forward(probabilities));
    }
}
