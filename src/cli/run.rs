//! `clapd run`: the daemon.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::exit::{AtStage, Failure, Stage};
use super::locate;
use crate::clap::{Bundle, EmbeddingCache};
use crate::config::{self, Settings};
use crate::daemon::Daemon;
use crate::mqtt;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (settings, warnings) = config::load(path).at(Stage::Usage)?;
    if let Some(broker) = &settings.broker {
        mqtt::check(broker).at(Stage::Usage)?;
    }
    let bundle = locate::open(settings.bundle.as_deref(), settings.threads)?;
    embed_first(&settings, &bundle, &locate::cache()).at(Stage::Bundle)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let daemon = Daemon::prepare(settings, &bundle, &locate::cache()).at(Stage::Bundle)?;
    daemon.run().at(Stage::Input)
}

/// Embeds the prompts that are new to the cache before anything else is loaded, and begins anew with all of them in it.
/// A process that has had a text tower of 500 MB in its heap keeps most of it for good; the next image of it is clean
/// (measured with a full-size f32 CLAP: 243 MB instead of 621). Without a cache that keeps them, it goes on as it is.
fn embed_first(settings: &Settings, bundle: &Bundle, cache: &EmbeddingCache) -> Result<()> {
    let texts = settings.texts();
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
