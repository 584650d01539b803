//! `ClapModel` checkpoints as what a run trains.
//!
//! What never changes is embedded once and kept (2 KB each): recordings of a frozen audio tower, texts of a frozen text
//! tower. Each of those is embedded alone, so that its numbers do not depend on what else was in a batch when it first
//! came. Nothing that is kept is needed to resume a run.
//!
//! LoRA: Hu et al., arXiv 2106.09685.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::{Lora, Module, ParamGroup};
use burn::prelude::*;
use burn::tensor::TensorData;
use clapd_core::dsp::FrontendSpec;
use clapd_core::model::Tokenizer;

use super::optimizer::{RateGroup, pattern};
use super::parts::{FreezablePart, LayerRates, freeze_batch_statistics, frozen};
use super::trainable_model::{AudioView, COUNTED_TOKENS, TrainableModel, stacked};
use super::{augment, save};
use crate::checkpoint::clap::ClapCheckpoint;
use crate::checkpoint::clap_config::MAX_TOKENS;
use crate::checkpoint::source::CheckpointSource;
use crate::data::Clips;
use crate::export::Precision;
use crate::import;
use crate::net::clap::Clap;

/// Where LoRA's factors go: queries and values, as its authors found best, and the projections into the common space.
const LORA_PATHS: &str = r"\.(query|value|linear1|linear2)\.weight$";

/// Which parts are trained, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// Parts that stay as they are.
    pub freeze: Vec<FreezablePart>,
    /// Rates by tower and layer.
    pub depth: LayerRates,
    /// Rank of LoRA's factors, which are then all that is trained.
    pub lora: Option<usize>,
    /// Seed of LoRA's factors.
    pub seed: u64,
    /// Compute activations again on the way back instead of keeping them all.
    pub gradient_checkpointing: bool,
}

/// A checkpoint in training.
pub struct TrainableClap {
    checkpoint: ClapCheckpoint,
    /// How its bundle names where it comes from.
    name: String,
    tokenizer: Tokenizer,
    counting: Tokenizer,
    choices: Choices,
    device: Device,
    recordings: Option<HashMap<PathBuf, Vec<f32>>>,
    texts: Option<HashMap<String, Vec<f32>>>,
}

impl TrainableClap {
    /// Opens a checkpoint, to be trained on `device`; its weights are read by [`TrainableModel::begin`].
    ///
    /// # Errors
    /// A checkpoint at fault, or choices that do not fit it.
    pub fn open(source: &CheckpointSource, choices: Choices, device: Device) -> Result<Self> {
        let checkpoint = ClapCheckpoint::open(source)?;
        let device = device.autodiff();
        let device = if choices.gradient_checkpointing { device.gradient_checkpointing() } else { device };
        let config = &checkpoint.config;
        for part in &choices.freeze {
            part.check(config.audio.depths.len(), config.text.bert.layers)?;
        }
        let is_frozen = |part| choices.freeze.contains(&part);
        Ok(Self {
            name: format!("{}, fine-tuned by claptune", source.name),
            tokenizer: Tokenizer::new(&checkpoint.tokenizer, MAX_TOKENS)?,
            counting: Tokenizer::new(&checkpoint.tokenizer, COUNTED_TOKENS)?,
            recordings: is_frozen(FreezablePart::Audio).then(HashMap::new),
            texts: is_frozen(FreezablePart::Text).then(HashMap::new),
            checkpoint,
            choices,
            device,
        })
    }

    /// Patches of recordings, `[N, channels, frames, mels]`; a fused model sees the same in all its channels.
    fn mels(&self, clips: &mut Clips, views: &[AudioView<'_>], device: &Device) -> Result<Tensor<4>> {
        let FrontendSpec { patch_frames, mel_bins, .. } = self.checkpoint.frontend;
        let mut values = Vec::with_capacity(views.len() * patch_frames * mel_bins);
        for view in views {
            let mut patch = clips.load(view.file)?;
            if let Some(seed) = view.mask {
                augment::mask(&mut patch, mel_bins, seed);
            }
            values.extend(patch);
        }
        let mel = Tensor::from_data(TensorData::new(values, [views.len(), 1, patch_frames, mel_bins]), device);
        Ok(mel.repeat_dim(1, self.checkpoint.config.audio.input_channels()))
    }

    /// Ids and mask of texts, `[N, S]`, padded to the longest.
    fn tokens(&self, texts: &[&str], device: &Device) -> Result<[Tensor<2, Int>; 2]> {
        let ids = texts.iter().map(|text| self.tokenizer.ids(text)).collect::<Result<Vec<_>>>()?;
        let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
        let pad = self.checkpoint.config.pad_id as i64;
        let padded = |row: &Vec<i64>, value: fn(i64) -> i64, rest: i64| -> Vec<i64> {
            let own = row.iter().map(|id| value(*id));
            own.chain(std::iter::repeat_n(rest, longest - row.len())).collect()
        };
        let tensor = |values: Vec<i64>| Tensor::from_data(TensorData::new(values, [texts.len(), longest]), device);
        Ok([
            tensor(ids.iter().flat_map(|row| padded(row, |id| id, pad)).collect()),
            tensor(ids.iter().flat_map(|row| padded(row, |_| 1, 0)).collect()),
        ])
    }
}

/// What frozen parts made of `key`, or what they make of it now.
fn embedded_once<K: std::hash::Hash + Eq>(
    known: &mut HashMap<K, Vec<f32>>,
    key: K,
    make: impl FnOnce() -> Result<Tensor<2>>,
) -> Result<Vec<f32>> {
    if let Some(found) = known.get(&key) {
        return Ok(found.clone());
    }
    let made = make()?.into_data().try_to_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    known.insert(key, made.clone());
    Ok(made)
}

impl TrainableModel for TrainableClap {
    type Net = Clap;

