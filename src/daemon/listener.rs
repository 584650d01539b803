//! The thread of one source: it reads until the source is over or its [`Orders`] say stop, and shows how it is doing.
//!
//! In: a [`Source`]'s blocks, for an [`Ear`]; [`Orders`], looked at before each. Out: what can be [`Seen`] of it.
//! Never: ends with an event open.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::ear::Ear;
use super::orders::Orders;
use super::progress::Progress;
use crate::capture::{Read, Source, SourceCounters, SourceKind};
use crate::health::{ScoringCounters, SourceHealth};

/// How long a listener waits for sound before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(200);

/// What the main thread can see of a source.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) id: String,
    /// Whether silence of the source itself is suspicious: a microphone always delivers samples, a pipe may not.
    pub(super) steady: bool,
    pub(super) capture: Arc<SourceCounters>,
    pub(super) scoring: Arc<ScoringCounters>,
    pub(super) progress: Progress,
}

impl Seen {
    pub(super) fn new(id: &str, kind: &SourceKind) -> Self {
        Self { id: id.into(), steady: matches!(kind, SourceKind::Device { .. }), ..Self::default() }
    }

    pub(super) fn health(&self) -> SourceHealth {
        SourceHealth {
            id: self.id.clone(),
            state: self.capture.state().name(),
            level_db: self.capture.level_db(),
            samples_lost: self.capture.samples_lost.get(),
            samples_bad: self.capture.samples_bad.get(),
            reopens: self.capture.reopens.get(),
            stream_errors: self.capture.stream_errors.get(),
            windows_scored: self.scoring.windows_scored.get(),
            windows_skipped: self.scoring.windows_skipped.get(),
            windows_gated: self.scoring.windows_gated.get(),
            events_started: self.scoring.events_started.get(),
        }
    }
}

/// One source's thread, before it runs.
pub(super) struct Listener {
    pub(super) source: Source,
    pub(super) ear: Ear,
    pub(super) orders: Arc<Orders>,
}

impl Listener {
    /// Starts the thread; its result is why the source could not be read to its end.
    pub(super) fn spawn(mut self) -> io::Result<JoinHandle<Result<()>>> {
        let name = format!("hear-{}", self.ear.seen.id);
        thread::Builder::new().name(name).spawn(move || {
            let read = self.read_all();
            // Where the sound goes on and we do not, a window between two hops would only be scored to say something else than an
            // undisturbed run would, and there is little time to leave in.
            if self.orders.is_to_stop() {
                self.ear.put_down();
                return read;
            }
            let finished = self.ear.finish();
            read.and(finished)
        })
    }

    fn read_all(&mut self) -> Result<()> {
        while !self.orders.is_to_stop() {
            self.ear.obey(&self.orders);
            match self.source.read(LOOK)? {
                Read::Block { rate, samples, anchor } => self.ear.hear(rate, samples, anchor)?,
                Read::Idle => self.ear.hear_nothing(),
                Read::End => break,
            }
        }
        Ok(())
    }
}
