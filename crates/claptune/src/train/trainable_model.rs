//! What the loop asks of a model: two towers that bring recordings and texts into one space.
//!
//! A kind of model is one implementation of [`TrainableModel`]: [`super::clap`] is that of `ClapModel` checkpoints. The
//! loop asks it for a network once, embeds with that network (with its `valid()` for validation), changes it, and hands
//! it back to be saved. A model knows nothing of steps, losses or ratings.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;

use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use clapd_core::dsp::FrontendSpec;

use super::optimizer::RateGroup;
use crate::data::Clips;
use crate::export::Precision;

/// Longest text that is counted, in tokens: far beyond what anybody writes, and a bound.
pub(super) const COUNTED_TOKENS: usize = 1 << 16;

/// A recording, and how it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioView<'a> {
    /// The audio file.
    pub file: &'a Path,
    /// The seed of a mask over its spectrogram ([`super::augment`]); none for the whole.
    pub mask: Option<u64>,
}

/// A kind of model that can be trained.
pub trait TrainableModel {
    /// What is trained, and what is frozen of it.
    type Net: Module;

    /// The front end of its recordings, and samples from one patch to the next (0: the first patch alone), for [`Clips::new`].
    fn frontend(&self) -> (FrontendSpec, u64);

    /// The network as a run begins it: on an autodiff device, frozen as the options say. The same each time.
    ///
    /// # Errors
    /// Weights that can't be read, or options that do not fit them.
    fn begin(&self) -> Result<Self::Net>;

    /// Rates of parts over the peak's. Paths are those of [`Self::Net`].
    fn groups(&self) -> Vec<RateGroup>;

    /// Embeddings of distinct recordings, `[N, D]`. `clips` holds the front end's patches.
    ///
    /// # Errors
    /// A recording that can't be read.
    fn audio(&mut self, net: &Self::Net, clips: &mut Clips, views: &[AudioView<'_>]) -> Result<Tensor<2>>;

    /// Embeddings of distinct texts, `[N, D]`.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    fn text(&mut self, net: &Self::Net, texts: &[&str]) -> Result<Tensor<2>>;

    /// Whether a text is longer than the model allows, and so cut.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    fn is_cut(&self, text: &str) -> Result<bool>;

    /// The logarithms of the temperatures' inverses, of audio and of text, `[1]` each.
    fn scales(&self, net: &Self::Net) -> [Tensor<1>; 2];

    /// From a cosine to a score, 0 to 10, before a calibration is fitted.
    fn score(&self, cosine: f32) -> f32;

    /// Writes the network as a checkpoint to the folder `out`, which is there and empty.
    ///
    /// # Errors
    /// A disk that is full or read-only.
    fn save(&self, net: &Self::Net, out: &Path) -> Result<()>;

    /// Makes a bundle at `out` of what [`save`](Self::save) wrote to `best`.
    ///
    /// # Errors
    /// Says which step failed.
    fn bundle(&self, best: &Path, out: &Path, precision: Precision) -> Result<()>;
}

/// The different ones among `items`, in the order in which they first come, and for each item its place among them.
pub fn distinct<K: Copy + Eq + Hash>(items: impl IntoIterator<Item = K>) -> (Vec<K>, Vec<usize>) {
    let (mut known, mut keys) = (HashMap::new(), vec![]);
    let mut place = |item| {
        *known.entry(item).or_insert_with(|| {
            keys.push(item);
            keys.len() - 1
        })
    };
    let places = items.into_iter().map(&mut place).collect();
    (keys, places)
}

/// Rows of `x` `[N, D]`, one of which may be taken several times, `[places.len(), D]`.
pub fn rows(x: Tensor<2>, places: &[usize]) -> Tensor<2> {
    if places.iter().copied().eq(0..x.dims()[0]) {
        return x;
    }
    let indices: Vec<i64> = places.iter().map(|place| *place as i64).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [places.len()]), &x.device());
    x.select(0, indices)
}

/// Rows of equal width as a tensor, `[rows.len(), D]`.
pub(super) fn stacked(rows: &[Vec<f32>], device: &Device) -> Tensor<2> {
    let (count, width) = (rows.len(), rows.first().map_or(0, Vec::len));
    Tensor::from_data(TensorData::new(rows.concat(), [count, width]), device)
}
