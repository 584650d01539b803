//! `clapd bench`: a bundle's speed and memory on this machine.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clapd_core::dsp::Frontend;
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, Compute, TextEmbedding};
use clapd_core::pipeline::{Pace, Pipeline};
use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptScorer, PromptTable, Rule};
use clapd_core::samples::Samples;
use clapd_core::vector::normalize;
use serde::Serialize;

use super::exit::{AtStage, Failure, Stage, printed};
use super::paths::ModelArguments;

/// What a microphone delivers most often.
const INPUT_RATE: u32 = 48_000;
/// Sound that the pipeline is timed on: five times CLAP's window.
const SECONDS: u32 = 50;
/// The hop that the configuration has by default.
const HOP: Duration = Duration::from_secs(1);
/// A median of fewer runs jumps about; more take patience on a small computer.
const RUNS: usize = 15;
/// A figure gets no new run after this: where a run takes seconds, it is long enough for one to be steady, and fifteen would
/// take minutes.
const PATIENCE: Duration = Duration::from_secs(8);
/// Twelve tokens, with RoBERTa and with the vocabulary of seeded checkpoints (tools/parity); about what people write.
const TEXT: &str = "a smoke alarm in the distance and a man speaks";

#[derive(Debug, clap::Args)]
pub(super) struct BenchArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What was measured; the names are frozen.
#[derive(Serialize)]
struct Report {
    /// Name of the bundle.
    bundle: String,
    /// How its audio weights are stored.
    precision: String,
    /// Instruction set of the kernels, as `CLAPD_KERNEL` names it, or tract's choice where the model's layers are tract's.
    kernel: String,
    /// Threads that compute.
    threads: usize,
    /// Reading, checking and planning the audio side.
    load_ms: f64,
    /// One run of the audio tower, median.
    audio_ms: f64,
    /// Of how many runs.
    audio_runs: usize,
    /// One run of the text tower, median.
    text_ms: f64,
    /// Of how many runs.
    text_runs: usize,
    /// Resampling and mel, seconds of sound a second.
    frontend_x: f64,
    /// The whole pipeline at a hop of 1 s: seconds of work a second of sound, from the first window on.
    real_time_factor: f64,
    /// Scoring one window against 1,000 prompts, without the encoder.
    prompts_1000_ms: f64,
    /// Resident memory with the audio side loaded and the text tower dropped.
    rss_mb: f64,
}

pub(super) fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    let report = measure(&arguments.model.open_bundle()?).at(Stage::Bundle)?;
    let json = serde_json::to_value(&report).at(Stage::Other)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        return printed(writeln!(out, "{json}")).at(Stage::Output);
    }
    for (name, value) in json.as_object().into_iter().flatten() {
        let shown = value.as_f64().map_or_else(|| value.to_string(), |number| format!("{number:.3}"));
        printed(writeln!(out, "{name:>17}  {shown}")).at(Stage::Output)?;
    }
    Ok(())
}

fn measure(bundle: &Bundle) -> Result<Report> {
    let begun = Instant::now();
    let model = Model::load(bundle)?;
    let load_ms = milliseconds(begun.elapsed());
    let rss_mb = resident_mb()?;
    let noise = noise(INPUT_RATE * SECONDS);
    let patch = vec![0.1; model.frontend.patch_len()];
    let mut features = vec![0.0; model.encoder.feature_len()];
    let (audio_ms, audio_runs) = median(|| model.encoder.encode(black_box(&patch), &mut features))?;
    let compute = model.encoder.compute();
    let text = bundle.text_encoder()?;
    let (text_ms, text_runs) = median(|| text.embed(black_box(TEXT)).map(|_| ()))?;
    Ok(Report {
        bundle: bundle.manifest().name.clone(),
        precision: bundle.manifest().audio.precision.clone(),
        kernel: compute.map_or_else(tract_kernel, |compute| compute.isa().name().into()),
        // tract's own layers run on one.
        threads: compute.map_or(1, Compute::threads),
        load_ms,
        audio_ms,
        audio_runs,
        text_ms,
        text_runs,
        frontend_x: frontend_speed(&model, &noise)?,
        real_time_factor: real_time_factor(&model, &noise)?,
        prompts_1000_ms: prompts_ms(&model)?,
        rss_mb,
    })
}

