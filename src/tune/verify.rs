//! `claptune verify`: is the bundle the checkpoint?
//!
//! In: a bundle and the checkpoint it came from. Out: a table of how far their embeddings are apart, and a verdict.
//! The bundle runs as it does in clapd, from samples and words; the network runs in Burn, from the same patches and tokens.
//! Never: compares a tower with itself; the two sides share the front end and the tokenizer, and nothing else.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::checkpoint::clap::ClapCheckpoint;
use super::checkpoint::source::Source;
use crate::clap::{Bundle, Encode};
use crate::dsp::{FrontendSpec, clip_patch};

/// Largest difference of a number of an f32 bundle. Both sides have the same weights and add in another order, which is
/// 3e-7 at full size (measured; transformers' own f32 and f64 differ as much). A number of a unit embedding of 512 is 0.04 in
/// the mean, so this is a relative error of 1 in 2000: far above rounding, far below what any wrong weight makes.
const F32_TOLERANCE: f32 = 2e-5;
/// Least centred cosine of a bundle with narrower weights. f16 keeps 11 bits of a weight, which leaves 0.99999 (measured at
/// full size); at 0.9999 an embedding turns by 0.014, so a score by less than 0.15 of 10.
const NARROW_COSINE: f32 = 0.9999;

/// Texts of several lengths and scripts; the last is longer than any model's limit.
const PROMPTS: [&str; 10] = [
    "",
    "a dog barks",
    "rain on a tin roof, thunder far away",
    "ein Kind weint",
    "犬が吠えている",
    "🔔 doorbell!",
    "A man speaks while a car passes by and birds sing in the background",
    "silence",
    "glass   breaking\tand a scream",
    "again and again and again and again and again and again and again and again and again and again and again and again \
     and again and again and again and again and again and again and again and again and again and again and again and \
     again and again and again and again and again and again and again and again and again and again and again and again \
     and again and again and again and again and again and again and again and again and again and again and again again",
];

/// Differences of one tower.
struct Row {
    tower: &'static str,
    count: usize,
    largest: f32,
    cosine: f32,
    centred: f32,
}

/// Compares a bundle with a checkpoint and prints the table.
///
/// # Errors
/// A bundle or checkpoint that can't be read, or embeddings that differ by more than their precision explains.
pub fn verify(bundle: &Path, source: &Source) -> Result<()> {
    let bundle = Bundle::open(bundle)?;
    let checkpoint = ClapCheckpoint::open(source)?;
    ensure!(
        bundle.frontend() == checkpoint.frontend,
        "the bundle's front end is {:?}, the checkpoint's {:?}",
        bundle.frontend(),
        checkpoint.frontend
    );
    let rows = [audio(&bundle, &checkpoint)?, text(&bundle, &checkpoint)?];
    println!("tower  inputs  max difference  least cosine  least centred cosine");
    for row in &rows {
        let Row { tower, count, largest, cosine, centred } = row;
        println!("{tower:<5}  {count:>6}  {largest:>14.2e}  {cosine:>12.7}  {centred:>20.7}");
    }
    let manifest = bundle.manifest();
    let exact = manifest.audio.precision == "f32" && manifest.text.precision == "f32";
    let tolerance = if exact {
        format!("a difference of at most {F32_TOLERANCE:.0e} (f32: the same weights, added in another order)")
    } else {
        format!("a centred cosine of at least {NARROW_COSINE} (weights stored narrower than f32)")
    };
    println!("tolerance: {tolerance}");
    // Written so that a NaN fails.
    let within = |row: &Row| if exact { row.largest <= F32_TOLERANCE } else { row.centred >= NARROW_COSINE };
    let worst: Vec<&str> = rows.iter().filter(|row| !within(row)).map(|row| row.tower).collect();
    if !worst.is_empty() {
        bail!("the bundle is not this checkpoint: beyond {tolerance}: {}", worst.join(" and "));
    }
    Ok(())
}

fn audio(bundle: &Bundle, checkpoint: &ClapCheckpoint) -> Result<Row> {
    let device = Device::flex();
    let (encoder, network) = (bundle.audio_encoder()?, checkpoint.audio(&device)?);
    let sizes = &checkpoint.config.audio;
    let (mut theirs, mut ours) = (vec![], vec![]);
    for clip in clips(&checkpoint.frontend) {
        let patch = clip_patch(&checkpoint.frontend, &clip)?;
        let mut embedding = vec![0.0; encoder.embedding_len()];
        let mut features = vec![0.0; encoder.feature_len()];
        encoder.encode(&patch, &mut features)?;
        encoder.embed(&features, &mut embedding)?;
        theirs.push(embedding);
        let shape = [1, sizes.input_channels(), sizes.frames, sizes.mels];
        let mel = TensorData::new(patch.repeat(sizes.input_channels()), shape);
        ours.push(network.forward(Tensor::from_data(mel, &device)).into_data().iter::<f32>().collect());
    }
    Ok(row("audio", &ours, &theirs))
}

fn text(bundle: &Bundle, checkpoint: &ClapCheckpoint) -> Result<Row> {
    let device = Device::flex();
    let (encoder, network) = (bundle.text_encoder()?, checkpoint.text(&device)?);
    let tokenizer = checkpoint.tokenizer()?;
    let (mut theirs, mut ours) = (vec![], vec![]);
    for prompt in PROMPTS {
        theirs.push(encoder.embed(prompt)?.vector);
        let ids = tokenizer.ids(prompt)?;
        let shape = [1, ids.len()];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
        ours.push(network.forward(ids, Tensor::ones(shape, &device)).into_data().iter::<f32>().collect());
    }
    Ok(row("text", &ours, &theirs))
}

/// Sounds that differ in all a mel spectrogram shows: pitch, noise, time, level, and length (a clip is repeated, padded or
/// cut to a patch).
fn clips(spec: &FrontendSpec) -> Vec<Vec<f32>> {
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

fn row(tower: &'static str, ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> Row {
    let pairs = || ours.iter().zip(theirs);
    let differences = pairs().flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    let least = |a: &[Vec<f32>], b: &[Vec<f32>]| a.iter().zip(b).map(|(a, b)| cosine(a, b)).fold(1.0, f32::min);
    Row {
        tower,
        count: ours.len(),
        // A NaN must not hide behind a maximum.
        largest: differences.fold(0.0, |m: f32, d| if d > m || d.is_nan() { d } else { m }),
        cosine: least(ours, theirs),
        centred: least(&centred(ours), &centred(theirs)),
    }
}

/// Less their mean: embeddings of one tower lie in a narrow cone, inside which a plain cosine sees little.
fn centred(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut mean = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / rows.len() as f32);
    }
    rows.iter().map(|row| row.iter().zip(&mean).map(|(x, m)| x - m).collect()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length == 0.0 { 0.0 } else { (dot(a, b) / length) as f32 }
}
