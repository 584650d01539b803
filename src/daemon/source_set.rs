//! The sources that are listened to, each on a thread of its own, and how they come and go.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clapd_core::embed::Model;

use super::POLL_INTERVAL;
use super::event_reporter::{self, EventReporter};
use super::score_tap::SharedScoreLog;
use super::source_control::{ListenConfig, SourceControl};
use super::source_processor::SourceProcessor;
use super::source_status::SourceStatus;
use super::source_thread::SourceThread;
use super::watchdog::Watchdog;
use crate::capture::{Source, SourceKind, SourceSpec};
use crate::health::SourceHealth;
use crate::mqtt::Publisher;

/// For sources to score what they have and end their events. That is less than half of the time that there is to stop in.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A source that is listened to, or was until it was over.
struct RunningSource {
    spec: SourceSpec,
    status: Arc<SourceStatus>,
    control: Arc<SourceControl>,
    /// Its result is why the source could not be read to its end; none once that was collected.
    thread: Option<JoinHandle<Result<()>>>,
}

/// A source that has no thread yet.
pub(super) struct OpenedSource {
    spec: SourceSpec,
    source: Source,
    status: Arc<SourceStatus>,
}

/// How the sources changed, by id.
#[derive(Debug, Default)]
pub(super) struct SourceChanges {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// All sources.
pub(super) struct SourceSet {
    model: Model,
    config: Arc<ListenConfig>,
    publisher: Option<Publisher>,
    /// Where scores are written, too.
    score_log: Option<SharedScoreLog>,
    sources: Vec<RunningSource>,
    /// Whether sources that come are paused, as all were asked to be.
    paused: bool,
    watchdog: Watchdog,
    /// The first error of a source that could not be read to its end.
    outcome: Result<()>,
    /// A source ended in a way that only a new process mends.
    broken: bool,
}

impl OpenedSource {
    /// Opens a source.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(super) fn open(spec: &SourceSpec) -> Result<Self> {
        let status = Arc::new(SourceStatus::new(&spec.id, &spec.kind));
        let source = Source::open(spec, Arc::clone(&status.capture)).with_context(|| format!("source {}", spec.id))?;
        Ok(Self { spec: spec.clone(), source, status })
    }
}

impl RunningSource {
    /// Whether the thread runs.
    fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// A source's own, but that somebody wanted it paused counts for more than what its device is doing.
    fn health(&self) -> SourceHealth {
        let own = self.status.health();
        if self.control.is_paused() && self.thread.is_some() { SourceHealth { state: "paused", ..own } } else { own }
    }
}

impl SourceSet {
    /// No source yet.
    pub(super) fn new(
        model: Model,
        config: ListenConfig,
        publisher: Option<Publisher>,
        score_log: Option<SharedScoreLog>,
    ) -> Self {
        Self {
            model,
            config: config.into(),
            publisher,
            score_log,
            sources: Vec::new(),
            paused: false,
            watchdog: Watchdog::from_environment(),
            outcome: Ok(()),
            broken: false,
        }
    }

