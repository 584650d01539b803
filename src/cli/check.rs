//! `clapd check`: every fault of a configuration; nothing is started. With `--connect` the broker is tried, too.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clapd_core::model::{Bundle, TextEmbedding};
use clapd_core::prompts::Prompt;

use super::exit::{AtStage, Failure, Stage, printed};
use super::paths;
use crate::config::{Broker, Settings};
use crate::daemon::PromptStore;
use crate::mqtt;
use crate::mqtt::probe::{ProbeSpec, ProbeStep, probe};
use crate::prompts;

/// Checks the configuration at `path`, and with `connect` its broker too.
pub(super) fn run(path: &Path, connect: bool) -> Result<(), Failure> {
    let (settings, warnings) = prompts::load_settings(path).at(Stage::Usage)?;
    let mut out = std::io::stdout().lock();
    for warning in &warnings {
        printed(writeln!(out, "warning: {warning}")).at(Stage::Output)?;
    }
    if let Some(set) = PromptStore::in_folder(settings.state.as_deref()).file() {
        let seen = "prompts that were set over MQTT stand in for every [[prompt]]";
        let remedy = "send prompts/set with {\"reset\":true}, or remove the file, to return to these";
        printed(writeln!(out, "warning: {}: {seen}; {remedy}", set.display())).at(Stage::Output)?;
    }
    if let Some(broker) = &settings.broker {
        mqtt::check(broker).at(Stage::Usage)?;
    }
    let bundle = paths::open_bundle(settings.bundle.as_deref(), settings.threads)?;
    // Loading is the only proof that the files fit the manifest and this version.
    bundle.audio_encoder().at(Stage::Bundle)?;
    bundle.text_encoder().at(Stage::Bundle)?;
    let texts = settings.texts();
    let embeddings = bundle.embed_texts(&texts, &paths::embedding_cache()).at(Stage::Bundle)?;
    for warning in uncovered(&bundle, &texts, &embeddings).chain(unheard(&bundle, settings.hop)) {
        printed(writeln!(out, "warning: {warning}")).at(Stage::Output)?;
    }
    if let Some(warning) = unmeasured(&bundle, &settings.prompts) {
        printed(writeln!(out, "warning: {warning}")).at(Stage::Output)?;
    }
    let (prompts, sources) = (settings.prompts.len(), settings.sources.len());
    let summary = format!("{}: in order; {sources} source(s), {prompts} prompt(s)", path.display());
    printed(writeln!(out, "{summary}")).at(Stage::Output)?;
    drop(out);
    if !connect {
        return Ok(());
    }
    let mut written = Ok(());
    let print = &mut |step: &str, seen: &str| {
        if written.is_ok() {
            written = writeln!(std::io::stdout(), "  {step:<10} {seen}");
        }
    };
    match &settings.broker {
        Some(broker) => probe_broker(broker, &settings, print)?,
        None => print("broker", "there is no [mqtt]: events are logged, and told to nobody"),
    }
    printed(written).at(Stage::Output)
}

/// Tries the broker as the daemon would use it, and gives `print` the name of each step and what it has seen.
pub(super) fn probe_broker(
    broker: &Broker,
    settings: &Settings,
    print: &mut dyn FnMut(&str, &str),
) -> Result<(), Failure> {
    let sources: Vec<String> = settings.sources.iter().map(|source| source.id.to_string()).collect();
    let spec = ProbeSpec { node: &settings.node, sources: &sources, prompts: &settings.prompts, period: settings.hop };
    probe(broker, &spec, &mut |step: ProbeStep, seen| print(step.name(), seen)).at(Stage::Broker)
}

/// Prompts that no sound of the model comes near.
fn uncovered<'a>(
    bundle: &'a Bundle,
    texts: &'a [&str],
    embeddings: &'a [TextEmbedding],
) -> impl Iterator<Item = String> + 'a {
    let (name, least) = (&bundle.manifest().name, bundle.manifest().text.coverage_min);
    texts.iter().zip(embeddings).filter_map(move |(text, embedding)| {
        let (coverage, least) = (embedding.coverage?, least?);
        (coverage < least).then(|| {
            format!(
                "prompt {text:?}: the model {name} knows no sound like it (coverage {coverage:.2}, {least:.2} is enough); \
                 describe the sound in other words or use another model"
            )
        })
    })
}

/// Prompts by example with a model that nobody has measured them with.
fn unmeasured(bundle: &Bundle, prompts: &[Prompt]) -> Option<String> {
    let name = &bundle.manifest().name;
    let by_example = prompts.iter().filter(|prompt| !prompt.audio.is_empty()).count();
    (by_example > 0 && !bundle.manifest().has_measured_recordings()).then(|| {
        format!(
            "{by_example} prompt(s) with recordings: where such prompts stand on the scale was not measured with the model \
             {name}; take their scores as an order, and let `clapd watch` choose the start"
        )
    })
}

/// Sound between two windows, where the hop is longer than a window.
fn unheard(bundle: &Bundle, hop: Duration) -> Option<String> {
    let window = bundle.windowing().samples() as f64 / f64::from(bundle.frontend().sample_rate);
    let hop = hop.as_secs_f64();
    (hop > window).then(|| {
        format!(
            "scoring.hop_s is {hop} and a window of the model {} has {window:.2} s: the sound in between is not heard; \
             choose a hop of at most {window:.2}",
            bundle.manifest().name
        )
    })
}
