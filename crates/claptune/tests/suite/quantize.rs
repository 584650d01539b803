//! A checkpoint's towers in int8: every linear of the body, none of the head, better than rounding to nearest.

use std::collections::HashSet;

use burn::prelude::{Device, Int, Tensor};
use burn::tensor::TensorData;
use clapd_core::model::Bundle;
use claptune::agreement;
use claptune::checkpoint::clap::ClapCheckpoint;
use claptune::checkpoint::source::locate;
use claptune::clips;
use claptune::export::Precision;
use claptune::import::import;
use claptune::layout;
use claptune::net::observer::TextNetwork;
use claptune::quantize::rows::{Rows, quantize as rows_of};
use claptune::quantize::{self, Int8Linear, calibration};
use proptest::prelude::*;
use safetensors::tensor::Dtype;

use crate::support::copy::{Copy, golden};

fn open(name: &str) -> ClapCheckpoint {
    ClapCheckpoint::open(&locate(golden(name).to_str().unwrap(), None).unwrap()).unwrap()
}

fn paths(linears: &[Int8Linear]) -> Vec<&str> {
    linears.iter().map(|linear| linear.path.as_str()).collect()
}

#[track_caller]
fn check(linears: &[Int8Linear]) {
    for Int8Linear { path, inputs, outputs, rounded } in linears {
        assert_eq!(rounded.weights.len(), inputs * outputs, "{path}");
        assert_eq!(rounded.scales.len(), *outputs, "{path}");
        assert!(rounded.error <= rounded.nearest_error, "{path}");
        assert!(rounded.error > 0.0 && rounded.nearest_error < 1e-3, "{path}: {}", rounded.nearest_error);
    }
    let sum = |of: fn(&Int8Linear) -> f64| linears.iter().map(of).sum::<f64>();
    let (error, nearest) = (sum(|l| l.rounded.error), sum(|l| l.rounded.nearest_error));
    assert!(error < 0.7 * nearest, "{error} against {nearest}: compensation gains less than it should");
}

#[test]
fn calibration_and_judgement_hear_different_sounds() {
    let spec = open("fused").frontend;
    let (calibration, judged) = (clips::calibration(&spec).unwrap(), clips::verification(&spec).unwrap());
    assert!(calibration.len() >= 10 && judged.len() >= 10);
    assert!(calibration.iter().all(|clip| clip.len() == spec.patch_samples()));
    // A stretch of sound that is in both would be found by its samples, bit for bit.
    let bits = |w: &[f32]| [w[0], w[1], w[2], w[3]].map(f32::to_bits);
    let loud = judged.iter().flat_map(|clip| clip.windows(4).step_by(100)).filter(|w| w[0].abs() > 0.01);
    let asked: HashSet<[u32; 4]> = loud.map(bits).collect();
    assert!(asked.len() > 1000, "{}", asked.len());
    assert!(calibration.iter().flat_map(|clip| clip.windows(4)).all(|w| !asked.contains(&bits(w))));
}

#[test]
fn the_audio_tower() {
    for name in ["fused", "unfused"] {
        let checkpoint = open(name);
        let patches = calibration::patches(&checkpoint.frontend).unwrap();
        assert_eq!(patches.len(), 11);
        let network = checkpoint.audio(&Device::flex()).unwrap();
        let linears = quantize::audio(&network, &checkpoint.config.audio, &patches[..2]).unwrap();
        let depths: usize = checkpoint.config.audio.depths.iter().sum();
        assert_eq!(linears.len(), 6 * depths + checkpoint.config.audio.depths.len() - 1);
        let first = ["attention.query", "attention.key", "attention.value", "attention.output", "inner", "outer"];
        assert_eq!(paths(&linears)[..6], first.map(|name| format!("stages.0.blocks.0.{name}")));
        assert!(paths(&linears).contains(&"stages.1.merge.reduction"));
        check(&linears);
        assert!(quantize::audio(&network, &checkpoint.config.audio, &[]).is_err());
        let error = quantize::audio(&network, &checkpoint.config.audio, &[vec![0.0; 64]]).unwrap_err();
        assert!(error.to_string().contains("64 numbers"), "{error}");
    }
}