    fn frontend(&self) -> (FrontendSpec, u64) {
        (self.checkpoint.frontend, 0)
    }

    fn begin(&self) -> Result<Clap> {
        let mut net = freeze_batch_statistics(self.checkpoint.both(&self.device).context("loading the towers")?);
        if let Some(rank) = self.choices.lora {
            ensure!(rank > 0, "--lora is 0; a rank of 1 or more is needed (8 is usual)");
            self.device.seed(self.choices.seed);
            // A scale of 1 whatever the rank, so that the rate means the same for each.
            net = net.apply_lora(Lora::new(rank, rank as f64).set_param_group(pattern(LORA_PATHS)?));
        }
        for part in &self.choices.freeze {
            let groups: Vec<ParamGroup> = frozen(*part).iter().map(|text| pattern(text)).collect::<Result<_>>()?;
            net = groups.into_iter().fold(net, |net, group| net.set_require_grad_group(group, false));
        }
        Ok(net)
    }

    fn groups(&self) -> Vec<RateGroup> {
        let config = &self.checkpoint.config;
        self.choices.depth.groups(config.audio.depths.len(), config.text.bert.layers)
    }

    fn audio(&mut self, net: &Clap, clips: &mut Clips, views: &[AudioView<'_>]) -> Result<Tensor<2>> {
        let device = net.audio_scale.device();
        let is_whole = views.iter().all(|view| view.mask.is_none());
        let Some(mut known) = self.recordings.take_if(|_| is_whole) else {
            return Ok(net.audio.forward(self.mels(clips, views, &device)?));
        };
        let own = |view: &AudioView<'_>| {
            let make = || Ok(net.audio.forward(self.mels(clips, &[*view], &device)?));
            embedded_once(&mut known, view.file.to_path_buf(), make)
        };
        let rows = views.iter().map(own).collect::<Result<Vec<_>>>();
        self.recordings = Some(known);
        Ok(stacked(&rows?, &device))
    }

    fn text(&mut self, net: &Clap, texts: &[&str]) -> Result<Tensor<2>> {
        let device = net.audio_scale.device();
        let known = self.texts.take();
        let embed = |texts: &[&str]| -> Result<Tensor<2>> {
            let [ids, mask] = self.tokens(texts, &device)?;
            Ok(net.text.forward(ids, mask))
        };
        let Some(mut known) = known else { return embed(texts) };
        let own = |text: &&str| embedded_once(&mut known, (*text).to_owned(), || embed(&[*text]));
        let rows = texts.iter().map(own).collect::<Result<Vec<_>>>();
        self.texts = Some(known);
        Ok(stacked(&rows?, &device))
    }

    fn is_cut(&self, text: &str) -> Result<bool> {
        Ok(self.counting.ids(text)?.len() > MAX_TOKENS)
    }

    fn scales(&self, net: &Clap) -> [Tensor<1>; 2] {
        [net.audio_scale.val(), net.text_scale.val()]
    }

    /// As Human-CLAP was trained: 10 times the cosine, and 0 below.
    fn score(&self, cosine: f32) -> f32 {
        10.0 * cosine.clamp(0.0, 1.0)
    }

    fn save(&self, net: &Clap, out: &Path) -> Result<()> {
        // LoRA's factors are merged into the weights that they change.
        save::save(&net.valid().materialize(), &self.checkpoint, out)
    }

    fn bundle(&self, best: &Path, out: &Path, precision: Precision) -> Result<()> {
        let source = CheckpointSource {
            name: self.name.clone(),
            version: String::new(),
            weights: best.to_path_buf(),
            processor: best.to_path_buf(),
        };
        // Under the run's name, not the folder's, which is the same in all runs.
        let run = best.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        import::import_with(&source, out, precision, |manifest| {
            manifest.name = run.unwrap_or_else(|| manifest.name.clone());
            manifest.description = format!("CLAP, {}", self.name);
        })
    }
}
