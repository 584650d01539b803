//! Sounds that a network is calibrated on and judged by: the recording of `clapd demo`, a user's files, and plain
//! signals.
//!
//! Of the recording's 16 kinds of sound (tests/audio/CREDITS.md), calibration has the first 10 and verification the
//! last 6: a network must not be judged by what it was calibrated on.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::dsp::{FrontendSpec, resample_clip};

static RECORDING: &[u8] = include_bytes!("../../../tests/audio/demo.ogg");
/// Where the recording's tenth sound has ended and the eleventh not begun, in seconds (tests/audio/demo.csv).
const CALIBRATION_END: u32 = 74;
/// Clips that calibration takes: one for each sound and one more, as overlaps cost time and show little that is new.
const CALIBRATION: usize = 11;
/// Clips that are judged by: one begins every 2.5 s or so.
const VERIFICATION: usize = 15;
/// Clips of one file, so that a long one does not outweigh all others.
const PER_FILE: usize = 30;

/// Patches of the recording's beginning.
///
/// # Errors
/// A rate that the resampler does not take.
pub fn calibration(spec: &FrontendSpec) -> Result<Vec<Vec<f32>>> {
    let all = recording(spec)?;
    Ok(spread(&all[..calibration_end(&all, spec)], spec.patch_samples(), CALIBRATION))
}

/// Half patches of the recording's end: shorter than a window as most sounds are, and each mostly of one sound.
///
/// # Errors
/// As [`calibration`].
pub fn verification(spec: &FrontendSpec) -> Result<Vec<Vec<f32>>> {
    let all = recording(spec)?;
    Ok(spread(&all[calibration_end(&all, spec)..], spec.patch_samples() / 2, VERIFICATION))
}

/// The files among `paths` and in folders among them, in order of their names.
///
/// # Errors
/// A path that can't be read.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
            let entries = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            let mut inside: Vec<_> = entries.into_iter().filter(|path| path.is_file()).collect();
            inside.sort();
            files.extend(inside);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// A file's first patches, one behind the other; the last may be shorter.
///
/// # Errors
/// A file that is no recording, or one without sound.
pub fn file(path: &Path, spec: &FrontendSpec) -> Result<Vec<Vec<f32>>> {
    let most = spec.patch_samples() * PER_FILE;
    let samples = read(Decoder::open(path, Channel::Mix)?, spec, most)?;
    ensure!(!samples.is_empty(), "{}: the recording holds no sound: 0 samples", path.display());
    Ok(samples.chunks(spec.patch_samples()).take(PER_FILE).map(<[f32]>::to_vec).collect())
}

fn recording(spec: &FrontendSpec) -> Result<Vec<f32>> {
    let name = "the demonstration's recording";
    read(Decoder::from_reader(Box::new(Cursor::new(RECORDING)), name, Channel::Mix)?, spec, usize::MAX)
}

fn calibration_end(all: &[f32], spec: &FrontendSpec) -> usize {
    all.len().min((CALIBRATION_END * spec.sample_rate) as usize)
}

/// At least `most` samples at the front end's rate, if there are as many.
fn read(mut decoder: Decoder, spec: &FrontendSpec, most: usize) -> Result<Vec<f32>> {
    let rate = decoder.rate();
    let mut samples = Vec::new();
    while (samples.len() as f64) < most as f64 * f64::from(rate) / f64::from(spec.sample_rate) {
        let Some(block) = decoder.next_block()? else { break };
        samples.extend_from_slice(block.data);
    }
    resample_clip(&samples, rate, spec.sample_rate)
}

/// `count` clips of `length` whose beginnings are equally far apart, the first at the beginning, the last at the end.
fn spread(samples: &[f32], length: usize, count: usize) -> Vec<Vec<f32>> {
    let span = samples.len().saturating_sub(length);
    (0..count).map(|at| samples[at * span / (count - 1)..].iter().take(length).copied().collect()).collect()
}

/// Signals that differ in all a mel spectrogram shows: pitch, noise, time, level, and length (a clip is repeated, padded or
/// cut to a patch).
pub fn signals(spec: &FrontendSpec) -> Vec<Vec<f32>> {
    let (rate, length) = (spec.sample_rate as f32, spec.patch_samples());
    let mut random = fastrand::Rng::with_seed(1);
    let mut noise =
        |level: f32, length: usize| -> Vec<f32> { (0..length).map(|_| level * (2.0 * random.f32() - 1.0)).collect() };
    // Rises by `rise` Hz a second.
    let tone = |hertz: f32, rise: f32, length: usize| -> Vec<f32> {
        let phase = |n: usize| n as f32 / rate * (hertz + 0.5 * rise * n as f32 / rate);
        (0..length).map(|n| 0.3 * (std::f32::consts::TAU * phase(n).fract()).sin()).collect()
    };
    let sum = |parts: &[Vec<f32>]| -> Vec<f32> { (0..length).map(|n| parts.iter().map(|p| p[n]).sum()).collect() };
    let beat = (rate as usize / 4).max(1);
    let clicks: Vec<f32> = (0..length).map(|n| if n % beat < 48 { 0.7 } else { 0.0 }).collect();
    let chord = sum(&[262.0, 330.0, 392.0, 1046.0].map(|hertz| tone(hertz, 0.0, length)));
    let fading = noise(0.5, length).into_iter().enumerate().map(|(n, x)| x * (-4.0 * n as f32 / length as f32).exp());
    vec![
        vec![0.0; length],
        tone(440.0, 0.0, length),
        tone(100.0, 600.0, length),
        noise(0.3, length),
        noise(0.001, length),
        fading.collect(),
        sum(&[chord.clone(), noise(0.02, length)]),
        chord.iter().map(|x| (4.0 * x).clamp(-1.0, 1.0)).collect(),
        clicks,
        noise(0.5, length / 7),
        tone(2000.0, -100.0, length / 2),
        tone(60.0, 0.0, length + length / 3),
        vec![0.2; 1],
    ]
}
