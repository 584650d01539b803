//! `clapd embed`: embeddings of recordings and texts.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clapd_core::embed::{ClipEmbedder, Model};
use serde::Serialize;

use super::exit::{AtStage, Failure, Stage, printed};
use super::recording::RawArguments;
use super::{paths, recording};

#[derive(Debug, clap::Args)]
pub(super) struct EmbedArguments {
    /// A recording, whole (of a longer one the first 10 s for `clap` bundles); may be given several times
    #[arg(long, value_name = "FILE", required_unless_present = "text")]
    audio: Vec<PathBuf>,
    #[command(flatten)]
    raw: RawArguments,
    /// A text; may be given several times
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// Model bundle
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

/// A line of `--json`; its names are frozen.
#[derive(Serialize)]
struct EmbeddingLine<'a> {
    kind: &'a str,
    source: &'a str,
    embedding: &'a [f32],
}

impl EmbeddingLine<'_> {
    fn print(&self, json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            printed(writeln!(out, "{}", serde_json::to_string(self)?))?;
        } else {
            let numbers: Vec<_> = self.embedding.iter().map(|x| format!("{x:.6}")).collect();
            printed(writeln!(out, "{} {}: {}", self.kind, self.source, numbers.join(" ")))?;
        }
        Ok(())
    }
}

pub(super) fn run(arguments: &EmbedArguments) -> Result<(), Failure> {
    arguments.raw.check(&arguments.audio).at(Stage::Usage)?;
    let bundle = paths::open_bundle(arguments.bundle.as_deref(), 1)?;
    if !arguments.audio.is_empty() {
        let model = Model::load(&bundle).at(Stage::Bundle)?;
        for file in &arguments.audio {
            let embedding = embed(&model, &arguments.raw, file)
                .with_context(|| format!("cannot embed {}", file.display()))
                .at(Stage::Input)?;
            let line = EmbeddingLine { kind: "audio", source: &file.to_string_lossy(), embedding: &embedding };
            line.print(arguments.json).at(Stage::Other)?;
        }
    }
    let texts: Vec<&str> = arguments.text.iter().map(String::as_str).collect();
    let embeddings = bundle.embed_texts(&texts, &paths::embedding_cache()).at(Stage::Bundle)?;
    for (text, embedding) in texts.iter().zip(&embeddings) {
        EmbeddingLine { kind: "text", source: text, embedding: &embedding.vector }
            .print(arguments.json)
            .at(Stage::Other)?;
    }
    Ok(())
}

fn embed(model: &Model, raw: &RawArguments, file: &Path) -> Result<Vec<f32>> {
    let decoder = raw.open(file)?;
    let mut clip = ClipEmbedder::new(model.clone(), decoder.rate())?;
    recording::read(decoder, file, true, |samples| clip.push(samples))?;
    Ok(clip.finish()?.0)
}
