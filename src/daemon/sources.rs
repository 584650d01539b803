//! The sources that are listened to, and how they come and go.
//!
//! In: [`SourceSpec`]s. Out: a listener's thread each, with its orders.
//! Never: touches a source that stays as it was; takes one away before the files to come were opened, which may fail.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use super::ear::Ear;
use super::house::House;
use super::listener::{Listener, Seen};
use super::orders::Orders;
use super::teller::{self, Teller};
use super::{LISTENERS_WITHIN, LOOK};
use crate::capture::{Source, SourceKind, SourceSpec};

/// A listener's thread; its result is why the source could not be read to its end.
type Thread = JoinHandle<Result<()>>;

/// A source that is listened to, or was until it was over.
pub(super) struct Listening {
    pub(super) spec: SourceSpec,
    pub(super) seen: Arc<Seen>,
    pub(super) orders: Arc<Orders>,
    pub(super) thread: Option<Thread>,
}

/// A source that nobody listens to yet.
pub(super) struct Opened {
    spec: SourceSpec,
    source: Source,
    seen: Arc<Seen>,
}

/// What became of the sources, by id.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

impl Opened {
    pub(super) fn open(spec: &SourceSpec) -> Result<Self> {
        let seen = Arc::new(Seen::new(&spec.id, &spec.kind));
        let source = Source::open(spec, Arc::clone(&seen.capture)).with_context(|| format!("source {}", spec.id))?;
        Ok(Self { spec: spec.clone(), source, seen })
    }
}

impl House {
    /// Listens to a source; ids of its events begin with `run`, which no other listener has had.
    pub(super) fn listen(&mut self, opened: Opened, paused: bool, run: &str) -> Result<()> {
        let Opened { spec, source, seen } = opened;
        let audience = match &self.publisher {
            Some(publisher) => teller::audience(publisher.clone(), spec.id.clone()),
            None => Box::new(drop),
        };
        let audience = match &self.log {
            Some(log) => log.before(&spec.id, audience),
            None => audience,
        };
        let prompts = Arc::clone(&self.task.prompts);
        let teller = Teller::new(&spec.id, run, prompts, audience, Arc::clone(&seen.scoring));
        let orders = Arc::new(Orders::new(Arc::clone(&self.task), paused));
        let (model, task) = (self.workshop.model.clone(), Arc::clone(&self.task));
        let ear = Ear::new(Arc::clone(&seen), &spec.kind, model, task, teller);
        let thread = Listener { source, ear, orders: Arc::clone(&orders) }
            .spawn()
            .context("a thread cannot be started; see the limits of the service (TasksMax)")?;
        self.sources.push(Listening { spec, seen, orders, thread: Some(thread) });
        Ok(())
    }

    /// Listens to these sources from now on. What stays the same is not touched.
    ///
    /// # Errors
    /// A source that cannot be opened; then everything is as before.
    pub(super) fn change_sources(&mut self, wanted: &[SourceSpec]) -> Result<Moved> {
        let same = |spec: &SourceSpec| self.sources.iter().any(|source| source.spec == *spec);
        let coming: Vec<&SourceSpec> = wanted.iter().filter(|spec| !same(spec)).collect();
        let before = |spec: &SourceSpec| self.sources.iter().find(|source| source.spec.id == spec.id);
        // A device that is in use elsewhere, by the source that it replaces, is no error: it is waited for. It is opened last.
        let (devices, readers): (Vec<&SourceSpec>, Vec<&SourceSpec>) =
            coming.iter().partition(|spec| matches!(spec.kind, SourceKind::Device { .. }));
        ensure!(
            !readers.iter().any(|spec| spec.kind == SourceKind::Stdin),
            "standard input cannot be opened again while clapd runs; restart it"
        );
        let mut opened = readers.into_iter().map(Opened::open).collect::<Result<Vec<_>>>()?;

        let mut moved = Moved::default();
        let mut paused = Vec::new();
        for spec in &coming {
            let earlier = before(spec);
            let ids = if earlier.is_some() { &mut moved.changed } else { &mut moved.added };
            ids.push(spec.id.clone());
            paused.push((spec.id.clone(), earlier.map_or(self.paused, |source| source.orders.is_paused())));
        }
        let gone = |source: &Listening| !wanted.iter().any(|spec| spec.id == source.spec.id);
        moved.removed =
            self.sources.iter().filter(|source| gone(source)).map(|source| source.spec.id.clone()).collect();
        let (stay, leave) =
            std::mem::take(&mut self.sources).into_iter().partition(|source| wanted.contains(&source.spec));
        self.sources = stay;
        self.end_sources(leave, &moved.removed);
        for spec in devices {
            opened.push(Opened::open(spec)?);
        }
        for opened in opened {
            let paused = paused.iter().any(|(id, paused)| *id == opened.spec.id && *paused);
            let run = super::new_run();
            log::info!("{}: ids of events begin with {run}", opened.spec.id);
            self.listen(opened, paused, &run)?;
        }
        let place = |source: &Listening| wanted.iter().position(|spec| spec.id == source.spec.id);
        self.sources.sort_by_key(place);
        self.watchdog.forget();
        Ok(moved)
    }

    /// Ends these listeners, and with them their events; of those `removed` nothing stays at the broker.
    fn end_sources(&mut self, mut leave: Vec<Listening>, removed: &[String]) {
        leave.iter().for_each(|source| source.orders.stop());
        let deadline = Instant::now() + LISTENERS_WITHIN;
        let runs = |source: &Listening| source.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        while leave.iter().any(runs) && Instant::now() < deadline {
            thread::sleep(LOOK / 10);
        }
        for source in &mut leave {
            let id = &source.spec.id;
            if runs(source) {
                log::warn!("{id}: does not end within {} s and is left behind", LISTENERS_WITHIN.as_secs());
            } else if let Some(thread) = source.thread.take() {
                let ended =
                    thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked, which is a fault in clapd")));
                match ended {
                    Ok(()) => log::info!("{id}: no longer listened to"),
                    Err(error) => log::warn!("{id}: no longer listened to: {error:#}"),
                }
            }
            if let Some(publisher) = self.publisher.as_ref().filter(|_| removed.contains(id)) {
                teller::forget(publisher, id, self.prompts());
            }
        }
    }
}
