//! The fused layers: a checkpoint laid out with them is the checkpoint, on every instruction set and any number of threads,
//! and what is wrong with a graph of them is an error. Checkpoints and expectations: tests/golden/clap/make_clap.py.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::prelude::{Device, Tensor as BurnTensor};
use burn::tensor::TensorData;
use clapd_core::dsp::clip_patch;
use clapd_core::files::sha256_hex;
use clapd_core::model::manifest::Manifest;
use clapd_core::model::{Bundle, Compute, Encode, ops};
use clapd_kernels::Isa;
use claptune::checkpoint::clap::ClapCheckpoint;
use claptune::checkpoint::source::locate;
use claptune::export::{Precision, nnef};
use claptune::import::import;
use claptune::layout;
use proptest::prelude::*;
use serde_json::Value;
use tract_onnx::prelude::{IntoRunnable, Tensor, TypedModel, tvec};

use crate::signals;

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden/clap").join(name)
}

fn checkpoint(name: &str) -> ClapCheckpoint {
    ClapCheckpoint::open(&locate(golden(name).to_str().unwrap(), None).unwrap()).unwrap()
}

fn imported(name: &str, precision: Precision) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = locate(golden(name).to_str().unwrap(), None).unwrap();
    import(&source, &folder.path().join("bundle"), precision).unwrap();
    folder
}

/// Every embedding that the golden file has: audio's, then text's.
fn embeddings(folder: &Path, name: &str, compute: Compute) -> Vec<Vec<f32>> {
    let bundle = Bundle::open(folder.join("bundle")).unwrap().with_compute(compute);
    let expected = expected(name);
    let (audio, text, spec) = (bundle.audio_encoder().unwrap(), bundle.text_encoder().unwrap(), bundle.frontend());
    assert_eq!(audio.compute(), Some(compute));
    let heard = expected["audio"].as_array().unwrap().iter().map(|case| {
        let clip = signals::signal(case["clip"].as_str().unwrap(), spec.sample_rate, spec.patch_samples());
        let mut embedding = vec![0.0; audio.embedding_len()];
        let mut features = vec![0.0; audio.feature_len()];
        audio.encode(&clip_patch(&spec, &clip).unwrap(), &mut features).unwrap();
        audio.embed(&features, &mut embedding).unwrap();
        embedding
    });
    let read = expected["text"].as_array().unwrap().iter();
    let read = read.map(|case| text.embed(case["text"].as_str().unwrap()).unwrap().vector);
    heard.chain(read).collect()
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(name).join("expected.json")).unwrap()).unwrap()
}

