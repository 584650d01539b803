//! Scores a recording against sentences, as clapd does with a microphone: windows as they come, and events.
//!
//! `cargo run -p clapd-core --example score` takes the recording and the model of this repository;
//! `... --example score -- BUNDLE RECORDING SENTENCE...` takes others.
#![allow(clippy::disallowed_methods, reason = "clippy.toml is for the library; a program may have arguments")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::detect::EventKind;
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{self, Prompt, PromptId, Rule};

fn main() -> Result<()> {
    let repository = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut arguments = std::env::args().skip(1);
    let bundle = arguments.next().map_or_else(|| repository.join("models/mini"), PathBuf::from);
    let recording = arguments.next().map_or_else(|| repository.join("tests/audio/demo.ogg"), PathBuf::from);
    let mut sentences: Vec<String> = arguments.collect();
    if sentences.is_empty() {
        sentences = ["a dog barking", "rain falling", "a siren"].map(String::from).into();
    }

    let bundle = Bundle::open(bundle)?;
    let model = Model::load(&bundle)?;
    let sentences = sentences.into_iter().enumerate();
    let prompts: Vec<_> =
        sentences.map(|(n, text)| Prompt::of_text(PromptId::numbered(n + 1), text, Rule::default())).collect();
    // With a folder for the cache, the text network would be loaded for new sentences only.
    let table = Arc::new(prompts::prepare(&prompts, &bundle, &model, &EmbeddingCache::none())?);

    let mut decoder = Decoder::open(&recording, Channel::Mix)?;
    let mut pipeline = Pipeline::new(model, table.clone(), decoder.rate(), Duration::from_secs(1), Pace::Every)?;
    let mut print = |output: Output<'_>| match output {
        Output::Window(window) => {
            let scores = prompts.iter().zip(window.scores).filter(|(prompt, score)| score.score >= prompt.rule.start);
            let scores: Vec<_> =
                scores.map(|(prompt, score)| format!("{} {:.1}", prompt.name(), score.score)).collect();
            println!("{:6.1} s  {}", window.end.as_secs_f64(), scores.join(", "));
        }
        Output::Event(event) => {
            let (change, at) = match event.kind {
                EventKind::Started => ("starts", event.started_at),
                EventKind::Ended => ("ends", event.ended_at.unwrap_or(event.started_at)),
            };
            let name = table.get(&event.prompt).map_or(event.prompt.as_str(), Prompt::name);
            println!("          -> {name} {change} at {:.1} s", at.as_secs_f64());
        }
    };
    while let Some(samples) = decoder.next_block()? {
        pipeline.push(samples, &mut print)?;
    }
    pipeline.finish(&mut print)
}
