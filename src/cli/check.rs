//! `clapd check`: every fault of a configuration; nothing is started.

use std::io::Write;
use std::path::Path;

use super::exit::{AtStage, Failure, Stage};
use super::locate;
use crate::clap::Bundle;
use crate::config;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (settings, warnings) = config::load(path).at(Stage::Usage)?;
    let mut out = std::io::stdout().lock();
    for warning in &warnings {
        writeln!(out, "warning: {warning}").at(Stage::Other)?;
    }
    let bundle = Bundle::open(locate::bundle(settings.bundle.as_deref()).at(Stage::Bundle)?).at(Stage::Bundle)?;
    // Loading is the only proof that the files fit the manifest and this version.
    bundle.audio_encoder().at(Stage::Bundle)?;
    let texts: Vec<&str> = settings.prompts.iter().map(|prompt| prompt.text.as_str()).collect();
    let embeddings = bundle.embed_texts(&texts, &locate::cache()).at(Stage::Bundle)?;
    let least = bundle.manifest().text.coverage_min;
    for (text, embedding) in texts.iter().zip(&embeddings) {
        if let (Some(coverage), Some(least)) = (embedding.coverage, least)
            && coverage < least
        {
            writeln!(
                out,
                "warning: prompt {text:?}: the model {} knows no sound like it (coverage {coverage:.2}, {least:.2} is enough); \
                 describe the sound in other words or use another model",
                bundle.manifest().name
            )
            .at(Stage::Other)?;
        }
    }
    let (prompts, sources) = (settings.prompts.len(), settings.sources.len());
    writeln!(out, "{}: in order; {sources} source(s), {prompts} prompt(s)", path.display()).at(Stage::Other)
}
