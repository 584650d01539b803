//! The sources that are listened to, each on a thread of its own, and how they come and go.
//!
//! Nothing here waits but [`SourceSet::stop`]: a source that is to end is looked at now and then until it has, and what
//! takes its place begins then. Two sources of one id at a time would contradict each other at the broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use clapd_core::embed::Model;

use super::POLL_INTERVAL;
use super::event_reporter::{self, EventReporter};
use super::quiet_monitor::SharedQuiet;
use super::source_control::{ListenConfig, SourceControl};
use super::source_opening::{OpenedSource, PresentSource};
use super::source_processor::SourceProcessor;
use super::source_status::SourceStatus;
use super::source_taps::{Observer, SourceTaps};
use super::source_thread::{HeldThread, thread_name};
use crate::capture::{SourceSpec, SourceState};
use crate::health::SourceHealth;
use crate::http::SourceView;
use crate::mqtt::Publisher;
use crate::threads::{ThreadPanic, joined};

/// For sources to score what they have and end their events. That is less than half of the time that there is to stop in.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A source that is listened to, was until it was over, or will be.
struct RunningSource {
    spec: SourceSpec,
    status: Arc<SourceStatus>,
    control: Arc<SourceControl>,
    thread: ThreadStage,
}

/// How far a source's thread is.
enum ThreadStage {
    /// It waits for another source to end.
    Held(HeldThread),
    /// Its result is why the source could not be read to its end.
    Runs(JoinHandle<Result<()>>),
    Ended,
}

/// A source that was told to end.
struct EndingSource {
    source: RunningSource,
    deadline: Instant,
    /// Nothing of it stays at the broker.
    is_removed: bool,
    /// It did not end in time, and nobody waits for it any more.
    is_late: bool,
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
    observers: Vec<Arc<dyn Observer>>,
    quiet: SharedQuiet,
    sources: Vec<RunningSource>,
    ending: Vec<EndingSource>,
    /// Whether sources that come are paused, as all were asked to be.
    paused: bool,
    /// The first error of a source that could not be read to its end.
    outcome: Result<()>,
    /// The first panic of a source's thread.
    panic: Option<ThreadPanic>,
    /// A source ended in a way that only a new process mends.
    broken: bool,
}

impl RunningSource {
    /// Whether it is listened to, or will be.
    fn is_active(&self) -> bool {
        !matches!(self.thread, ThreadStage::Ended)
    }

    /// Tells the thread to end; one that has not begun has nothing to end and never will begin.
    fn stop(&mut self) {
        self.control.stop();
        if matches!(self.thread, ThreadStage::Held(_))
            && let ThreadStage::Held(held) = std::mem::replace(&mut self.thread, ThreadStage::Ended)
        {
            held.discard();
        }
    }

    /// The result of the thread, once it has ended; once. It is a [`ThreadPanic`] where the thread panicked.
    fn take_ended(&mut self) -> Option<Result<()>> {
        if !matches!(&self.thread, ThreadStage::Runs(thread) if thread.is_finished()) {
            return None;
        }
        let ThreadStage::Runs(thread) = std::mem::replace(&mut self.thread, ThreadStage::Ended) else { return None };
        Some(joined(&thread_name(&self.spec.id), thread.join()).map_err(Error::new).and_then(|read| read))
    }

    /// A source's own, but that somebody wanted it paused counts for more than what its device is doing.
    fn health(&self) -> SourceHealth {
        let own = self.status.health();
        if self.control.is_paused() && self.is_active() { SourceHealth { state: "paused", ..own } } else { own }
    }

    /// Why no sound comes of it; none where it does, or a file or a pipe is read.
    fn trouble(&self) -> Option<String> {
        let state = self.status.capture.state();
        match &self.thread {
            ThreadStage::Ended => Some("it is over".into()),
            _ if !self.status.steady || state.is_flowing() => None,
            _ => {
                let reason = self.status.capture.failure().map_or_else(String::new, |it| format!(": {}", it.reason));
                Some(format!("{}{reason}; it is waited for", state.name()))
            }
        }
    }
}

impl EndingSource {
    /// Whether what takes its place has to wait: for its thread, and for its streams, which hold the device.
    fn is_in_the_way(&self) -> bool {
        !self.is_late && (self.source.is_active() || self.source.status.capture.has_streams())
    }
}

impl SourceSet {
    /// No source yet.
    pub(super) fn new(
        model: Model,
        config: ListenConfig,
        publisher: Option<Publisher>,
        observers: Vec<Arc<dyn Observer>>,
        quiet: SharedQuiet,
    ) -> Self {
        Self {
            model,
            config: config.into(),
            publisher,
            observers,
            quiet,
            sources: Vec::new(),
            ending: Vec::new(),
            paused: false,
            outcome: Ok(()),
            panic: None,
            broken: false,
        }
    }

