//! The daemon: every room wired to the next, and watched.
//!
//! In: [`Settings`] and an opened bundle. Out: a process that listens until every source is over or somebody stops it.
//! A thread a source reads, scores and tells (`listener`, `teller`); this one minds signals, health and systemd's watchdog.
//! Never: ends with an event open that its publisher could still end; feeds the watchdog by a timer alone.

mod listener;
mod notify;
mod progress;
mod teller;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::capture::{Source, SourceSpec};
use crate::clap::{Bundle, EmbeddingCache, TextEmbedding};
use crate::config::Settings;
use crate::detect::Prompt;
use crate::health::{DeliveryCounters, Health, StateLog};
use crate::mqtt::{Info, Publisher};
use crate::outbox::Outbox;
use crate::pipeline::{Model, PromptSet};
use listener::{Ear, Listener, Recipe, Seen};
use notify::Notifier;
use teller::Teller;

/// How often the main thread looks around. A signal is answered within it, and nobody presses Ctrl-C to the tenth of a second.
const LOOK: Duration = Duration::from_millis(100);
/// How often health is told when nothing changes.
const HEALTH_EVERY: Duration = Duration::from_secs(60);
/// From the wish to stop to the end: systemd's stop timeout in our unit is twice as long.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Of that, for listeners to score what they have and end their events.
const LISTENERS_WITHIN: Duration = Duration::from_secs(2);

/// A daemon that has its model and its prompts, and listens to nothing yet.
pub struct Daemon {
    settings: Settings,
    recipe: Recipe,
    info: Info,
}

impl Daemon {
    /// Loads what the settings ask for from the bundle: the audio tower, and the prompts' embeddings.
    ///
    /// # Errors
    /// A bundle with a file that is missing, altered, or does not fit.
    pub fn prepare(settings: Settings, bundle: &Bundle, cache: &EmbeddingCache) -> Result<Self> {
        let model = Model::load(bundle)?;
        let embeddings = embed_apart(&settings.texts(), bundle, cache)?;
        let prompts = prompt_set(&settings.prompts, &embeddings, model.encoder.embedding_len())?;
        let manifest = bundle.manifest();
        let info = Info {
            version: env!("CARGO_PKG_VERSION").into(),
            bundle: manifest.name.clone(),
            bundle_version: manifest.version.clone(),
            pipeline_id: bundle.pipeline_id(),
        };
        let recipe = Recipe { model, prompts, hop: settings.hop, gate_db: settings.gate_db };
        Ok(Self { settings, recipe, info })
    }

    /// Listens until every source is over, or until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// A source that cannot be opened; or, when all is over, the first that could not be read to its end.
    pub fn run(self) -> Result<()> {
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals cannot be received")?;
        let Self { settings, recipe, info } = self;
        let opened = settings.sources.iter().map(open).collect::<Result<Vec<_>>>()?;
        let delivery = Arc::<DeliveryCounters>::default();
        let start = |broker| {
            let outbox = Outbox::open(&settings.outbox);
            Publisher::start(broker, &settings.node, &info, outbox, Arc::clone(&delivery))
        };
        let publisher = settings.broker.as_ref().map(start).transpose()?;
        let mut running = Running {
            began: Instant::now(),
            stop: Arc::default(),
            listeners: Vec::new(),
            publisher,
            delivery,
            notifier: Notifier::from_environment(),
            told: None,
            states: StateLog::default(),
            outcome: Ok(()),
            broken: false,
        };
        // Tells the events of this run from those of any other.
        let run = format!("{:016x}", fastrand::u64(..));
        let prompts: Arc<[Prompt]> = settings.prompts.into();
        for (spec, (source, seen)) in settings.sources.iter().zip(opened) {
            let counters = Arc::clone(&seen.scoring);
            let house = match &running.publisher {
                Some(publisher) => teller::house(publisher.clone(), &spec.id, &prompts),
                None => Box::new(drop),
            };
            let teller = Teller::new(&spec.id, &run, Arc::clone(&prompts), house, counters);
            let ear = Ear::new(Arc::clone(&seen), &spec.kind, recipe.clone(), teller);
            running.listen(seen, Listener { source, ear, stop: Arc::clone(&running.stop) })?;
        }
        log::info!(
            "{}: {} prompt(s) at {} source(s), model {} {}; ids of events begin with {run}",
            settings.node,
            prompts.len(),
            settings.sources.len(),
            info.bundle,
            info.bundle_version
        );
        running.mind(signals);
        running.leave()
    }
}

