//! What the main thread wants of a listener.
//!
//! In: orders, given at any time. Out: the newest of each kind, whenever the listener looks, which is between two blocks of sound.
//! Never: a queue: an order that was overtaken by another need not be carried out.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clapd_core::prompts::PromptTable;

/// What is listened for, and how often.
pub(super) struct Task {
    pub(super) prompts: Arc<PromptTable>,
    pub(super) hop: Duration,
    /// Level below which a window is silent, in dB; none: every window is scored.
    pub(super) gate_db: Option<f32>,
}

impl Task {
    /// Whether its windows are due when those of the other are.
    pub(super) fn has_pace_of(&self, other: &Self) -> bool {
        self.hop == other.hop && self.gate_db == other.gate_db
    }
}

/// What a listener is to do.
pub(super) struct Orders {
    stop: AtomicBool,
    paused: AtomicBool,
    task: Mutex<Arc<Task>>,
}

impl Orders {
    pub(super) fn new(task: Arc<Task>, paused: bool) -> Self {
        Self { stop: AtomicBool::new(false), paused: AtomicBool::new(paused), task: Mutex::new(task) }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_task(&self, task: Arc<Task>) {
        *self.lock() = task;
    }

    pub(super) fn task(&self) -> Arc<Task> {
        Arc::clone(&self.lock())
    }
}
