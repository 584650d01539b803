//! The space that the default model's sounds and words share, as operators: classes, and captions of them.
//!
//! From a window's mean class probabilities, or a sentence's hidden states, come `[1, classes + width + 2 + backgrounds]`: one
//! number for each class; a direction in the whitened space of sentences; two that say "nothing is heard clearly" and "no
//! caption says this"; one for each background that the sound is like. The cosine of two is then how clearly it is heard,
//! times how well it is understood, times how well the two agree. models/mini/METHOD.md has the formulas. Lengths are not 1: the
//! encoders see to that.

use anyhow::{Result, ensure};
use clapd_kernels::{Epilogue, Linear, Workspace};
use tract_nnef::internal::*;

use super::OpParams;
use super::schema::{Field, OpSpec, PackedLayer, Signature};
use crate::model::compute::Compute;
use crate::vector::normalize;

/// Backgrounds: 33 in the default model.
const MAX_BACKGROUNDS: usize = 1 << 16;
/// Keeps the direction finite when the classes cancel out.
const LEAST_LENGTH: f32 = 1e-6;

/// From probabilities.
pub(super) static CAPTION_POOL: OpSpec = OpSpec {
    name: "clapd_caption_pool",
    inputs: &["probabilities"],
    fields: &[
        Field::Real("probability_min"),
        Field::Real("exponent"),
        Field::Real("class_share"),
        Field::Real("kappa"),
        Field::Real("background_weight"),
        Field::Real("background_cosine"),
        // Of each class.
        Field::Table("class_weight"),
        // From classes to the mean direction of their captions, and to what is like each background.
        Field::Linear("centres"),
        Field::Linear("backgrounds"),
    ],
    signature: |params| {
        let ([width, classes], [backgrounds, _]) =
            (params.matrix("centres_weight")?, params.matrix("backgrounds_weight")?);
        Ok(Signature {
            inputs: vec![(f32::datum_type(), vec![Some(1), Some(classes)])],
            output: vec![Some(1), Some(classes + width + 2 + backgrounds)],
        })
    },
    pack: |params, compute| Ok(Box::new(CaptionPool::new(params, compute)?)),
};

/// From hidden states: the embedding, and behind it the best similarity to a caption.
pub(super) static CAPTION_TEXT: OpSpec = OpSpec {
    name: "clapd_caption_text",
    inputs: &["hidden", "mask"],
    fields: &[
        Field::Size("backgrounds"),
        Field::Real("class_share"),
        Field::Real("exponent"),
        Field::Real("null"),
        Field::Table("mean"),
        Field::Linear("whitening"),
        // Captions, class after class, and how many each class has.
        Field::Linear("keys"),
        Field::Table("captions"),
    ],
    signature: |params| {
        let (width, classes) = (params.matrix("keys_weight")?[1], params.tensor("captions")?.len());
        let backgrounds = params.size("backgrounds", 1, MAX_BACKGROUNDS)?;
        Ok(Signature {
            inputs: vec![
                (f32::datum_type(), vec![Some(1), None, Some(width)]),
                (i64::datum_type(), vec![Some(1), None]),
            ],
            output: vec![Some(1), Some(classes + width + 2 + backgrounds + 1)],
        })
    },
    pack: |params, compute| Ok(Box::new(CaptionText::new(params, compute)?)),
};

struct CaptionPool {
    probability_min: f32,
    exponent: f32,
    class_share: f32,
    kappa: f32,
    background_weight: f32,
    background_cosine: f32,
    class_weight: Vec<f32>,
    centres: Linear,
    backgrounds: Linear,
}

impl CaptionPool {
    fn new(params: &OpParams, compute: Compute) -> Result<Self> {
        let linear = |name| params.weight_only_int8(name, compute.isa());
        let (centres, backgrounds) = (linear("centres")?, linear("backgrounds")?);
        ensure!(
            centres.k() == backgrounds.k(),
            "centres are of {} classes, backgrounds of {}",
            centres.k(),
            backgrounds.k()
        );
        Ok(Self {
            probability_min: params.real("probability_min", 0.0, 1.0)?,
            exponent: params.real("exponent", 0.0, 16.0)?,
            class_share: params.real("class_share", 0.0, 1.0)?,
            kappa: params.real("kappa", 0.0, 1e6)?,
            background_weight: params.real("background_weight", 0.0, 1e6)?,
            background_cosine: params.real("background_cosine", 0.0, 0.999)?,
            class_weight: params.floats("class_weight", centres.k())?.to_vec(),
            centres,
            backgrounds,
        })
    }
}

