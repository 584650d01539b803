//! How what is listened for changes while the daemon runs.
//!
//! In: a new configuration, or other prompts. Out: listeners with other orders, sources that come and go; or everything as before,
//! and why. New prompts are embedded on a thread, and by a process, of their own; meanwhile all goes on.
//! Never: does half of a change; stops what stays the same.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::{Prompt, PromptTable};
use serde_json::{Value, json};

use super::apart::Apart;
use super::house::House;
use super::orders::Task;
use crate::config::{Faults, Settings};
use crate::mqtt::Reply;
use crate::prompts;

/// Faults in a response; the log has them all.
const MAX_FAULTS: usize = 10;

/// What turns prompts into embeddings.
pub(super) struct Workshop {
    pub(super) bundle: Bundle,
    pub(super) model: Model,
    pub(super) cache: EmbeddingCache,
    pub(super) apart: Apart,
}

/// What is wanted.
pub(super) enum Wanted {
    /// Other prompts; none: those of the configuration.
    Prompts(Option<Vec<Prompt>>),
    /// What the configuration says now.
    Settings(Box<Settings>),
}

/// Something wanted, while its prompts are made ready.
pub(super) struct Change {
    wanted: Wanted,
    reply: Option<Reply>,
    worker: JoinHandle<Result<PromptTable>>,
}

impl Workshop {
    fn prepare(&self, prompts: &[Prompt]) -> Result<PromptTable> {
        let texts: Vec<&str> = prompts.iter().flat_map(Prompt::texts).collect();
        if !self.bundle.has_embedded(&texts, &self.cache) {
            self.apart.embed(&texts)?;
            if !self.bundle.has_embedded(&texts, &self.cache) {
                log::warn!("the cache keeps no embeddings: this process loads the text model, and keeps its memory");
            }
        }
        prompts::prepare(prompts, &self.bundle, &self.model, &self.cache)
    }
}

impl House {
    /// The prompts that are listened for.
    pub(super) fn prompts(&self) -> &[Prompt] {
        self.task.prompts.prompts()
    }

    /// Reads the configuration again; where it is in order, what it says is made ready.
    pub(super) fn reload(&mut self, reply: Option<Reply>) {
        if self.change.is_some() && reply.is_none() {
            self.reload_again = true;
            return;
        }
        self.notifier.send("RELOADING=1");
        log::info!("{}: read again", self.path.display());
        match prompts::load_settings(&self.path) {
            Ok((settings, warnings)) => {
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                self.begin(Wanted::Settings(settings.into()), reply);
            }
            Err(faults) => {
                faults.iter().for_each(|fault| log::error!("{fault}"));
                self.report(reply.as_ref(), &Err(in_short(&faults)));
            }
        }
    }

    /// Has what is wanted made ready.
    pub(super) fn begin(&mut self, wanted: Wanted, reply: Option<Reply>) {
        if self.change.is_some() {
            let busy = "another change is being made ready; send it again after the response to that one";
            self.report(reply.as_ref(), &Err(busy.into()));
            return;
        }
        let prompts = match &wanted {
            Wanted::Prompts(Some(prompts)) => prompts.clone(),
            Wanted::Prompts(None) => self.settings.prompts.clone(),
            Wanted::Settings(settings) => self.set.clone().unwrap_or_else(|| settings.prompts.clone()),
        };
        let workshop = Arc::clone(&self.workshop);
        match thread::Builder::new().name("prepare".into()).spawn(move || workshop.prepare(&prompts)) {
            Ok(worker) => self.change = Some(Change { wanted, reply, worker }),
            Err(error) => self.report(reply.as_ref(), &Err(format!("a thread cannot be started: {error}"))),
        }
    }

    /// Carries out what is ready.
    pub(super) fn finish_change(&mut self) {
        let Some(Change { wanted, reply, worker }) = self.change.take_if(|change| change.worker.is_finished()) else {
            return;
        };
        let ready = worker.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked, which is a fault in clapd")));
        let outcome = ready.and_then(|table| match wanted {
            Wanted::Prompts(prompts) => Ok(self.set_prompts(prompts, table)),
            Wanted::Settings(settings) => self.set_settings(*settings, table),
        });
        self.report(reply.as_ref(), &outcome.map_err(|error| format!("{error:#}")));
        if std::mem::take(&mut self.reload_again) {
            self.reload(None);
        }
    }

