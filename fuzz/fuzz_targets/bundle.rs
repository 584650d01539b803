//! Reads any bytes as a bundle: as its manifest, or as one of its archives, whose hash the manifest has, as a hostile
//! author's would.
//!
//! What must hold: it is an error, or a front end and a tower that compute; no panic that is not contained, and no
//! memory taken because a stranger's file says so.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::{LazyLock, Once};

use clapd_core::dsp::Frontend;
use clapd_core::files::sha256_hex;
use clapd_core::model::manifest::Manifest;
use clapd_core::model::{Bundle, Encode};
use clapd_core::samples::Samples;
use libfuzzer_sys::fuzz_target;

/// What panics in tract becomes an error; libFuzzer's hook would end the process before it can.
static CONTAINED: Once = Once::new();
/// The default bundle's, whose audio tower has small patches and no pool.
static MANIFEST: LazyLock<Manifest> = LazyLock::new(|| {
    let mini = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mini/bundle.toml");
    let mut manifest: Manifest = toml::from_str(&fs::read_to_string(mini).expect("is there")).expect("is one");
    (manifest.pool, manifest.frontend.patch_frames) = (None, 4);
    (manifest.frontend.mel_bins, manifest.audio.input) = (8, vec![1, 1, 4, 8]);
    (manifest.audio.output, manifest.text.output) = (8, 8);
    manifest
});

fuzz_target!(|bytes: &[u8]| {
    CONTAINED.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let Some((how, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    match how % 3 {
        0 => manifest(folder.path(), bytes),
        1 => archive(folder.path(), bytes),
        _ => archive(folder.path(), &tar_of(bytes)),
    }
});

fn manifest(dir: &Path, bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(mut manifest) = toml::from_str::<Manifest>(text) else {
        assert!(Manifest::parse(text).is_err());
        return;
    };
    let Some(bundle) = open(dir, &mut manifest) else { return };
    let spec = bundle.frontend();
    assert!(bundle.calibration().is_ok() && bundle.windowing().samples() > 0);
    if let Ok(mut frontend) = Frontend::new(&spec, 48_000, spec.patch_frames) {
        frontend.push(Samples::whole(&[0.25; 4_800])).expect("sound is taken");
    }
    assert!(bundle.audio_encoder().is_err(), "there is no such file");
}

fn archive(dir: &Path, bytes: &[u8]) {
    let mut manifest = MANIFEST.clone();
    fs::write(dir.join(&manifest.audio.file), bytes).expect("room");
    manifest.audio.sha256 = sha256_hex(bytes);
    let bundle = open(dir, &mut manifest).expect("a manifest of ours");
    let Ok(encoder) = bundle.audio_encoder() else { return };
    let mut features = vec![0.0; encoder.feature_len()];
    let _ = encoder.encode(&[0.5; 4 * 8], &mut features);
}

/// Opens a bundle that says of itself that it is as its author left it.
fn open(dir: &Path, manifest: &mut Manifest) -> Option<Bundle> {
    manifest.pipeline_id = manifest.computed_pipeline_id();
    fs::write(dir.join("bundle.toml"), toml::to_string(manifest).ok()?).expect("room");
    Bundle::open(dir).ok()
}

/// An archive whose headers are right: a name and its content after each line of dashes.
fn tar_of(parts: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut rest = parts;
    while !rest.is_empty() {
        let end = rest.windows(5).position(|at| at == b"\n---\n").unwrap_or(rest.len());
        let part = &rest[..end];
        rest = rest.get(end + 5..).unwrap_or_default();
        let cut = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let (name, content) = (&part[..cut], part.get(cut + 1..).unwrap_or_default());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // A name that tar cannot hold is left out.
        let _ = archive.append_data(&mut header, String::from_utf8_lossy(name).as_ref(), content);
    }
    archive.into_inner().expect("memory")
}
