//! The default model's common space as a network: what of a `mini` bundle is trained. YAMNet and MiniLM are not part of
//! it.
//!
//! It brings mean class probabilities of recordings [N, classes] and sentence embeddings of texts [N, width] to unit
//! embeddings [N, classes + width + 2 + backgrounds], by models/mini/METHOD.md's formulas: those of the device's
//! operators `clapd_caption_pool` and `clapd_caption_text`. Each number in training is what it was at the start and a
//! change that begins as nothing, so that weight decay pulls back to the start.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::activation::relu;

use super::clap::LOG_SCALE;
use super::norm::unit_rows;

/// The power of a similarity is taken of at least this: its logarithm is needed, and nothing is left of its power.
const SIMILARITY_MIN: f32 = 1e-6;

/// Numbers in training, `[rows, columns]`.
#[derive(Module, Debug)]
pub struct TrainedChange {
    start: Tensor<2>,
    change: Param<Tensor<2>>,
}

impl TrainedChange {
    /// From what they are at the start.
    pub fn new(start: Tensor<2>) -> Self {
        let change = Param::from_tensor(start.zeros_like());
        Self { start, change }
    }

    /// Of any sign.
    pub fn sum(&self) -> Tensor<2> {
        self.start.clone() + self.change.val()
    }

    /// Above 0.
    pub fn product(&self) -> Tensor<2> {
        self.start.clone() * self.change.val().exp()
    }

    /// Between 0 and 1.
    pub fn share(&self) -> Tensor<2> {
        let product = self.product();
        product.clone() / (product - self.start.clone() + 1.0)
    }

    /// Rows as long as they were at the start, in other directions.
    pub fn turned(&self) -> Tensor<2> {
        let length = |x: &Tensor<2>| x.clone().square().sum_dim(1).sqrt();
        let sum = self.sum();
        sum.clone() * (length(&self.start) / length(&sum))
    }
}

/// From probabilities to embeddings.
#[derive(Module, Debug)]
pub struct CaptionPool {
    /// Exponent of a probability, `[1, 1]`, above 0.
    pub exponent: TrainedChange,
    /// Weight of each class, `[1, classes]`, above 0.
    pub class_weight: TrainedChange,
    /// From classes to the direction of their captions, `[width, classes]`.
    pub centres: TrainedChange,
    /// Classes' share of the agreement, `[1, 1]`, between 0 and 1.
    pub class_share: TrainedChange,
    /// Length of what says "nothing is heard clearly", `[1, 1]`, above 0.
    pub kappa: TrainedChange,
    /// Weight of what says "this is like background", `[1, 1]`, above 0.
    pub background_weight: TrainedChange,
    /// What each background is like, `[backgrounds, classes]`; not trained.
    pub backgrounds: Tensor<2>,
    /// The least probability; not trained.
    #[module(skip)]
    pub probability_min: f32,
    /// Cosine with a background above which it counts, below 1; not trained.
    #[module(skip)]
    pub background_cosine: f32,
}

impl CaptionPool {
    /// [N, classes] probabilities to unit embeddings.
    pub fn forward(&self, probabilities: Tensor<2>) -> Tensor<2> {
        let logarithms = probabilities.clamp_min(self.probability_min).log();
        let classes = (logarithms * self.exponent.product()).exp() * self.class_weight.product();
        let strength = classes.clone().square().sum_dim(1).sqrt();
        let direction = unit_rows(classes.clone().matmul(self.centres.sum().transpose())) * strength.clone();
        let like = classes.clone().matmul(self.backgrounds.clone().transpose());
        let like = relu(like - strength.clone() * self.background_cosine) * self.background_weight.product();
        let share = self.class_share.share();
        let one = strength.ones_like();
        unit_rows(Tensor::cat(
            vec![
                classes * share.clone().sqrt(),
                direction * (share.neg() + 1.0).sqrt(),
                one.clone() * self.kappa.product(),
                one.zeros_like(),
                like / (1.0 - self.background_cosine),
            ],
            1,
        ))
    }
}