    /// Says what came of a change: in the log, to systemd, and to whoever asked.
    fn report(&self, reply: Option<&Reply>, outcome: &Result<Value, String>) {
        match outcome {
            Ok(_) => log::info!("{} prompt(s) at {} source(s)", self.prompts().len(), self.sources.len()),
            Err(error) => {
                log::error!("everything stays as it was: {error}");
                // `systemctl reload` does not wait for us; `systemctl status` shows this until something else is news.
                self.notifier.send(&format!("STATUS=everything stays as it was: {error}"));
            }
        }
        self.notifier.send("READY=1");
        if let (Some(publisher), Some(reply)) = (&self.publisher, reply) {
            publisher.respond(reply, outcome);
        }
    }

    /// Listens for these from now on, and keeps them for the next start.
    fn set_prompts(&mut self, prompts: Option<Vec<Prompt>>, table: PromptTable) -> Value {
        self.set = prompts;
        self.change_task(table);
        let kept = match &self.set {
            Some(prompts) => self.kept.store(prompts),
            None => self.kept.remove(),
        };
        let mut data = self.prompts_data();
        data["kept"] = kept.is_ok().into();
        if let Err(error) = kept {
            log::error!("what is set does not outlive this process: {error:#}");
            data["warning"] = format!("not kept for the next start: {error:#}").into();
        }
        data
    }

    /// Does what the configuration says now, but for what needs a new process.
    fn set_settings(&mut self, settings: Settings, table: PromptTable) -> Result<Value> {
        let restart = needs_restart(&self.settings, &settings);
        for key in &restart {
            log::warn!("{}: {key} has changed, which takes effect when clapd is restarted", self.path.display());
        }
        if self.set.is_some() && settings.prompts != self.settings.prompts {
            log::warn!(
                "prompts that were set over MQTT stay; prompts/set with {{\"reset\":true}} returns to the configuration's"
            );
        }
        let moved = self.change_sources(&settings.sources)?;
        // What needs a restart stays as it is, so that the next reload says so again.
        let Settings { sources, hop, gate_db, prompts, recordings, .. } = settings;
        self.settings = Settings { sources, hop, gate_db, prompts, recordings, ..self.settings.clone() };
        self.change_task(table);
        Ok(json!({
            "sources": { "added": moved.added, "changed": moved.changed, "removed": moved.removed },
            "prompts": self.prompts().len(),
            "from": self.origin(),
            "restart": restart,
        }))
    }

    fn change_task(&mut self, table: PromptTable) {
        let Settings { hop, gate_db, .. } = self.settings;
        self.task = Arc::new(Task { prompts: table.into(), hop, gate_db });
        self.sources.iter().for_each(|source| source.orders.set_task(Arc::clone(&self.task)));
        self.discover();
    }

    /// Has Home Assistant know what is listened to, and for what.
    pub(super) fn discover(&self) {
        if let Some(publisher) = &self.publisher {
            let sources = self.settings.sources.iter().map(|source| source.id.as_str());
            publisher.announce(sources, self.prompts(), self.task.hop);
        }
    }
}

/// The keys whose change a running process does not take up.
fn needs_restart(before: &Settings, after: &Settings) -> Vec<&'static str> {
    // Named one by one, so that a new key is not forgotten here.
    let Settings {
        node,
        bundle,
        threads,
        sources: _,
        hop: _,
        gate_db: _,
        prompts: _,
        recordings: _,
        broker,
        outbox,
        state: _,
        log,
    } = before;
    let changed = [
        ("node.id", *node != after.node),
        ("model.bundle", *bundle != after.bundle),
        ("model.threads", *threads != after.threads),
        ("mqtt", *broker != after.broker),
        ("outbox", *outbox != after.outbox),
        ("log", *log != after.log),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

/// The first faults, on one line.
pub(super) fn in_short(faults: &Faults) -> String {
    let mut some: Vec<String> = faults.iter().take(MAX_FAULTS).map(ToString::to_string).collect();
    if let Some(more) = faults.iter().len().checked_sub(MAX_FAULTS).filter(|more| *more > 0) {
        some.push(format!("and {more} more"));
    }
    some.join(" | ")
}