#[test]
fn the_text_tower_and_its_vocabulary() {
    let checkpoint = open("fused");
    let texts = calibration::texts(&checkpoint.tokenizer().unwrap()).unwrap();
    assert!(texts.len() > 100 && texts.iter().all(|ids| ids.len() > 2), "{}", texts.len());
    let network = checkpoint.text(&Device::flex()).unwrap();
    let linears = quantize::text(&network, &texts).unwrap();
    let sizes = &checkpoint.config.text.bert;
    assert_eq!(linears.len(), 6 * sizes.layers);
    assert_eq!(paths(&linears)[0], "bert.layers.0.query");
    check(&linears);
    let words = quantize::words(&network).unwrap();
    assert_eq!((words.values.len(), words.scales.len()), (sizes.vocabulary * sizes.width, sizes.vocabulary));
}

/// What training does to a text tower whose norms stand behind the residuals: a few channels that are tens of times as
/// large as the others, in every token.
fn give_outliers(copy: &Copy) {
    copy.change_weights(|tensors| {
        for (name, (kind, _, bytes)) in tensors.iter_mut().filter(|(name, _)| name.starts_with("text_model.e")) {
            if name.starts_with("text_model.encoder.layer.1.output") {
                continue;
            }
            let change: fn(usize, f32) -> f32 = match name.as_str() {
                name if name.ends_with("LayerNorm.weight") => |at, x| if at == 5 { 30.0 * x } else { x },
                name if name.ends_with("output.dense.bias") => |at, x| if at == 5 || at == 20 { x + 3.0 } else { x },
                _ => continue,
            };
            assert_eq!(*kind, Dtype::F32);
            for (at, number) in bytes.chunks_exact_mut(4).enumerate() {
                let x = f32::from_le_bytes(number.try_into().unwrap());
                number.copy_from_slice(&change(at, x).to_le_bytes());
            }
        }
    });
}

#[test]
fn a_text_tower_with_outliers_keeps_its_embeddings() {
    let copy = Copy::of("fused");
    give_outliers(&copy);
    import(&copy.source(), &copy.out(), Precision::Int8).unwrap();
    let (bundle, checkpoint) = (Bundle::open(copy.out()).unwrap(), ClapCheckpoint::open(&copy.source()).unwrap());
    let (encoder, tokenizer, device) =
        (bundle.text_encoder().unwrap(), checkpoint.tokenizer().unwrap(), Device::flex());
    let network = checkpoint.text(&device).unwrap();
    let texts = [
        "a dog barking",
        "rain",
        "thunder far away",
        "birds at dawn",
        "a kettle whistles",
        "a siren",
        "wind",
        "a phone rings twice",
        "someone knocks on a wooden door",
        "a baby cries",
        "an engine starts",
        "applause",
    ];
    let (mut exact, mut int8, mut widest) = (vec![], vec![], 0f32);
    for text in texts {
        int8.push(encoder.embed(text).unwrap().vector);
        let ids = tokenizer.ids(text).unwrap();
        let shape = [1, ids.len()];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
        let mask = Tensor::ones(shape, &device);
        exact.push(network.forward(ids.clone(), mask.clone()).into_data().iter::<f32>().collect::<Vec<f32>>());
        network.forward_observed(ids, mask, &mut |_, x| {
            let squares = (x.clone() * x.clone()).mean().into_scalar::<f32>();
            widest = widest.max(x.clone().abs().max().into_scalar::<f32>() / squares.sqrt());
        });
    }
    assert!(widest > 4.0, "the largest number is {widest} times the usual one: these are no outliers");
    let agreement = agreement::compare(&exact, &int8);
    assert!(agreement.centred_least >= 0.97 && agreement.centred_mean >= 0.99, "{agreement:?}");
}

proptest! {
    #[test]
    fn integers_and_scales_reproduce_the_weights(
        rows in 1usize..6, columns in 1usize..40, seed in any::<u64>(), spread in 1e-6f32..1e3,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let weights: Vec<f32> = (0..rows * columns).map(|_| (random.f32() - 0.5) * spread).collect();
        let Rows { values, scales } = rows_of(&weights, columns);
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
}

#[test]
fn a_row_of_zeros_stays_zero() {
    let rows = rows_of(&[0.0; 8], 4);
    assert_eq!(rows.values, vec![0; 8]);
    assert!(rows.scales.iter().all(|s| s.is_finite()));
}

#[test]
fn a_weight_beyond_half_precision_is_refused() {
    let message = format!("{:#}", layout::stored(&[2], &[1.0, 1e6], true).unwrap_err());
    assert!(message.contains("65504"), "{message}");
}
