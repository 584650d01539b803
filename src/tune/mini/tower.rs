//! The two sides of the shared space, as modules.
//!
//! In: a sentence (ids, mask), or the mean class probabilities of a window. Out: [1, 521 + 384 + 2 + backgrounds].
//! The space has these parts: one number for each of AudioSet's classes; a direction in the whitened space of sentences;
//! two numbers that say "nothing is heard clearly" and "no caption says this"; and one for each background that the
//! sound is like. The cosine of two embeddings is then how clearly it is heard, times how well it is understood, times
//! how well the two agree, by classes and by sentences. models/mini/METHOD.md has the formulas.
//! Never: reads the data files.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::relu;

use super::method::{Method, PoolMethod};
use super::whiten::Whitening;
use crate::tune::export::Tracer;
use crate::tune::net::minilm::{MiniLm, WIDTH};
use crate::tune::net::unit_rows;
use crate::tune::net::yamnet::CLASSES;

/// Length of an embedding.
pub fn embedding_len(backgrounds: usize) -> usize {
    CLASSES + WIDTH + 2 + backgrounds
}

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

    /// The captions as rows, class after class.
    fn keys(&self) -> Vec<f32> {
        self.classes.iter().flatten().flatten().copied().collect()
    }

    /// For each class the rows of its captions, as many for every class: only the best of a class counts, so the first
    /// is repeated where there are fewer.
    fn rows(&self) -> Vec<i64> {
        let each = self.classes.iter().map(Vec::len).max().unwrap_or(0);
        let mut first = 0;
        let mut rows = vec![];
        for class in &self.classes {
            rows.extend((0..each).map(|i| first + if i < class.len() { i as i64 } else { 0 }));
            first += class.len() as i64;
        }
        rows
    }

    /// The mean direction of each class's captions, as rows.
    fn centres(&self) -> Vec<f32> {
        let centre = |class: &Vec<Vec<f32>>| {
            let sum: Vec<f64> = (0..WIDTH).map(|i| class.iter().map(|row| f64::from(row[i])).sum()).collect();
            unit(&sum)
        };
        self.classes.iter().flat_map(centre).collect()
    }
}

/// The same direction with length 1.
pub(super) fn unit(row: &[f64]) -> Vec<f32> {
    let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    row.iter().map(|v| (v / length) as f32).collect()
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
    /// The columns of each class.
    columns: Vec<i64>,
    class_share: f64,
    exponent: f64,
    null: f64,
    backgrounds: usize,
}

impl TextHead {
    /// With the captions' numbers inside; `backgrounds` is the number of those that the pool knows.
    pub fn new(captions: &Captions, method: &Method, backgrounds: usize, device: &Device) -> Self {
        let keys = captions.keys();
        let shape = [keys.len() / WIDTH, WIDTH];
        let keys = Tensor::<2>::from_data(TensorData::new(keys, shape), device);
        let whitening = &captions.whitening;
        let text = &method.text;
        Self {
            mean: matrix(whitening.mean.clone(), [1, WIDTH], device),
            whitening: matrix(whitening.matrix.clone(), [WIDTH, WIDTH], device),
            keys: Param::from_tensor(keys.transpose()),
            columns: captions.rows(),
            class_share: method.pool.anchor_weight,
            exponent: text.similarity_exponent,
            null: text.null_similarity.powf(text.similarity_exponent),
            backgrounds,
        }
    }

    /// `[1, 384]` to the embedding and the best similarity to a caption, `[1]`.
    pub fn forward(&self, sentence: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let direction = unit_rows((sentence - self.mean.val()).matmul(self.whitening.val()));
        let similar = direction.clone().matmul(self.keys.val());
        let count = self.columns.len();
        let columns = Tensor::from_data(TensorData::new(self.columns.clone(), [count]), &similar.device());
        let classes = similar.select(1, columns).reshape([CLASSES, count / CLASSES]).max_dim(1).reshape([1, CLASSES]);
        let coverage = classes.clone().max_dim(1).reshape([1]);
        let classes = relu(classes).powf_scalar(self.exponent);
        let direction = direction * lengths(&classes).mul_scalar((1.0 - self.class_share).sqrt());
        let mut ends = vec![0.0, self.null as f32];
        ends.resize(2 + self.backgrounds, 0.0);
        let ends = Tensor::from_data(TensorData::new(ends, [1, 2 + self.backgrounds]), &classes.device());
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
    /// Unit weights of the classes in each background, one a column.
    backgrounds: Param<Tensor<2>>,
    probability_min: f32,
    exponent: f64,
    class_share: f64,
    kappa: f64,
    background_weight: f64,
    background_cosine: f64,
}

/// Keeps the direction finite when the classes cancel out.
const LEAST_LENGTH: f32 = 1e-6;

impl Pool {
    /// `priors`: the mean probability of every class over sound of all kinds; `backgrounds`: that over each background.
    pub fn new(
        priors: &[f32],
        backgrounds: &[Vec<f32>],
        captions: &Captions,
        method: &PoolMethod,
        device: &Device,
    ) -> Self {
        let weights: Vec<f64> = priors.iter().map(|p| f64::from(*p).powf(-method.prior_exponent)).collect();
        let weighted = |row: &Vec<f32>| -> Vec<f64> {
            row.iter().zip(&weights).map(|(p, w)| f64::from(*p).powf(method.probability_exponent) * w).collect()
        };
        let rows: Vec<f32> = backgrounds.iter().flat_map(|row| unit(&weighted(row))).collect();
        let rows = Tensor::<2>::from_data(TensorData::new(rows, [backgrounds.len(), CLASSES]), device);
        Self {
            weights: matrix(weights.iter().map(|w| *w as f32).collect(), [1, CLASSES], device),
            centres: matrix(captions.centres(), [CLASSES, WIDTH], device),
            backgrounds: Param::from_tensor(rows.transpose()),
            probability_min: method.probability_min,
            exponent: method.probability_exponent,
            class_share: method.anchor_weight,
            kappa: method.kappa,
            background_weight: method.background_weight,
            background_cosine: method.background_cosine,
        }
    }

    /// [1, 521] to the embedding; the device scales it to length 1.
    pub fn forward(&self, probabilities: Tensor<2>) -> Tensor<2> {
        let classes = probabilities.clamp_min(self.probability_min).powf_scalar(self.exponent) * self.weights.val();
        let strength = lengths(&classes);
        let direction = classes.clone().matmul(self.centres.val());
        let direction = direction.clone() / lengths(&direction).clamp_min(LEAST_LENGTH);
        let direction = direction * strength.clone().mul_scalar((1.0 - self.class_share).sqrt());
        let background = classes.clone().matmul(self.backgrounds.val()) - strength.mul_scalar(self.background_cosine);
        let background = relu(background).mul_scalar(self.background_weight / (1.0 - self.background_cosine));
        let ends = Tensor::from_data([[self.kappa as f32, 0.0]], &classes.device());
        let classes = classes.mul_scalar(self.class_share.sqrt());
        Tensor::cat(vec![classes, direction, ends, background], 1)
    }

    /// What is exported.
    pub fn trace(&self, tracer: &mut Tracer) {
        let probabilities = tracer.float_input("probabilities", [1, CLASSES]);
        tracer.output("embedding", &self.forward(probabilities));
    }
}
