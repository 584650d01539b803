//! From a pipeline's outputs to log lines and reports: scores and events, with the time of day. The source's taps see them, too.
//!
//! While it is quiet no event is reported to begin: it is withheld, and begins when it is no longer quiet, should it be open still. One
//! that is open when it becomes quiet goes on to its own end, since that is when the sound ended.
//!
//! An end has the id and the start's time of day of its start. Where the clock was set in between, the outbox knows by how much.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clapd_core::detect::{Event, EventKind, Verdict};
use clapd_core::pipeline::{Output, ScoredWindow};
use clapd_core::prompts::{Prompt, PromptId, PromptTable};
use clapd_core::score::Score;
use clapd_core::time::SampleTime;

use super::quiet_monitor::SharedQuiet;
use super::source_taps::SourceTaps;
use crate::health::ScoringCounters;
use crate::mqtt::{Publisher, Route};
use crate::outbox::EventRecord;
use crate::time::WallAnchor;

/// What a source reports of a prompt.
#[derive(Debug, Clone)]
pub(super) enum SourceReport {
    /// Its score in the window that ended then.
    Score(PromptId, Score, SystemTime),
    /// Its event is open still: how long it had gone on when the window ended, and the window's score.
    Touch(PromptId, Duration, f32),
    /// A start or an end.
    Event(PromptId, EventRecord),
    /// From now on it is these prompts that are listened for.
    Prompts(Arc<PromptTable>),
}

/// Takes a source's reports.
pub(super) type ReportSink = Box<dyn FnMut(SourceReport) + Send>;

/// Publishes a source's reports; of a prompt that comes first of all that no event is open: the broker may have retained the
/// state of another run.
pub(super) fn publisher_sink(publisher: Publisher, source: String) -> ReportSink {
    let mut prompts = Arc::<PromptTable>::default();
    let mut routes: HashMap<PromptId, Route> = HashMap::new();
    Box::new(move |report| match report {
        SourceReport::Prompts(now) => {
            for removed in prompts.prompts().iter().filter(|prompt| now.get(&prompt.id).is_none()) {
                routes.remove(&removed.id).iter().for_each(|route| publisher.remove_state(route));
            }
            for new in now.prompts().iter().filter(|prompt| prompts.get(&prompt.id).is_none()) {
                let route = publisher.topics().route(&source, new.id.as_str());
                publisher.publish_state(&route, false);
                routes.insert(new.id.clone(), route);
            }
            prompts = now;
        }
        SourceReport::Score(prompt, score, at) => {
            routes.get(&prompt).into_iter().for_each(|route| publisher.publish_score(route, score, at));
        }
        SourceReport::Touch(prompt, lasted, score) => {
            routes.get(&prompt).into_iter().for_each(|route| publisher.touch_event(route, lasted, score));
        }
        SourceReport::Event(prompt, record) => {
            if let Some(route) = routes.get(&prompt) {
                publisher.publish_state(route, record.duration.is_none());
                publisher.publish_event(route, record);
            }
        }
    })
}

/// A source is listened to no more: nothing of it stays at the broker.
pub(super) fn remove_states(publisher: &Publisher, source: &str, prompts: &[Prompt]) {
    prompts.iter().for_each(|prompt| publisher.remove_state(&publisher.topics().route(source, prompt.id.as_str())));
}

/// Turns the outputs of one source's pipeline into reports.
pub(super) struct EventReporter {
    source: String,
    prompts: Arc<PromptTable>,
    sink: ReportSink,
    taps: SourceTaps,
    counters: Arc<ScoringCounters>,
    /// Begins every id: this run and this source.
    id_prefix: String,
    /// The number of the next event. It goes on where a pipeline is replaced and its own numbers begin again.
    next: u64,
    open: HashMap<PromptId, OpenEvent>,
    quiet: SharedQuiet,
    /// Events that the detector has begun and nobody was told of.
    withheld: HashMap<PromptId, Event>,
}

#[derive(Debug, Clone)]
struct OpenEvent {
    id: String,
    started_at: SystemTime,
    /// The same on the sample clock, which does not jump when the time of day is set.
    began: SampleTime,
}

impl EventReporter {
    /// No event is open yet. `run` begins the ids of events, and tells them from those of any other process.
    pub(super) fn new(
        source: &str,
        run: &str,
        prompts: Arc<PromptTable>,
        mut sink: ReportSink,
        taps: SourceTaps,
        counters: Arc<ScoringCounters>,
        quiet: SharedQuiet,
    ) -> Self {
        sink(SourceReport::Prompts(Arc::clone(&prompts)));
        let (id_prefix, open, withheld) = (format!("{run}-{source}"), HashMap::new(), HashMap::new());
        Self { source: source.into(), prompts, sink, taps, counters, id_prefix, next: 0, open, quiet, withheld }
    }

    /// Other prompts from now on. The pipeline has ended the events of those that do not go on.
    pub(super) fn change_prompts(&mut self, prompts: Arc<PromptTable>) {
        (self.sink)(SourceReport::Prompts(Arc::clone(&prompts)));
        self.prompts = prompts;
    }

    /// What looks on at the source.
    pub(super) fn taps(&mut self) -> &mut SourceTaps {
        &mut self.taps
    }

