//! The default bundle in training: the network is what the device computes, an untrained one is the bundle that it came from,
//! and a trained one is a bundle that clapd runs. The ratings are made up: 9 for a sound's own name, 1 for another's.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients;
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::embed::{ClipEmbedder, Model};
use clapd_core::model::{Bundle, Encode};
use claptune::data::Clips;
use claptune::export::Precision;
use claptune::mini::space_graphs::SpaceGraphs;
use claptune::mini::tuned;
use claptune::net::captions::CaptionNetwork;
use claptune::net::clap::PairEmbeddings;
use claptune::train::mini::TrainableMini;
use claptune::train::objective::{Objective, Spread, Targets};
use claptune::train::trainable_model::{AudioView, TrainableModel};
use serde_json::Value;

use crate::wav::Wav;

/// A cosine of the network over the device's: both are sums in f32, of other orders.
const TOLERANCE: f32 = 1e-5;
const TEXTS: [&str; 4] = ["a dog barking", "rain on a roof and a man speaking", "quux", "a steam train whistle"];

fn mini() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini")
}

/// Two seconds that differ: a sweep, clicks, noise, nothing.
fn sounds(folder: &Path) -> Vec<PathBuf> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut sample = |kind: usize, n: usize| -> f32 {
        let t = n as f32 / 16_000.0;
        match kind {
            0 => 0.3 * (std::f32::consts::TAU * (200.0 * t + 450.0 * t * t)).sin(),
            1 if n % 4000 < 40 => 0.8,
            2 => 0.2 * (random.f32() - 0.5),
            _ => 0.0,
        }
    };
    let write = |kind: usize| {
        let wav = Wav::mono(16_000, (0..32_000).map(|n| (sample(kind, n) * 32_767.0) as i16));
        let path = folder.join(format!("{kind}.wav"));
        fs::write(&path, wav.bytes()).unwrap();
        path
    };
    (0..4).map(write).collect()
}

fn numbers(x: Tensor<2>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn embed(model: &mut TrainableMini, net: &CaptionNetwork, files: &[PathBuf]) -> PairEmbeddings {
    let (spec, patch_hop) = model.frontend();
    let mut clips = Clips::new(spec, patch_hop, None);
    let looks: Vec<AudioView<'_>> = files.iter().map(|file| AudioView { file, mask: None }).collect();
    PairEmbeddings { audio: model.audio(net, &mut clips, &looks).unwrap(), text: model.text(net, &TEXTS).unwrap() }
}

/// The same by the bundle, through what `clapd score --whole` runs.
fn device(bundle: &Path, files: &[PathBuf]) -> (Vec<f32>, Vec<f32>) {
    let scorer = claptune::eval::BundleScorer::open(bundle).unwrap();
    let audio = files.iter().flat_map(|file| scorer.clip(file).unwrap()).collect();
    (audio, scorer.texts(&TEXTS).unwrap().into_iter().flat_map(|text| text.vector).collect())
}

#[track_caller]
fn assert_near(ours: &[f32], theirs: &[f32], bound: f32) {
    assert_eq!(ours.len(), theirs.len());
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= bound, "{off}");
}

#[test]
fn the_network_is_what_the_device_computes() {
    let folder = tempfile::tempdir().unwrap();
    let files = sounds(folder.path());
    let mut model = TrainableMini::open(&mini(), vec![], 1.0, Device::flex()).unwrap();
    let net = model.begin().unwrap();
    let pairs = embed(&mut model, &net, &files);
    let (audio, text) = device(&mini(), &files);
    assert_near(&numbers(pairs.audio), &audio, TOLERANCE);
    assert_near(&numbers(pairs.text), &text, TOLERANCE);
    assert!(model.is_cut(&"very ".repeat(80)).unwrap() && !model.is_cut(TEXTS[1]).unwrap());
}

