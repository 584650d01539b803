//! A change of the settings while its prompts are made ready, which may take a minute; meanwhile everything goes on.
//!
//! One change is made at a time. A request for another is refused; a SIGHUP, which nobody answers, is remembered instead.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};
use clapd_core::prompts::{Prompt, PromptTable};

use super::active_settings::SettingsChange;
use super::prompt_preparer::PromptPreparer;
use crate::mqtt::Reply;

/// Makes prompts ready on a thread of its own, one change at a time.
pub(super) struct Reloader {
    preparer: Arc<PromptPreparer>,
    pending: Option<PendingChange>,
    /// Another SIGHUP came meanwhile.
    reload_again: bool,
}

struct PendingChange {
    change: SettingsChange,
    reply: Option<Reply>,
    worker: JoinHandle<Result<PromptTable>>,
}

/// A change that can be made now, unless its prompts could not be made ready.
pub(super) struct PreparedChange {
    pub(super) change: SettingsChange,
    pub(super) reply: Option<Reply>,
    pub(super) table: Result<PromptTable>,
}

impl Reloader {
    pub(super) fn new(preparer: PromptPreparer) -> Self {
        Self { preparer: preparer.into(), pending: None, reload_again: false }
    }

    /// While a change is pending, remembers that another reload is due; whether it did.
    pub(super) fn defer_reload(&mut self) -> bool {
        self.reload_again |= self.pending.is_some();
        self.pending.is_some()
    }

    /// Whether a reload was deferred; once.
    pub(super) fn take_deferred_reload(&mut self) -> bool {
        std::mem::take(&mut self.reload_again)
    }

    /// Begins to make ready the `prompts` of a change.
    ///
    /// # Errors
    /// Whom to answer, and why nothing was begun: another change is pending, or a thread cannot be started.
    pub(super) fn begin(
        &mut self,
        change: SettingsChange,
        prompts: Vec<Prompt>,
        reply: Option<Reply>,
    ) -> Result<(), (Option<Reply>, String)> {
        if self.pending.is_some() {
            let busy = "another change is being made ready; send it again after the response to that one";
            return Err((reply, busy.into()));
        }
        let preparer = Arc::clone(&self.preparer);
        match thread::Builder::new().name("prepare".into()).spawn(move || preparer.prepare(&prompts)) {
            Ok(worker) => self.pending = Some(PendingChange { change, reply, worker }),
            Err(error) => return Err((reply, format!("a thread cannot be started: {error}"))),
        }
        Ok(())
    }

    /// The change whose prompts are ready.
    pub(super) fn take_prepared(&mut self) -> Option<PreparedChange> {
        let PendingChange { change, reply, worker } = self.pending.take_if(|pending| pending.worker.is_finished())?;
        let table = worker.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked, which is a fault in clapd")));
        Some(PreparedChange { change, reply, table })
    }
}