    /// Begins with the first sources. Returns what the ids of their events begin with: it tells this run's from any
    /// other's.
    pub(super) fn start(&mut self, opened: Vec<OpenedSource>) -> String {
        let run = new_run();
        for OpenedSource { spec, status, thread } in opened {
            let control = Arc::new(SourceControl::new(Arc::clone(&self.config), false));
            let thread = ThreadStage::Runs(thread.begin(self.processor(&spec, &status, &control, &run)));
            self.sources.push(RunningSource { spec, status, control, thread });
        }
        run
    }

    /// What scores this source; ids of its events begin with `run`, which no other source of this id has had.
    fn processor(
        &self,
        spec: &SourceSpec,
        status: &Arc<SourceStatus>,
        control: &Arc<SourceControl>,
        run: &str,
    ) -> SourceProcessor {
        let sink = match &self.publisher {
            Some(publisher) => event_reporter::publisher_sink(publisher.clone(), spec.id.clone()),
            None => Box::new(drop),
        };
        let taps = SourceTaps::new(self.observers.iter().map(|observer| observer.observe(spec)));
        let prompts = Arc::clone(&control.config().prompts);
        let (counters, quiet) = (Arc::clone(&status.scoring), self.quiet.clone());
        let reporter = EventReporter::new(&spec.id, run, prompts, sink, taps, counters, quiet);
        SourceProcessor::new(Arc::clone(status), spec, self.model.clone(), Arc::clone(control), reporter)
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

    /// The sources as the page shows them.
    pub(super) fn views(&self) -> Vec<SourceView> {
        let view = |source: &RunningSource| SourceView {
            id: source.spec.id.clone(),
            kind: source.spec.kind.name(),
            paused: source.control.is_paused(),
        };
        self.sources.iter().map(view).collect()
    }

    pub(super) fn paused_ids(&self) -> Vec<&str> {
        let paused = self.sources.iter().filter(|source| source.control.is_paused());
        paused.map(|source| source.spec.id.as_str()).collect()
    }

    /// The sources, for whoever opens others.
    pub(super) fn present(&self) -> Vec<PresentSource> {
        let present = |source: &RunningSource| PresentSource {
            spec: source.spec.clone(),
            status: Arc::clone(&source.status),
            runs: source.is_active(),
        };
        self.sources.iter().map(present).collect()
    }

    /// Pauses or resumes one source, or all and those to come.
    ///
    /// # Errors
    /// There is no source with this id.
    pub(super) fn set_paused(&mut self, id: Option<&str>, paused: bool) -> Result<(), String> {
        require_known("source", id, &self.ids())?;
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

    /// The sources that the watchdog looks at: those that are listened to.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Arc<SourceStatus>> {
        self.sources.iter().filter(|source| matches!(source.thread, ThreadStage::Runs(_))).map(|source| &source.status)
    }

    /// Sees to the threads that have ended, and begins what has waited for them; false when no source is left.
    pub(super) fn advance(&mut self) -> bool {
        for source in &mut self.sources {
            let Some(ended) = source.take_ended() else { continue };
            let id = &source.spec.id;
            // A file may fail and the microphones go on. A device fails only when nothing but a new process helps.
            match ended {
                Ok(()) => log::info!("{id}: over"),
                Err(error) => {
                    let error = error.context(format!("source {id}"));
                    log::error!("{error:#}");
                    self.broken |= source.status.steady;
                    self.panic = self.panic.take().or_else(|| error.downcast_ref().cloned());
                    if self.outcome.is_ok() {
                        self.outcome = Err(error);
                    }
                }
            }
        }
        self.advance_ending();
        self.begin_held();
        self.sources.iter().any(RunningSource::is_active)
    }

    fn advance_ending(&mut self) {
        let mut ending = std::mem::take(&mut self.ending);
        for EndingSource { source, deadline, is_removed, is_late } in &mut ending {
            let ended = source.take_ended();
            let id = &source.spec.id;
            let is_over = ended.is_some();
            match ended {
                Some(Ok(())) => log::info!("{id}: no longer listened to"),
                Some(Err(error)) => {
                    log::warn!("{id}: no longer listened to: {error:#}");
                    self.panic = self.panic.take().or_else(|| error.downcast_ref().cloned());
                }
                None => {}
            }
            if !*is_late && Instant::now() >= *deadline {
                *is_late = true;
                if source.is_active() {
                    warn_of_late(id);
                }
            }
            if (is_over || *is_late) && std::mem::take(is_removed) {
                self.remove_states(source);
            }
        }
        ending.retain(|ending| ending.source.is_active() || ending.is_in_the_way());
        self.ending = ending;
    }

    /// Has the broker keep nothing of what this source has published.
    fn remove_states(&self, source: &RunningSource) {
        if let Some(publisher) = &self.publisher {
            event_reporter::remove_states(publisher, &source.spec.id, source.control.config().prompts.prompts());
        }
    }

    /// Begins the sources in whose way no other is any more.
    fn begin_held(&mut self) {
        for index in 0..self.sources.len() {
            let RunningSource { spec, status, control, thread } = &self.sources[index];
            let waits_for = |ending: &EndingSource| {
                let before = &ending.source.spec;
                let same_device = spec.kind.is_reopened() && before.kind == spec.kind;
                ending.is_in_the_way() && (before.id == spec.id || same_device)
            };
            if !matches!(thread, ThreadStage::Held(_)) || self.ending.iter().any(waits_for) {
                continue;
            }
            let run = new_run();
            log::info!("{}: ids of events begin with {run}", spec.id);
            let processor = self.processor(spec, status, control, &run);
            let thread = &mut self.sources[index].thread;
            if let ThreadStage::Held(held) = std::mem::replace(thread, ThreadStage::Ended) {
                *thread = ThreadStage::Runs(held.begin(processor));
            }
        }
    }

    /// Why the process is to end, so that another begins: a source ended in a way that nothing else mends.
    pub(super) fn is_broken(&self) -> bool {
        self.broken || self.panic.is_some()
    }

    /// Ends all sources, and with them their events; leaves behind those that take too long.
    pub(super) fn stop(&mut self) {
        self.sources.iter_mut().for_each(RunningSource::stop);
        let deadline = Instant::now() + STOP_TIMEOUT;
        let runs = |set: &Self| set.ending.iter().any(|ending| ending.source.is_active() && !ending.is_late);
        while (self.advance() || runs(self)) && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL / 10);
        }
        self.sources.iter().filter(|source| source.is_active()).for_each(|source| warn_of_late(&source.spec.id));
    }

    /// How the sources have ended.
    ///
    /// # Errors
    /// The first error of a source that could not be read to its end.
    pub(super) fn into_outcome(self) -> (Result<()>, Option<ThreadPanic>) {
        (self.outcome, self.panic)
    }

    /// Listens to these sources from now on, of which those that are not there yet are the `opened`. What stays the same is
    /// not touched; what is removed ends, and what takes its place begins then.
    pub(super) fn replace(&mut self, specs: &[SourceSpec], opened: Vec<OpenedSource>) -> SourceChanges {
        let mut changes = SourceChanges::default();
        let (staying, ending): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sources).into_iter().partition(|source| specs.contains(&source.spec));
        self.sources = staying;
        for OpenedSource { spec, status, thread } in opened {
            let earlier = ending.iter().find(|source| source.spec.id == spec.id);
            let ids = if earlier.is_some() { &mut changes.changed } else { &mut changes.added };
            ids.push(spec.id.clone());
            let paused = earlier.map_or(self.paused, |source| source.control.is_paused());
            let control = Arc::new(SourceControl::new(Arc::clone(&self.config), paused));
            self.sources.push(RunningSource { spec, status, control, thread: ThreadStage::Held(thread) });
        }
        self.sources.sort_by_key(|source| specs.iter().position(|spec| spec.id == source.spec.id));
        let deadline = Instant::now() + STOP_TIMEOUT;
        for mut source in ending {
            let is_removed = !specs.iter().any(|spec| spec.id == source.spec.id);
            if is_removed {
                changes.removed.push(source.spec.id.clone());
            }
            source.stop();
            if !source.is_active() {
                // It was over before: there is nothing to wait for.
                log::info!("{}: no longer listened to", source.spec.id);
                if is_removed {
                    self.remove_states(&source);
                }
                continue;
            }
            self.ending.push(EndingSource { source, deadline, is_removed, is_late: false });
        }
        self.begin_held();
        changes
    }

    /// Whether a change of the sources is over, and of each it is known whether sound comes.
    pub(super) fn is_settled(&self) -> bool {
        let is_open = |source: &RunningSource| match source.thread {
            ThreadStage::Held(_) => true,
            ThreadStage::Runs(_) => source.status.steady && source.status.capture.state() == SourceState::Starting,
            ThreadStage::Ended => false,
        };
        !self.ending.iter().any(EndingSource::is_in_the_way) && !self.sources.iter().any(is_open)
    }

    /// Of which sources sound comes, and of the others why not, by id.
    pub(super) fn liveness(&self) -> (Vec<&str>, BTreeMap<&str, String>) {
        let (mut live, mut others) = (Vec::new(), BTreeMap::new());
        for source in &self.sources {
            let id = source.spec.id.as_str();
            match source.trouble() {
                None => live.push(id),
                Some(trouble) => drop(others.insert(id, trouble)),
            }
        }
        (live, others)
    }
}

fn warn_of_late(id: &str) {
    log::warn!("{id}: does not end within {} s and is left behind", STOP_TIMEOUT.as_secs());
}

/// An error where `key` of a request names what is none of the `known`.
pub(super) fn require_known(key: &str, id: Option<&str>, known: &[&str]) -> Result<(), String> {
    match id.filter(|id| !known.contains(id)) {
        Some(id) => Err(format!("`{key}` is {id:?}, and this node has {}; leave it out for all", known.join(", "))),
        None => Ok(()),
    }
}

fn new_run() -> String {
    format!("{:016x}", fastrand::u64(..))
}
