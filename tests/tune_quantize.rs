//! A checkpoint's towers in int8: every linear of the body, none of the head, better than rounding to nearest.
#![cfg(feature = "tune")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use clapd::tune::checkpoint::clap::ClapCheckpoint;
use clapd::tune::checkpoint::source::locate;
use clapd::tune::layout;
use clapd::tune::quantize::rows::{Rows, quantize as rows_of};
use clapd::tune::quantize::{self, Int8Linear, calibration};
use proptest::prelude::*;

use burn::prelude::Device;

fn checkpoint(name: &str) -> ClapCheckpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/clap").join(name);
    ClapCheckpoint::open(&locate(folder.to_str().unwrap(), None).unwrap()).unwrap()
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
fn the_audio_tower() {
    for name in ["fused", "unfused"] {
        let checkpoint = checkpoint(name);
        let patches = calibration::patches(&checkpoint.frontend).unwrap();
        assert_eq!(patches.len(), 11, "a patch for each 10 s of the recording");
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
    let checkpoint = checkpoint("fused");
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
