//! What looks on at a source: the score log, and whatever else shows or stores what is heard.
//!
//! Taps see samples, windows and events, and change nothing of them but what an event carries beside its frozen fields; scores and
//! events reach the publisher whatever they do. They run on the source's thread, so each has to be done in far less than a window.

use std::time::SystemTime;

use clapd_core::pipeline::ScoredWindow;
use clapd_core::prompts::PromptId;
use clapd_core::samples::Samples;

use crate::capture::SourceSpec;
use crate::outbox::EventRecord;

/// What looks on at all sources of the daemon.
pub(super) trait Observer: Send + Sync {
    /// Its eye on one source, which begins.
    fn observe(&self, source: &SourceSpec) -> Box<dyn Tap>;
}

/// What looks on at one source, on that source's thread.
pub(super) trait Tap: Send {
    /// A block of sound that is listened to, before it is scored; the time of day is that of its first sample (behind what was lost).
    fn samples(&mut self, _rate: u32, _samples: Samples<'_>, _at: SystemTime) {}

    /// A window was scored; it lasted from `start` to `end`.
    fn window(&mut self, _window: &ScoredWindow<'_>, _start: SystemTime, _end: SystemTime) {}

    /// What an event carries beside what the detector knows, before it is published.
    fn annotate(&mut self, _prompt: &PromptId, _record: &mut EventRecord) {}

    /// A start or an end, as it was published.
    fn event(&mut self, _prompt: &PromptId, _record: &EventRecord) {}

    /// Whether it takes the spectrogram now.
    fn wants_mel(&self) -> bool {
        false
    }

    /// A frame's log-mel values, as the model's front end has them.
    fn mel(&mut self, _row: &[f32], _at: SystemTime) {}

    /// Listening stops for now: a pause, another rate, another pace or the end. What comes next does not continue what came before.
    fn interrupt(&mut self) {}
}

/// All taps of one source.
#[derive(Default)]
pub(super) struct SourceTaps(Vec<Box<dyn Tap>>);

impl SourceTaps {
    pub(super) fn new(taps: impl IntoIterator<Item = Box<dyn Tap>>) -> Self {
        Self(taps.into_iter().collect())
    }

    pub(super) fn samples(&mut self, rate: u32, samples: Samples<'_>, at: SystemTime) {
        self.0.iter_mut().for_each(|tap| tap.samples(rate, samples, at));
    }

    pub(super) fn window(&mut self, window: &ScoredWindow<'_>, start: SystemTime, end: SystemTime) {
        self.0.iter_mut().for_each(|tap| tap.window(window, start, end));
    }

    pub(super) fn annotate(&mut self, prompt: &PromptId, record: &mut EventRecord) {
        self.0.iter_mut().for_each(|tap| tap.annotate(prompt, record));
    }

    pub(super) fn event(&mut self, prompt: &PromptId, record: &EventRecord) {
        self.0.iter_mut().for_each(|tap| tap.event(prompt, record));
    }

    pub(super) fn wants_mel(&self) -> bool {
        self.0.iter().any(|tap| tap.wants_mel())
    }

    pub(super) fn mel(&mut self, row: &[f32], at: SystemTime) {
        self.0.iter_mut().filter(|tap| tap.wants_mel()).for_each(|tap| tap.mel(row, at));
    }

    pub(super) fn interrupt(&mut self) {
        self.0.iter_mut().for_each(|tap| tap.interrupt());
    }
}