    /// Reports an output, whose sample clock meets the time of day at `anchor`.
    pub(super) fn report(&mut self, output: &Output<'_>, anchor: &WallAnchor) {
        match output {
            Output::Window(window) => {
                let [start, end] = [window.start, window.end].map(|time| anchor.wall_time(time));
                self.report_scores(window, end);
                match self.quiet_verdicts(window) {
                    Some(verdicts) => self.taps.window(&ScoredWindow { verdicts: &verdicts, ..*window }, start, end),
                    None => self.taps.window(window, start, end),
                }
                self.release(window, anchor);
            }
            Output::Event(event) => match event.kind {
                EventKind::Started if self.is_quiet(&event.prompt) => {
                    log::info!("{}: {:?} is there, and it is quiet: no event", self.source, self.text(event));
                    self.withheld.insert(event.prompt.clone(), event.clone());
                }
                EventKind::Started => self.report_start(event, anchor),
                EventKind::Ended if self.withheld.remove(&event.prompt).is_some() => {}
                EventKind::Ended => self.report_end(event),
            },
        }
    }

    fn is_quiet(&self, prompt: &PromptId) -> bool {
        self.quiet.get().iter().any(|quiet| quiet.scope.covers(&self.source, prompt.as_str()))
    }

    /// What the window meant where events are withheld; none where none are.
    fn quiet_verdicts(&self, window: &ScoredWindow<'_>) -> Option<Vec<Verdict>> {
        if self.withheld.is_empty() && self.quiet.get().is_empty() {
            return None;
        }
        let verdict = |(prompt, verdict): (&Prompt, &Verdict)| {
            let (is_quiet, is_withheld) = (self.is_quiet(&prompt.id), self.withheld.contains_key(&prompt.id));
            match verdict {
                Verdict::Started if is_quiet => Verdict::Quiet,
                Verdict::Open if is_withheld => {
                    if is_quiet {
                        Verdict::Quiet
                    } else {
                        Verdict::Started
                    }
                }
                Verdict::Ended if is_withheld => Verdict::Quiet,
                verdict => *verdict,
            }
        };
        Some(window.prompts.prompts().iter().zip(window.verdicts).map(verdict).collect())
    }

    /// Begins what was withheld, is no longer quiet, and is there still in this window.
    fn release(&mut self, window: &ScoredWindow<'_>, anchor: &WallAnchor) {
        if self.withheld.is_empty() {
            return;
        }
        for ((prompt, score), verdict) in window.by_prompt().zip(window.verdicts) {
            if *verdict != Verdict::Open || self.is_quiet(prompt) {
                continue;
            }
            if let Some(withheld) = self.withheld.remove(prompt) {
                let (started_at, score) = (window.start.midpoint(window.end), score.score);
                self.report_start(&Event { started_at, score, peak: score, ..withheld }, anchor);
            }
        }
    }

    fn report_scores(&mut self, window: &ScoredWindow<'_>, at: SystemTime) {
        let counter = if window.gated { &self.counters.windows_gated } else { &self.counters.windows_scored };
        if let Some(gated) = counter.add(1)
            && window.gated
        {
            log::info!(
                "{}: {gated} silent window(s) so far, not encoded and scored 0; see scoring.gate_db",
                self.source
            );
        }
        for (prompt, score) in window.by_prompt() {
            (self.sink)(SourceReport::Score(prompt.clone(), score, at));
            if let Some(open) = self.open.get(prompt) {
                (self.sink)(SourceReport::Touch(prompt.clone(), window.end.since(open.began), score.score));
            }
        }
    }

    fn report_start(&mut self, event: &Event, anchor: &WallAnchor) {
        self.counters.events_started.add(1);
        let (id, began) = (format!("{}-{}", self.id_prefix, self.next), event.started_at);
        let open = OpenEvent { id, started_at: anchor.wall_time(began), began };
        self.next += 1;
        // Reported before it is logged: what the log says has happened is in the outbox.
        self.report_event(event, &open);
        log::info!("{}: {:?} started, score {:.1}", self.source, self.text(event), event.score);
        self.open.insert(event.prompt.clone(), open);
    }

    fn report_end(&mut self, event: &Event) {
        let Some(open) = self.open.remove(&event.prompt) else { return };
        let seconds = event.ended_at.map_or(0.0, |end| end.since(open.began).as_secs_f64());
        self.report_event(event, &open);
        log::info!("{}: {:?} ended after {seconds:.1} s, peak {:.1}", self.source, self.text(event), event.peak);
    }

    fn report_event(&mut self, event: &Event, open: &OpenEvent) {
        let mut record = EventRecord {
            id: open.id.clone(),
            prompt: self.text(event).into(),
            score: event.score,
            peak: event.peak,
            started_at: open.started_at,
            duration: event.ended_at.map(|end| end.since(open.began)),
            levels: None,
        };
        self.taps.annotate(&event.prompt, &mut record);
        (self.sink)(SourceReport::Event(event.prompt.clone(), record.clone()));
        self.taps.event(&event.prompt, &record);
    }

    fn text(&self, event: &Event) -> &str {
        self.prompts.get(&event.prompt).map_or("", Prompt::name)
    }
}
