//! The daemon: a process that listens until every source is over or somebody stops it, and is watched meanwhile.
//!
//! A thread a source (`source_thread`) reads sound, runs the pipeline (`source_processor`) and reports scores and events
//! (`event_reporter`), as its `source_control` says; `source_taps` look on (`live_tap`, `history_tap`, `shared_score_log`). The main thread runs the `supervisor`, which owns all sources
//! (`source_set`), the settings in effect (`active_settings`), the change that the `worker` makes ready (`reloader`,
//! `source_opening`) and what is published of health (`health_reporter`).
//!
//! The process does not end with an event open that its publisher could still end, the watchdog is fed by progress
//! alone, and a thread that ends unasked ends the process.

mod active_settings;
mod embed_process;
mod event_reporter;
mod health_reporter;
mod history_tap;
mod journal_observer;
mod level_observer;
mod live_tap;
mod notifier;
mod prompt_preparer;
mod prompt_store;
mod questions;
mod quiet_monitor;
mod reloader;
mod shared_score_log;
mod source_control;
mod source_opening;
mod source_processor;
mod source_progress;
mod source_set;
mod source_status;
mod source_taps;
mod source_thread;
mod supervisor;
mod watchdog;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::Prompt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Settings;
use crate::mqtt::{Identity, Info};
use crate::outbox::Outbox;
use active_settings::ActiveSettings;
pub use embed_process::EmbedProcess;
use prompt_preparer::PromptPreparer;
pub use prompt_store::PromptStore;
use source_control::ListenConfig;
use source_opening::OpenedSource;
use supervisor::Supervisor;

/// How often the main thread looks around. A signal is answered within it, and nobody presses Ctrl-C to the tenth of a second.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What a daemon is made of.
pub struct DaemonOptions {
    /// The configuration's file, which is read again when somebody asks for it.
    pub path: PathBuf,
    /// What it says.
    pub settings: Settings,
    /// The prompts that were set while an earlier run listened; none: those of the settings.
    pub set: Option<Vec<Prompt>>,
    /// Where such prompts are stored.
    pub store: PromptStore,
    /// The model.
    pub bundle: Bundle,
    /// Where embeddings are stored.
    pub cache: EmbeddingCache,
    /// What embeds new texts.
    pub embed_process: EmbedProcess,
}

/// A daemon that has its model and its prompts, and listens to nothing yet.
pub struct Daemon {
    settings: ActiveSettings,
    preparer: PromptPreparer,
    config: ListenConfig,
    info: Info,
}

impl Daemon {
    /// Loads what the settings ask for from the bundle: the audio tower, and the prompts' embeddings.
    ///
    /// # Errors
    /// A bundle with a file that is missing, altered, or does not fit; a recording that is no example.
    pub fn prepare(options: DaemonOptions) -> Result<Self> {
        let DaemonOptions { path, settings, set, store, bundle, cache, embed_process } = options;
        let model = Model::load(&bundle)?;
        let manifest = bundle.manifest();
        let info = Info {
            version: env!("CARGO_PKG_VERSION").into(),
            bundle: manifest.name.clone(),
            bundle_version: manifest.version.clone(),
            pipeline_id: bundle.pipeline_id(),
        };
        let settings = ActiveSettings::new(path, settings, set, store);
        let preparer = PromptPreparer::new(bundle, model, cache, embed_process);
        let config = settings.listen_config(preparer.prepare_here(settings.prompts())?);
        Ok(Self { settings, preparer, config, info })
    }

    /// Listens until every source is over, or until SIGTERM or SIGINT; SIGHUP reads the configuration again.
    ///
    /// # Errors
    /// A source that cannot be opened; or, when all is over, why a new process is needed, or the first source that could not be
    /// read to its end.
    pub fn run(self) -> Result<(), DaemonError> {
        let Self { settings, preparer, config, info } = self;
        let file = settings.file();
        let opened = file.sources.iter().map(OpenedSource::open).collect::<Result<Vec<_>>>();
        let opened = opened.map_err(DaemonError::Source)?;
        let delivery = file.broker.as_ref().map(|broker| {
            let sources = file.sources.iter().map(|source| source.id.clone());
            let prompts = settings.prompts().iter().map(|prompt| prompt.id.as_str().to_owned());
            let identity = Identity::open(file.state.as_deref(), broker, &file.node, sources, prompts);
            (identity, Outbox::open(&file.outbox))
        });
        // Until here a signal ends the process at once, whatever file or disk it waits for.
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be received");
        let signals = signals.map_err(DaemonError::Fault)?;
        let supervisor = Supervisor::start(settings, preparer, config, info, delivery, opened);
        let mut supervisor = supervisor.map_err(DaemonError::Fault)?;
        supervisor.run(signals);
        supervisor.stop()
    }
}

/// Why a daemon ended that nobody stopped.
#[derive(Debug)]
pub enum DaemonError {
    /// A source cannot be opened, or could not be read to its end.
    Source(anyhow::Error),
    /// A thread ended unasked, or what every run needs is not to be had: only another process helps.
    Fault(anyhow::Error),
}