impl PackedLayer for CaptionPool {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let input = inputs[0].try_as_plain_ram()?;
        let weighted = input.as_slice::<f32>()?.iter().zip(&self.class_weight);
        let mut classes: Vec<f32> =
            weighted.map(|(p, weight)| p.max(self.probability_min).powf(self.exponent) * weight).collect();
        let strength = length(&classes);
        let mut direction = vec![0.0; self.centres.n()];
        self.centres.run(&classes, &mut direction, Epilogue::Store, workspace)?;
        let scale = strength * (1.0 - self.class_share).sqrt() / length(&direction).max(LEAST_LENGTH);
        direction.iter_mut().for_each(|x| *x *= scale);
        let mut like = vec![0.0; self.backgrounds.n()];
        self.backgrounds.run(&classes, &mut like, Epilogue::Store, workspace)?;
        let scale = self.background_weight / (1.0 - self.background_cosine);
        like.iter_mut().for_each(|x| *x = (*x - strength * self.background_cosine).max(0.0) * scale);
        classes.iter_mut().for_each(|x| *x *= self.class_share.sqrt());
        row(&[&classes, &direction, &[self.kappa, 0.0], &like])
    }
}

struct CaptionText {
    backgrounds: usize,
    class_share: f32,
    exponent: f32,
    null: f32,
    mean: Vec<f32>,
    whitening: Linear,
    keys: Linear,
    /// Captions of each class, at least one.
    captions: Vec<usize>,
}

impl CaptionText {
    fn new(params: &OpParams, compute: Compute) -> Result<Self> {
        let linear = |name| params.weight_only_int8(name, compute.isa());
        let (whitening, keys) = (linear("whitening")?, linear("keys")?);
        let width = keys.k();
        ensure!(
            (whitening.n(), whitening.k()) == (width, width),
            "captions have {width} numbers, the whitening is from {} to {}",
            whitening.k(),
            whitening.n()
        );
        let captions = params.floats("captions", params.tensor("captions")?.len())?;
        ensure!(captions.iter().all(|n| *n >= 1.0 && n.fract() == 0.0), "a class has a number of captions below 1");
        let captions: Vec<usize> = captions.iter().map(|n| *n as usize).collect();
        let sum = captions.iter().fold(0_usize, |sum, n| sum.saturating_add(*n));
        ensure!(sum == keys.n(), "the classes have {sum} captions, there are {}", keys.n());
        Ok(Self {
            backgrounds: params.size("backgrounds", 1, MAX_BACKGROUNDS)?,
            class_share: params.real("class_share", 0.0, 1.0)?,
            exponent: params.real("exponent", 0.0, 16.0)?,
            null: params.real("null", 0.0, 1.0)?,
            mean: params.floats("mean", width)?.to_vec(),
            whitening,
            keys,
            captions,
        })
    }

    /// The unit mean of the tokens that are no padding.
    fn sentence(&self, hidden: &[f32], mask: &[i64]) -> Vec<f32> {
        let mut sum = vec![0.0; self.mean.len()];
        for (token, _) in hidden.chunks_exact(sum.len()).zip(mask).filter(|(_, mask)| **mask != 0) {
            sum.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
        }
        normalize(&mut sum);
        sum
    }
}

impl PackedLayer for CaptionText {
    fn run(&self, inputs: TVec<TValue>, workspace: &mut Workspace) -> Result<Tensor> {
        let (hidden, mask) = (inputs[0].try_as_plain_ram()?, inputs[1].try_as_plain_ram()?);
        let mut centred = self.sentence(hidden.as_slice::<f32>()?, mask.as_slice::<i64>()?);
        centred.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
        let mut direction = vec![0.0; self.mean.len()];
        self.whitening.run(&centred, &mut direction, Epilogue::Store, workspace)?;
        normalize(&mut direction);
        let mut similar = vec![0.0; self.keys.n()];
        self.keys.run(&direction, &mut similar, Epilogue::Store, workspace)?;
        let mut rest = similar.as_slice();
        let mut classes = Vec::with_capacity(self.captions.len());
        for count in &self.captions {
            let (own, behind) = rest.split_at(*count);
            classes.push(own.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            rest = behind;
        }
        let coverage = classes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        classes.iter_mut().for_each(|x| *x = x.max(0.0).powf(self.exponent));
        let scale = length(&classes) * (1.0 - self.class_share).sqrt();
        direction.iter_mut().for_each(|x| *x *= scale);
        classes.iter_mut().for_each(|x| *x *= self.class_share.sqrt());
        row(&[&classes, &direction, &[0.0, self.null], &vec![0.0; self.backgrounds], &[coverage]])
    }
}

fn length(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum::<f32>().sqrt()
}

fn row(pieces: &[&[f32]]) -> Result<Tensor> {
    let row = pieces.concat();
    Tensor::from_shape(&[1, row.len()], &row)
}
