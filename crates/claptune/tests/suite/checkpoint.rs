//! Checkpoints come from elsewhere: sound ones load whole, broken ones are refused with all their faults named.

use std::path::Path;

use burn::prelude::*;
use burn::tensor::TensorData;
use claptune::checkpoint::stored_tensor::{open_safetensors, read_all};
use claptune::checkpoint::{Weight, Weights, minilm, yamnet};
use claptune::net::bert::BertConfig;
use claptune::net::minilm::MiniLm;
use claptune::net::yamnet::YamnetConfig;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

/// A safetensors file of these tensors.
fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn a_small_file_is_read_whole_but_for_what_is_no_weight() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // 1.0 and -2.0 in bf16; a counter.
    write(&path, &[("a", Dtype::BF16, &[2, 1], &[0x80, 0x3f, 0, 0xc0]), ("count", Dtype::I64, &[1], &[0; 8])]);
    let inventory = open_safetensors(&path).unwrap();
    let mut weights = read_all(&inventory, |name| name == "count").unwrap();
    assert_eq!(weights.take("a").unwrap(), Weight { shape: vec![2, 1], values: vec![1.0, -2.0] });
    assert_eq!(weights.names().count(), 0);
    let message = format!("{:#}", read_all(&inventory, |_| false).unwrap_err());
    assert!(message.contains("count") && message.contains("integers"), "{message}");
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400), flip in any::<(u16, u8)>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            open_safetensors(&path).and_then(|inventory| read_all(&inventory, |_| false)).ok();
        };
        read(&bytes);
        write(&path, &[("a", Dtype::F32, &[4], &[1; 16]), ("b/c", Dtype::F16, &[2, 2], &[5; 8])]);
        let mut whole = std::fs::read(&path).unwrap();
        let at = usize::from(flip.0) % whole.len();
        whole[at] ^= flip.1;
        read(&whole);
        read(&whole[..at]);
    }
}

fn tensor(shape: &[usize], seed: u64) -> Weight {
    let mut random = fastrand::Rng::with_seed(seed);
    Weight { shape: shape.to_vec(), values: (0..shape.iter().product()).map(|_| random.f32() - 0.5).collect() }
}

fn small_yamnet() -> (YamnetConfig, Weights) {
    let config = YamnetConfig { stem: 3, blocks: vec![(2, 4)], classes: 5 };
    let mut weights = Weights::default();
    let layers = [
        (0, "kernel", vec![3, 3, 1, 3], 3),
        (2, "depthwise_kernel", vec![3, 3, 3, 1], 3),
        (4, "kernel", vec![1, 1, 3, 4], 4),
    ];
    let name = |layer: usize, part: &str| format!("layers.{layer}.{part}");
    for (layer, kernel, shape, channels) in layers {
        weights.insert(name(layer, kernel), tensor(&shape, layer as u64));
        for part in ["beta", "moving_mean"] {
            weights.insert(name(layer + 1, part), tensor(&[channels], layer as u64 + 7));
        }
        let mut variance = tensor(&[channels], layer as u64 + 9);
        variance.values.iter_mut().for_each(|v| *v += 1.0);
        weights.insert(name(layer + 1, "moving_variance"), variance);
    }
    weights.insert(name(6, "kernel"), tensor(&[4, 5], 70));
    weights.insert(name(6, "bias"), tensor(&[5], 71));
    (config, weights)
}

