//! What is true now, for whoever asks: requests read it without waiting for the supervisor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::health::Health;

/// What is listened to and for what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// As `prompts/get` answers.
    pub prompts: Value,
    /// In the configuration's order.
    pub sources: Vec<SourceView>,
    /// Time between two scores, in seconds.
    pub hop_s: f64,
}

/// A source that is listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceView {
    /// Its id.
    pub id: String,
    /// `device`, `file`, `stdin`, `url` or `listen`.
    pub kind: &'static str,
    /// Its sound is dropped.
    pub paused: bool,
}

/// The newest of each.
#[derive(Default)]
pub(super) struct SharedView(Mutex<Current>);

#[derive(Default, Clone)]
pub(super) struct Current {
    pub(super) view: Arc<View>,
    pub(super) health: Arc<Health>,
}

impl SharedView {
    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other prompts are listened for now.
    pub(super) fn set_view(&self, view: &View) -> bool {
        let mut current = self.lock();
        if *current.view == *view {
            return false;
        }
        let other = current.view.prompts != view.prompts;
        current.view = Arc::new(view.clone());
        other
    }

    pub(super) fn set_health(&self, health: &Health) {
        self.lock().health = Arc::new(health.clone());
    }

    pub(super) fn get(&self) -> Current {
        self.lock().clone()
    }
}
