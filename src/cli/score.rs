//! `clapd score`: recordings against texts.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use clapd_core::embed::{ClipEmbedder, Model};
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{self, Example, Prompt, PromptId, PromptScorer, PromptTable, Rule};
use clapd_core::score::Score;
use clapd_core::time::SampleTime;
use serde::Serialize;

use super::exit::{self, AtStage, Failure, Stage, printed};
use super::paths::ModelArguments;
use super::recording::RawArguments;
use super::{paths, recording};

#[derive(Debug, clap::Args)]
pub(super) struct ScoreArguments {
    /// Recordings: wav, flac, ogg, opus, mp3, m4a and others, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A sound in words; may be given several times
    #[arg(
        short, long = "prompt", required_unless_present = "like", value_name = "TEXT",
        value_parser = NonEmptyStringValueParser::new()
    )]
    prompts: Vec<String>,
    /// A recording of a sound, as another prompt; may be given several times, for recordings of one sound
    #[arg(long, value_name = "FILE")]
    like: Vec<PathBuf>,
    #[command(flatten)]
    raw: RawArguments,
    #[command(flatten)]
    model: ModelArguments,
    /// A JSON object a line, for every window and prompt
    #[arg(long)]
    json: bool,
    /// Seconds from one window to the next
    #[arg(long, value_name = "S", default_value = "1.0", value_parser = hop)]
    hop: f64,
    /// One score for the whole recording, as the model was trained to see a clip (first 10 s for `clap` bundles)
    #[arg(long)]
    whole: bool,
}

/// A hop below a frame (10 ms) would score the same window again; one beyond 10 minutes leaves nearly all unheard, and the
/// front end keeps as many frames.
fn hop(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    (0.01..=600.0).contains(&seconds).then_some(seconds).ok_or_else(|| format!("{seconds} s; 0.01 to 600 are allowed"))
}

/// A line of `--json`; its names are frozen.
#[derive(Serialize)]
struct ScoreLine<'a> {
    file: &'a str,
    start_s: f64,
    end_s: f64,
    prompt: &'a str,
    cosine: f64,
    score: f64,
}

/// What every recording is scored with.
struct Scorer<'a> {
    arguments: &'a ScoreArguments,
    model: Model,
    prompts: Arc<PromptTable>,
    names: Vec<String>,
}

/// A prompt of every text, and one of all recordings, with what each is called. The rules are of no matter: nobody looks at the
/// events.
fn prompts_of(arguments: &ScoreArguments) -> (Vec<Prompt>, Vec<String>) {
    let rule = Rule::default();
    let texts = (0..).zip(&arguments.prompts);
    let mut prompts: Vec<Prompt> =
        texts.map(|(number, text)| Prompt::of_text(PromptId::numbered(number), text, rule)).collect();
    let mut names = arguments.prompts.clone();
    if let Some(first) = arguments.like.first() {
        let (id, audio) = (PromptId::numbered(prompts.len()), arguments.like.clone());
        prompts.push(Prompt { id, text: None, audio, rule, contrast: Vec::new() });
        names.push(format!("like {}", first.display()));
    }
    (prompts, names)
}

pub(super) fn run(arguments: &ScoreArguments) -> Result<(), Failure> {
    arguments.raw.check(&arguments.files).at(Stage::Usage)?;
    let bundle = arguments.model.open_bundle()?;
    for file in &arguments.like {
        // Told apart from a fault of the bundle.
        Example::open(file).at(Stage::Input)?;
    }
    let ((prompts, names), model) = (prompts_of(arguments), Model::load(&bundle).at(Stage::Bundle)?);
    let prompts = prompts::prepare(&prompts, &bundle, &model, &paths::embedding_cache()).at(Stage::Bundle)?.into();
    let scorer = Scorer { arguments, model, prompts, names };
    let mut failed = None;
    for file in &arguments.files {
        // One broken file must not cost the scores of the others.
        if let Err(error) = scorer.score(file) {
            if exit::is_output(&error) {
                return Err(Failure::new(Stage::Output, error));
            }
            if arguments.files.len() > 1 {
                eprintln!("clapd: {error:#}");
            }
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), |error| Err(Failure::new(Stage::Input, error)))
}

