//! `clapd watch`: live scores, and thresholds that suit the room.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use clapd_core::channel::Channel;
use clapd_core::detect::suggest::Series;
use clapd_core::embed::Model;
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{Prompt, PromptId, PromptTable, Rule};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::display::{LineDisplay, LiveDisplay, ScoreDisplay};
use super::exit::{AtStage, Failure, Stage};
use super::recording::RawArguments;
use super::{advice, paths, recording};
use crate::capture::{Read, Source, SourceCounters, SourceKind, SourceSpec, SourceState, Warnings};
use crate::levels::Microphone;
use crate::loudness::LoudnessJudge;
use crate::prompts;
use crate::score_log::{Form, LogSpec, Moment, ScoreLog};
use crate::time::WallAnchor;

/// How long to wait for sound before a look at Ctrl-C.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The daemon's default.
const HOP: Duration = Duration::from_secs(1);
/// A day of 20 prompts; what `--log` writes is for a person who is there.
const LOG_BYTES: u64 = 200_000_000;

#[derive(Debug, clap::Args)]
pub(super) struct WatchArguments {
    /// Recordings of the room instead of a source: wav, flac, ogg, opus, mp3, m4a and others, or `-` for standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    raw: RawArguments,
    /// Configuration whose prompts and source are watched (default, unless there are prompts with -p)
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
    /// A sound in words, instead of a configuration; may be given several times
    #[arg(short, long = "prompt", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    prompts: Vec<String>,
    /// Model bundle
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The source of the configuration to listen to (default: its first)
    #[arg(long, value_name = "ID", conflicts_with_all = ["files", "prompts"])]
    source: Option<String>,
    /// The input device to listen to, with -p
    #[arg(long, value_name = "NAME", default_value = "default")]
    device: String,
    /// Sound to listen to, such as 10m or 8h (default: until Ctrl-C, or the source's end)
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// False alarms that each prompt may make an hour
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = rate)]
    false_alarms: f64,
    /// Write every score to a file, .jsonl or .csv (of at most 200 MB, its older half in FILE.1)
    #[arg(long, value_name = "FILE", value_parser = log_file)]
    log: Option<PathBuf>,
    /// Nothing but the suggestions, a JSON object a line
    #[arg(long)]
    json: bool,
}

/// Less than one a month nobody waits for, more than one a minute nobody wants.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a number an hour"))?;
    (0.001..=60.0).contains(&rate).then_some(rate).ok_or_else(|| format!("{rate} an hour; 0.001 to 60 are allowed"))
}

fn log_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    Form::of(&path).map(|_| path).ok_or_else(|| format!("{text}: its name ends neither in .jsonl nor in .csv"))
}

/// What is watched, before anything is loaded.
struct WatchSpec {
    prompts: Vec<Prompt>,
    /// What each prompt is called in files and for programs: its id, or the text of one that has been given none.
    labels: Vec<String>,
    source: SourceSpec,
    bundle: Option<PathBuf>,
    threads: usize,
    hop: Duration,
    gate_db: Option<f32>,
}

impl WatchSpec {
    fn of(arguments: &WatchArguments) -> Result<Self, Failure> {
        let bundle = arguments.bundle.clone();
        if !arguments.prompts.is_empty() {
            let kind = SourceKind::Device { name: arguments.device.clone() };
            let gain = kind.default_gain();
            let source =
                SourceSpec { id: "mic".into(), kind, channel: Channel::Mix, gain, microphone: Microphone::default() };
            let prompts = (0..).zip(&arguments.prompts);
            let prompts =
                prompts.map(|(number, text)| Prompt::of_text(PromptId::numbered(number), text, Rule::default()));
            let (prompts, labels) = (prompts.collect(), arguments.prompts.clone());
            return Ok(Self { prompts, labels, source, bundle, threads: 1, hop: HOP, gate_db: None });
        }
        let (settings, warnings) = prompts::load_settings(&arguments.config).at(Stage::Usage)?;
        warnings.iter().for_each(|warning| log::debug!("{warning}"));
        let is_chosen = |spec: &&SourceSpec| arguments.source.as_ref().is_none_or(|id| *id == spec.id);
        let source = settings.sources.iter().find(is_chosen).cloned().ok_or_else(|| {
            let ids: Vec<_> = settings.sources.iter().map(|spec| spec.id.as_str()).collect();
            Failure::message(Stage::Usage, format!("--source: the configuration has {} only", ids.join(", ")))
        })?;
        Ok(Self {
            labels: settings.prompts.iter().map(|prompt| prompt.id.to_string()).collect(),
            prompts: settings.prompts,
            source,
            bundle: bundle.or(settings.bundle),
            threads: settings.threads,
            hop: settings.hop,
            gate_db: settings.gate_db,
        })
    }
}