    /// Starts the first sources. Returns what the ids of their events begin with: it tells this run's from any other's.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub(super) fn start(&mut self, opened: Vec<OpenedSource>) -> Result<String> {
        let run = new_run();
        opened.into_iter().try_for_each(|opened| self.start_one(opened, false, &run))?;
        Ok(run)
    }

    /// Starts a source's thread; ids of its events begin with `run`, which no other source of this id has had.
    fn start_one(&mut self, opened: OpenedSource, paused: bool, run: &str) -> Result<()> {
        let OpenedSource { spec, source, status } = opened;
        let sink = match &self.publisher {
            Some(publisher) => event_reporter::publisher_sink(publisher.clone(), spec.id.clone()),
            None => Box::new(drop),
        };
        let sink = match &self.score_log {
            Some(log) => log.tap(&spec.id, sink),
            None => sink,
        };
        let prompts = Arc::clone(&self.config.prompts);
        let reporter = EventReporter::new(&spec.id, run, prompts, sink, Arc::clone(&status.scoring));
        let control = Arc::new(SourceControl::new(Arc::clone(&self.config), paused));
        let (model, config) = (self.model.clone(), Arc::clone(&self.config));
        let processor = SourceProcessor::new(Arc::clone(&status), &spec.kind, model, config, reporter);
        let thread = SourceThread::new(source, processor, Arc::clone(&control))
            .spawn()
            .context("a thread cannot be started; see the limits of the service (TasksMax)")?;
        self.sources.push(RunningSource { spec, status, control, thread: Some(thread) });
        Ok(())
    }

    /// What the sources are listened to for.
    pub(super) fn config(&self) -> &ListenConfig {
        &self.config
    }

    /// Listens by this configuration from now on.
    pub(super) fn set_config(&mut self, config: ListenConfig) {
        self.config = config.into();
        self.sources.iter().for_each(|source| source.control.set_config(Arc::clone(&self.config)));
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn ids(&self) -> Vec<&str> {
        self.sources.iter().map(|source| source.spec.id.as_str()).collect()
    }

    pub(super) fn paused_ids(&self) -> Vec<&str> {
        let paused = self.sources.iter().filter(|source| source.control.is_paused());
        paused.map(|source| source.spec.id.as_str()).collect()
    }

    /// Pauses or resumes one source, or all and those to come.
    ///
    /// # Errors
    /// There is no source with this id.
    pub(super) fn set_paused(&mut self, id: Option<&str>, paused: bool) -> Result<(), String> {
        if let Some(id) = id
            && !self.ids().contains(&id)
        {
            let known = self.ids().join(", ");
            return Err(format!("`source` is {id:?}, and this node has {known}; leave it out for all"));
        }
        for source in self.sources.iter().filter(|source| id.is_none_or(|id| source.spec.id == id)) {
            source.control.set_paused(paused);
        }
        if id.is_none() {
            self.paused = paused;
        }
        Ok(())
    }

    pub(super) fn health(&self) -> Vec<SourceHealth> {
        self.sources.iter().map(RunningSource::health).collect()
    }

    /// Whether systemd is to be told that all is well; see [`Watchdog`].
    pub(super) fn is_watchdog_satisfied(&mut self) -> bool {
        let running = self.sources.iter().filter(|source| source.thread.is_some());
        self.watchdog.is_satisfied(running.map(|source| &*source.status))
    }

    /// Collects the threads that have ended; false when none is left.
    pub(super) fn collect_ended(&mut self) -> bool {
        for RunningSource { status, thread, .. } in &mut self.sources {
            let Some(ended) = thread.take_if(|thread| thread.is_finished()) else { continue };
            let ended = ended.join();
            // A file may fail and the microphones go on. A device fails only when nothing but a new process helps, and what
            // a panic has left behind nobody knows.
            self.broken |= ended.is_err() || (status.steady && matches!(ended, Ok(Err(_))));
            match thread_result(ended).with_context(|| format!("source {}", status.id)) {
                Ok(()) => log::info!("{}: over", status.id),
                Err(error) => {
                    log::error!("{error:#}");
                    if self.outcome.is_ok() {
                        self.outcome = Err(error);
                    }
                }
            }
        }
        self.sources.iter().any(|source| source.thread.is_some())
    }

    /// Whether a source ended in a way that only a new process mends.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Ends all sources, and with them their events; leaves behind those that take too long.
    pub(super) fn stop(&mut self) {
        self.sources.iter().for_each(|source| source.control.stop());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.collect_ended() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL / 10);
        }
        self.sources.iter().filter(|source| source.thread.is_some()).for_each(|source| warn_of_late(&source.spec.id));
    }

    /// The first error of a source that could not be read to its end.
    pub(super) fn into_outcome(self) -> Result<()> {
        self.outcome
    }

    /// Listens to these sources from now on. What stays the same is not touched. What is removed is ended only once the
    /// files to come are open, which may fail.
    ///
    /// # Errors
    /// A source that cannot be opened; then everything is as before.
    pub(super) fn replace(&mut self, specs: &[SourceSpec]) -> Result<SourceChanges> {
        let same = |spec: &SourceSpec| self.sources.iter().any(|source| source.spec == *spec);
        let new: Vec<&SourceSpec> = specs.iter().filter(|spec| !same(spec)).collect();
        let before = |spec: &SourceSpec| self.sources.iter().find(|source| source.spec.id == spec.id);
        // A device that is in use elsewhere, by the source that it replaces, is no error: it is waited for. It is opened last.
        let (devices, readers): (Vec<&SourceSpec>, Vec<&SourceSpec>) =
            new.iter().partition(|spec| matches!(spec.kind, SourceKind::Device { .. }));
        ensure!(
            !readers.iter().any(|spec| matches!(spec.kind, SourceKind::Stdin { .. })),
            "standard input cannot be opened again while clapd runs; restart it"
        );
        let mut opened = readers.into_iter().map(OpenedSource::open).collect::<Result<Vec<_>>>()?;

        let mut changes = SourceChanges::default();
        let mut paused = Vec::new();
        for spec in &new {
            let earlier = before(spec);
            let ids = if earlier.is_some() { &mut changes.changed } else { &mut changes.added };
            ids.push(spec.id.clone());
            paused.push((spec.id.clone(), earlier.map_or(self.paused, |source| source.control.is_paused())));
        }
        let removed = |source: &&RunningSource| !specs.iter().any(|spec| spec.id == source.spec.id);
        changes.removed = self.sources.iter().filter(removed).map(|source| source.spec.id.clone()).collect();
        let (staying, ending) =
            std::mem::take(&mut self.sources).into_iter().partition(|source| specs.contains(&source.spec));
        self.sources = staying;
        self.end(ending, &changes.removed);
        for spec in devices {
            opened.push(OpenedSource::open(spec)?);
        }
        for opened in opened {
            let paused = paused.iter().any(|(id, paused)| *id == opened.spec.id && *paused);
            let run = new_run();
            log::info!("{}: ids of events begin with {run}", opened.spec.id);
            self.start_one(opened, paused, &run)?;
        }
        self.sources.sort_by_key(|source| specs.iter().position(|spec| spec.id == source.spec.id));
        self.watchdog.reset();
        Ok(changes)
    }

    /// Ends these sources, and with them their events; of those `removed` nothing stays at the broker.
    fn end(&self, mut ending: Vec<RunningSource>, removed: &[String]) {
        ending.iter().for_each(|source| source.control.stop());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while ending.iter().any(RunningSource::runs) && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL / 10);
        }
        for source in &mut ending {
            let id = &source.spec.id;
            if source.runs() {
                warn_of_late(id);
            } else if let Some(thread) = source.thread.take() {
                match thread_result(thread.join()) {
                    Ok(()) => log::info!("{id}: no longer listened to"),
                    Err(error) => log::warn!("{id}: no longer listened to: {error:#}"),
                }
            }
            if let Some(publisher) = self.publisher.as_ref().filter(|_| removed.contains(id)) {
                event_reporter::remove_states(publisher, id, self.config.prompts.prompts());
            }
        }
    }
}

fn thread_result(joined: thread::Result<Result<()>>) -> Result<()> {
    joined.unwrap_or_else(|_| Err(anyhow!("its thread panicked, which is a fault in clapd")))
}

fn warn_of_late(id: &str) {
    log::warn!("{id}: does not end within {} s and is left behind", STOP_TIMEOUT.as_secs());
}

fn new_run() -> String {
    format!("{:016x}", fastrand::u64(..))
}
