//! What sources hear, into the past that can be asked.

use std::time::SystemTime;

use clapd_core::pipeline::ScoredWindow;

use super::source_taps::{Observer, Tap};
use crate::capture::SourceSpec;
use crate::history::{History, Recorder};

impl Observer for History {
    fn observe(&self, source: &SourceSpec) -> Box<dyn Tap> {
        Box::new(self.recorder(&source.id))
    }
}

impl Tap for Recorder {
    fn window(&mut self, window: &ScoredWindow<'_>, _: SystemTime, end: SystemTime) {
        Recorder::window(self, window, end);
    }

    fn interrupt(&mut self) {
        Recorder::interrupt(self);
    }
}
