//! What sources hear, to the page's viewers.

use std::time::SystemTime;

use clapd_core::pipeline::ScoredWindow;
use clapd_core::prompts::PromptId;
use clapd_core::samples::Samples;

use super::source_taps::{Observer, Tap};
use crate::capture::SourceSpec;
use crate::http::{HttpServer, LiveSource};
use crate::outbox::EventRecord;

impl Observer for HttpServer {
    fn observe(&self, source: &SourceSpec) -> Box<dyn Tap> {
        Box::new(self.source(&source.id))
    }
}

impl Tap for LiveSource {
    fn samples(&mut self, rate: u32, samples: Samples<'_>, at: SystemTime) {
        LiveSource::samples(self, rate, samples, at);
    }

    fn window(&mut self, window: &ScoredWindow<'_>, start: SystemTime, end: SystemTime) {
        LiveSource::window(self, window, start, end);
    }

    fn event(&mut self, prompt: &PromptId, record: &EventRecord) {
        LiveSource::event(self, prompt, record);
    }

    fn wants_mel(&self) -> bool {
        LiveSource::wants_mel(self)
    }

    fn mel(&mut self, row: &[f32], at: SystemTime) {
        LiveSource::mel(self, row, at);
    }

    fn interrupt(&mut self) {
        LiveSource::interrupt(self);
    }
}