#[test]
fn an_untrained_bundle_is_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let (files, start) = (sounds(folder.path()), Bundle::open(mini()).unwrap());
    let heads = SpaceGraphs::open(&start).unwrap();
    let net = heads.network(&Device::flex()).unwrap();
    let write = |name: &str, precision| {
        let out = folder.path().join(name);
        tuned::write(&start, &heads, &net, precision, &out).unwrap();
        out
    };
    let ours = Bundle::open(write("int8", Precision::Int8)).unwrap();
    let hash = |bundle: &Bundle| bundle.manifest().pool.as_ref().unwrap().sha256.clone();
    assert_eq!(hash(&ours), hash(&start), "bit for bit");
    assert_eq!(ours.manifest().source.last().unwrap().sha256, start.manifest().pipeline_id);
    let expected = device(&mini(), &files);
    for precision in [Precision::Int8, Precision::F16, Precision::F32] {
        let (audio, text) = device(&write(&format!("{precision:?}"), precision), &files);
        assert_near(&audio, &expected.0, 1e-6);
        assert_near(&text, &expected.1, 1e-6);
    }
}

/// Changes every parameter in the direction of a wave, and sums what the gradient says of that.
struct Wave<'a> {
    gradients: Option<&'a Gradients>,
    only: &'a str,
    path: Vec<String>,
    found: Vec<(String, f64)>,
}

fn wave(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product::<usize>()).map(|i| (1.7 * i as f32 + 0.3).cos()).collect()
}

impl ModuleVisitor for Wave<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient =
            param.val().grad(self.gradients.unwrap()).map(|g| g.into_data().iter::<f32>().collect::<Vec<_>>());
        let gradient = gradient.unwrap_or_else(|| panic!("{:?} has no gradient", self.path));
        let dot = gradient.iter().zip(wave(&param.dims())).map(|(g, w)| f64::from(*g) * f64::from(w)).sum();
        self.found.push((self.path.join("."), dot));
    }
}

impl burn::module::ModuleMapper for Wave<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.join(".") != self.only {
            return param;
        }
        let step = self.found[0].1 as f32;
        param.map(|x| {
            let wave = Tensor::<D>::from_data(TensorData::new(wave(&x.dims()), x.shape()), &x.device());
            x + wave * step
        })
    }
}

#[test]
fn gradients_are_differences() {
    let folder = tempfile::tempdir().unwrap();
    let files = sounds(folder.path());
    let mut model = TrainableMini::open(&mini(), vec![], 1.0, Device::flex()).unwrap();
    let objective: Objective = "wsce+mse".parse().unwrap();
    let mut loss = |net: &CaptionNetwork| {
        let device = net.audio_scale.device();
        let targets = Targets {
            rating: Tensor::from_floats([0.9, 0.2, 0.1, 0.6], &device),
            z_score: Tensor::from_floats([0.9, 0.2, 0.1, 0.6], &device),
            spread: Spread { mean: 5.0, deviation: 2.0 },
        };
        let pairs = embed(&mut model, net, &files);
        objective.loss(&pairs, &[net.audio_scale.val(), net.text_scale.val()], &targets)
    };
    let begin = || TrainableMini::open(&mini(), vec![], 1.0, Device::flex()).unwrap().begin().unwrap();
    let net = begin();
    let gradients = loss(&net).backward();
    let mut visitor = Wave { gradients: Some(&gradients), only: "", path: vec![], found: vec![] };
    net.visit(&mut visitor);
    assert_eq!(visitor.found.len(), 13, "all that is trained");
    for (path, slope) in &visitor.found {
        // A thousandth of what such numbers are: differences of a loss in f32 are good to some percent then.
        let step =
            if path.contains("centres") || path.contains("keys") || path.contains("whitening") { 3e-4 } else { 3e-3 };
        let mut at = |step: f64| {
            let mut mapper = Wave { gradients: None, only: path, path: vec![], found: vec![(String::new(), step)] };
            f64::from(loss(&begin().map(&mut mapper)).into_scalar::<f32>())
        };
        let difference = (at(step) - at(-step)) / (2.0 * step);
        let off = (difference - slope).abs() / slope.abs().max(1e-3);
        println!("{path}: {slope:.6} {difference:.6}");
        assert!(off < 0.05, "{path}: {slope} by gradient, {difference} by difference");
    }
}

