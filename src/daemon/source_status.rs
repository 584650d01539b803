//! What the main thread can see of a source's thread.

use std::sync::Arc;

use super::source_progress::SourceProgress;
use crate::capture::{SourceCounters, SourceKind};
use crate::health::{ScoringCounters, SourceHealth};

/// Written by a source's thread, read by the main thread.
#[derive(Debug, Default)]
pub(super) struct SourceStatus {
    pub(super) id: String,
    /// Whether silence of the source itself is suspicious: a microphone always delivers samples, a pipe may not.
    pub(super) steady: bool,
    pub(super) capture: Arc<SourceCounters>,
    pub(super) scoring: Arc<ScoringCounters>,
    pub(super) progress: SourceProgress,
}

impl SourceStatus {
    pub(super) fn new(id: &str, kind: &SourceKind) -> Self {
        Self { id: id.into(), steady: matches!(kind, SourceKind::Device { .. }), ..Self::default() }
    }

    pub(super) fn health(&self) -> SourceHealth {
        SourceHealth {
            id: self.id.clone(),
            state: self.capture.state().name(),
            level_db: self.capture.level_db(),
            channel: self.capture.channel(),
            warnings: self.capture.warnings.texts(),
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