/// Deals the embeddings of [`Settings::texts`] out to the prompts.
fn prompt_set(prompts: &[Prompt], embeddings: &[TextEmbedding], width: usize) -> Result<PromptSet> {
    let mut rest = embeddings;
    let sets: Vec<(&TextEmbedding, _, &[TextEmbedding])> = prompts
        .iter()
        .filter_map(|prompt| {
            let (own, later) = rest.split_at_checked(1 + prompt.contrast.len())?;
            rest = later;
            own.split_first().map(|(text, contrast)| (text, prompt.rule, contrast))
        })
        .collect();
    PromptSet::new(width, sets)
}

/// On a thread of its own, if the cache does not hold them: what the text tower allocates lies in that thread's heap, from where the allocator can give it
/// back. Among the daemon's own data it would stay resident for good (measured: 136 MB instead of 61).
fn embed_apart(texts: &[&str], bundle: &Bundle, cache: &EmbeddingCache) -> Result<Vec<TextEmbedding>> {
    let embedded = thread::scope(|scope| scope.spawn(|| bundle.embed_texts(texts, cache)).join());
    let embedded = embedded.map_err(|_| anyhow!("the text tower panicked, which is a fault in clapd"))??;
    // Copied into this thread's heap: one vector left behind would hold the other.
    Ok(embedded.iter().map(TextEmbedding::clone).collect())
}

fn open(spec: &SourceSpec) -> Result<(Source, Arc<Seen>)> {
    let seen = Arc::new(Seen::new(&spec.id, &spec.kind));
    let source = Source::open(spec, Arc::clone(&seen.capture)).with_context(|| format!("source {}", spec.id))?;
    Ok((source, seen))
}

/// A listener's thread; its result is why the source could not be read to its end.
type Thread = JoinHandle<Result<()>>;

/// The daemon at work.
struct Running {
    began: Instant,
    stop: Arc<AtomicBool>,
    listeners: Vec<(Arc<Seen>, Option<Thread>)>,
    publisher: Option<Publisher>,
    delivery: Arc<DeliveryCounters>,
    notifier: Notifier,
    /// The health that was told last, and when.
    told: Option<(Health, Instant)>,
    /// What the log was told of the sources' states.
    states: StateLog,
    outcome: Result<()>,
    /// A listener ended in a way that only a new process mends.
    broken: bool,
}

impl Running {
    fn listen(&mut self, seen: Arc<Seen>, listener: Listener) -> Result<()> {
        let thread =
            listener.spawn().context("a thread cannot be started; see the limits of the service (TasksMax)")?;
        self.listeners.push((seen, Some(thread)));
        Ok(())
    }

    /// Minds the house until it is time to leave.
    fn mind(&mut self, mut signals: Signals) {
        let mut watchdog = Watchdog::new();
        self.tell_health();
        self.notifier.send("READY=1");
        while self.is_listening() && !self.broken && !is_told_to_stop(&mut signals) {
            self.tell_health();
            if watchdog
                .is_satisfied(self.listeners.iter().filter(|(_, thread)| thread.is_some()).map(|(seen, _)| &**seen))
            {
                self.notifier.send("WATCHDOG=1");
            }
            thread::sleep(LOOK);
        }
    }

    /// Collects listeners that have ended; false when none is left.
    fn is_listening(&mut self) -> bool {
        for (seen, thread) in &mut self.listeners {
            let Some(ended) = thread.take_if(|thread| thread.is_finished()) else { continue };
            let ended = ended.join();
            // A file may fail and the microphones go on. A device fails only when nothing but a new process helps, and what
            // a panic has left behind nobody knows.
            self.broken |= ended.is_err() || (seen.steady && matches!(ended, Ok(Err(_))));
            let outcome = ended.unwrap_or_else(|_| Err(anyhow!("its thread panicked, which is a fault in clapd")));
            match outcome.with_context(|| format!("source {}", seen.id)) {
                Ok(()) => log::info!("{}: over", seen.id),
                Err(error) => {
                    log::error!("{error:#}");
                    if self.outcome.is_ok() {
                        self.outcome = Err(error);
                    }
                }
            }
        }
        self.listeners.iter().any(|(_, thread)| thread.is_some())
    }

