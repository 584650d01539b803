//! What the main thread wants of a source's thread.
//!
//! It is set at any time, and the thread looks at it between two blocks of sound. It is no queue: what was overtaken
//! need not be carried out.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clapd_core::prompts::PromptTable;

/// What is listened for, and how often.
pub(super) struct ListenConfig {
    pub(super) prompts: Arc<PromptTable>,
    pub(super) hop: Duration,
    /// Level below which a window is silent, in dB; none: every window is scored.
    pub(super) gate_db: Option<f32>,
}

impl ListenConfig {
    /// Whether its windows are due when those of the other are.
    pub(super) fn has_same_pace(&self, other: &Self) -> bool {
        self.hop == other.hop && self.gate_db == other.gate_db
    }
}

/// What a source's thread is to do.
pub(super) struct SourceControl {
    stop: AtomicBool,
    paused: AtomicBool,
    config: Mutex<Arc<ListenConfig>>,
}

impl SourceControl {
    pub(super) fn new(config: Arc<ListenConfig>, paused: bool) -> Self {
        Self { stop: AtomicBool::new(false), paused: AtomicBool::new(paused), config: Mutex::new(config) }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ListenConfig>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_config(&self, config: Arc<ListenConfig>) {
        *self.lock() = config;
    }

    pub(super) fn config(&self) -> Arc<ListenConfig> {
        Arc::clone(&self.lock())
    }
}
