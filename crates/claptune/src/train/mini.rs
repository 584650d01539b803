//! `mini` bundles as what a run trains.
//!
//! YAMNet and MiniLM stay as they are: each recording and each text goes once through the bundle's own encoders, on
//! clapd's kernels, and only the common space behind them is trained ([`CaptionNetwork`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use clapd_core::dsp::FrontendSpec;
use clapd_core::model::{AudioEncoder, Bundle, Encode, Tokenizer};
use clapd_core::score::Calibration;
use clapd_core::vector::normalize;
use tract_onnx::prelude::{Tensor as TractTensor, TypedRunnableModel, tvec};

use super::optimizer::{RateGroup, pattern};
use super::parts::{FreezablePart, frozen};
use super::trainable_model::{AudioView, COUNTED_TOKENS, TrainableModel, stacked};
use crate::data::Clips;
use crate::export::Precision;
use crate::mini::space_graphs::SpaceGraphs;
use crate::mini::tuned;
use crate::net::captions::CaptionNetwork;

/// Rate of the matrices over the rate that is asked for, whose default suits whole networks: 3e-4 for 2e-5. In a prototype on the
/// worked example's validation split (SIMULATED ratings) 1e-3 gave an SRCC .01 higher, but named .06 fewer of other sounds.
const MATRIX_RATE: f64 = 15.0;
/// The same of single numbers and of a number a class, which are logarithms: 3e-3 a step is 0.3%.
const NUMBER_RATE: f64 = 150.0;
/// Those.
const NUMBER_PATHS: &str = r"\.(exponent|class_weight|class_share|kappa|background_weight|null)\.";

/// A bundle in training.
pub struct TrainableMini {
    bundle: Bundle,
    heads: SpaceGraphs,
    encoder: AudioEncoder,
    calibration: Calibration,
    sentences: Arc<TypedRunnableModel>,
    tokenizer: Tokenizer,
    counting: Tokenizer,
    freeze: Vec<FreezablePart>,
    text_rate: f64,
    device: Device,
    /// Mean probabilities of recordings' patches.
    recordings: HashMap<PathBuf, Vec<f32>>,
    /// Sentence embeddings of texts.
    texts: HashMap<String, Vec<f32>>,
}

impl TrainableMini {
    /// Opens a bundle, to be trained on `device` but for what `freeze` says; the text side's rate is `text_rate` times the audio
    /// side's.
    ///
    /// # Errors
    /// A bundle of another kind or at fault, or a part that it does not have.
    pub fn open(folder: &Path, freeze: Vec<FreezablePart>, text_rate: f64, device: Device) -> Result<Self> {
        if let Some(part) =
            freeze.iter().find(|part| matches!(part, FreezablePart::AudioBelow(_) | FreezablePart::TextBelow(_)))
        {
            bail!("--freeze {part}: a mini bundle's networks are always frozen; audio, text and temperature are left");
        }
        let bundle = Bundle::open(folder)?;
        let heads = SpaceGraphs::open(&bundle)?;
        let table = &bundle.manifest().text;
        let path = folder.join(&table.tokenizer);
        let json = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self {
            encoder: bundle.audio_encoder()?,
            calibration: bundle.calibration()?,
            sentences: heads.sentences()?,
            tokenizer: Tokenizer::new(&json, table.max_tokens)?,
            counting: Tokenizer::new(&json, COUNTED_TOKENS)?,
            heads,
            bundle,
            freeze,
            text_rate,
            device: device.autodiff(),
            recordings: HashMap::new(),
            texts: HashMap::new(),
        })
    }

    /// Mean probabilities of a recording's patches, summed as clapd sums them.
    fn probabilities(&mut self, clips: &mut Clips, file: &Path) -> Result<&[f32]> {
        if !self.recordings.contains_key(file) {
            let (patches, mut one) = (clips.load(file)?, vec![0.0; self.encoder.feature_len()]);
            let mut sum = vec![0.0_f64; one.len()];
            let mut count = 0.0;
            for patch in patches.chunks_exact(clips.patch_len()) {
                self.encoder.encode(patch, &mut one)?;
                sum.iter_mut().zip(&one).for_each(|(sum, x)| *sum += f64::from(*x));
                count += 1.0;
            }
            let mean = sum.iter().map(|sum| (sum / count) as f32).collect();
            self.recordings.insert(file.to_path_buf(), mean);
        }
        self.recordings.get(file).map(Vec::as_slice).context("a recording was forgotten")
    }

    /// The unit sentence embedding of a text.
    fn sentence(&mut self, text: &str) -> Result<&[f32]> {
        if !self.texts.contains_key(text) {
            let ids = self.tokenizer.ids(text)?;
            let row = |values: &[i64]| TractTensor::from_shape(&[1, values.len()], values);
            let hidden = self.sentences.run(tvec!(row(&ids)?.into(), row(&vec![1; ids.len()])?.into()))?;
            let hidden = hidden[0].to_plain_array_view::<f32>()?;
            let width = hidden.len() / ids.len();
            let mut sum = vec![0.0; width];
            hidden.iter().enumerate().for_each(|(at, x)| sum[at % width] += x);
            normalize(&mut sum);
            self.texts.insert(text.to_owned(), sum);
        }
        self.texts.get(text).map(Vec::as_slice).context("a text was forgotten")
    }
}

