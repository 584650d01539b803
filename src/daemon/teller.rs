//! From a pipeline's outputs to what people and the house are told.
//!
//! In: windows and events on the sample clock, with the anchor to the time of day. Out: log lines, and [`Told`] to a closure.
//! Never: tells an end without its start, or with another id or another time of its start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clapd_core::detect::{Event, EventKind};
use clapd_core::pipeline::{Output, ScoredWindow};
use clapd_core::prompts::{Prompt, PromptId, PromptTable};
use clapd_core::score::Score;
use clapd_core::time::SampleTime;

use crate::health::ScoringCounters;
use crate::mqtt::{Publisher, Route};
use crate::outbox::EventRecord;
use crate::time::WallAnchor;

/// What the house is told of a prompt.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// Its score in the window that ended then.
    Score(PromptId, Score, SystemTime),
    /// Its event is open still: how long it had gone on when the window ended, and the window's score.
    Heard(PromptId, Duration, f32),
    /// A start or an end.
    Notice(PromptId, EventRecord),
    /// From now on it is these prompts that are listened for.
    Prompts(Arc<PromptTable>),
}

/// Whoever is told.
pub(super) type Audience = Box<dyn FnMut(Told) + Send>;

/// The house behind a broker, where it hears of a prompt first of all that no event is open: it may remember another run.
pub(super) fn audience(publisher: Publisher, source: String) -> Audience {
    let mut prompts = Arc::<PromptTable>::default();
    let mut routes: HashMap<PromptId, Route> = HashMap::new();
    Box::new(move |told| match told {
        Told::Prompts(now) => {
            for gone in prompts.prompts().iter().filter(|prompt| now.get(&prompt.id).is_none()) {
                routes.remove(&gone.id).iter().for_each(|route| publisher.remove_state(route));
            }
            for new in now.prompts().iter().filter(|prompt| prompts.get(&prompt.id).is_none()) {
                let route = publisher.topics().route(&source, new.id.as_str());
                publisher.publish_state(&route, false);
                routes.insert(new.id.clone(), route);
            }
            prompts = now;
        }
        Told::Score(prompt, score, at) => {
            routes.get(&prompt).into_iter().for_each(|route| publisher.publish_score(route, score, at));
        }
        Told::Heard(prompt, lasted, score) => {
            routes.get(&prompt).into_iter().for_each(|route| publisher.touch_event(route, lasted, score));
        }
        Told::Notice(prompt, notice) => {
            if let Some(route) = routes.get(&prompt) {
                publisher.publish_state(route, notice.duration.is_none());
                publisher.publish_event(route, notice);
            }
        }
    })
}

/// A source is listened to no more: nothing of it stays at the broker.
pub(super) fn forget(publisher: &Publisher, source: &str, prompts: &[Prompt]) {
    prompts.iter().for_each(|prompt| publisher.remove_state(&publisher.topics().route(source, prompt.id.as_str())));
}

/// Tells of one source.
pub(super) struct Teller {
    source: String,
    prompts: Arc<PromptTable>,
    audience: Audience,
    counters: Arc<ScoringCounters>,
    /// Begins every id: this run and this source.
    prefix: String,
    /// The number of the next event. It goes on where a pipeline is replaced and its own numbers begin again.
    next: u64,
    open: HashMap<PromptId, Open>,
}

#[derive(Debug, Clone)]
struct Open {
    id: String,
    started_at: SystemTime,
    /// The same on the sample clock, which does not jump when the time of day is set.
    began: SampleTime,
}

impl Teller {
    /// Nothing is open yet. `run` tells the events of this process from those of any other.
    pub(super) fn new(
        source: &str,
        run: &str,
        prompts: Arc<PromptTable>,
        mut audience: Audience,
        counters: Arc<ScoringCounters>,
    ) -> Self {
        audience(Told::Prompts(Arc::clone(&prompts)));
        let (prefix, open) = (format!("{run}-{source}"), HashMap::new());
        Self { source: source.into(), prompts, audience, counters, prefix, next: 0, open }
    }

    /// Other prompts from now on. The pipeline has ended the events of those that do not go on.
    pub(super) fn change_prompts(&mut self, prompts: Arc<PromptTable>) {
        (self.audience)(Told::Prompts(Arc::clone(&prompts)));
        self.prompts = prompts;
    }

    /// Tells of an output, whose sample clock meets the time of day at `anchor`.
    pub(super) fn tell(&mut self, output: &Output<'_>, anchor: &WallAnchor) {
        match output {
            Output::Window(window) => self.scores(window, anchor.wall_time(window.end)),
            Output::Event(event) => match event.kind {
                EventKind::Started => self.started(event, anchor),
                EventKind::Ended => self.ended(event),
            },
        }
    }

    fn scores(&mut self, window: &ScoredWindow<'_>, at: SystemTime) {
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
            (self.audience)(Told::Score(prompt.clone(), score, at));
            if let Some(open) = self.open.get(prompt) {
                (self.audience)(Told::Heard(prompt.clone(), window.end.since(open.began), score.score));
            }
        }
    }

    fn started(&mut self, event: &Event, anchor: &WallAnchor) {
        self.counters.events_started.add(1);
        let (id, began) = (format!("{}-{}", self.prefix, self.next), event.started_at);
        let open = Open { id, started_at: anchor.wall_time(began), began };
        self.next += 1;
        // Told first: what the log says has happened is in the outbox.
        self.notice(event, &open);
        log::info!("{}: {:?} started, score {:.1}", self.source, self.text(event), event.score);
        self.open.insert(event.prompt.clone(), open);
    }

    fn ended(&mut self, event: &Event) {
        let Some(open) = self.open.remove(&event.prompt) else { return };
        let seconds = event.ended_at.map_or(0.0, |end| end.since(event.started_at).as_secs_f64());
        self.notice(event, &open);
        log::info!("{}: {:?} ended after {seconds:.1} s, peak {:.1}", self.source, self.text(event), event.peak);
    }

    fn notice(&mut self, event: &Event, open: &Open) {
        let notice = EventRecord {
            id: open.id.clone(),
            prompt: self.text(event).into(),
            score: event.score,
            peak: event.peak,
            started_at: open.started_at,
            duration: event.ended_at.map(|end| end.since(open.began)),
        };
        (self.audience)(Told::Notice(event.prompt.clone(), notice));
    }

    fn text(&self, event: &Event) -> &str {
        self.prompts.get(&event.prompt).map_or("", Prompt::name)
    }
}
