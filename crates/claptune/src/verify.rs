//! `claptune verify`: is the bundle the checkpoint?
//!
//! The bundle runs as it does in clapd, from samples and words; the network runs in Burn, from the same patches and
//! tokens. The two sides share the front end and the tokenizer, and nothing else. A table shows how far their
//! embeddings are apart, and what is beyond the tolerance of its precision is an error.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use burn::prelude::*;
use burn::tensor::TensorData;
use clapd_core::dsp::clip_patch;
use clapd_core::model::{Bundle, Encode};

use super::agreement::{self, Agreement};
use super::checkpoint::clap::ClapCheckpoint;
use super::checkpoint::source::CheckpointSource;
use super::clips;

/// Largest difference of a number of an f32 bundle. Both sides have the same weights and add in another order, which is
/// 3e-7 at full size (measured; transformers' own f32 and f64 differ as much). A number of a unit embedding of 512 is 0.04 in
/// the mean, so this is a relative error of 1 in 2000: far above rounding, far below what any wrong weight makes.
const F32_TOLERANCE: f32 = 2e-5;
/// Least centred cosine of a bundle with narrower weights. f16 keeps 11 bits of a weight, which leaves 0.99999 (measured at
/// full size; 0.99988 in a network of 8 channels, where fewer errors average out); at 0.9997 an embedding turns by 0.024, so
/// a score by less than 0.25 of 10.
const NARROW_COSINE: f32 = 0.9997;

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

/// Plain signals: they show a wrong number best, but no network was trained on them, and int8 is not judged by them.
const SIGNALS: &str = "signals";
const TEXT: &str = "text";

/// Embeddings by both sides.
struct EmbeddingPair {
    of: &'static str,
    checkpoint: Vec<Vec<f32>>,
    bundle: Vec<Vec<f32>>,
}

/// A line of the table.
struct TableRow {
    of: &'static str,
    inputs: usize,
    agreement: Agreement,
}

/// Compares a bundle with a checkpoint and prints the table. `recordings` are files, or folders of files, to be judged by
/// beside the sounds that claptune brings along.
///
/// # Errors
/// A bundle, checkpoint or recording that can't be read, or embeddings that differ by more than their precision explains.
pub fn verify(bundle: &Path, source: &CheckpointSource, recordings: &[PathBuf]) -> Result<()> {
    let bundle = Bundle::open(bundle)?;
    let checkpoint = ClapCheckpoint::open(source)?;
    ensure!(
        bundle.frontend() == checkpoint.frontend,
        "the bundle's front end is {:?}, the checkpoint's {:?}",
        bundle.frontend(),
        checkpoint.frontend
    );
    let spec = &checkpoint.frontend;
    let mut sounds = vec![("recording", clips::verification(spec)?), (SIGNALS, clips::signals(spec))];
    if !recordings.is_empty() {
        sounds.insert(0, ("clips", read_clips(recordings, |path| clips::file(path, spec))?));
    }
    let mut pairs = audio(&bundle, &checkpoint, &sounds)?;
    pairs.push(text(&bundle, &checkpoint)?);
    let rows: Vec<TableRow> = pairs.iter().map(EmbeddingPair::row).collect();
    println!("{:<9}  inputs  centred cosine: least       mean  least cosine  max difference", "");
    for TableRow { of, inputs, agreement } in &rows {
        let Agreement { centred_least, centred_mean, cosine_least, largest } = agreement;
        println!(
            "{of:<9}  {inputs:>6}  {centred_least:>21.7}  {centred_mean:>9.7}  {cosine_least:>12.7}  {largest:>14.2e}"
        );
    }
    let ranks = ranks(&pairs);
    let manifest = bundle.manifest();
    check_tolerances(&[&manifest.audio.precision, &manifest.text.precision], &rows, ranks)
}

