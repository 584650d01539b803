//! The two sides of the shared space, as modules.
//!
//! In: a sentence (ids, mask), or the mean class probabilities of a window. Out: [1, 907].
//! The space has three parts: one number for each of AudioSet's classes, a direction in the whitened space of sentences,
//! and two that say "nothing is heard clearly" and "no caption says this". The cosine of two embeddings is then
//! how clearly it is heard, times how well it is understood, times how well the two agree, by classes and by sentences.
//! Never: reads the data files.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::relu;

use super::method::{SpaceMethod, PoolMethod, TextMethod};
use super::whiten::Whitening;
use crate::tune::export::Tracer;
use crate::tune::net::minilm::{MiniLm, WIDTH};
use crate::tune::net::unit_rows;
use crate::tune::net::yamnet::CLASSES;

/// Length of an embedding.
pub const EMBEDDING: usize = CLASSES + WIDTH + 2;

/// The captions of all classes in the whitened space of sentences.
pub struct Captions {
    whitening: Whitening,
    /// For each class, the unit rows of its captions.
    classes: Vec<Vec<Vec<f32>>>,
}

impl Captions {
    /// `sentences`: for each class the sentence embeddings of its captions.
    pub fn new(sentences: &[Vec<Vec<f32>>], whitening: Whitening) -> Self {
        let classes = sentences.iter().map(|class| class.iter().map(|s| whitening.apply(s)).collect()).collect();
        Self { whitening, classes }
    }

    /// The captions as rows, every class with the same number of them: only the best of a class counts, so the first
    /// is repeated where there are fewer.
    fn keys(&self) -> (Vec<f32>, usize) {
        let each = self.classes.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |class: &Vec<Vec<f32>>| (0..each).map(|i| class.get(i).unwrap_or(&class[0]).clone()).collect();
        (self.classes.iter().flat_map::<Vec<Vec<f32>>, _>(padded).flatten().collect(), each)
    }

    /// The mean direction of each class's captions, as rows.
    fn centres(&self) -> Vec<f32> {
        let centre = |class: &Vec<Vec<f32>>| {
            let sum: Vec<f64> = (0..WIDTH).map(|i| class.iter().map(|row| f64::from(row[i])).sum()).collect();
            let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            sum.into_iter().map(move |v| (v / length) as f32)
        };
        self.classes.iter().flat_map(centre).collect()
    }
}

/// A matrix as a parameter.
fn matrix(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// The length of each row.
fn lengths(x: &Tensor<2>) -> Tensor<2> {
    x.clone().square().sum_dim(1).sqrt()
}

/// A sentence into the space.
#[derive(Module, Debug)]
pub struct TextTower {
    sentence: MiniLm,
    head: TextHead,
}

/// From a sentence embedding [1, 384] to the space.
#[derive(Module, Debug)]
pub struct TextHead {
    mean: Param<Tensor<2>>,
    whitening: Param<Tensor<2>>,
    /// Captions, one a column, class after class.
    keys: Param<Tensor<2>>,
    class_share: f64,
    power: f64,
    silent: f64,
}

impl TextHead {
    /// With the captions' numbers inside.
    pub fn new(captions: &Captions, space: &SpaceMethod, method: &TextMethod, device: &Device) -> Self {
        let (keys, each) = captions.keys();
        let keys = Tensor::<2>::from_data(TensorData::new(keys, [CLASSES * each, WIDTH]), device);
        let whitening = &captions.whitening;
        Self {
            mean: matrix(whitening.mean.clone(), [1, WIDTH], device),
            whitening: matrix(whitening.matrix.clone(), [WIDTH, WIDTH], device),
            keys: Param::from_tensor(keys.transpose()),
            class_share: space.class_share,
            power: method.power,
            silent: method.silent_similarity.powf(method.power),
        }
    }

    /// [1, 384] to the embedding [1, 907] and the best similarity to a caption [1].
    pub fn forward(&self, sentence: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let direction = unit_rows((sentence - self.mean.val()).matmul(self.whitening.val()));
        let similar = direction.clone().matmul(self.keys.val());
        let [_, keys] = similar.dims();
        let classes = similar.reshape([CLASSES, keys / CLASSES]).max_dim(1).reshape([1, CLASSES]);
        let coverage = classes.clone().max_dim(1).reshape([1]);
        let classes = relu(classes).powf_scalar(self.power);
        let direction = direction * lengths(&classes).mul_scalar((1.0 - self.class_share).sqrt());
        let ends = Tensor::from_data([[0.0, self.silent as f32]], &classes.device());
        let classes = classes.mul_scalar(self.class_share.sqrt());
        (Tensor::cat(vec![classes, direction, ends], 1), coverage)
    }
}

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
    /// prior^-h of each class.
    weights: Param<Tensor<2>>,
    /// The mean direction of each class's captions, one a row.
    centres: Param<Tensor<2>>,
    class_share: f64,
    power: f64,
    unclear: f64,
}

/// Probabilities below this are as good as none, and a power of zero has no slope.
const LEAST_PROBABILITY: f32 = 1e-8;
/// Keeps the direction finite when the classes cancel out.
const LEAST_LENGTH: f32 = 1e-6;

impl Pool {
    /// `priors`: the mean probability of every class over sound of all kinds.
    pub fn new(priors: &[f32], captions: &Captions, space: &SpaceMethod, method: &PoolMethod, device: &Device) -> Self {
        let weights = priors.iter().map(|p| f64::from(*p).powf(-method.prior_power) as f32).collect();
        Self {
            weights: matrix(weights, [1, CLASSES], device),
            centres: matrix(captions.centres(), [CLASSES, WIDTH], device),
            class_share: space.class_share,
            power: method.power,
            unclear: method.unclear,
        }
    }

    /// [1, 521] to [1, 907]; the device scales it to length 1.
    pub fn forward(&self, probabilities: Tensor<2>) -> Tensor<2> {
        let classes = probabilities.clamp_min(LEAST_PROBABILITY).powf_scalar(self.power) * self.weights.val();
        let direction = classes.clone().matmul(self.centres.val());
        let direction = direction.clone() / lengths(&direction).clamp_min(LEAST_LENGTH);
        let direction = direction * lengths(&classes).mul_scalar((1.0 - self.class_share).sqrt());
        let ends = Tensor::from_data([[self.unclear as f32, 0.0]], &classes.device());
        let classes = classes.mul_scalar(self.class_share.sqrt());
        Tensor::cat(vec![classes, direction, ends], 1)
    }

    /// What is exported.
    pub fn trace(&self, tracer: &mut Tracer) {
        let probabilities = tracer.float_input("probabilities", [1, CLASSES]);
        tracer.output("embedding", &self.forward(probabilities));
    }
}