pub(super) fn run(arguments: &WatchArguments) -> Result<(), Failure> {
    arguments.raw.check(&arguments.files).at(Stage::Usage)?;
    let spec = WatchSpec::of(arguments)?;
    let bundle = paths::open_bundle(spec.bundle.as_deref(), spec.threads)?;
    let model = Model::load(&bundle).at(Stage::Bundle)?;
    let prompts = prompts::prepare(&spec.prompts, &bundle, &model, &paths::embedding_cache()).at(Stage::Bundle)?;
    let mut watcher = Watcher::new(arguments, &spec, model, prompts.into());
    if arguments.files.is_empty() {
        watcher.listen(&spec.source).at(Stage::Input)?;
    }
    for file in &arguments.files {
        watcher.play(file, &arguments.raw).at(Stage::Input)?;
    }
    let duration = watcher.duration();
    let logged = watcher.log.map_or(Ok(()), ScoreLog::finish);
    advice::print(&spec.prompts, &spec.labels, &watcher.series, duration, arguments.false_alarms, arguments.json)
        .at(Stage::Other)?;
    logged.at(Stage::Output)
}

/// Watching: what every window goes through.
struct Watcher<'a> {
    spec: &'a WatchSpec,
    model: Model,
    prompts: Arc<PromptTable>,
    display: Option<Box<dyn ScoreDisplay>>,
    log: Option<ScoreLog>,
    limit: Option<Duration>,
    /// One a recording, and one for every new beginning of a source's clock.
    series: Vec<Series>,
    full: bool,
}

impl<'a> Watcher<'a> {
    fn new(arguments: &WatchArguments, spec: &'a WatchSpec, model: Model, prompts: Arc<PromptTable>) -> Self {
        let display: Option<Box<dyn ScoreDisplay>> = match LiveDisplay::fitting(&prompts) {
            _ if arguments.json => None,
            Some(live) => Some(Box::new(live)),
            None => Some(Box::new(LineDisplay::new(Arc::clone(&prompts)))),
        };
        let log = arguments.log.clone().and_then(|path| Some((Form::of(&path)?, path)));
        let log = log.map(|(form, path)| ScoreLog::new(LogSpec { path, form, max_bytes: LOG_BYTES }));
        Self { spec, model, prompts, display, log, limit: arguments.time, series: Vec::new(), full: false }
    }

    fn pipeline(&mut self, rate: u32, pace: Pace) -> Result<Pipeline> {
        self.series.push(Series::new(self.spec.prompts.len()));
        let pipeline = Pipeline::new(self.model.clone(), Arc::clone(&self.prompts), rate, self.spec.hop, pace)?;
        // A recording is heard as the configuration's source would be.
        let pipeline = pipeline.with_gain(self.spec.source.gain);
        Ok(match self.spec.gate_db {
            Some(gate_db) => pipeline.with_gate(gate_db),
            None => pipeline,
        })
    }

    /// Sound that was heard so far.
    fn duration(&self) -> Duration {
        self.series.iter().map(|series| series.duration(self.spec.hop)).sum()
    }

