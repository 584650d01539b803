//! A change of the settings: made ready beside everything that goes on, then made, then reported.
//!
//! What it takes is read, decoded, embedded and opened by the worker, which may take a minute, or hang. One change is made
//! at a time. A request for another is refused; a SIGHUP, which nobody answers, is remembered instead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clapd_core::prompts::{Prompt, PromptTable};
use serde_json::Value;

use super::active_settings::{ActiveSettings, summarize};
use super::prompt_preparer::PromptPreparer;
use super::source_opening::{self, DEVICE_TIMEOUT, OpenedSource, PresentSource};
use super::source_set::{STOP_TIMEOUT, SourceSet};
use super::worker::{Activity, Worker};
use crate::command::{Refusal, Reply, SetPrompts};
use crate::config::Settings;
use crate::health::ThreadHealth;
use crate::threads::ThreadPanic;

/// For a change that is made to show what came of it: sources end, the devices after them deliver or fail, and some time is lost in
/// between.
const SETTLE_TIMEOUT: Duration = STOP_TIMEOUT.saturating_add(DEVICE_TIMEOUT).saturating_add(Duration::from_secs(1));

/// What somebody wants changed.
pub(super) enum ChangeRequest {
    /// Other prompts.
    Prompts(SetPrompts),
    /// What the configuration's file says now.
    Reload,
}

/// A change that can be made now.
pub(super) enum PreparedChange {
    Prompts {
        /// None: those of the configuration.
        prompts: Option<Vec<Prompt>>,
        table: PromptTable,
        /// Whether they were stored for the next start.
        stored: Result<()>,
    },
    Settings {
        settings: Box<Settings>,
        table: PromptTable,
        /// The sources that are new.
        opened: Vec<OpenedSource>,
    },
}

/// What becomes of a request: an error is for whoever asked.
type Outcome<T> = Result<T, String>;

/// A change that is ready, or why there is none, and whom to answer.
pub(super) struct PreparedReply {
    pub(super) reply: Option<Reply>,
    pub(super) outcome: Result<Outcome<PreparedChange>, ThreadPanic>,
}

/// Sees to one change at a time.
pub(super) struct Reloader {
    preparer: Arc<PromptPreparer>,
    worker: Worker<Outcome<PreparedChange>>,
    /// Whom to answer, once a change is ready.
    requester: Option<Reply>,
    settling: Option<SettlingChange>,
    /// Another SIGHUP came meanwhile.
    reload_again: bool,
}

/// A change that was made, and whose effects show.
struct SettlingChange {
    reply: Option<Reply>,
    data: Value,
    deadline: Instant,
}

impl Reloader {
    pub(super) fn new(preparer: Arc<PromptPreparer>) -> Self {
        let (worker, requester, settling) = (Worker::idle("worker"), None, None);
        Self { preparer, worker, requester, settling, reload_again: false }
    }

    /// What the change is at that is not over; none where there is none.
    fn activity(&self) -> Option<String> {
        let settling = self.settling.as_ref().map(|_| "waiting for sources to begin".into());
        self.worker.activity().or(settling)
    }

    /// While a change is pending, remembers that another reload is due; whether it did.
    pub(super) fn defer_reload(&mut self) -> bool {
        let activity = self.activity();
        if let Some(activity) = &activity {
            self.reload_again = true;
            log::warn!("the configuration is read again once another change is over ({activity})");
        }
        activity.is_some()
    }

    /// Whether a reload was deferred that is due now; once.
    pub(super) fn take_deferred_reload(&mut self) -> bool {
        self.activity().is_none() && std::mem::take(&mut self.reload_again)
    }

    /// Begins to make a change ready, with the `settings` in effect and the `sources` that there are.
    ///
    /// # Errors
    /// Whom to answer, and why nothing was begun: another change is pending, or a thread cannot be started.
    pub(super) fn begin(
        &mut self,
        request: ChangeRequest,
        settings: &ActiveSettings,
        sources: &SourceSet,
        reply: Option<Reply>,
    ) -> Result<(), (Option<Reply>, Refusal)> {
        if let Some(activity) = self.activity() {
            let busy =
                format!("another change is under way ({activity}); send it again after the response to that one");
            return Err((reply, Refusal::busy(busy)));
        }
        let (settings, present, preparer) = (settings.clone(), sources.present(), Arc::clone(&self.preparer));
        let work = move |activity: &Activity| match request {
            ChangeRequest::Prompts(set) => prepare_prompts(set, &settings, &preparer, activity),
            ChangeRequest::Reload => prepare_settings(&settings, &present, &preparer, activity),
        };
        match self.worker.begin(work) {
            Ok(()) => self.requester = reply,
            Err(error) => return Err((reply, format!("a thread cannot be started: {error}").into())),
        }
        Ok(())
    }

    /// What the worker has made of a request, once it is done.
    pub(super) fn take_prepared(&mut self) -> Option<PreparedReply> {
        let outcome = self.worker.take_done()?;
        Some(PreparedReply { reply: self.requester.take(), outcome })
    }

    /// The change is made; it is answered with `data` once it has settled.
    pub(super) fn settle(&mut self, reply: Option<Reply>, data: Value) {
        self.settling = Some(SettlingChange { reply, data, deadline: Instant::now() + SETTLE_TIMEOUT });
    }

    /// The change that has settled, or had time enough to: whom to answer, and with what.
    pub(super) fn take_settled(&mut self, is_settled: bool) -> Option<(Option<Reply>, Value)> {
        let settled = self.settling.take_if(|it| is_settled || Instant::now() >= it.deadline)?;
        Some((settled.reply, settled.data))
    }

    /// The process ends: what is not done is left behind. Whom to answer.
    pub(super) fn leave(&mut self) -> Option<Reply> {
        self.worker.leave();
        self.requester.take().or_else(|| self.settling.take()?.reply)
    }

    pub(super) fn health(&self) -> ThreadHealth {
        self.worker.health()
    }
}

fn prepare_prompts(
    set: SetPrompts,
    settings: &ActiveSettings,
    preparer: &PromptPreparer,
    activity: &Activity,
) -> Outcome<PreparedChange> {
    activity.set("reading the prompts and their recordings");
    let prompts = settings.requested_prompts(set)?;
    let listened = prompts.as_deref().unwrap_or(&settings.file().prompts);
    let table = prepare_table(listened, preparer, activity)?;
    activity.set("storing the prompts");
    let stored = settings.store_prompts(prompts.as_deref());
    Ok(PreparedChange::Prompts { prompts, table, stored })
}

fn prepare_settings(
    current: &ActiveSettings,
    present: &[PresentSource],
    preparer: &PromptPreparer,
    activity: &Activity,
) -> Outcome<PreparedChange> {
    activity.set(format!("reading {} and its recordings", current.path().display()));
    let (settings, warnings) = current.load().map_err(|faults| {
        faults.iter().for_each(|fault| log::error!("{fault}"));
        summarize(&faults)
    })?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let table = prepare_table(current.prompts_with(&settings), preparer, activity)?;
    let opened = source_opening::open_new(&settings.sources, present, activity);
    let opened = opened.map_err(|error| format!("{error:#}"))?;
    Ok(PreparedChange::Settings { settings: settings.into(), table, opened })
}

fn prepare_table(prompts: &[Prompt], preparer: &PromptPreparer, activity: &Activity) -> Outcome<PromptTable> {
    activity.set(format!("embedding {} prompt(s)", prompts.len()));
    preparer.prepare(prompts).map_err(|error| format!("{error:#}"))
}
