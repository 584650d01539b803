//! The space that sounds and words share, laid out ([`clapd_core::model::ops`], `clapd_caption_*`): the pool's graph,
//! and the head that makes a text tower of a sentence encoder. models/mini/METHOD.md has the formulas.

use anyhow::Result;
use clapd_core::model::ops::{Fused, OpParams};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::Slice;

use super::method::{Method, PoolMethod};
use super::whiten::{Whitening, unit};
use crate::export::Precision;
use crate::layout::{self, TowerWeights};
use crate::net::bert::BertConfig;
use crate::net::minilm::WIDTH;
use crate::net::yamnet::CLASSES;
use crate::quantize::rows::{self, Rows};

/// Length of an embedding.
pub fn embedding_len(backgrounds: usize) -> usize {
    CLASSES + WIDTH + 2 + backgrounds
}

/// The captions of all classes in the whitened space of sentences.
pub struct ClassCaptions {
    whitening: Whitening,
    /// For each class, the unit rows of its captions.
    classes: Vec<Vec<Vec<f32>>>,
}

impl ClassCaptions {
    /// `sentences`: for each class the sentence embeddings of its captions.
    pub fn new(sentences: &[Vec<Vec<f32>>], whitening: Whitening) -> Self {
        let classes = sentences.iter().map(|class| class.iter().map(|s| whitening.apply(s)).collect()).collect();
        Self { whitening, classes }
    }

    /// The mean direction of each class's captions, a class a column.
    fn centres(&self) -> Vec<f32> {
        let centre = |class: &Vec<Vec<f32>>| {
            let sum: Vec<f64> = (0..WIDTH).map(|i| class.iter().map(|row| f64::from(row[i])).sum()).collect();
            unit(&sum)
        };
        let centres: Vec<Vec<f32>> = self.classes.iter().map(centre).collect();
        (0..WIDTH).flat_map(|i| centres.iter().map(move |centre| centre[i])).collect()
    }
}

/// From the mean class probabilities of a window [1, 521] to its embedding. `priors`: the mean probability of every class over
/// sound of all kinds; `backgrounds`: that over each background.
///
/// # Errors
/// A number beyond what its precision holds.
pub fn pool(
    priors: &[f32],
    backgrounds: &[Vec<f32>],
    captions: &ClassCaptions,
    method: &PoolMethod,
    precision: Precision,
) -> Result<TypedModel> {
    let weights: Vec<f64> = priors.iter().map(|p| f64::from(*p).powf(-method.prior_exponent)).collect();
    let weighted = |row: &Vec<f32>| -> Vec<f64> {
        row.iter().zip(&weights).map(|(p, w)| f64::from(*p).powf(method.probability_exponent) * w).collect()
    };
    let rows: Vec<f32> = backgrounds.iter().flat_map(|row| unit(&weighted(row))).collect();
    let mut parts = OpParams::new("clapd_caption_pool")?;
    parts.set_real("probability_min", method.probability_min);
    for (name, value) in [
        ("exponent", method.probability_exponent),
        ("class_share", method.anchor_weight),
        ("kappa", method.kappa),
        ("background_weight", method.background_weight),
        ("background_cosine", method.background_cosine),
    ] {
        parts.set_real(name, value as f32);
    }
    floats(&mut parts, "class_weight", &weights.iter().map(|w| *w as f32).collect::<Vec<_>>());
    linear(&mut parts, "centres", WIDTH, &captions.centres(), precision)?;
    linear(&mut parts, "backgrounds", backgrounds.len(), &rows, precision)?;
    let mut model = TypedModel::default();
    let probabilities = model.add_source("probabilities", f32::fact([1, CLASSES]))?;
    let embedding = model.wire_node("embedding", Fused::new(parts)?, &[probabilities])?;
    model.select_output_outlets(&embedding)?;
    Ok(model)
}

/// A sentence encoder with the captions behind it: `ids` and `mask`, [1, S], to `embedding` [1, 940] and `coverage` [1, 1], the best
/// similarity to a caption. `backgrounds` is the number of those that the pool knows.
///
/// # Errors
/// A weight that is missing or beyond what its precision holds.
pub fn text(
    weights: &mut TowerWeights,
    config: &BertConfig,
    words: Option<Rows>,
    captions: &ClassCaptions,
    method: &Method,
    backgrounds: usize,
) -> Result<TypedModel> {
    let mut model = TypedModel::default();
    let (hidden, mask) = layout::encoder(&mut model, weights, config, words)?;
    let mut parts = OpParams::new("clapd_caption_text")?;
    parts.set_size("backgrounds", backgrounds);
    parts.set_real("class_share", method.pool.anchor_weight as f32);
    parts.set_real("exponent", method.text.similarity_exponent as f32);
    parts.set_real("null", method.text.null_similarity.powf(method.text.similarity_exponent) as f32);
    floats(&mut parts, "mean", &captions.whitening.mean);
    linear(&mut parts, "whitening", WIDTH, &captions.whitening.matrix, weights.precision)?;
    let keys: Vec<f32> = captions.classes.iter().flatten().flatten().copied().collect();
    linear(&mut parts, "keys", keys.len() / WIDTH, &keys, weights.precision)?;
    floats(&mut parts, "captions", &captions.classes.iter().map(|class| class.len() as f32).collect::<Vec<_>>());
    let both = model.wire_node("head", Fused::new(parts)?, &[hidden, mask])?[0];
    let length = embedding_len(backgrounds);
    let embedding = model.wire_node("embedding", Slice::new(1, 0, length), &[both])?[0];
    let coverage = model.wire_node("coverage", Slice::new(1, length, length + 1), &[both])?[0];
    model.select_output_outlets(&[embedding, coverage])?;
    Ok(model)
}

fn floats(parts: &mut OpParams, name: &str, values: &[f32]) {
    parts.set_tensor(name, tensor1(values));
}

/// A linear of `outputs` rows.
pub(super) fn linear(
    parts: &mut OpParams,
    name: &str,
    outputs: usize,
    rows: &[f32],
    precision: Precision,
) -> Result<()> {
    let shape = [outputs, rows.len() / outputs];
    let weight = match precision {
        Precision::Int8 => {
            let Rows { values, scales } = rows::quantize(rows, shape[1]);
            floats(parts, &format!("{name}_scale"), &scales);
            Tensor::from_shape(&shape, &values)?
        }
        _ => layout::stored(&shape, rows, precision == Precision::F16)?,
    };
    parts.set_tensor(format!("{name}_weight"), weight);
    Ok(())
}
