//! How well a network agrees with the validation split. Each recording and each text is embedded once, in the same
//! batches every time.

use std::path::Path;

use anyhow::{Result, anyhow};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::dataset::Dataset;
use super::objective::{Objective, Targets};
use super::trainable_model::{AudioView, TrainableModel, distinct};
use crate::data::{Clips, Pair, batches};
use crate::metrics::{Columns, Metrics};
use crate::net::clap::PairEmbeddings;

/// What a validation gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValidationFigures {
    /// SRCC, LCC, KTAU of cosines, and MSE of uncalibrated scores.
    pub metrics: Metrics,
    /// The objective, mean over pairs.
    pub loss: f64,
}

/// Embeddings of different things, a row each.
struct EmbeddingTable {
    values: Vec<f32>,
    width: usize,
}

impl EmbeddingTable {
    /// Embeds `keys`, `batch` at once.
    fn of<K>(keys: &[K], batch: usize, mut embed: impl FnMut(&[K]) -> Result<Tensor<2>>) -> Result<Self> {
        let (mut values, mut width) = (vec![], 0);
        for part in keys.chunks(batch) {
            let made = embed(part)?;
            width = made.dims()[1];
            values.extend(made.into_data().try_to_vec::<f32>().map_err(|error| anyhow!("embeddings: {error:?}"))?);
        }
        Ok(Self { values, width })
    }

    fn row(&self, place: usize) -> &[f32] {
        &self.values[place * self.width..][..self.width]
    }

    fn rows(&self, places: impl Iterator<Item = usize>, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = places.flat_map(|place| self.row(place).to_vec()).collect();
        let count = values.len() / self.width;
        Tensor::from_data(TensorData::new(values, [count, self.width]), device)
    }
}

/// Validates a network, `batch` recordings or texts at once.
///
/// # Errors
/// What the towers say.
pub fn validate<T: TrainableModel>(
    model: &mut T,
    net: &T::Net,
    clips: &mut Clips,
    dataset: &Dataset,
    objective: &Objective,
    (batch, seed): (usize, u64),
) -> Result<ValidationFigures> {
    let pairs = &dataset.validation;
    let (files, sounds) = distinct(pairs.iter().map(|pair| pair.audio.as_path()));
    let (texts, words) = distinct(pairs.iter().map(|pair| pair.text.as_str()));
    let audio = EmbeddingTable::of(&files, batch, |files: &[&Path]| {
        let views: Vec<AudioView<'_>> = files.iter().map(|file| AudioView { file, mask: None }).collect();
        model.audio(net, clips, &views)
    })?;
    let text = EmbeddingTable::of(&texts, batch, |texts| model.text(net, texts))?;
    let cosine = |row: usize| -> f64 {
        let both = audio.row(sounds[row]).iter().zip(text.row(words[row]));
        both.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosines: Vec<f64> = (0..pairs.len()).map(cosine).collect();
    let columns = Columns {
        score: cosines.iter().map(|cosine| f64::from(model.score(*cosine as f32))).collect(),
        rating: pairs.iter().map(Pair::mean).collect(),
        cosine: cosines,
    };
    let (scales, mut loss) = (model.scales(net), 0.0);
    let device = scales[0].device();
    for rows in batches(pairs, batch, seed, 0) {
        let embedded = PairEmbeddings {
            audio: audio.rows(rows.iter().map(|row| sounds[*row]), &device),
            text: text.rows(rows.iter().map(|row| words[*row]), &device),
        };
        let targets = targets(dataset, rows.iter().map(|row| &pairs[*row]), &device);
        let value = objective.loss(&embedded, &scales, &targets).into_scalar::<f32>();
        loss += f64::from(value) * rows.len() as f64 / pairs.len() as f64;
    }
    Ok(ValidationFigures { metrics: Metrics::of(&columns), loss })
}

/// What listeners said of pairs, in the units of the training split's listeners.
pub fn targets<'a>(dataset: &Dataset, pairs: impl Iterator<Item = &'a Pair>, device: &Device) -> Targets {
    let (rating, z_score): (Vec<f32>, Vec<f32>) =
        pairs.map(|pair| ((pair.mean() / 10.0) as f32, dataset.norms.mean(pair) as f32)).unzip();
    let tensor = |values: Vec<f32>| {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), device)
    };
    Targets { rating: tensor(rating), z_score: tensor(z_score), spread: dataset.spread() }
}
