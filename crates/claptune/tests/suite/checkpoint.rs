//! Checkpoints come from elsewhere: sound ones load whole, broken ones are refused with all their faults named.

use std::io::Write;

use burn::prelude::*;
use burn::tensor::TensorData;
use claptune::checkpoint::wheel::Wheel;
use claptune::checkpoint::{Weight, Weights, minilm, safetensors, tf_bundle, yamnet};
use claptune::net::bert::BertConfig;
use claptune::net::minilm::MiniLm;
use claptune::net::yamnet::YamnetConfig;
use proptest::prelude::*;
use zip::write::SimpleFileOptions;

fn wheel(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some_model-1.2-py3-none-any.whl");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file(name, options).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap();
    (folder, path)
}

#[test]
fn a_wheel_gives_its_files_name_version_and_hash() {
    let (_folder, path) = wheel("m/weights", b"some bytes");
    let mut open = Wheel::open(&path).unwrap();
    assert_eq!(open.read("m/weights", 10).unwrap(), b"some bytes");
    assert_eq!(open.name_and_version().unwrap(), ("some-model".into(), "1.2".into()));
    assert_eq!(open.sha256(), clapd_core::files::sha256_hex(&std::fs::read(&path).unwrap()));
    assert!(format!("{:#}", open.read("m/other", 10).unwrap_err()).contains("m/other"));
}

#[test]
fn a_member_larger_than_asked_for_is_refused() {
    let (_folder, path) = wheel("bomb", &vec![0; 1 << 20]);
    assert!(std::fs::metadata(&path).unwrap().len() < 4096, "it should compress well");
    let message = format!("{:#}", Wheel::open(&path).unwrap().read("bomb", 1000).unwrap_err());
    assert!(message.contains("1000"), "{message}");
}

#[test]
fn a_member_that_lies_about_its_size_is_refused() {
    let (_folder, path) = wheel("bomb", &vec![0; 1 << 20]);
    let mut bytes = std::fs::read(&path).unwrap();
    // The stated size stands in the local header and in the directory; both now say 16 bytes.
    let stated = (1u32 << 20).to_le_bytes();
    let mut changed = 0;
    for i in 0..bytes.len() - 4 {
        if bytes[i..i + 4] == stated {
            bytes[i..i + 4].copy_from_slice(&16u32.to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed >= 2);
    std::fs::write(&path, bytes).unwrap();
    let read = Wheel::open(&path).and_then(|mut w| w.read("bomb", 1000));
    assert!(read.is_err(), "{} bytes came out", read.unwrap().len());
}

#[test]
fn a_truncated_wheel_is_refused() {
    let (_folder, path) = wheel("m", &(0..50_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let read = Wheel::open(&path).and_then(|mut w| w.read("m", 1 << 20));
        assert!(read.is_err(), "{length} of {} bytes were enough", bytes.len());
    }
}

/// A table of TensorFlow's format: one data block, an index block, a footer.
fn bundle(tensors: &[(&str, &[i64], &[f32])]) -> (Vec<u8>, Vec<u8>) {
    fn varint(mut v: u64, out: &mut Vec<u8>) {
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }
    fn entry(key: &str, value: &[u8], out: &mut Vec<u8>) {
        for v in [0, key.len(), value.len()] {
            varint(v as u64, out);
        }
        out.extend(key.bytes());
        out.extend(value);
    }
    fn close(block: &mut Vec<u8>) {
        block.extend(0u32.to_le_bytes());
        block.extend(1u32.to_le_bytes());
    }
    fn handle(offset: usize, size: usize) -> Vec<u8> {
        let mut out = vec![];
        varint(offset as u64, &mut out);
        varint(size as u64, &mut out);
        out
    }
    let (mut block, mut data) = (vec![], vec![]);
    entry("", &[], &mut block);
    for (name, shape, values) in tensors {
        let mut dims = vec![];
        for d in *shape {
            let mut dim = vec![8];
            varint(*d as u64, &mut dim);
            dims.extend([0x12, dim.len() as u8]);
            dims.extend(dim);
        }
        let mut value = vec![8, 1, 0x12, dims.len() as u8];
        value.extend(dims);
        value.push(0x20);
        varint(data.len() as u64, &mut value);
        value.push(0x28);
        varint(values.len() as u64 * 4, &mut value);
        entry(name, &value, &mut block);
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    close(&mut block);
    let mut table = block.clone();
    table.extend([0; 5]);
    let mut index = vec![];
    entry("z", &handle(0, block.len()), &mut index);
    close(&mut index);
    let at = table.len();
    table.extend(&index);
    table.extend([0; 5]);
    let mut footer = handle(0, 0);
    footer.extend(handle(at, index.len()));
    footer.resize(40, 0);
    footer.extend(0xdb47_7524_8b80_fb57u64.to_le_bytes());
    table.extend(footer);
    (table, data)
}

#[test]
fn a_tensorflow_checkpoint_reads_back() {
    let (index, data) = bundle(&[("a/kernel", &[2, 3], &[1., 2., 3., 4., 5., 6.]), ("b", &[1], &[-7.])]);
    let mut weights = tf_bundle::read(&index, &data).unwrap();
    assert_eq!(weights.take("a/kernel").unwrap(), Weight { shape: vec![2, 3], values: vec![1., 2., 3., 4., 5., 6.] });
    assert_eq!(weights.take("b").unwrap().values, vec![-7.0]);
    assert_eq!(weights.names().count(), 0);
}

#[test]
fn a_tensor_outside_the_data_is_refused() {
    let (index, data) = bundle(&[("a", &[4], &[1., 2., 3., 4.])]);
    let message = format!("{:#}", tf_bundle::read(&index, &data[..15]).unwrap_err());
    assert!(message.contains("outside"), "{message}");
    let (index, data) = bundle(&[("a", &[5], &[1., 2., 3., 4.])]);
    let message = format!("{:#}", tf_bundle::read(&index, &data).unwrap_err());
    assert!(message.contains("20"), "{message}");
}

proptest! {
    #[test]
    fn no_bytes_break_the_readers(mut bytes in prop::collection::vec(any::<u8>(), 0..400), flip in any::<(u16, u8)>()) {
        tf_bundle::read(&bytes, &bytes).ok();
        safetensors::read(&bytes, |_| false).ok();
        let (mut index, data) = bundle(&[("a", &[4], &[1., 2., 3., 4.]), ("b/c", &[2, 2], &[5.; 4])]);
        let at = usize::from(flip.0) % index.len();
        index[at] ^= flip.1;
        tf_bundle::read(&index, &data).ok();
        bytes.truncate(8);
        tf_bundle::read(&index[..at], &bytes).ok();
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
    let name = |layer: usize, part: &str| {
        format!("layer-1/layer/_func/_yamnet/layer_with_weights-{layer}/{part}/.ATTRIBUTES/VARIABLE_VALUE")
    };
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
    let mut get = |layer: usize, part: &str| {
        let name = format!("layer-1/layer/_func/_yamnet/layer_with_weights-{layer}/{part}/.ATTRIBUTES/VARIABLE_VALUE");
        weights.take(&name).unwrap()
    };
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
    let mut again = weights.clone();
    let net = yamnet::rename(weights, &config).unwrap().load_into(config.init(&Device::flex())).unwrap();
    let mel = tensor(&[96, 64], 5).values;
    let input = Tensor::<4>::from_data(TensorData::new(mel.clone(), [1, 1, 96, 64]), &Device::flex());
    let ours: Vec<f32> = net.forward(input).into_data().iter::<f32>().collect();
    for (a, b) in ours.iter().zip(reference(&mut again, &mel)) {
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