impl Scorer<'_> {
    fn score(&self, file: &Path) -> Result<()> {
        if self.arguments.whole { self.whole(file) } else { self.windows(file) }
    }

    fn whole(&self, file: &Path) -> Result<()> {
        let decoder = self.arguments.raw.open(file)?;
        let mut clip =
            ClipEmbedder::new(self.model.clone(), decoder.rate()).with_context(|| file.display().to_string())?;
        recording::read(decoder, file, true, |samples| clip.push(samples))?;
        let (embedding, seconds) = clip.finish().with_context(|| file.display().to_string())?;
        let mut scorer = PromptScorer::new(Arc::clone(&self.prompts), self.model.calibration.clone());
        self.print(file, 0.0, seconds, scorer.score(&embedding))
    }

    fn windows(&self, file: &Path) -> Result<()> {
        let decoder = self.arguments.raw.open(file)?;
        let hop = Duration::from_secs_f64(self.arguments.hop);
        let mut pipeline =
            Pipeline::new(self.model.clone(), Arc::clone(&self.prompts), decoder.rate(), hop, Pace::Every)
                .with_context(|| file.display().to_string())?;
        let mut summary = vec![Summary::default(); self.prompts.len()];
        let mut printed = Ok(());
        let mut sink = |output: Output<'_>| {
            let Output::Window(window) = output else { return };
            summary.iter_mut().zip(window.scores).for_each(|(summary, score)| summary.add(window.start, *score));
            if self.arguments.json && printed.is_ok() {
                printed = self.print(file, window.start.as_secs_f64(), window.end.as_secs_f64(), window.scores);
            }
        };
        // Lines that are printed as they come are progress enough, and a terminal has room for one of the two.
        let progress = !self.arguments.json || !std::io::stdout().is_terminal();
        recording::read(decoder, file, progress, |samples| pipeline.push(samples, &mut sink).map(|()| true))?;
        pipeline.finish(&mut sink)?;
        printed?;
        if self.arguments.json { Ok(()) } else { self.print_summary(file, &summary) }
    }

    fn print(&self, file: &Path, start_s: f64, end_s: f64, scores: &[Score]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let name = file.to_string_lossy();
        for (prompt, score) in self.names.iter().zip(scores) {
            if self.arguments.json {
                let (cosine, score) = (rounded(score.cosine, 1e6), rounded(score.score, 1e2));
                let line = ScoreLine {
                    file: &name,
                    start_s: (start_s * 1e3).round() / 1e3,
                    end_s: (end_s * 1e3).round() / 1e3,
                    prompt,
                    cosine,
                    score,
                };
                printed(writeln!(out, "{}", serde_json::to_string(&line)?))?;
            } else {
                printed(writeln!(out, "{:5.1}  {prompt}  ({name})", score.score))?;
            }
        }
        Ok(())
    }

    fn print_summary(&self, file: &Path, summary: &[Summary]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        printed(writeln!(out, "{}\n  best   at s  mean  prompt", file.display()))?;
        for (prompt, summary) in self.names.iter().zip(summary) {
            let (best, at, mean) = (summary.best, summary.at.as_secs_f64(), summary.mean());
            printed(writeln!(out, "{best:6.1} {at:6.1} {mean:5.1}  {prompt}"))?;
        }
        Ok(())
    }
}

/// Six decimals of a cosine and two of a score tell apart what the model can tell apart.
fn rounded(value: f32, scale: f64) -> f64 {
    (f64::from(value) * scale).round() / scale
}

#[derive(Debug, Clone, Default)]
struct Summary {
    best: f32,
    at: SampleTime,
    sum: f64,
    windows: u32,
}

impl Summary {
    fn add(&mut self, start: SampleTime, score: Score) {
        if self.windows == 0 || score.score > self.best {
            (self.best, self.at) = (score.score, start);
        }
        self.sum += f64::from(score.score);
        self.windows += 1;
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.windows.max(1))
    }
}