/// From sentence embeddings to embeddings.
#[derive(Module, Debug)]
pub struct CaptionText {
    /// From a sentence embedding, less the mean, to the space in which captions spread evenly, `[width, width]`.
    pub whitening: TrainedChange,
    /// Directions of the captions, `[captions, width]`, class after class.
    pub keys: TrainedChange,
    /// Exponent of a similarity, `[1, 1]`, above 0.
    pub exponent: TrainedChange,
    /// Classes' share of the agreement, `[1, 1]`, between 0 and 1.
    pub class_share: TrainedChange,
    /// Length of what says "no caption says this", `[1, 1]`, between 0 and 1.
    pub null: TrainedChange,
    /// Mean of the captions' sentence embeddings, `[1, width]`; not trained.
    pub mean: Tensor<2>,
    /// For each class its captions' places among the keys; the first again where a class has fewer than the most, `[classes * most]`.
    places: Tensor<1, Int>,
    #[module(skip)]
    classes: usize,
    #[module(skip)]
    backgrounds: usize,
}

/// Numbers of a [`CaptionText`].
#[derive(Debug)]
pub struct CaptionTextStart {
    /// As in [`CaptionText`].
    pub whitening: Tensor<2>,
    /// As in [`CaptionText`].
    pub keys: Tensor<2>,
    /// As in [`CaptionText`].
    pub exponent: Tensor<2>,
    /// As in [`CaptionText`].
    pub class_share: Tensor<2>,
    /// As in [`CaptionText`].
    pub null: Tensor<2>,
    /// As in [`CaptionText`].
    pub mean: Tensor<2>,
    /// Captions of each class, at least one.
    pub captions: Vec<usize>,
    /// Backgrounds that the pool knows.
    pub backgrounds: usize,
}

impl CaptionText {
    /// From what its numbers are at the start.
    pub fn new(start: CaptionTextStart) -> Self {
        let most = start.captions.iter().copied().max().unwrap_or(1);
        let mut first = 0;
        let mut places: Vec<i64> = vec![];
        for count in &start.captions {
            places.extend((0..most).map(|i| (first + if i < *count { i } else { 0 }) as i64));
            first += count;
        }
        let length = places.len();
        let places = Tensor::from_data(TensorData::new(places, [length]), &start.keys.device());
        Self {
            whitening: TrainedChange::new(start.whitening),
            keys: TrainedChange::new(start.keys),
            exponent: TrainedChange::new(start.exponent),
            class_share: TrainedChange::new(start.class_share),
            null: TrainedChange::new(start.null),
            mean: start.mean,
            places,
            classes: start.captions.len(),
            backgrounds: start.backgrounds,
        }
    }

    /// [N, width] sentence embeddings to unit embeddings.
    pub fn forward(&self, sentences: Tensor<2>) -> Tensor<2> {
        let [n, _] = sentences.dims();
        let centred = sentences - self.mean.clone();
        let direction = unit_rows(centred.matmul(self.whitening.sum().transpose()));
        let similar = direction.clone().matmul(self.keys.turned().transpose()).select(1, self.places.clone());
        let most = self.places.dims()[0] / self.classes;
        let best = similar.reshape([n, self.classes, most]).max_dim(2).reshape([n, self.classes]);
        let classes = (best.clamp_min(SIMILARITY_MIN).log() * self.exponent.product()).exp();
        let strength = classes.clone().square().sum_dim(1).sqrt();
        let share = self.class_share.share();
        let one = strength.ones_like();
        unit_rows(Tensor::cat(
            vec![
                classes * share.clone().sqrt(),
                direction * strength * (share.neg() + 1.0).sqrt(),
                one.zeros_like(),
                one.clone() * self.null.share(),
                one.zeros_like().repeat_dim(1, self.backgrounds),
            ],
            1,
        ))
    }
}

/// Both sides with the temperatures of contrastive training.
#[derive(Module, Debug)]
pub struct CaptionNetwork {
    /// Recordings.
    pub audio: CaptionPool,
    /// Texts.
    pub text: CaptionText,
    /// Logarithm of what cosines are multiplied with to make logits of texts for each clip, `[1]`.
    pub audio_scale: Param<Tensor<1>>,
    /// The same for clips for each text, `[1]`.
    pub text_scale: Param<Tensor<1>>,
}

impl CaptionNetwork {
    /// With the temperatures that CLAP begins with.
    pub fn new(audio: CaptionPool, text: CaptionText) -> Self {
        let device = audio.backgrounds.device();
        let scale = || Param::from_tensor(Tensor::from_floats([LOG_SCALE], &device));
        Self { audio, text, audio_scale: scale(), text_scale: scale() }
    }
}