fn reference(name: &str) -> Vec<Vec<f32>> {
    let expected = expected(name);
    let rows = |part: &str| expected[part].as_array().unwrap().clone();
    let numbers =
        |case: &Value| case["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    rows("audio").iter().chain(&rows("text")).map(numbers).collect()
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

fn compute(isa: Isa, threads: usize) -> Compute {
    Compute::new(Some(isa.name()), threads).unwrap()
}

/// Largest difference from transformers of any number of a unit embedding.
fn is_near(precision: Precision, bound: f32) {
    for name in ["fused", "unfused"] {
        let folder = imported(name, precision);
        let reference = reference(name);
        for isa in Isa::available() {
            let one = embeddings(folder.path(), name, compute(isa, 1));
            let off = difference(&one, &reference);
            println!("{name} {precision:?} {}: {off:.2e}", isa.name());
            assert!(off <= bound, "{name} in {precision:?} on {}: {off}", isa.name());
            let two = embeddings(folder.path(), name, compute(isa, 2));
            assert!(one == two, "{name} in {precision:?} on {}: threads change the result", isa.name());
        }
    }
}

#[test]
fn f32_is_transformers_on_every_instruction_set() {
    is_near(Precision::F32, 1e-6);
}

#[test]
fn f16_is_near_on_every_instruction_set() {
    is_near(Precision::F16, 2e-3);
}

/// These networks are narrow (sums of 16 to 128 products, where the published have 96 to 3,072), so that errors of rounding
/// average out less than they do at full size.
#[test]
fn int8_is_near_on_every_instruction_set() {
    is_near(Precision::Int8, 3e-2);
}

/// A graph that runs.
fn ready(mut model: TypedModel) -> std::sync::Arc<tract_onnx::prelude::TypedRunnableModel> {
    assert!(ops::pack(&mut model, Compute::default()).unwrap() > 3);
    model.into_runnable().unwrap()
}

#[test]
fn four_different_pictures_are_fused_as_the_network_fuses_them() {
    let checkpoint = checkpoint("fused");
    let sizes = &checkpoint.config.audio;
    let graph = ready(layout::audio(&checkpoint, Precision::F32).unwrap());
    let network = checkpoint.audio(&Device::flex()).unwrap();
    let shape = [1, 4, sizes.frames, sizes.mels];
    let one: usize = sizes.frames * sizes.mels;
    let mut random = fastrand::Rng::with_seed(5);
    let pictures: Vec<Vec<f32>> = (0..4).map(|_| (0..one).map(|_| -80.0 * random.f32()).collect()).collect();
    // All different, the last two the same, the first again as a crop, and all the same.
    for which in [[0, 1, 2, 3], [0, 1, 2, 2], [0, 1, 0, 1], [0, 0, 0, 0]] {
        let mel: Vec<f32> = which.iter().flat_map(|at: &usize| pictures[*at].clone()).collect();
        let ours = graph.run(tvec!(Tensor::from_shape(&shape, &mel).unwrap().into())).unwrap();
        let ours = ours[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect();
        let mel = BurnTensor::<4>::from_data(TensorData::new(mel, shape), &Device::flex());
        let theirs = network.forward(mel).into_data().iter::<f32>().collect();
        let off = difference(&[ours], &[theirs]);
        assert!(off <= 2e-6, "{which:?}: {off}");
    }
}

#[test]
fn padding_changes_nothing() {
    let checkpoint = checkpoint("unfused");
    let graph = ready(layout::text(&checkpoint, Precision::F32).unwrap());
    let ids = checkpoint.tokenizer().unwrap().ids("a dog barks").unwrap();
    let pad = checkpoint.config.pad_id as i64;
    let run = |ids: &[i64], mask: &[i64]| -> Vec<f32> {
        let row = |values: &[i64]| Tensor::from_shape(&[1, values.len()], values).unwrap().into();
        let output = graph.run(tvec!(row(ids), row(mask))).unwrap();
        output[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
    };
    let alone = run(&ids, &vec![1; ids.len()]);
    let padded: Vec<i64> = ids.iter().copied().chain([pad; 3]).collect();
    let mask: Vec<i64> = (0..padded.len()).map(|at| i64::from(at < ids.len())).collect();
    assert!(difference(&[run(&padded, &mask)], &[alone]) <= 1e-6);
    let row = |values: &[i64]| Tensor::from_shape(&[1, values.len()], values).unwrap().into();
    for bad in [-1, i64::MAX, 1 << 40] {
        assert!(graph.run(tvec!(row(&[bad]), row(&[1]))).is_err(), "the token {bad}");
    }
    let long = vec![ids[1]; 2000];
    assert!(graph.run(tvec!(row(&long), row(&vec![1; 2000]))).is_err());
}

#[test]
fn what_is_read_back_is_written_the_same() {
    let checkpoint = checkpoint("fused");
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        for lay_out in [layout::audio, layout::text] {
            let tar = |model: TypedModel| {
                let mut bytes = vec![];
                nnef::write(model, &mut bytes).unwrap();
                bytes
            };
            let once = tar(lay_out(&checkpoint, precision).unwrap());
            // tract's own note of its version, which it adds each time.
            let mut read = nnef::read(&once).unwrap();
            read.properties.clear();
            let convert = tar(read);
            assert!(once == convert, "{precision:?}");
        }
    }
}

#[test]
fn int8_is_small() {
    let size = |precision: Precision| -> u64 {
        let folder = imported("fused", precision);
        let bytes = |file: &str| folder.path().join("bundle").join(file).metadata().unwrap().len();
        bytes("audio.nnef.tar") + bytes("text.nnef.tar")
    };
    // Headers and norms weigh more here than at full size, where f32 is 3.9 times int8.
    let [f32, f16, int8] = [Precision::F32, Precision::F16, Precision::Int8].map(size);
    assert!(f16 < f32 && int8 < f16, "{f32} {f16} {int8}");
}

/// A bundle whose audio graph is to be changed.
struct Changed {
    folder: tempfile::TempDir,
    entries: Vec<(String, Vec<u8>)>,
}

impl Changed {
    fn new() -> Self {
        let folder = imported("fused", Precision::Int8);
        let bytes = fs::read(folder.path().join("bundle/audio.nnef.tar")).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let (name, mut bytes) = (entry.path().unwrap().to_str().unwrap().to_string(), vec![]);
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        });
        Self { entries: entries.collect(), folder }
    }

    fn text(&self) -> String {
        String::from_utf8(self.entries.iter().find(|(name, _)| name == "graph.nnef").unwrap().1.clone()).unwrap()
    }

    /// What the device says of the bundle with this graph.
    fn load(&self, graph: &[u8]) -> anyhow::Result<()> {
        let mut archive = tar::Builder::new(vec![]);
        for (name, bytes) in &self.entries {
            let bytes = if name == "graph.nnef" { graph } else { bytes };
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, bytes).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let bundle = self.folder.path().join("bundle");
        let mut manifest = Manifest::parse(&fs::read_to_string(bundle.join("bundle.toml")).unwrap()).unwrap();
        manifest.audio.sha256 = sha256_hex(&bytes);
        manifest.pipeline_id = manifest.computed_pipeline_id();
        fs::write(bundle.join("audio.nnef.tar"), bytes).unwrap();
        fs::write(bundle.join("bundle.toml"), toml::to_string(&manifest).unwrap()).unwrap();
        Bundle::open(bundle)?.audio_encoder().map(|_| ())
    }
}

#[test]
fn a_graph_with_hostile_numbers_is_refused() {
    let changed = Changed::new();
    let text = changed.text();
    changed.load(text.as_bytes()).unwrap();
    let numbers = [
        "-1",
        "0",
        "1",
        "3",
        "1000",
        "1000000",
        "99999999999",
        "9223372036854775807",
        "1e30",
        "\"a\"",
        "nan",
        "[1, 2]",
        "x",
    ];
    let names = [
        "frames",
        "mels",
        "image",
        "patch_height",
        "patch_width",
        "stride_height",
        "stride_width",
        "epsilon",
        "height",
        "width",
        "window",
        "shift",
        "heads",
        "count",
        "gelu",
    ];
    let mut refused = 0;
    for name in names {
        let key = format!(" {name} = ");
        let at = text.find(&key).unwrap_or_else(|| panic!("no {name} in {text}")) + key.len();
        let end = at + text[at..].find([',', ')']).unwrap();
        for number in numbers {
            // Some numbers are possible (an epsilon of 0.001, a shift of 1): then it loads. It must do one or the other.
            refused +=
                usize::from(changed.load(format!("{}{number}{}", &text[..at], &text[end..]).as_bytes()).is_err());
        }
        let error = changed.load(text.replacen(&key, " nonsense = ", 1).as_bytes()).unwrap_err();
        assert!(format!("{error:#}").contains("nonsense"), "{error:#}");
    }
    assert!(refused >= names.len() * (numbers.len() - 3), "only {refused} were refused");
}

#[test]
fn a_graph_with_the_wrong_weights_is_refused() {
    let changed = Changed::new();
    let text = changed.text();
    let weights = [
        "qkv_weight",
        "qkv_scale",
        "norm_before_bias",
        "position_bias",
        "reduction_weight",
        "mel_scale",
        "crops_weight",
    ];
    for name in weights {
        let key = format!("{name} = ");
        let at = text.find(&key).unwrap() + key.len();
        let end = at + text[at..].find([',', ')']).unwrap();
        for other in ["mel", "1.0", "stage_0_block_0_qkv_bias", "stage_0_block_0_inner_weight", "[[1.0]]"] {
            if text[at..end] != *other {
                let graph = format!("{}{other}{}", &text[..at], &text[end..]);
                assert!(changed.load(graph.as_bytes()).is_err(), "{name} = {other}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn random_damage_to_a_graph_of_fused_layers_never_panics(at in 0_usize..1 << 16, bytes in prop::collection::vec(any::<u8>(), 1..8)) {
        let changed = Changed::new();
        let mut graph = changed.text().into_bytes();
        let at = at % graph.len();
        let end = (at + bytes.len()).min(graph.len());
        graph[at..end].copy_from_slice(&bytes[..end - at]);
        let _ = changed.load(&graph);
    }
}
