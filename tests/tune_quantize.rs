//! A checkpoint's towers in int8: every linear of the body, none of the head, better than rounding to nearest.
#![cfg(feature = "tune")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use clapd::tune::checkpoint::clap::ClapCheckpoint;
use clapd::tune::checkpoint::source::locate;
use clapd::tune::quantize::{self, Int8Linear, calibration};

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
