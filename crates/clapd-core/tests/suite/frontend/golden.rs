//! One-shot patches against the reference programs' (tests/golden/make_frontend.py).

use std::path::Path;

use clapd_core::dsp::{FrontendSpec, clip_patch};

use super::signals::signal;

const CLAP_ROWS: [usize; 16] = [0, 1, 2, 3, 50, 100, 333, 499, 500, 667, 800, 900, 997, 998, 999, 1000];
const YAMNET_ROWS: [usize; 14] = [0, 1, 2, 3, 20, 31, 32, 47, 48, 64, 80, 93, 94, 95];
const SIGNALS: [&str; 10] =
    ["noise", "faint", "tones", "sweep", "music", "speech", "silence", "dc", "clipped", "impulse"];
pub const CLAP_LENGTHS: [&str; 8] =
    ["dc-1", "music-100", "music-700", "music-100000", "music-240000", "music-333333", "music-479999", "music-530000"];
const YAMNET_LENGTHS: [&str; 6] = ["dc-1", "music-399", "music-400", "music-5000", "music-15599", "music-40000"];

fn golden(name: &str) -> Vec<f32> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("tests/golden/frontend")
        .join(format!("{name}.f32"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The largest difference between our patch of a case and its golden: in the rows that it holds, and in frames' means.
fn difference(front_end: &str, spec: &FrontendSpec, case: &str, rows: &[usize]) -> f32 {
    let patch = clip_patch(spec, &signal(case, spec.sample_rate, spec.patch_samples())).unwrap();
    let frames: Vec<&[f32]> = patch.chunks_exact(spec.mel_bins).collect();
    let mean = |row: &&[f32]| row.iter().map(|&x| f64::from(x)).sum::<f64>() as f32 / row.len() as f32;
    let ours = rows.iter().flat_map(|&k| frames[k].iter().copied()).chain(frames.iter().map(mean));
    let golden = golden(&format!("{front_end}-{case}"));
    assert_eq!(golden.len(), rows.len() * spec.mel_bins + spec.patch_frames, "{front_end} {case}");
    ours.zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn compare(front_end: &str, spec: &FrontendSpec, cases: &[&str], rows: &[usize], tolerance: f32) {
    for case in SIGNALS.iter().chain(cases) {
        let difference = difference(front_end, spec, case, rows);
        println!("{front_end} {case}: {difference:.2e}");
        assert!(difference <= tolerance, "{front_end} {case}: {difference} off, at most {tolerance} allowed");
    }
}

#[test]
fn clap_fused_equals_transformers_within_a_hundredth_of_a_decibel() {
    compare("fused", &FrontendSpec::clap_fused(), &CLAP_LENGTHS, &CLAP_ROWS, 0.01);
}

#[test]
fn clap_unfused_equals_transformers_within_a_hundredth_of_a_decibel() {
    compare("unfused", &FrontendSpec::clap_unfused(), &CLAP_LENGTHS, &CLAP_ROWS, 0.01);
}

#[test]
fn yamnet_equals_numpy_within_a_ten_thousandth() {
    compare("yamnet", &FrontendSpec::yamnet(), &YAMNET_LENGTHS, &YAMNET_ROWS, 1e-4);
}

#[test]
fn an_empty_clip_is_an_error() {
    assert!(clip_patch(&FrontendSpec::yamnet(), &[]).is_err());
}

#[test]
fn absurd_descriptions_are_named_not_built() {
    let good = FrontendSpec::clap_fused();
    let faults: [(&str, FrontendSpec); 17] = [
        ("sample_rate", FrontendSpec { sample_rate: 0, ..good }),
        ("sample_rate", FrontendSpec { sample_rate: u32::MAX, ..good }),
        ("fft_length", FrontendSpec { fft_length: 1 << 40, ..good }),
        ("fft_length", FrontendSpec { fft_length: 1025, ..good }),
        ("window_length", FrontendSpec { window_length: 0, ..good }),
        ("window_length", FrontendSpec { window_length: 1026, ..good }),
        ("window_length", FrontendSpec { window_length: 1023, ..good }),
        ("hop_length", FrontendSpec { hop_length: 0, ..good }),
        ("hop_length", FrontendSpec { hop_length: usize::MAX, ..good }),
        ("mel_bins", FrontendSpec { mel_bins: 0, ..good }),
        ("mel_bins", FrontendSpec { mel_bins: usize::MAX, ..good }),
        ("f_max", FrontendSpec { f_max: f64::NAN, ..good }),
        ("f_max", FrontendSpec { f_max: 24_001.0, ..good }),
        ("patch_frames", FrontendSpec { patch_frames: 0, ..good }),
        ("patch_frames", FrontendSpec { patch_frames: usize::MAX, ..good }),
        ("patch_frames", FrontendSpec { patch_frames: 3, ..good }),
        ("patch_frames", FrontendSpec { hop_length: 65_536, ..good }),
    ];
    for (field, spec) in faults {
        let message = clip_patch(&spec, &[0.0]).unwrap_err().to_string();
        assert!(message.contains(&format!("frontend.{field}")) || message.contains(field), "{field}: {message}");
    }
    for spec in [good, FrontendSpec::clap_unfused(), FrontendSpec::yamnet()] {
        spec.validate().unwrap();
    }
}
