//! Prompts on their way from the configuration to the pipeline: recordings are examined, and embeddings made.
//!
//! The configuration judges text alone; whether a recording is an example shows when it is decoded, which happens here, wherever
//! prompts are read. A fault then names the line of the recording.

use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow};
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::{self, Example, Prompt, PromptTable};

use crate::config::{self, Diagnostic, Faults, PromptOrigin, Recording, Settings};

/// Reads and checks the configuration at `path`, recordings included: the settings with warnings, or all faults.
pub fn load_settings(path: &Path) -> Result<(Settings, Vec<Diagnostic>), Faults> {
    let (settings, warnings) = config::load(path).map_err(with_recordings)?;
    examine(&settings.recordings).map(|()| (settings, warnings))
}

/// Reads and checks prompts as [`config::parse_prompts`] does, recordings included.
///
/// # Errors
/// Every fault at once.
pub fn parse(text: &str, origin: PromptOrigin<'_>, folder: &Path) -> Result<Vec<Prompt>, Faults> {
    let (prompts, recordings) = config::parse_prompts(text, origin, folder).map_err(with_recordings)?;
    examine(&recordings).map(|()| prompts)
}

fn examine(recordings: &[Recording]) -> Result<(), Faults> {
    let faults: Vec<Diagnostic> = recordings.iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(Faults::new(faults, Vec::new())) }
}

/// The faults of a text, and of the recordings that it names.
fn with_recordings(faults: Faults) -> Faults {
    let more = faults.recordings().iter().filter_map(fault).collect();
    faults.with(more)
}

/// A recording is opened here and again when it is embedded: a fault has a line only here.
fn fault(recording: &Recording) -> Option<Diagnostic> {
    let error = Example::open(&recording.path).err()?;
    // Whoever sent a name is told no path.
    let message = match &recording.name {
        Some(name) => error.message.replace(&recording.path.display().to_string(), name),
        None => error.message,
    };
    Some(recording.location.diagnostic(message, error.remedy.into()))
}

/// Embeds `prompts`, as [`prompts::prepare`] does, on a thread of its own: what the text tower allocates lies in that thread's
/// heap, from where the allocator can give it back. Among the daemon's own data it would stay resident for good (measured: 136 MB
/// instead of 61).
///
/// # Errors
/// As [`prompts::prepare`].
pub fn prepare(prompts: &[Prompt], bundle: &Bundle, model: &Model, cache: &EmbeddingCache) -> Result<PromptTable> {
    let prepare = || prompts::prepare(prompts, bundle, model, cache);
    let prepared = thread::scope(|scope| scope.spawn(prepare).join());
    let table = prepared.map_err(|_| anyhow!("the text tower panicked, which is a fault in clapd"))??;
    // Copied into this thread's heap: one vector left behind would hold the other.
    #[expect(clippy::redundant_clone, reason = "it is for the heap that the copy lies in")]
    Ok(table.clone())
}
