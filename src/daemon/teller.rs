//! From a pipeline's outputs to what people and the house are told.
//!
//! In: windows and events on the sample clock, with the anchor to the time of day. Out: log lines, and [`Told`] to a closure.
//! Never: tells an end without its start, or with another id or another time of its start.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clapd_core::detect::{Event, EventKind, Prompt, Score};
use clapd_core::pipeline::{Output, ScoredWindow};
use clapd_core::time::SampleTime;

use crate::health::ScoringCounters;
use crate::mqtt::{Publisher, Route};
use crate::outbox::Notice;
use crate::time::WallAnchor;

/// What the house is told of a prompt, which is named by its index.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    /// Its score in the window that ended then.
    Score(usize, Score, SystemTime),
    /// Its event is open still: how long it had gone on when the window ended, and the window's score.
    Heard(usize, Duration, f32),
    /// A start or an end.
    Notice(usize, Notice),
    /// From now on it is these prompts that indices are of.
    Prompts(Arc<[Prompt]>),
}

/// Whoever is told.
pub(super) type Audience = Box<dyn FnMut(Told) + Send>;

/// The house behind a broker, where it hears of a prompt first of all that no event is open: it may remember another run.
pub(super) fn audience(publisher: Publisher, source: String) -> Audience {
    let mut routes: Vec<Route> = Vec::new();
    Box::new(move |told| match told {
        Told::Prompts(prompts) => {
            let before = std::mem::replace(&mut routes, routes_of(&publisher, &source, &prompts));
            before.iter().filter(|route| !routes.contains(route)).for_each(|route| publisher.forget(route));
            routes.iter().filter(|route| !before.contains(route)).for_each(|route| publisher.state(route, false));
        }
        Told::Score(prompt, score, at) => {
            routes.get(prompt).into_iter().for_each(|route| publisher.score(route, score, at));
        }
        Told::Heard(prompt, lasted, score) => {
            routes.get(prompt).into_iter().for_each(|route| publisher.heard(route, lasted, score));
        }
        Told::Notice(prompt, notice) => {
            if let Some(route) = routes.get(prompt) {
                publisher.state(route, notice.duration.is_none());
                publisher.event(route, notice);
            }
        }
    })
}

fn routes_of(publisher: &Publisher, source: &str, prompts: &[Prompt]) -> Vec<Route> {
    prompts.iter().map(|prompt| publisher.topics().route(source, &prompt.id)).collect()
}

/// A source is listened to no more: nothing of it stays at the broker.
pub(super) fn forget(publisher: &Publisher, source: &str, prompts: &[Prompt]) {
    routes_of(publisher, source, prompts).iter().for_each(|route| publisher.forget(route));
}

/// Tells of one source.
pub(super) struct Teller {
    source: String,
    prompts: Arc<[Prompt]>,
    audience: Audience,
    counters: Arc<ScoringCounters>,
    /// Begins every id: this run and this source.
    prefix: String,
    /// The number of the next event. It goes on where a pipeline is replaced and its own numbers begin again.
    next: u64,
    open: Vec<Option<Open>>,
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
        prompts: Arc<[Prompt]>,
        mut audience: Audience,
        counters: Arc<ScoringCounters>,
    ) -> Self {
        let open = vec![None; prompts.len()];
        audience(Told::Prompts(Arc::clone(&prompts)));
        Self { source: source.into(), prompts, audience, counters, prefix: format!("{run}-{source}"), next: 0, open }
    }

    /// Other prompts from now on; `kept` names, for each of them, the one before whose event it goes on with.
    pub(super) fn change_prompts(&mut self, prompts: Arc<[Prompt]>, kept: &[Option<usize>]) {
        let mut before = std::mem::take(&mut self.open);
        self.open = kept.iter().map(|kept| kept.and_then(|index| before.get_mut(index)?.take())).collect();
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
        if counter.add(1) && window.gated {
            let gated = counter.get();
            log::info!(
                "{}: {gated} silent window(s) so far, not encoded and scored 0; see scoring.gate_db",
                self.source
            );
        }
        for (prompt, score) in window.scores.iter().enumerate() {
            (self.audience)(Told::Score(prompt, *score, at));
            if let Some(Some(open)) = self.open.get(prompt) {
                (self.audience)(Told::Heard(prompt, window.end.since(open.began), score.score));
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
        if let Some(slot) = self.open.get_mut(event.prompt) {
            *slot = Some(open);
        }
    }

    fn ended(&mut self, event: &Event) {
        let Some(open) = self.open.get_mut(event.prompt).and_then(Option::take) else { return };
        let seconds = event.ended_at.map_or(0.0, |end| end.since(event.started_at).as_secs_f64());
        self.notice(event, &open);
        log::info!("{}: {:?} ended after {seconds:.1} s, peak {:.1}", self.source, self.text(event), event.peak);
    }

    fn notice(&mut self, event: &Event, open: &Open) {
        let notice = Notice {
            id: open.id.clone(),
            prompt: self.text(event).into(),
            score: event.score,
            peak: event.peak,
            started_at: open.started_at,
            duration: event.ended_at.map(|end| end.since(open.began)),
        };
        (self.audience)(Told::Notice(event.prompt, notice));
    }

    fn text(&self, event: &Event) -> &str {
        self.prompts.get(event.prompt).map_or("", Prompt::name)
    }
}