impl TrainableModel for TrainableMini {
    type Net = CaptionNetwork;

    fn frontend(&self) -> (FrontendSpec, u64) {
        (self.bundle.frontend(), self.bundle.windowing().patch_hop)
    }

    fn begin(&self) -> Result<CaptionNetwork> {
        let mut net = self.heads.network(&self.device)?;
        for path in self.freeze.iter().flat_map(|part| frozen(*part)) {
            net = net.set_require_grad_group(pattern(&path)?, false);
        }
        Ok(net)
    }

    fn groups(&self) -> Vec<RateGroup> {
        let side = |side: &str, rate: f64| {
            [(format!(r"^{side}\."), MATRIX_RATE * rate), (format!(r"^{side}{NUMBER_PATHS}"), NUMBER_RATE * rate)]
        };
        let temperature = (r"_scale$".into(), MATRIX_RATE);
        [temperature].into_iter().chain(side("audio", 1.0)).chain(side("text", self.text_rate)).collect()
    }

    fn audio(&mut self, net: &CaptionNetwork, clips: &mut Clips, views: &[AudioView<'_>]) -> Result<Tensor<2>> {
        // Masks are of spectrograms; the command line refuses them here.
        let own = |view: &AudioView<'_>| Ok(self.probabilities(clips, view.file)?.to_vec());
        let rows = views.iter().map(own).collect::<Result<Vec<_>>>()?;
        Ok(net.audio.forward(stacked(&rows, &net.audio_scale.device())))
    }

    fn text(&mut self, net: &CaptionNetwork, texts: &[&str]) -> Result<Tensor<2>> {
        let rows = texts.iter().map(|text| Ok(self.sentence(text)?.to_vec())).collect::<Result<Vec<_>>>()?;
        Ok(net.text.forward(stacked(&rows, &net.audio_scale.device())))
    }

    fn is_cut(&self, text: &str) -> Result<bool> {
        Ok(self.counting.ids(text)?.len() > self.bundle.manifest().text.max_tokens)
    }

    fn scales(&self, net: &CaptionNetwork) -> [Tensor<1>; 2] {
        [net.audio_scale.val(), net.text_scale.val()]
    }

    fn score(&self, cosine: f32) -> f32 {
        self.calibration.score(cosine).score
    }

    fn save(&self, net: &CaptionNetwork, out: &Path) -> Result<()> {
        // A bundle's writer puts a whole folder in place.
        std::fs::remove_dir(out).with_context(|| format!("{} should be empty", out.display()))?;
        tuned::write(&self.bundle, &self.heads, &net.valid(), Precision::F32, out)
    }

    fn bundle(&self, best: &Path, out: &Path, precision: Precision) -> Result<()> {
        let best = SpaceGraphs::open(&Bundle::open(best)?)?.network(&Device::flex())?;
        tuned::write(&self.bundle, &self.heads, &best, precision, out)
    }
}