/// The same network the long way: "same" padding, convolution and normalisation each as TensorFlow defines them.
fn reference(weights: &mut Weights, mel: &[f32]) -> Vec<f32> {
    let mut get = |layer: usize, part: &str| weights.take(&format!("layers.{layer}.{part}")).unwrap();
    let (mut x, mut h, mut w, mut c) = (mel.to_vec(), 96usize, 64usize, 1usize);
    for (layer, kernel, stride) in [(0, "kernel", 2usize), (2, "depthwise_kernel", 2), (4, "kernel", 1)] {
        let k = get(layer, kernel);
        let depthwise = kernel == "depthwise_kernel";
        let size = k.shape[0];
        let out = if depthwise { c } else { k.shape[3] };
        let (beta, mean, variance) =
            (get(layer + 1, "beta"), get(layer + 1, "moving_mean"), get(layer + 1, "moving_variance"));
        let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
        let before = |n: usize, o: usize| (((o - 1) * stride + size).saturating_sub(n) / 2) as isize;
        let (top, left) = (before(h, oh), before(w, ow));
        let mut y = vec![0f32; oh * ow * out];
        for (i, y) in y.iter_mut().enumerate() {
            let (o, column, row) = (i % out, i / out % ow, i / out / ow);
            let mut sum = 0.0;
            for (dy, dx) in (0..size * size).map(|p| (p / size, p % size)) {
                let (r, q) = ((row * stride + dy) as isize - top, (column * stride + dx) as isize - left);
                if r < 0 || q < 0 || r >= h as isize || q >= w as isize {
                    continue;
                }
                let at = (r as usize * w + q as usize) * c;
                let place = (dy * size + dx) * k.shape[2] * k.shape[3];
                sum += if depthwise {
                    x[at + o] * k.values[place + o]
                } else {
                    (0..c).map(|n| x[at + n] * k.values[place + n * out + o]).sum::<f32>()
                };
            }
            let normal = (sum - mean.values[o]) / (variance.values[o] + 1e-4).sqrt() + beta.values[o];
            *y = normal.max(0.0);
        }
        (x, h, w, c) = (y, oh, ow, out);
    }
    let mean: Vec<f32> = (0..c).map(|n| x.iter().skip(n).step_by(c).sum::<f32>() / (h * w) as f32).collect();
    let (kernel, bias) = (get(6, "kernel"), get(6, "bias"));
    (0..5)
        .map(|o| {
            let logit: f32 = (0..c).map(|n| mean[n] * kernel.values[n * 5 + o]).sum::<f32>() + bias.values[o];
            1.0 / (1.0 + (-logit).exp())
        })
        .collect()
}

#[test]
fn yamnet_with_folded_norms_is_yamnet() {
    let (config, weights) = small_yamnet();
    let mut convert = weights.clone();
    let net = yamnet::rename(weights, &config).unwrap().load_into(config.init(&Device::flex())).unwrap();
    let mel = tensor(&[96, 64], 5).values;
    let input = Tensor::<4>::from_data(TensorData::new(mel.clone(), [1, 1, 96, 64]), &Device::flex());
    let ours: Vec<f32> = net.forward(input).into_data().iter::<f32>().collect();
    for (a, b) in ours.iter().zip(reference(&mut convert, &mel)) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn all_faults_of_a_checkpoint_are_named_at_once() {
    let config = BertConfig {
        vocabulary: 10,
        positions: 8,
        pad_id: None,
        types: 2,
        width: 4,
        layers: 1,
        heads: 2,
        inner: 8,
        epsilon: 1e-12,
    };
    let mut weights = Weights::default();
    weights.insert("embeddings.word_embeddings.weight", tensor(&[10, 5], 1));
    weights.insert("embeddings.position_embeddings.weight", tensor(&[8, 4], 2));
    weights.insert("encoder.layer.0.intermediate.dense.weight", tensor(&[8, 4], 3));
    weights.insert("encoder.layer.1.output.dense.bias", tensor(&[4], 4));
    weights.insert("cls.predictions.bias", tensor(&[4], 5));
    let mut infinite = tensor(&[2, 4], 6);
    infinite.values[3] = f32::INFINITY;
    weights.insert("embeddings.token_type_embeddings.weight", infinite);
    let loaded = minilm::rename(weights).load_into(MiniLm::new(&config, &Device::flex()));
    let message = format!("{:#}", loaded.err().unwrap());
    for fault in [
        "shape    bert.words.weight is [10, 5], the network has [10, 4]",
        "missing  bert.layers.0.query.weight [4, 4]",
        "extra    bert.layers.1.outer.bias [4]",
        "extra    cls.predictions.bias [4]",
        "value    bert.types holds inf",
    ] {
        assert!(message.contains(fault), "`{fault}` is not in: {message}");
    }
    assert!(!message.contains("positions") && !message.contains("inner.weight"), "{message}");
}