    fn is_enough(&self) -> bool {
        self.full || self.limit.is_some_and(|most| self.duration() >= most)
    }

    fn listen(&mut self, spec: &SourceSpec) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second one ends the process: somebody may not want to wait for advice.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let pace = if spec.kind.is_live() { Pace::Live } else { Pace::Every };
        let counters = Arc::<SourceCounters>::default();
        let mut source = Source::open(spec, Arc::clone(&counters)).with_context(|| format!("source {}", spec.id))?;
        let mut loudness = LoudnessJudge::new(spec.kind.clone(), spec.gain, self.model.level);
        let mut current: Option<(u32, Pipeline, WallAnchor)> = None;
        while !stop.load(Relaxed) && !self.is_enough() {
            match source.read(POLL_INTERVAL)? {
                Read::Block { rate, samples, anchor } => {
                    let (_, mut pipeline, _) = match current.take() {
                        Some(same) if same.0 == rate => same,
                        _ => (rate, self.pipeline(rate, pace)?, anchor),
                    };
                    self.push(&mut pipeline, samples, &spec.id, &|time| Moment::Time(anchor.wall_time(time)))?;
                    loudness.judge(&spec.id, counters.state(), &counters.warnings, Some(&pipeline));
                    current = Some((rate, pipeline, anchor));
                }
                Read::Idle => {}
                Read::End => break,
            }
        }
        match current {
            Some((_, pipeline, anchor)) => self.end(pipeline, &spec.id, &|time| Moment::Time(anchor.wall_time(time))),
            None => Ok(()),
        }
    }

    fn play(&mut self, file: &Path, raw: &RawArguments) -> Result<()> {
        let decoder = raw.open(file)?;
        let mut pipeline = self.pipeline(decoder.rate(), Pace::Every)?;
        let name = file.to_string_lossy();
        let moment = |time: SampleTime| Moment::Position(time.as_secs_f64());
        let kind = SourceKind::File { path: file.to_owned(), looped: false, realtime: false };
        let mut loudness = LoudnessJudge::new(kind, self.spec.source.gain, self.model.level);
        recording::read(decoder, file, self.display.is_none(), |samples| {
            self.push(&mut pipeline, samples, &name, &moment)?;
            loudness.judge(&name, SourceState::Live, &Warnings::default(), Some(&pipeline));
            Ok(!self.is_enough())
        })?;
        self.end(pipeline, &name, &moment)
    }

    fn push(
        &mut self,
        pipeline: &mut Pipeline,
        samples: Samples<'_>,
        source: &str,
        moment: &dyn Fn(SampleTime) -> Moment,
    ) -> Result<()> {
        if let Some(display) = &mut self.display {
            display.show_level(samples.data);
        }
        let mut shown = Ok(());
        pipeline.push(samples, &mut |output| {
            if shown.is_ok() {
                shown = self.handle(&output, source, moment);
            }
        })?;
        shown
    }

    fn end(&mut self, mut pipeline: Pipeline, source: &str, moment: &dyn Fn(SampleTime) -> Moment) -> Result<()> {
        let mut shown = Ok(());
        pipeline.finish(&mut |output| {
            if shown.is_ok() {
                shown = self.handle(&output, source, moment);
            }
        })?;
        shown
    }

    fn handle(&mut self, output: &Output<'_>, source: &str, moment: &dyn Fn(SampleTime) -> Moment) -> Result<()> {
        if let Output::Window(window) = output {
            if let Some(series) = self.series.last_mut() {
                self.full |= !series.push(window.start, window.end, window.lost, window.scores);
            }
            if let Some(log) = &mut self.log {
                for (label, score) in self.spec.labels.iter().zip(window.scores) {
                    log.add(moment(window.end), source, label, *score);
                }
            }
        }
        match (&mut self.display, output) {
            (Some(display), Output::Window(window)) => display.show_window(window),
            (Some(display), Output::Event(event)) => display.show_event(event),
            (None, _) => Ok(()),
        }
    }
}
