//! What the main thread wants of a listener.
//!
//! In: orders, given at any time. Out: the newest of each kind, whenever the listener looks, which is between two blocks of sound.
//! Never: a queue: an order that was overtaken by another need not be carried out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clapd_core::detect::Prompt;
use clapd_core::prompts::PromptSet;

/// What is listened for, and how often.
pub(super) struct Task {
    pub(super) prompts: Arc<[Prompt]>,
    /// The same, as the pipeline needs it.
    pub(super) set: PromptSet,
    pub(super) hop: Duration,
    /// Level below which a window is silent, in dB; none: every window is scored.
    pub(super) gate_db: Option<f32>,
}

impl Task {
    /// Whether its windows are due when those of the other are.
    pub(super) fn has_pace_of(&self, other: &Self) -> bool {
        self.hop == other.hop && self.gate_db == other.gate_db
    }

    /// For each prompt, the index of the one before that means the same sound by the same id, whatever its rule was.
    pub(super) fn kept_of(&self, before: &[Prompt]) -> Vec<Option<usize>> {
        let known: HashMap<&str, usize> = before.iter().map(|prompt| prompt.id.as_str()).zip(0..).collect();
        let same = |prompt: &Prompt, index: usize| Prompt { rule: prompt.rule, ..before[index].clone() } == *prompt;
        let kept = |prompt: &Prompt| known.get(prompt.id.as_str()).copied().filter(|index| same(prompt, *index));
        self.prompts.iter().map(kept).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use clapd_core::detect::Rule;

    #[test]
    fn a_prompt_goes_on_if_it_means_the_same() {
        let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
        let prompt = |id: &str, text: &str, start| Prompt {
            id: id.into(),
            text: Some(text.into()),
            audio: Vec::new(),
            rule: Rule { start, ..rule },
            contrast: Vec::new(),
        };
        let before = [prompt("dog", "a dog", 6.0), prompt("cat", "a cat", 6.0), prompt("cow", "a cow", 6.0)];
        let after = [prompt("cow", "a cow", 7.0), prompt("dog", "a wolf", 6.0), prompt("pig", "a pig", 6.0)];
        let task =
            Task { prompts: after.into(), set: PromptSet::default(), hop: Duration::from_secs(1), gate_db: None };
        assert_eq!(task.kept_of(&before), [Some(2), None, None]);
    }
}