/// The demonstration's sounds, each rated with its own name and three others'; the last in validation.
fn dataset(folder: &Path) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = fs::read_to_string(root.join("tests/audio/demo.csv")).unwrap();
    let names: Vec<String> = text.lines().skip(1).map(|line| line.split(',').nth(2).unwrap().to_owned()).collect();
    let files = sounds(folder);
    let mut manifest = "audio,text,score,listener,split\n".to_owned();
    for (n, file) in files.iter().enumerate() {
        let split = if n == 3 { "validation" } else { "train" };
        for (other, name) in names.iter().enumerate().take(8) {
            // Half of the texts are liked with every sound, which can be learned from three of them.
            let score = if other % 2 == 0 { 9 } else { 1 + (other + n) % 3 };
            writeln!(manifest, "{},{name},{score},{split}-listener,{split}", file.display()).unwrap();
        }
    }
    fs::write(folder.join("m.csv"), manifest).unwrap();
    folder.join("m.csv")
}

fn claptune(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_claptune")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_tuned_bundle_is_one_that_clapd_runs() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = dataset(folder.path());
    let (out, mini) = (folder.path().join("run"), mini());
    let [manifest, out, mini] = [&manifest, &out, &mini].map(|path| path.to_str().unwrap());
    let arguments = ["tune", "--data", manifest, "--init", mini, "--out", out, "--batch", "24", "--rate", "1e-3"];
    let (done, said) = claptune(&[&arguments[..], &["--epochs", "6", "--precision", "f16"]].concat());
    assert!(done, "{said}");
    let lines = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let losses: Vec<f64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["kind"] == "step")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    // Batches differ: the first epoch's steps against as many of the last. (What these sounds teach need not help with the one
    // that validates: the best model may be the start.)
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(losses.len() > 10 && mean(&losses[losses.len() - 5..]) < 0.8 * mean(&losses[..5]), "{losses:?}");
    let tuned = folder.path().join("run/bundle");
    let bundle = Bundle::open(&tuned).unwrap();
    assert_eq!(bundle.manifest().name, "mini-tuned");
    assert!(bundle.audio_encoder().unwrap().embedding_len() == 940);
    let cosine = |bundle: &str| {
        let bundle = Bundle::open(bundle).unwrap();
        let mut decoder = Decoder::open(&folder.path().join("0.wav"), Channel::Mix).unwrap();
        let mut clip = ClipEmbedder::new(Model::load(&bundle).unwrap(), decoder.rate()).unwrap();
        while let Some(samples) = decoder.next_block().unwrap() {
            clip.push(samples).unwrap();
        }
        let (sound, _) = clip.finish().unwrap();
        let text = bundle.text_encoder().unwrap().embed(TEXTS[0]).unwrap().vector;
        sound.iter().zip(text).map(|(x, y)| x * y).sum::<f32>()
    };
    let best = folder.path().join("run/best");
    let [best, tuned] = [&best, &tuned].map(|bundle| cosine(bundle.to_str().unwrap()));
    assert!((best - tuned).abs() < 1e-3, "f32 {best}, f16 {tuned}");
    let small = folder.path().join("small");
    let (done, said) = claptune(&["export", out, "--bundle", small.to_str().unwrap(), "--precision", "int8"]);
    assert!(done, "{said}");
    let small = Bundle::open(small).unwrap();
    assert_eq!(small.manifest().calibration, bundle.manifest().calibration);
    assert_eq!(small.manifest().source.len(), 3, "both networks, and where it began");
    let (done, said) = claptune(&[&arguments[..5], &["--out", "x", "--lora", "8"]].concat());
    assert!(!done && said.contains("--lora"), "{said}");
    let (done, said) = claptune(&[&arguments[..5], &["--out", "x", "--freeze", "audio:2"]].concat());
    assert!(!done && said.contains("--freeze audio:2"), "{said}");
}