fn frontend_speed(model: &Model, noise: &[f32]) -> Result<f64> {
    let frames = INPUT_RATE as usize * SECONDS as usize / model.frontend.hop_length;
    let mut frontend = Frontend::new(&model.frontend, INPUT_RATE, frames)?;
    let begun = Instant::now();
    for chunk in noise.chunks(INPUT_RATE as usize / 10) {
        frontend.push(Samples::whole(chunk))?;
    }
    Ok(f64::from(SECONDS) / begun.elapsed().as_secs_f64())
}

fn real_time_factor(model: &Model, noise: &[f32]) -> Result<f64> {
    let mut pipeline = Pipeline::new(model.clone(), prompts(model, 10)?, INPUT_RATE, HOP, Pace::Every)?;
    // Whether a window was scored.
    let mut push = |second: &[f32]| -> Result<bool> {
        let mut scored = false;
        for chunk in second.chunks(INPUT_RATE as usize / 10) {
            pipeline.push(Samples::whole(chunk), &mut |output| {
                scored = true;
                black_box(output);
            })?;
        }
        Ok(scored)
    };
    let mut seconds = noise.chunks(INPUT_RATE as usize);
    // Those before the first window cost next to nothing.
    for second in seconds.by_ref() {
        if push(second)? {
            break;
        }
    }
    let begun = Instant::now();
    let mut pushed = 0;
    for second in seconds {
        push(second)?;
        pushed += 1;
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(begun.elapsed().as_secs_f64() / f64::from(pushed.max(1)))
}

fn prompts_ms(model: &Model) -> Result<f64> {
    let prompts = prompts(model, 1000)?;
    let embedding = vec![0.1; model.encoder.embedding_len()];
    let mut scorer = PromptScorer::new(prompts, model.calibration.clone());
    let (time, _) = median(|| {
        black_box(scorer.score(black_box(&embedding)));
        Ok(())
    })?;
    Ok(time)
}

fn prompts(model: &Model, count: usize) -> Result<Arc<PromptTable>> {
    let width = model.encoder.embedding_len();
    let prepared = (0..count).map(|number| {
        let mut vector = noise_from(number as u32 + 1, width);
        normalize(&mut vector);
        let prompt = Prompt::of_text(PromptId::numbered(number), "noise", Rule::default());
        PreparedPrompt::of_text(prompt, TextEmbedding { vector, coverage: None })
    });
    Ok(PromptTable::new(width, prepared.collect())?.into())
}

fn noise(samples: u32) -> Vec<f32> {
    noise_from(1, samples as usize)
}

/// White noise at a tenth of full scale, always the same.
fn noise_from(seed: u32, samples: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as i32 as f32 / i32::MAX as f32 * 0.1
    };
    (0..samples).map(|_| next()).collect()
}

/// The median time of some runs in ms, and of how many.
fn median(mut work: impl FnMut() -> Result<()>) -> Result<(f64, usize)> {
    work()?;
    let mut times = Vec::with_capacity(RUNS);
    let all = Instant::now();
    while times.len() < RUNS && (times.is_empty() || all.elapsed() < PATIENCE) {
        let begun = Instant::now();
        work()?;
        times.push(milliseconds(begun.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times.len()))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// tract picks its kernels by what the processor has, in this order.
fn tract_kernel() -> String {
    #[cfg(target_arch = "x86_64")]
    let name = match () {
        () if is_x86_feature_detected!("avx512f") => "avx512f",
        () if is_x86_feature_detected!("fma") => "fma",
        () => "generic",
    };
    #[cfg(target_arch = "aarch64")]
    let name = "neon";
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let name = "generic";
    format!("tract-{name}")
}

fn resident_mb() -> Result<f64> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("resident memory is read from /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 =
        line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS in /proc/self/status")?.parse()?;
    Ok(kilobytes / 1024.0)
}
