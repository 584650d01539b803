//! `clapd demo`: the whole pipeline over a recording that is inside the binary; no configuration, no broker.
//!
//! With `--page` it is the daemon itself, with a configuration in a folder that goes with it.

use std::fs;
use std::io::Cursor;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::builder::NonEmptyStringValueParser;
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::embed::Model;
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{self, Prompt, PromptId, Rule};
use clapd_core::samples::Samples;

use super::display::{LineDisplay, LiveDisplay, ScoreDisplay};
use super::exit::{AtStage, Failure, Stage};
use super::{paths, recording, run};
use crate::config::{self, Environment};

/// Sounds and licences: tests/audio/CREDITS.md.
static RECORDING: &[u8] = include_bytes!("../../tests/audio/demo.ogg");

/// What is in the recording, in the order of its sounds, and two sounds that are not in it.
const PROMPTS: [&str; 18] = [
    "a rooster crowing",
    "a dog barking",
    "footsteps on gravel",
    "a doorbell ringing",
    "a person speaking",
    "glass breaking",
    "a toilet flushing",
    "a cat meowing",
    "a person snoring",
    "drums playing",
    "a helicopter flying",
    "a train whistle",
    "a car horn honking",
    "people applauding",
    "thunder",
    "rain falling",
    "a baby crying",
    "a siren wailing",
];

/// Half a second shows short sounds; the daemon's default is a second.
const HOP: Duration = Duration::from_millis(500);
#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// Model bundle
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Another recording
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Listen for this instead; may be given several times
    #[arg(short, long = "prompt", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    prompts: Vec<String>,
    /// In a browser: round and round at its own pace behind the page, on this computer alone, until Ctrl-C
    #[arg(long, conflicts_with = "speed")]
    page: bool,
    /// On a terminal, how many times faster than the sound
    #[arg(long, default_value_t = 4.0, value_parser = speed)]
    speed: f64,
}

/// Below a tenth nobody waits, above a thousand nothing is seen.
fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    (0.1..=1000.0).contains(&speed).then_some(speed).ok_or_else(|| format!("{speed}; 0.1 to 1000 are allowed"))
}

pub(super) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    if arguments.page {
        return serve(arguments);
    }
    let bundle = paths::open_bundle(arguments.bundle.as_deref(), 1)?;
    let mut texts: Vec<&str> = arguments.prompts.iter().map(String::as_str).collect();
    if texts.is_empty() {
        texts.extend(PROMPTS);
    }
    // Without the cool-down: the recording is short.
    let rule = Rule { cooldown: Duration::ZERO, ..Rule::default() };
    let prompts: Vec<Prompt> =
        (0..).zip(&texts).map(|(n, text)| Prompt::of_text(PromptId::numbered(n), *text, rule)).collect();
    let model = Model::load(&bundle).at(Stage::Bundle)?;
    let table = Arc::new(prompts::prepare(&prompts, &bundle, &model, &paths::embedding_cache()).at(Stage::Bundle)?);
    let decoder = match &arguments.file {
        Some(file) => Decoder::open(file, Channel::Mix),
        None => Decoder::from_reader(Box::new(Cursor::new(RECORDING)), "the bundled recording", Channel::Mix),
    };
    let decoder = decoder.at(Stage::Input)?;
    let pipeline = Pipeline::new(model, Arc::clone(&table), decoder.rate(), HOP, Pace::Every).at(Stage::Input)?;
    let name = arguments.file.as_deref().unwrap_or(Path::new("the bundled recording"));
    // A screen that cannot show the bars gets the same lines as a pipe.
    match LiveDisplay::fitting(&table) {
        Some(live) => play(pipeline, decoder, name, live, Some(arguments.speed)).at(Stage::Input),
        None => play(pipeline, decoder, name, LineDisplay::new(table), None).at(Stage::Input),
    }
}

