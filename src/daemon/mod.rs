//! The daemon: every room wired to the next, and watched.
//!
//! In: [`Settings`] and an opened bundle. Out: a process that listens until every source is over or somebody stops it.
//! A thread a source reads (`listener`), scores (`ear`) and tells (`teller`), as its `orders` say. The main thread minds signals,
//! health and systemd's watchdog (`house`), does what others ask (`commands`), and changes what is listened to (`reload`,
//! `sources`); prompts that are set meanwhile are `kept`, and embedded `apart`.
//! Never: ends with an event open that its publisher could still end; feeds the watchdog by a timer alone.

mod apart;
mod commands;
mod ear;
mod house;
mod kept;
mod listener;
mod logged;
mod notify;
mod orders;
mod progress;
mod reload;
mod sources;
mod teller;
mod watchdog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::Prompt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Settings;
use crate::health::{DeliveryCounters, StateLog};
use crate::mqtt::{Info, Publisher};
use crate::outbox::Outbox;
use crate::prompts;
pub use apart::Apart;
use house::House;
pub use kept::Kept;
use logged::SharedLog;
use notify::Notifier;
use orders::Task;
use reload::Workshop;
use sources::Opened;
use watchdog::Watchdog;

/// How often the main thread looks around. A signal is answered within it, and nobody presses Ctrl-C to the tenth of a second.
const LOOK: Duration = Duration::from_millis(100);
/// For listeners to score what they have and end their events. That is less than half of the time that there is to leave in.
const LISTENERS_WITHIN: Duration = Duration::from_secs(2);

/// What a daemon is made of.
pub struct Plan {
    /// The configuration's file, which is read again when somebody asks for it.
    pub path: PathBuf,
    /// What it says.
    pub settings: Settings,
    /// The prompts that were set while an earlier run listened; none: those of the settings.
    pub set: Option<Vec<Prompt>>,
    /// Where such prompts are kept.
    pub kept: Kept,
    /// The model.
    pub bundle: Bundle,
    /// Where embeddings are kept.
    pub cache: EmbeddingCache,
    /// What embeds new texts.
    pub apart: Apart,
}

/// A daemon that has its model and its prompts, and listens to nothing yet.
pub struct Daemon {
    path: PathBuf,
    settings: Settings,
    set: Option<Vec<Prompt>>,
    kept: Kept,
    workshop: Workshop,
    task: Arc<Task>,
    info: Info,
}

impl Daemon {
    /// Loads what the settings ask for from the bundle: the audio tower, and the prompts' embeddings.
    ///
    /// # Errors
    /// A bundle with a file that is missing, altered, or does not fit; a recording that is no example.
    pub fn prepare(plan: Plan) -> Result<Self> {
        let Plan { path, settings, set, kept, bundle, cache, apart } = plan;
        let model = Model::load(&bundle)?;
        let prompts = set.as_deref().unwrap_or(&settings.prompts);
        let task = Task {
            prompts: prompts::prepare(prompts, &bundle, &model, &cache)?.into(),
            hop: settings.hop,
            gate_db: settings.gate_db,
        };
        let manifest = bundle.manifest();
        let info = Info {
            version: env!("CARGO_PKG_VERSION").into(),
            bundle: manifest.name.clone(),
            bundle_version: manifest.version.clone(),
            pipeline_id: bundle.pipeline_id(),
        };
        let workshop = Workshop { bundle, model, cache, apart };
        Ok(Self { path, settings, set, kept, workshop, task: task.into(), info })
    }

    /// Listens until every source is over, or until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// A source that cannot be opened; or, when all is over, the first that could not be read to its end.
    pub fn run(self) -> Result<()> {
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be received")?;
        let opened = self.settings.sources.iter().map(Opened::open).collect::<Result<Vec<_>>>()?;
        let mut house = self.house()?;
        // Tells the events of this run from those of any other.
        let run = new_run();
        house.discover();
        for opened in opened {
            house.listen(opened, false, &run)?;
        }
        log::info!(
            "{}: {} prompt(s) at {} source(s), model {} {}; ids of events begin with {run}",
            house.settings.node,
            house.prompts().len(),
            house.sources.len(),
            house.info.bundle,
            house.info.bundle_version
        );
        house.mind(signals);
        house.leave()
    }

    fn house(self) -> Result<House> {
        let Self { path, settings, set, kept, workshop, task, info } = self;
        let delivery = Arc::<DeliveryCounters>::default();
        let start = |broker| {
            let outbox = Outbox::open(&settings.outbox);
            Publisher::start(broker, &settings.node, &info, outbox, Arc::clone(&delivery))
        };
        let publisher = settings.broker.as_ref().map(start).transpose()?;
        let log = settings.log.clone().map(SharedLog::new);
        Ok(House {
            log,
            began: Instant::now(),
            path,
            settings,
            set,
            kept,
            workshop: workshop.into(),
            info,
            task,
            sources: Vec::new(),
            paused: false,
            change: None,
            reload_again: false,
            publisher,
            delivery,
            notifier: Notifier::from_environment(),
            watchdog: Watchdog::new(),
            told: None,
            states: StateLog::default(),
            outcome: Ok(()),
            broken: false,
        })
    }
}

fn new_run() -> String {
    format!("{:016x}", fastrand::u64(..))
}
