//! Weights stored small must come back as what was stored, and a network with them must be the network with the
//! rounded weights and nothing else.
#![cfg(feature = "tune")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use burn::module::Param;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::Distribution;
use clapd::tune::export::rows::{Rows, quantize};
use clapd::tune::export::{Precision, export, nnef, to_nnef};
use proptest::prelude::*;
use tract_onnx::prelude::{IntoRunnable, TypedModel, tvec};

#[derive(Module, Debug)]
struct Net {
    table: Embedding,
    linear: Linear,
    norm: Param<Tensor<1>>,
}

fn net() -> Net {
    let device = Device::flex();
    Net {
        table: EmbeddingConfig::new(500, 64).init(&device),
        linear: LinearConfig::new(64, 96).init(&device),
        norm: Param::from_tensor(Tensor::random([96], Distribution::Default, &device)),
    }
}

fn archive(net: &Net, precision: Precision) -> Vec<u8> {
    let graph = export("net", net.clone(), |m, t| {
        let ids = t.int_input("ids", [1, 3]);
        t.output("y", &forward(m, ids));
    });
    to_nnef(&graph.unwrap(), precision).unwrap()
}

fn forward(net: &Net, ids: Tensor<2, Int>) -> Tensor<3> {
    net.linear.forward(net.table.forward(ids)) * net.norm.val().unsqueeze::<3>()
}

fn run(model: TypedModel, ids: &[i64]) -> Vec<f32> {
    let model = model.into_optimized().unwrap().into_runnable().unwrap();
    let ids = tract_onnx::prelude::Tensor::from_shape(&[1, ids.len()], ids).unwrap();
    let outputs = model.run(tvec!(ids.into())).unwrap();
    outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
}

#[test]
fn stored_small_it_is_small_and_near() {
    let net = net();
    let ids = [499i64, 0, 17];
    let exact: Vec<f32> = forward(&net, Tensor::from_data([ids], &Device::flex())).into_data().iter::<f32>().collect();
    let length: f32 = exact.iter().map(|v| v * v).sum::<f32>().sqrt();
    let sizes: Vec<usize> = [(Precision::F32, 1e-6), (Precision::F16, 1e-3), (Precision::Int8, 2e-2)]
        .into_iter()
        .map(|(precision, bound)| {
            let archive = archive(&net, precision);
            let near = run(nnef::read(&archive).unwrap(), &ids);
            let error: f32 = exact.iter().zip(&near).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            assert!(error <= bound * length, "{precision:?}: relative error {}", error / length);
            archive.len()
        })
        .collect();
    // 38,144 weights; headers and the scales of 500 + 96 rows come on top.
    assert!(sizes[1] < sizes[0] - 38_144 * 2 + 4096, "{sizes:?}");
    assert!(sizes[2] < sizes[1] - 38_144 + 8192, "{sizes:?}");
}

#[test]
fn only_the_rows_that_are_looked_up_are_widened() {
    let model = nnef::read(&archive(&net(), Precision::Int8)).unwrap().into_optimized().unwrap();
    let wide_tables = model.nodes.iter().filter(|n| {
        let fact = &n.outputs[0].fact;
        fact.datum_type == tract_onnx::prelude::DatumType::F32 && fact.shape.as_concrete() == Some(&[500, 64])
    });
    assert_eq!(wide_tables.count(), 0, "the whole embedding table was widened");
    let casts: Vec<String> = model.nodes.iter().filter(|n| n.op.name() == "Cast").map(|n| n.name.clone()).collect();
    assert_eq!(casts.len(), 1, "weights should be folded when the graph loads, and only the lookup cast: {casts:?}");
}

proptest! {
    #[test]
    fn integers_and_scales_reproduce_the_weights(
        rows in 1usize..6, columns in 1usize..40, seed in any::<u64>(), spread in 1e-6f32..1e3,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let weights: Vec<f32> = (0..rows * columns).map(|_| (random.f32() - 0.5) * spread).collect();
        let Rows { values, scales } = quantize(&weights, &[rows, columns], 0);
        prop_assert_eq!(scales.len(), rows);
        for (r, scale) in scales.iter().enumerate() {
            let row = &weights[r * columns..(r + 1) * columns];
            let largest = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            let error: f32 = row.iter().zip(&values[r * columns..]).map(|(w, q)| (w - f32::from(*q) * scale).powi(2)).sum();
            // No worse than rounding with the plain scale, whose error is at most half a step for each weight.
            let plain = (largest / 127.0 / 2.0).powi(2) * columns as f32;
            prop_assert!(error <= plain * 1.001 + f32::MIN_POSITIVE, "error {} of at most {}", error, plain);
        }
    }

    #[test]
    fn scales_run_along_any_axis(axis in 0usize..3, seed in any::<u64>()) {
        // Slices of very different size: each needs its own scale, and then all keep their precision.
        let shape = [3, 4, 5];
        let size = |i: usize| 10f32.powi([i / 20, i / 5 % 4, i % 5][axis] as i32 * 2);
        let mut random = fastrand::Rng::with_seed(seed);
        let weights: Vec<f32> = (0..60).map(|i| (random.f32() - 0.5) * size(i)).collect();
        let rows = quantize(&weights, &shape, axis);
        prop_assert_eq!(rows.scales.len(), shape[axis]);
        for (i, (weight, value)) in weights.iter().zip(&rows.values).enumerate() {
            let scale = rows.scales[[i / 20, i / 5 % 4, i % 5][axis]];
            // Half a step, or the fortieth of the largest weight (half the size) that clipping may cut off.
            prop_assert!((weight - f32::from(*value) * scale).abs() <= 0.0126 * size(i), "{}", weight);
        }
    }
}

#[test]
fn a_row_of_zeros_stays_zero() {
    let rows = quantize(&[0.0; 8], &[2, 4], 0);
    assert_eq!(rows.values, vec![0; 8]);
    assert!(rows.scales.iter().all(|s| s.is_finite()));
}

#[test]
fn a_weight_beyond_half_precision_is_refused() {
    let mut net = net();
    net.linear.weight = Param::from_tensor(Tensor::full([64, 96], 1e6, &Device::flex()));
    let graph = export("net", net, |m, t| {
        let ids = t.int_input("ids", [1, 3]);
        t.output("y", &forward(m, ids));
    });
    let message = format!("{:#}", to_nnef(&graph.unwrap(), Precision::F16).unwrap_err());
    assert!(message.contains("65504"), "{message}");
}
