//! Events that have ended, into the journal.

use clapd_core::prompts::PromptId;

use super::source_taps::{Observer, Tap};
use crate::capture::SourceSpec;
use crate::journal::{Journal, JournalEntry};
use crate::outbox::EventRecord;

/// Writes down the events of all sources.
pub(super) struct JournalObserver(pub(super) Journal);

impl Observer for JournalObserver {
    fn observe(&self, source: &SourceSpec) -> Box<dyn Tap> {
        Box::new(JournalTap { journal: self.0.clone(), source: source.id.clone() })
    }
}

/// Writes down the events of one source.
struct JournalTap {
    journal: Journal,
    source: String,
}

impl Tap for JournalTap {
    fn event(&mut self, prompt: &PromptId, record: &EventRecord) {
        let Some(duration) = record.duration else { return };
        self.journal.add(JournalEntry {
            id: record.id.clone(),
            source: self.source.clone(),
            prompt_id: prompt.to_string(),
            prompt: record.prompt.clone(),
            score: record.score,
            peak: record.peak,
            started_at: record.started_at,
            duration,
            levels: record.levels,
            clip: None,
        });
    }
}
