//! What the main thread can see of a source's thread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clapd_core::level::Gain;

use super::source_progress::SourceProgress;
use crate::capture::{SourceCounters, SourceKind};
use crate::health::{FAILING, ScoringCounters, SourceHealth};

/// Written by a source's thread, read by the main thread.
#[derive(Debug, Default)]
pub(super) struct SourceStatus {
    pub(super) id: String,
    /// Whether silence of the source itself is suspicious: a microphone or a stream delivers samples as long as it is there, a pipe may not.
    pub(super) steady: bool,
    pub(super) capture: Arc<SourceCounters>,
    pub(super) scoring: Arc<ScoringCounters>,
    /// The model fails with every window.
    pub(super) failing: AtomicBool,
    pub(super) progress: SourceProgress,
    /// Its gain in whole dB, the automatic one as it is now; none where it has none.
    gain_db: Mutex<Option<i32>>,
    /// The loudest second of its last minute; none before there was a minute.
    loudest_db: Mutex<Option<i32>>,
}

impl SourceStatus {
    pub(super) fn new(id: &str, kind: &SourceKind) -> Self {
        Self { id: id.into(), steady: kind.is_reopened(), ..Self::default() }
    }

    /// The same of a source that is louder for the model.
    pub(super) fn with_gain(self, gain: Gain) -> Self {
        if let Gain::Fixed(gain_db) = gain {
            self.set_gain_db(gain_db);
        }
        self
    }

    pub(super) fn set_gain_db(&self, gain_db: f32) {
        *self.gain_db.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(gain_db.round() as i32).filter(|gain_db| *gain_db != 0);
    }

    pub(super) fn set_loudest_db(&self, loudest_db: Option<f32>) {
        *self.loudest_db.lock().unwrap_or_else(PoisonError::into_inner) = loudest_db.map(|level| level.round() as i32);
    }

    pub(super) fn health(&self) -> SourceHealth {
        let state = self.capture.state();
        // Where no sound comes, that is what somebody should know.
        let failing = state.is_flowing() && self.failing.load(Relaxed);
        SourceHealth {
            loudest_db: *self.loudest_db.lock().unwrap_or_else(PoisonError::into_inner),
            gain_db: *self.gain_db.lock().unwrap_or_else(PoisonError::into_inner),
            id: self.id.clone(),
            state: if failing { FAILING } else { state.name() },
            level_db: self.capture.level_db(),
            channel: self.capture.channel(),
            warnings: self.capture.warnings.texts(),
            samples_lost: self.capture.samples_lost.get(),
            samples_bad: self.capture.samples_bad.get(),
            reopens: self.capture.reopens.get(),
            stream_errors: self.capture.stream_errors.get(),
            windows_scored: self.scoring.windows_scored.get(),
            windows_skipped: self.scoring.windows_skipped.get(),
            windows_failed: self.scoring.windows_failed.get(),
            windows_gated: self.scoring.windows_gated.get(),
            events_started: self.scoring.events_started.get(),
            busy: Duration::from_micros(self.scoring.busy_us.get()),
        }
    }
}
