//! `claptune verify`: is the bundle the checkpoint?
//!
//! In: a bundle and the checkpoint it came from. Out: a table of how far their embeddings are apart, and a verdict.
//! The bundle runs as it does in clapd, from samples and words; the network runs in Burn, from the same patches and tokens.
//! Never: compares a tower with itself; the two sides share the front end and the tokenizer, and nothing else.

use std::path::Path;

use anyhow::{Result, ensure};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::agreement::{self, Agreement};
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

/// Least and mean centred cosine of an int8 bundle, and least rank correlation of its scores: what real sounds of 36
/// packages keep through full-size weights with outlier channels, with room.
const INT8_LEAST: f32 = 0.97;
const INT8_MEAN: f32 = 0.99;
const INT8_RANKS: f64 = 0.995;

/// A tower's embeddings by both sides.
struct Pair {
    checkpoint: Vec<Vec<f32>>,
    bundle: Vec<Vec<f32>>,
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
    let towers = [("audio", audio(&bundle, &checkpoint)?), ("text", text(&bundle, &checkpoint)?)];
    let rows = towers.each_ref().map(|(name, pair)| (*name, agreement::compare(&pair.checkpoint, &pair.bundle)));
    println!("tower  inputs  centred cosine: least       mean  least cosine  max difference");
    for ((tower, row), (_, pair)) in rows.iter().zip(&towers) {
        let Agreement { centred_least, centred_mean, cosine_least, largest } = row;
        let count = pair.checkpoint.len();
        println!(
            "{tower:<5}  {count:>6}  {centred_least:>21.7}  {centred_mean:>9.7}  {cosine_least:>12.7}  {largest:>14.2e}"
        );
    }
    let scores = |side: fn(&Pair) -> &[Vec<f32>]| agreement::scores(side(&towers[0].1), side(&towers[1].1));
    let ranks = agreement::rank_correlation(&scores(|p| &p.checkpoint), &scores(|p| &p.bundle));
    println!("scores of all clips and texts, rank correlation: {ranks:.5}");
    let manifest = bundle.manifest();
    judge(&[&manifest.audio.precision, &manifest.text.precision], &rows, ranks)
}

/// Prints the tolerance of the least exact precision, and fails where the figures are beyond it.
fn judge(precisions: &[&str], rows: &[(&'static str, Agreement)], ranks: f64) -> Result<()> {
    let has = |precision: &str| precisions.contains(&precision);
    // Written so that a NaN fails.
    let (tolerance, within): (String, fn(&Agreement) -> bool) = if has("int8") {
        (
            format!(
                "centred cosines of at least {INT8_LEAST} and {INT8_MEAN} in the mean, ranks of {INT8_RANKS} (weights and \
                 activations in int8)"
            ),
            |row| row.centred_least >= INT8_LEAST && row.centred_mean >= INT8_MEAN,
        )
    } else if has("f16") {
        (format!("a centred cosine of at least {NARROW_COSINE} (weights stored narrower than f32)"), |row| {
            row.centred_least >= NARROW_COSINE
        })
    } else {
        (
            format!("a difference of at most {F32_TOLERANCE:.0e} (f32: the same weights, added in another order)"),
            |row| row.largest <= F32_TOLERANCE,
        )
    };
    println!("tolerance: {tolerance}");
    let mut worst: Vec<&str> = rows.iter().filter(|(_, row)| !within(row)).map(|(tower, _)| *tower).collect();
    // Not "below the limit": where there is no rank correlation, it is not enough.
    let ranked = ranks >= INT8_RANKS;
    if has("int8") && !ranked {
        worst.push("scores");
    }
    ensure!(worst.is_empty(), "the bundle is not this checkpoint: beyond {tolerance}: {}", worst.join(" and "));
    Ok(())
}

fn audio(bundle: &Bundle, checkpoint: &ClapCheckpoint) -> Result<Pair> {
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
    Ok(Pair { checkpoint: ours, bundle: theirs })
}

fn text(bundle: &Bundle, checkpoint: &ClapCheckpoint) -> Result<Pair> {
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
    Ok(Pair { checkpoint: ours, bundle: theirs })
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