/// What the page begins with: what is heard first, and a sound that never comes. The others are left for whoever tries them.
const PAGE_PROMPTS: [&str; 8] = [
    "a dog barking",
    "a rooster crowing",
    "a doorbell ringing",
    "a person speaking",
    "glass breaking",
    "a car horn honking",
    "rain falling",
    "a siren wailing",
];

/// As the documentation names it, and some more for those that are taken.
const PORTS: RangeInclusive<u16> = 8126..=8136;

/// Has a browser see it hear: the daemon plays the recording round and round.
fn serve(arguments: &DemoArguments) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("clapd-demo-").tempdir().at(Stage::Output)?;
    let recording = match &arguments.file {
        Some(file) => absolute(file).at(Stage::Input)?,
        None => folder.path().join("demo.ogg"),
    };
    if arguments.file.is_none() {
        fs::write(&recording, RECORDING).at(Stage::Output)?;
    }
    let port = free_port().at(Stage::Other)?;
    let text = page_configuration(&recording, &arguments.prompts, port);
    let path = folder.path().join("clapd.toml");
    fs::write(&path, &text).at(Stage::Output)?;
    // Nothing of the user's own clapd is touched: what is set on the page goes with the folder.
    let environment =
        Environment { host_name: "demo".into(), state: Some(folder.path().join("state")), ..Environment::default() };
    let (settings, _) = config::parse(&text, &path, &environment).at(Stage::Usage)?;
    let bundle = paths::open_bundle(arguments.bundle.as_deref(), 1)?;
    println!("Open http://127.0.0.1:{port}/ in a browser: it hears a recording, round and round. Ctrl-C ends it.");
    run::listen(path, settings, None, bundle)
}

fn page_configuration(recording: &Path, prompts: &[String], port: u16) -> String {
    let string = |text: &str| toml::Value::from(text).to_string();
    let texts: Vec<&str> =
        if prompts.is_empty() { PAGE_PROMPTS.to_vec() } else { prompts.iter().map(String::as_str).collect() };
    let prompts: String = texts.iter().map(|text| format!("[[prompt]]\ntext = {}\n", string(text))).collect();
    let file = string(&recording.to_string_lossy());
    format!(
        "[node]\nid = \"demo\"\n[[source]]\nid = \"recording\"\nfile = {file}\nloop = true\nrealtime = true\n\
         [scoring]\nhop_s = {}\n{prompts}[http]\nlisten = \"127.0.0.1:{port}\"\naccess = \"off\"\n",
        HOP.as_secs_f64()
    )
}

/// The first that nobody listens at.
fn free_port() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let (first, last) = (PORTS.start(), PORTS.end());
    let taken = || anyhow!("the ports {first} to {last} of 127.0.0.1 are all taken; end one of the programs there");
    PORTS.clone().find(free).ok_or_else(taken)
}

fn play(
    mut pipeline: Pipeline,
    decoder: Decoder,
    name: &Path,
    mut display: impl ScoreDisplay,
    speed: Option<f64>,
) -> Result<()> {
    let (rate, begun, mut heard) = (f64::from(decoder.rate()), Instant::now(), 0_usize);
    let mut shown = Ok(());
    let mut sink = |display: &mut dyn ScoreDisplay, output: Output<'_>| {
        if shown.is_ok() {
            shown = match output {
                Output::Window(window) => display.show_window(&window),
                Output::Event(event) => display.show_event(&event),
            };
        }
    };
    recording::read(decoder, name, false, |samples| {
        for chunk in samples.data.chunks(rate as usize / 10) {
            heard += chunk.len();
            display.show_level(chunk);
            pipeline.push(Samples::whole(chunk), &mut |output| sink(&mut display, output))?;
            if let Some(speed) = speed {
                let due = Duration::from_secs_f64(heard as f64 / rate / speed);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
        Ok(true)
    })?;
    pipeline.finish(&mut |output| sink(&mut display, output))?;
    shown
}
