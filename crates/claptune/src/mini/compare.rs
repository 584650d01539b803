//! What is to be stored is run and compared with the networks it came from; the largest differences go into
//! `bundle.toml`, and a bundle beyond the bounds here is refused.

use std::sync::Arc;

use anyhow::{Result, ensure};
use burn::prelude::*;
use burn::tensor::TensorData;
use clapd_core::model::{Compute, Tokenizer, ops};
use clapd_core::vector::cosine;
use tract_onnx::prelude::{IntoRunnable, Tensor as TractTensor, TypedModel, TypedRunnableModel, tvec};

use super::method::Class;
use crate::net::yamnet::{BANDS, FRAMES, Yamnet};

/// Patches of noise that YAMNet is compared on.
const PATCHES: u64 = 8;
/// A probability may move by this much through half precision.
const PROBABILITY_LIMIT: f32 = 0.01;
/// Embeddings of captions, the worst of which must keep this cosine through 8 bits. Below it a prompt would name
/// other classes than its sentence embedding says.
const COSINE_LIMIT: f32 = 0.9;

/// Compares both towers: `audio` with the network, `text` with the same graph in f32.
///
/// # Errors
/// A graph that can't be run, or differs by more than the limits above.
pub fn compare_stored(
    yamnet: &Yamnet,
    audio: TypedModel,
    [exact, text]: [TypedModel; 2],
    classes: &[Class],
    tokenizer: &Tokenizer,
) -> Result<toml::Table> {
    let probability = audio_difference(yamnet, audio)?;
    let cosines = text_cosines(&[make_runnable(exact)?, make_runnable(text)?], classes, tokenizer)?;
    let least = cosines.iter().copied().fold(1.0, f32::min);
    let mean = cosines.iter().sum::<f32>() / cosines.len().max(1) as f32;
    ensure!(probability <= PROBABILITY_LIMIT, "stored YAMNet's probabilities differ by {probability}");
    ensure!(least >= COSINE_LIMIT, "stored MiniLM's embeddings agree only to a cosine of {least}");
    let mut table = toml::Table::new();
    table.insert("audio_probability_difference_max".into(), rounded(probability).into());
    table.insert("text_cosine_mean".into(), rounded(mean).into());
    table.insert("text_cosine_min".into(), rounded(least).into());
    Ok(table)
}

/// Five decimals: what is left is noise of the machine that built it, and would change the file for nothing.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e5).round() / 1e5
}

/// A graph that runs.
fn make_runnable(mut model: TypedModel) -> Result<Arc<TypedRunnableModel>> {
    ops::pack(&mut model, Compute::default())?;
    model.into_runnable()
}

fn audio_difference(yamnet: &Yamnet, graph: TypedModel) -> Result<f32> {
    let stored = make_runnable(graph)?;
    let mut random = fastrand::Rng::with_seed(1);
    let shape = [1, 1, FRAMES, BANDS];
    let mut worst = 0.0f32;
    for patch in 0..PATCHES {
        // Log-mels lie between ln 0.001 = -6.9 and about 5; patches of different level excite different classes.
        let level = -6.0 + patch as f32;
        let mel: Vec<f32> = (0..FRAMES * BANDS).map(|_| level + 2.0 * random.f32()).collect();
        let output = stored.run(tvec!(TractTensor::from_shape(&shape, &mel)?.into()))?;
        let ours = yamnet.forward(Tensor::from_data(TensorData::new(mel, shape), &Device::flex()));
        let ours = ours.into_data();
        let theirs = output[0].to_plain_array_view::<f32>()?;
        worst = ours.iter::<f32>().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
    }
    Ok(worst)
}

/// The cosine of both graphs' embeddings, of the first caption of every class.
fn text_cosines(graphs: &[Arc<TypedRunnableModel>; 2], classes: &[Class], tokenizer: &Tokenizer) -> Result<Vec<f32>> {
    let mut cosines = vec![];
    for caption in classes.iter().filter_map(|c| c.captions.first()) {
        let ids = tokenizer.ids(caption)?;
        let row = |values: &[i64]| TractTensor::from_shape(&[1, values.len()], values);
        let embedding = |graph: &Arc<TypedRunnableModel>| -> Result<Vec<f32>> {
            let output = graph.run(tvec!(row(&ids)?.into(), row(&vec![1; ids.len()])?.into()))?;
            Ok(output[0].to_plain_array_view::<f32>()?.iter().copied().collect())
        };
        cosines.push(cosine(&embedding(&graphs[0])?, &embedding(&graphs[1])?));
    }
    Ok(cosines)
}
