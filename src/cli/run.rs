//! `clapd run`: the daemon.

use std::env;
use std::ffi::OsString;
use std::io::{Read, stdin};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::Result;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::Prompt;

use super::exit::{AtStage, Failure, Stage};
use super::paths;
use crate::config::Settings;
use crate::daemon::{Daemon, DaemonError, DaemonOptions, EmbedProcess, PromptStore};
use crate::mqtt;
use crate::prompts;

/// A thousand prompts with sixteen contrasts of 300 letters each are 5 million letters.
const MAX_TEXTS: u64 = 64 << 20;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (settings, warnings) = prompts::load_settings(path).at(Stage::Usage)?;
    if let Some(broker) = &settings.broker {
        mqtt::check(broker).at(Stage::Usage)?;
    }
    let bundle = paths::open_bundle(settings.bundle.as_deref(), settings.threads)?;
    let set = PromptStore::in_folder(settings.state.as_deref()).load();
    let cache = paths::embedding_cache();
    let prompts = set.as_ref().unwrap_or(&settings.prompts);
    embed_first(prompts, &bundle, &cache).at(Stage::Bundle)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    listen(path.into(), settings, set, bundle)
}

/// Runs the daemon with the configuration at `path`, which says `settings`, and the prompts that were set while it ran before.
pub(super) fn listen(
    path: PathBuf,
    settings: Settings,
    set: Option<Vec<Prompt>>,
    bundle: Bundle,
) -> Result<(), Failure> {
    let store = PromptStore::in_folder(settings.state.as_deref());
    let embed_process = embed_process(&bundle, settings.threads);
    let cache = paths::embedding_cache();
    let options = DaemonOptions { path, settings, set, store, bundle, cache, embed_process };
    Daemon::prepare(options).at(Stage::Bundle)?.run().map_err(|error| match error {
        DaemonError::Source(error) => Failure::new(Stage::Input, error),
        DaemonError::Fault(error) => Failure::new(Stage::Other, error),
    })
}

/// `clapd embed-cache`: embeds the texts of a JSON list on standard input into the cache; the daemon's own helper.
pub(super) fn embed_cache(bundle: &Path, threads: usize) -> Result<(), Failure> {
    let mut text = String::new();
    stdin().take(MAX_TEXTS).read_to_string(&mut text).at(Stage::Input)?;
    let texts: Vec<String> = serde_json::from_str(&text).at(Stage::Input)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let bundle = paths::open_bundle(Some(bundle), threads)?;
    bundle.embed_texts(&texts, &paths::embedding_cache()).at(Stage::Bundle).map(drop)
}

/// This very program, also where its file was replaced by a newer one since.
fn embed_process(bundle: &Bundle, threads: usize) -> EmbedProcess {
    let folder = bundle.dir().as_os_str().to_owned();
    let arguments = ["embed-cache".into(), "--bundle".into(), folder, "--threads".into(), threads.to_string().into()];
    EmbedProcess { program: format!("/proc/{}/exe", process::id()).into(), arguments: Vec::<OsString>::from(arguments) }
}

/// Embeds the prompts that are new to the cache before anything else is loaded, and begins anew with all of them in it.
/// A process that has had a text tower of 500 MB in its heap keeps most of it for good; the next image of it is clean
/// (measured with a full-size f32 CLAP: 243 MB instead of 621). Without a cache that keeps them, it goes on as it is.
fn embed_first(prompts: &[Prompt], bundle: &Bundle, cache: &EmbeddingCache) -> Result<()> {
    let texts: Vec<&str> = prompts.iter().flat_map(Prompt::texts).collect();
    if bundle.has_embedded(&texts, cache) {
        return Ok(());
    }
    bundle.embed_texts(&texts, cache)?;
    if bundle.has_embedded(&texts, cache) {
        let error = Command::new(env::current_exe()?).args(env::args_os().skip(1)).exec();
        log::warn!("cannot begin anew, so the text model's memory is kept: {error}");
    }
    Ok(())
}
