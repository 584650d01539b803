//! The default model's networks, laid out with fused layers, are the networks; and the bundle that is committed is what the
//! writer writes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use burn::prelude::{Device, Int, Tensor as BurnTensor};
use burn::tensor::TensorData;
use clapd_core::model::{Compute, ops};
use clapd_core::vector::normalize;
use clapd_kernels::Isa;
use claptune::checkpoint::{Weight, Weights as Checkpoint};
use claptune::export::{Precision, nnef};
use claptune::layout::{self, TowerWeights};
use claptune::net::bert::BertConfig;
use claptune::net::minilm::MiniLm;
use claptune::net::yamnet::YamnetConfig;
use tract_onnx::prelude::{IntoRunnable, Tensor, TypedModel, TypedRunnableModel, tvec};

/// Random tensors of these shapes, about as large as trained ones.
fn random(shapes: &[(String, Vec<usize>)]) -> Checkpoint {
    let mut random = fastrand::Rng::with_seed(9);
    let mut checkpoint = Checkpoint::default();
    for (name, shape) in shapes {
        let values = (0..shape.iter().product()).map(|_| random.f32() - 0.5).collect();
        checkpoint.insert(name.clone(), Weight { shape: shape.clone(), values });
    }
    checkpoint
}

fn ready(mut model: TypedModel, isa: Isa) -> Arc<TypedRunnableModel> {
    assert!(ops::pack(&mut model, Compute::new(Some(isa.name()), 1).unwrap()).unwrap() > 2);
    model.into_runnable().unwrap()
}

#[track_caller]
fn assert_near(ours: &[f32], theirs: &[f32], bound: f32) {
    assert_eq!(ours.len(), theirs.len());
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= bound, "{off}");
}

