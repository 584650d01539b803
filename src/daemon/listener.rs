//! The thread of one source: it reads, scores and tells until the source is over or the daemon stops.
//!
//! In: a [`Source`]'s blocks. Out: what a [`Teller`] tells, counters, progress.
//! Never: ends with an event open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::progress::Progress;
use super::teller::Teller;
use crate::capture::{Rarely, Read, Source, SourceCounters, SourceKind, State};
use crate::health::{ScoringCounters, SourceHealth};
use crate::pipeline::{Model, Output, Pace, Pipeline, PromptSet};
use crate::samples::Samples;
use crate::time::{SampleTime, WallAnchor};

/// How long a listener waits for sound before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(200);

/// What the main thread can see of a source.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) capture: Arc<SourceCounters>,
    pub(super) scoring: Arc<ScoringCounters>,
    pub(super) progress: Progress,
}

impl Seen {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    pub(super) fn health(&self) -> SourceHealth {
        SourceHealth {
            id: self.id.clone(),
            state: match self.capture.state() {
                State::Starting => "starting",
                State::Live => "live",
                State::Lost => "lost",
                State::Ended => "ended",
            },
            samples_lost: self.capture.samples_lost.load(Relaxed),
            samples_bad: self.capture.samples_bad.load(Relaxed),
            reopens: self.capture.reopens.load(Relaxed),
            stream_errors: self.capture.stream_errors.load(Relaxed),
            windows_scored: self.scoring.windows_scored.get(),
            windows_skipped: self.scoring.windows_skipped.get(),
            events_started: self.scoring.events_started.get(),
        }
    }
}

/// Whatever a pipeline is made of.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) model: Model,
    pub(super) prompts: PromptSet,
    pub(super) hop: Duration,
}

/// One source's thread, before it runs.
pub(super) struct Listener {
    pub(super) source: Source,
    pub(super) ear: Ear,
    pub(super) stop: Arc<AtomicBool>,
}

impl Listener {
    /// Starts the thread; its result is why the source could not be read to its end.
    pub(super) fn spawn(mut self) -> io::Result<JoinHandle<Result<()>>> {
        let name = format!("hear-{}", self.ear.seen.id);
        thread::Builder::new().name(name).spawn(move || {
            let read = self.read_all();
            let finished = self.ear.finish();
            read.and(finished)
        })
    }

    fn read_all(&mut self) -> Result<()> {
        while !self.stop.load(Relaxed) {
            match self.source.read(LOOK)? {
                Read::Block { rate, samples, anchor } => self.ear.hear(rate, samples, anchor)?,
                Read::Idle => self.ear.hear_nothing(),
                Read::End => break,
            }
        }
        Ok(())
    }
}

/// From blocks to outputs.
pub(super) struct Ear {
    seen: Arc<Seen>,
    recipe: Recipe,
    pace: Pace,
    /// Whether silence of the source itself is suspicious: a microphone always delivers samples, a pipe may not.
    steady: bool,
    teller: Teller,
    current: Option<Current>,
    failures: Rarely,
    /// Windows that earlier pipelines of this source skipped.
    skipped: u64,
}

struct Current {
    rate: u32,
    pipeline: Pipeline,
    anchor: WallAnchor,
}

impl Ear {
    pub(super) fn new(seen: Arc<Seen>, kind: &SourceKind, recipe: Recipe, teller: Teller) -> Self {
        // What comes at the pace of the world can't wait for us; a file and a pipe can.
        let pace = match kind {
            SourceKind::Device { .. } | SourceKind::File { realtime: true, .. } => Pace::Live,
            SourceKind::File { .. } | SourceKind::Stdin => Pace::Every,
        };
        let steady = matches!(kind, SourceKind::Device { .. });
        Self { seen, recipe, pace, steady, teller, current: None, failures: Rarely::default(), skipped: 0 }
    }

    fn hear(&mut self, rate: u32, samples: Samples<'_>, anchor: WallAnchor) -> Result<()> {
        if self.current.as_ref().is_none_or(|current| current.rate != rate) {
            self.finish()?;
            log::info!("{}: listening at {rate} Hz", self.seen.id);
            let Recipe { model, prompts, hop } = self.recipe.clone();
            let pipeline = Pipeline::new(model, prompts, rate, hop, self.pace)?;
            self.current = Some(Current { rate, pipeline, anchor });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.anchor = anchor;
        let (teller, mut scored) = (&mut self.teller, false);
        let pushed = current.pipeline.push(samples, &mut |output| {
            scored |= matches!(output, Output::Window(_));
            teller.tell(&output, &anchor);
        });
        let skipped = self.skipped + current.pipeline.windows_skipped();
        let more = skipped - self.seen.scoring.windows_skipped.get();
        if self.seen.scoring.windows_skipped.add(more) {
            log::warn!(
                "{}: {skipped} windows skipped so far: this computer is too slow, or busy; see scoring.hop_s",
                self.seen.id
            );
        }
        // The next window may go well. If none does, there is no progress, and the watchdog ends it.
        if let Err(error) = pushed
            && let Some(times) = self.failures.happened(1)
        {
            log::error!("{}: a window could not be scored ({times} so far): {error:#}", self.seen.id);
        }
        let length = SampleTime::from_samples(samples.data.len() as u64, rate).since(SampleTime::ZERO);
        self.seen.progress.sound(length, scored);
        Ok(())
    }

    fn hear_nothing(&self) {
        if !self.steady || self.seen.capture.state() != State::Live {
            self.seen.progress.excused();
        }
    }

    /// Scores what is left, and ends what is open.
    fn finish(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let (teller, anchor) = (&mut self.teller, current.anchor);
        let finished = current.pipeline.finish(&mut |output| teller.tell(&output, &anchor));
        self.skipped += current.pipeline.windows_skipped();
        finished
    }
}