    /// Tells health when a state changed, and once in a while.
    fn tell_health(&mut self) {
        let outbox = self.publisher.as_ref().map(Publisher::outbox);
        let health = Health {
            uptime: self.began.elapsed(),
            outbox: outbox.map_or("memory", Outbox::storage),
            events_waiting: outbox.map_or(0, |outbox| outbox.waiting() as u64),
            events_dropped: outbox.map_or(0, Outbox::dropped),
            scores_dropped: self.delivery.scores_dropped.get(),
            connections: self.delivery.connections.get(),
            reconnects: self.delivery.reconnects.get(),
            refused: self.delivery.refused.get(),
            sources: self.listeners.iter().map(|(seen, _)| seen.health()).collect(),
        };
        for change in self.states.changes(&health) {
            log::log!(if change.is_trouble { log::Level::Warn } else { log::Level::Info }, "{}", change.text);
        }
        let news = self.told.as_ref().is_none_or(|(before, _)| health.is_news(before));
        let due = self.told.as_ref().is_none_or(|(_, at)| at.elapsed() >= HEALTH_EVERY);
        if !news && !due {
            return;
        }
        if news {
            let states: Vec<_> =
                health.sources.iter().map(|source| format!("{} {}", source.id, source.state)).collect();
            self.notifier.send(&format!("STATUS={}", states.join(", ")));
        }
        if let Some(publisher) = &self.publisher {
            publisher.health(&health);
        }
        self.told = Some((health, Instant::now()));
    }

    /// Ends what is open, tells what is left, and says goodbye.
    fn leave(mut self) -> Result<()> {
        self.notifier.send("STOPPING=1");
        let deadline = Instant::now() + LEAVE_WITHIN;
        self.stop.store(true, Relaxed);
        let listeners_deadline = Instant::now() + LISTENERS_WITHIN;
        while self.is_listening() && Instant::now() < listeners_deadline {
            thread::sleep(LOOK / 10);
        }
        for (seen, _) in self.listeners.iter().filter(|(_, thread)| thread.is_some()) {
            log::warn!("{}: does not end within {} s and is left behind", seen.id, LISTENERS_WITHIN.as_secs());
        }
        // The last counts of all, whether or not a state has changed.
        self.told = None;
        self.tell_health();
        if let Some(publisher) = self.publisher.take() {
            publisher.stop(deadline.saturating_duration_since(Instant::now()));
        }
        log::info!("stopped");
        self.outcome
    }
}

fn is_told_to_stop(signals: &mut Signals) -> bool {
    signals.pending().any(|signal| match signal {
        SIGHUP => {
            log::warn!("SIGHUP: this version cannot reload its configuration; restart it");
            false
        }
        _ => true,
    })
}

/// Compares progress at half of systemd's interval.
struct Watchdog {
    every: Option<Duration>,
    looked: Instant,
    counts: Vec<u64>,
}

impl Watchdog {
    fn new() -> Self {
        Self { every: notify::watchdog().map(|interval| interval / 2), looked: Instant::now(), counts: Vec::new() }
    }

    /// Whether it is time, and every source got on since the last time.
    fn is_satisfied<'a>(&mut self, sources: impl Iterator<Item = &'a Seen>) -> bool {
        if self.every.is_none_or(|every| self.looked.elapsed() < every) {
            return false;
        }
        self.looked = Instant::now();
        let counts: Vec<u64> = sources.map(|seen| seen.progress.count()).collect();
        // Where a source has ended since, there is nothing to compare with this once.
        let stuck =
            counts.len() == self.counts.len() && counts.iter().zip(&self.counts).any(|(now, before)| now == before);
        if stuck {
            log::error!("a source gets no further: systemd is not told that all is well");
        }
        self.counts = counts;
        !stuck
    }
}