/// Clips of all recordings. In a folder there may be other files; those are named and left out.
fn read_clips(recordings: &[PathBuf], read: impl Fn(&Path) -> Result<Vec<Vec<f32>>>) -> Result<Vec<Vec<f32>>> {
    let files = clips::files(recordings)?;
    let mut all = vec![];
    let mut left_out = 0;
    for path in &files {
        match read(path) {
            Ok(clips) => all.extend(clips),
            Err(error) if !recordings.contains(path) => {
                left_out += 1;
                eprintln!("left out: {error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    let names = || recordings.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    ensure!(!all.is_empty(), "no recording among the {} files of {}", files.len(), names());
    eprintln!("{} clips of {} files, {left_out} left out", all.len(), files.len());
    Ok(all)
}

impl EmbeddingPair {
    fn row(&self) -> TableRow {
        let agreement = agreement::compare(&self.checkpoint, &self.bundle);
        TableRow { of: self.of, inputs: self.checkpoint.len(), agreement }
    }
}

/// Prints rank correlations of the scores of all real sounds and texts, and gives that over both.
fn ranks(pairs: &[EmbeddingPair]) -> f64 {
    let (texts, sounds): (Vec<&EmbeddingPair>, Vec<&EmbeddingPair>) =
        pairs.iter().filter(|pair| pair.of != SIGNALS).partition(|pair| pair.of == TEXT);
    let rows = |pairs: &[&EmbeddingPair], side: fn(&EmbeddingPair) -> &[Vec<f32>]| -> Vec<Vec<f32>> {
        pairs.iter().flat_map(|pair| side(pair).to_vec()).collect()
    };
    // Text by text.
    let scores = |side: fn(&EmbeddingPair) -> &[Vec<f32>]| agreement::scores(&rows(&texts, side), &rows(&sounds, side));
    let (checkpoint, bundle) = (scores(|pair| &pair.checkpoint), scores(|pair| &pair.bundle));
    let clips: usize = sounds.iter().map(|pair| pair.checkpoint.len()).sum();
    let all = agreement::rank_correlation(&checkpoint, &bundle);
    let each = checkpoint.chunks(clips).zip(bundle.chunks(clips));
    let each: Vec<f64> = each.map(|(a, b)| agreement::rank_correlation(a, b)).collect();
    println!(
        "scores of {clips} clips and {} texts, rank correlation: {all:.5}; of clips for one text, in the mean: {:.5}",
        each.len(),
        each.iter().sum::<f64>() / each.len() as f64
    );
    all
}

/// Prints the tolerance of the least exact precision, and fails where the figures are beyond it.
fn check_tolerances(precisions: &[&str], rows: &[TableRow], ranks: f64) -> Result<()> {
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
    let judged = rows.iter().filter(|row| row.of != SIGNALS || !has("int8"));
    let mut worst: Vec<&str> = judged.filter(|row| !within(&row.agreement)).map(|row| row.of).collect();
    // Not "below the limit": where there is no rank correlation, it is not enough.
    let ranked = ranks >= INT8_RANKS;
    if has("int8") && !ranked {
        worst.push("scores");
    }
    ensure!(worst.is_empty(), "the bundle is not this checkpoint: beyond {tolerance}: {}", worst.join(" and "));
    Ok(())
}

fn audio(
    bundle: &Bundle,
    checkpoint: &ClapCheckpoint,
    sounds: &[(&'static str, Vec<Vec<f32>>)],
) -> Result<Vec<EmbeddingPair>> {
    let device = Device::flex();
    let (encoder, network) = (bundle.audio_encoder()?, checkpoint.audio(&device)?);
    let sizes = &checkpoint.config.audio;
    let mut pairs = vec![];
    for (of, clips) in sounds {
        let (mut theirs, mut ours) = (vec![], vec![]);
        for clip in clips {
            let patch = clip_patch(&checkpoint.frontend, clip)?;
            let mut embedding = vec![0.0; encoder.embedding_len()];
            let mut features = vec![0.0; encoder.feature_len()];
            encoder.encode(&patch, &mut features)?;
            encoder.embed(&features, &mut embedding)?;
            theirs.push(embedding);
            let shape = [1, sizes.input_channels(), sizes.frames, sizes.mels];
            let mel = TensorData::new(patch.repeat(sizes.input_channels()), shape);
            ours.push(network.forward(Tensor::from_data(mel, &device)).into_data().iter::<f32>().collect());
        }
        pairs.push(EmbeddingPair { of, checkpoint: ours, bundle: theirs });
    }
    Ok(pairs)
}

fn text(bundle: &Bundle, checkpoint: &ClapCheckpoint) -> Result<EmbeddingPair> {
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
    Ok(EmbeddingPair { of: TEXT, checkpoint: ours, bundle: theirs })
}