#[test]
fn yamnet_is_the_network_on_every_instruction_set() {
    let config = YamnetConfig { stem: 4, blocks: vec![(1, 8), (2, 20), (1, 20), (2, 12)], classes: 7 };
    let mut shapes = vec![];
    let mut convolution = |path: String, shape: [usize; 4]| {
        shapes.push((format!("{path}.weight"), shape.to_vec()));
        shapes.push((format!("{path}.bias"), vec![shape[0]]));
    };
    convolution("stem".into(), [4, 1, 3, 3]);
    let mut channels = 4;
    for (index, (_, width)) in config.blocks.iter().enumerate() {
        convolution(format!("blocks.{index}.depthwise"), [channels, 1, 3, 3]);
        convolution(format!("blocks.{index}.pointwise"), [*width, channels, 1, 1]);
        channels = *width;
    }
    shapes.push(("classes.weight".into(), vec![channels, 7]));
    shapes.push(("classes.bias".into(), vec![7]));
    let checkpoint = random(&shapes);
    let network = checkpoint.clone().load_into(config.init(&Device::flex())).unwrap();
    let mel: Vec<f32> = (0..96 * 64).map(|i| ((i * 7919) % 1009) as f32 / 200.0 - 4.0).collect();
    let shape = [1, 1, 96, 64];
    let theirs = network.forward(BurnTensor::from_data(TensorData::new(mel.clone(), shape), &Device::flex()));
    let theirs: Vec<f32> = theirs.into_data().iter::<f32>().collect();
    let source = |path: &str| checkpoint.read(path);
    for (precision, bound) in [(Precision::F32, 1e-5), (Precision::F16, 2e-3)] {
        for isa in Isa::available() {
            let mut weights = TowerWeights::new(&source, precision);
            let graph = ready(layout::yamnet(&mut weights, &config).unwrap(), isa);
            let ours = graph.run(tvec!(Tensor::from_shape(&shape, &mel).unwrap().into())).unwrap();
            let ours: Vec<f32> = ours[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect();
            assert_near(&ours, &theirs, bound);
        }
    }
}

#[test]
fn a_bert_counts_its_positions_from_the_first_token() {
    let config = BertConfig {
        vocabulary: 40,
        positions: 32,
        pad_id: None,
        types: 2,
        width: 12,
        layers: 2,
        heads: 3,
        inner: 24,
        epsilon: 1e-12,
    };
    let mut shapes = vec![("bert.words.weight".to_string(), vec![40, 12])];
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    add("bert.positions".into(), &[32, 12]);
    add("bert.types".into(), &[2, 12]);
    let norm = |add: &mut dyn FnMut(String, &[usize]), path: String| {
        add(format!("{path}.gamma"), &[12]);
        add(format!("{path}.beta"), &[12]);
    };
    norm(&mut add, "bert.norm".into());
    for layer in 0..2 {
        let path = |name: &str| format!("bert.layers.{layer}.{name}");
        for (name, from, to) in [
            ("query", 12, 12),
            ("key", 12, 12),
            ("value", 12, 12),
            ("output", 12, 12),
            ("inner", 12, 24),
            ("outer", 24, 12),
        ] {
            add(path(name) + ".weight", &[from, to]);
            add(path(name) + ".bias", &[to]);
        }
        norm(&mut add, path("attention_norm"));
        norm(&mut add, path("norm"));
    }
    let checkpoint = random(&shapes);
    let network = checkpoint.clone().load_into(MiniLm::new(&config, &Device::flex())).unwrap();
    let source = |path: &str| checkpoint.read(path);
    for isa in Isa::available() {
        let mut weights = TowerWeights::new(&source, Precision::F32);
        let mut model = TypedModel::default();
        let (hidden, _) = layout::encoder(&mut model, &mut weights, &config, None).unwrap();
        model.select_output_outlets(&[hidden]).unwrap();
        let graph = ready(model, isa);
        for tokens in [1usize, 2, 7, 30] {
            // Token 0 is no padding to a BERT.
            let ids: Vec<i64> = (0..tokens as i64).map(|i| i * 7 % 40).collect();
            let row = |values: &[i64]| Tensor::from_shape(&[1, tokens], values).unwrap().into();
            let output = graph.run(tvec!(row(&ids), row(&vec![1; tokens]))).unwrap();
            let output = output[0].to_plain_array_view::<f32>().unwrap();
            let mut mean = vec![0.0; 12];
            output.iter().enumerate().for_each(|(i, x)| mean[i % 12] += x);
            normalize(&mut mean);
            let ids = BurnTensor::<2, Int>::from_data(TensorData::new(ids, [1, tokens]), &Device::flex());
            let theirs = network.forward(ids, BurnTensor::ones([1, tokens], &Device::flex()));
            assert_near(&mean, &theirs.into_data().iter::<f32>().collect::<Vec<_>>(), 1e-5);
        }
    }
}

/// The files of an archive.
fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let (name, mut bytes) = (entry.path().unwrap().to_str().unwrap().to_string(), vec![]);
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

#[test]
fn the_committed_graphs_are_what_is_written() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("models/mini");
    for file in ["audio.nnef.tar", "pool.nnef.tar", "text.nnef.tar"] {
        let stored = std::fs::read(folder.join(file)).unwrap();
        // tract's own note of its version, which it adds each time.
        let mut model = nnef::read(&stored).unwrap();
        model.properties.clear();
        let mut convert = vec![];
        nnef::write(model, &mut convert).unwrap();
        let (mut stored, mut convert) = (entries(&stored), entries(&convert));
        if file == "text.nnef.tar" {
            // tract renames the two slices of the head's output when it reads them.
            let text = |files: &mut BTreeMap<String, Vec<u8>>| files.remove("graph.nnef").unwrap();
            let lines = |bytes: Vec<u8>| {
                bytes.split(|b| *b == b'\n').filter(|line| line.windows(6).any(|w| w == b"clapd_")).count()
            };
            assert_eq!(lines(text(&mut stored)), lines(text(&mut convert)), "{file}");
        }
        assert!(stored == convert, "{file}: make mini would write other bytes");
    }
}
