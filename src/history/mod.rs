//! What was heard in the last hours: any sentence can be asked of it, and any rule be tried on it.
//!
//! The embedding of each window is kept in memory, and never written: what a home sounded like is nobody else's business, and what was
//! said cannot be got out of it. Sources' threads hand in windows; whoever asks copies them a few at a time and computes on a thread of
//! its own, so that no question delays a source.

mod captions;
mod replay;
mod ring;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clapd_core::model::TextEmbedding;
use clapd_core::pipeline::ScoredWindow;
use clapd_core::prompts::{PromptId, PromptScorer, PromptTable, Rule};
use clapd_core::score::{Calibration, Score};

use crate::time::Clocks;
pub use captions::{Captions, ScoredCaption};
pub use replay::PastEvent;
use replay::Replay;
use ring::{Batch, Link, Ring, StoredWindow};

/// Who was out for an evening finds all of it. At a window a second it is 41 MB a source with `mini`.
pub const DEFAULT_HOURS: u32 = 6;
/// Of a source, whatever the hours and the hop are: a small computer has 512 MB, and more than one source.
const MAX_BYTES: usize = 64 << 20;
/// The time of day was set; what moves it by less moves it gently, and is no step.
const CLOCK_STEP_MS: i64 = 1_000;
/// Scores that one question may be answered with: 12 prompts for 24 hours or 46 for 6, in some megabytes of JSON.
const MAX_SCORES: usize = 1_000_000;
/// The best moments of an answer.
const BEST: usize = 5;
/// Moments that are nearer to each other than this are one: neighbouring windows share most of their sound.
const APART_MS: i64 = 10_000;

/// What whoever asks is told where nothing is kept.
pub const NOT_KEPT: &str = "no past is kept; write [history] into the configuration, and restart clapd";

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistorySpec {
    /// Windows that are older are forgotten.
    pub hours: u32,
}

/// The moments that a question is about, in milliseconds since 1970, both included: windows that ended in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The first.
    pub from: i64,
    /// The last.
    pub to: i64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryError {
    /// There is no such source or prompt.
    Missing(String),
    /// What is asked for is too much.
    TooMuch(String),
    /// The answer needs what is not there yet.
    NotYet(String),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Missing(text) | Self::TooMuch(text) | Self::NotYet(text)) = self;
        f.write_str(text)
    }
}

/// What prompts scored. Lists have a place for each window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PastScores {
    /// When each window ended.
    pub at: Vec<i64>,
    /// Whether it was silent, and scores 0.
    pub gated: Vec<bool>,
    /// The share of it that was lost.
    pub lost: Vec<f32>,
    /// Each prompt's scores.
    pub prompts: Vec<(PromptId, Vec<f32>)>,
}

/// What a sentence would have scored.
#[derive(Debug, Clone, PartialEq)]
pub struct PastAnswer {
    /// When each window ended.
    pub at: Vec<i64>,
    /// Its score.
    pub scores: Vec<f32>,
    /// The moments with the highest scores, the highest first, at least 10 s apart.
    pub best: Vec<(i64, f32)>,
    /// What the scores took to compute.
    pub took: Duration,
}

/// What another rule would have made of a prompt's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIf {
    /// Its events, in order.
    pub events: Vec<PastEvent>,
    /// Events of the rule in force that would not have been.
    pub gone: usize,
}

/// The past of all sources. A clone is another handle to the same one.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    spec: HistorySpec,
    width: usize,
    calibration: Calibration,
    /// Between two windows, in microseconds.
    hop_us: AtomicU64,
    prompts: Mutex<Arc<PromptTable>>,
    sources: Mutex<BTreeMap<String, Arc<Mutex<Ring>>>>,
    /// The time of day, less a clock that nobody sets, in milliseconds.
    offset: Mutex<Option<i64>>,
    clock: Box<dyn Fn() -> Clocks + Send + Sync>,
    captions: Mutex<Option<Arc<Captions>>>,
    captions_wanted: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// An empty one, for embeddings of `width` numbers and texts with this curve.
    pub fn new(spec: HistorySpec, width: usize, calibration: Calibration) -> Self {
        Self::with_clock(spec, width, calibration, Clocks::now)
    }

    fn with_clock(
        spec: HistorySpec,
        width: usize,
        calibration: Calibration,
        clock: impl Fn() -> Clocks + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            spec,
            width,
            calibration,
            hop_us: AtomicU64::new(1_000_000),
            prompts: Mutex::default(),
            sources: Mutex::default(),
            offset: Mutex::default(),
            clock: Box::new(clock),
            captions: Mutex::default(),
            captions_wanted: AtomicBool::new(false),
        }))
    }

    /// What is listened for from now on, and how often.
    pub fn set_prompts(&self, prompts: Arc<PromptTable>, hop: Duration) {
        *lock(&self.0.prompts) = prompts;
        self.0.hop_us.store(u64::try_from(hop.as_micros()).unwrap_or(u64::MAX).max(1), Relaxed);
    }

    /// What is listened for.
    pub fn prompts(&self) -> Arc<PromptTable> {
        Arc::clone(&lock(&self.0.prompts))
    }

    /// Windows of a source that there is room for.
    fn capacity(&self) -> usize {
        let hours = u64::from(self.0.spec.hours) * 3_600_000_000;
        let windows = usize::try_from(hours / self.0.hop_us.load(Relaxed)).unwrap_or(usize::MAX);
        windows.min(MAX_BYTES / Ring::window_bytes(self.0.width))
    }

    /// Where one source hands in its windows; what an earlier source of this id has handed in is still there.
    pub fn recorder(&self, source: &str) -> Recorder {
        let mut sources = lock(&self.0.sources);
        let ring = sources.entry(source.into()).or_insert_with(|| Mutex::new(Ring::new(self.0.width, 1)).into());
        Recorder { history: self.clone(), ring: Arc::clone(ring), anew: true }
    }

    /// Forgets sources but these.
    pub fn retain(&self, is_source: impl Fn(&str) -> bool) {
        lock(&self.0.sources).retain(|id, _| is_source(id));
    }

    /// The ids of all sources.
    pub fn sources(&self) -> Vec<String> {
        lock(&self.0.sources).keys().cloned().collect()
    }

    /// The time of day less the clock that times are stored by: what was stored before somebody set the clock is right afterwards.
    /// It changes by steps alone, so that a window's time stays the same to the millisecond.
    fn offset(&self) -> i64 {
        let now = (self.0.clock)();
        let measured = millis(now.wall) - i64::try_from(now.boot.since_start().as_millis()).unwrap_or(i64::MAX);
        let mut offset = lock(&self.0.offset);
        match *offset {
            Some(known) if (measured - known).abs() < CLOCK_STEP_MS => known,
            _ => *offset.insert(measured),
        }
    }

    fn ring(&self, source: &str) -> Result<Arc<Mutex<Ring>>, HistoryError> {
        let sources = lock(&self.0.sources);
        sources.get(source).cloned().ok_or_else(|| {
            let known: Vec<&str> = sources.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "no source has begun".into() } else { format!("there is {}", known.join(", ")) };
            HistoryError::Missing(format!("there is no source of this id; {known}"))
        })
    }

    /// Gives the windows that ended in `period`, in order, some at a time, and what is to be added to their times.
    fn read(&self, source: &str, period: Period, mut take: impl FnMut(&mut Batch, i64)) -> Result<(), HistoryError> {
        let (ring, offset) = (self.ring(source)?, self.offset());
        let is_wanted = |at: i64| (period.from..=period.to).contains(&(at + offset));
        let (mut batch, mut next) = (Batch::default(), Some(0));
        while let Some(number) = next {
            next = lock(&ring).read(number, is_wanted, &mut batch);
            take(&mut batch, offset);
        }
        Ok(())
    }

    /// Gives each window that ended in `period`, in order, with the time of day at its end and its scores by `table`.
    fn score(
        &self,
        source: &str,
        table: &Arc<PromptTable>,
        period: Period,
        mut take: impl FnMut(i64, &StoredWindow, &[Score]),
    ) -> Result<(), HistoryError> {
        let mut scorer = PromptScorer::new(Arc::clone(table), self.0.calibration.clone());
        let nothing = vec![Score::default(); table.len()];
        self.read(source, period, |batch, offset| {
            batch.for_each(|window, embedding| {
                let scores = if window.gated { &nothing } else { scorer.score(embedding) };
                take(window.at + offset, window, scores);
            });
        })
    }

    /// What the prompts that are listened for scored, or those of `ids`, by the embeddings and contrasts that they have now.
    ///
    /// # Errors
    /// No such source or prompt; more scores than one answer has.
    pub fn scores(&self, source: &str, ids: Option<&[&str]>, period: Period) -> Result<PastScores, HistoryError> {
        let mut table = self.prompts();
        if let Some(ids) = ids {
            if let Some(unknown) = ids.iter().find(|id| table.named(id).is_none()) {
                return Err(missing_prompt(unknown));
            }
            table = Arc::new(table.select(|id| ids.contains(&id.as_str())));
        }
        let offset = self.offset();
        let windows =
            lock(&*self.ring(source)?).count(period.from.saturating_sub(offset), period.to.saturating_sub(offset));
        if windows * table.len() > MAX_SCORES {
            let seen = format!("{windows} windows of {} prompts are more than {MAX_SCORES} scores", table.len());
            return Err(HistoryError::TooMuch(format!("{seen}; name some prompts, or ask for a shorter time")));
        }
        let mut past = PastScores::default();
        let mut columns = vec![Vec::with_capacity(windows); table.len()];
        self.score(source, &table, period, |at, window, scores| {
            past.at.push(at);
            past.gated.push(window.gated);
            past.lost.push(window.lost);
            columns.iter_mut().zip(scores).for_each(|(column, score)| column.push(score.score));
        })?;
        past.prompts = table.prompts().iter().map(|prompt| prompt.id.clone()).zip(columns).collect();
        Ok(past)
    }

    /// What the text with this embedding would have scored as a prompt without contrasts.
    ///
    /// # Errors
    /// No such source; an embedding of another model.
    pub fn ask(&self, source: &str, text: &TextEmbedding, period: Period) -> Result<PastAnswer, HistoryError> {
        let began = Instant::now();
        if text.vector.len() != self.0.width {
            let text = format!("the text's embedding has {} numbers, the model's {}", text.vector.len(), self.0.width);
            return Err(HistoryError::Missing(text));
        }
        let (mut at, mut scores) = (Vec::new(), Vec::new());
        self.read(source, period, |batch, offset| {
            batch.for_each_cosine(&text.vector, |window, cosine| {
                at.push(window.at + offset);
                let score = self.0.calibration.score(cosine.clamp(-1.0, 1.0)).score;
                scores.push(if window.gated { 0.0 } else { score });
            });
        })?;
        let best = best(&at, &scores);
        Ok(PastAnswer { at, scores, best, took: began.elapsed() })
    }

    /// What `rule` would have made of the scores of this prompt, against what the rule in force makes of them. Quiet hours count for
    /// nothing. Events are those that were open in the period; windows before it have their say, as they had.
    ///
    /// # Errors
    /// No such source or prompt.
    pub fn what_if(&self, source: &str, prompt: &str, rule: Rule, period: Period) -> Result<WhatIf, HistoryError> {
        let table = self.prompts();
        let prompt = table.named(prompt).cloned().ok_or_else(|| missing_prompt(prompt))?;
        let table = Arc::new(table.select(|id| *id == prompt.id));
        let [mut proposed, mut in_force] = [rule, prompt.rule].map(|rule| Replay::new(prompt.id.clone(), rule));
        self.score(source, &table, Period { from: i64::MIN, ..period }, |at, window, scores| {
            for score in scores {
                proposed.push(at, window, *score);
                in_force.push(at, window, *score);
            }
        })?;
        let is_in_period = |event: &PastEvent| {
            event.started_at <= period.to && event.ended_at.is_none_or(|ended_at| ended_at >= period.from)
        };
        let [mut events, mut before] = [proposed.into_events(), in_force.into_events()];
        events.retain(is_in_period);
        before.retain(is_in_period);
        let gone = replay::compare(&mut events, &before);
        Ok(WhatIf { events, gone })
    }

    /// The captions that describe a source's newest window best, with the time of its end. None where the window was silent, or there
    /// was none yet.
    ///
    /// # Errors
    /// No such source; captions that are not embedded yet, which is begun then.
    pub fn heard(&self, source: &str, count: usize) -> Result<Option<(i64, Vec<ScoredCaption>)>, HistoryError> {
        let (ring, offset) = (self.ring(source)?, self.offset());
        let Some(captions) = self.captions() else {
            self.want_captions();
            return Err(HistoryError::NotYet("the captions are being embedded; ask again in some seconds".into()));
        };
        let newest = lock(&ring).newest();
        Ok(newest.map(|(window, embedding)| (window.at + offset, captions.best(&embedding, count))))
    }

    /// The captions, once they are embedded.
    pub fn captions(&self) -> Option<Arc<Captions>> {
        lock(&self.0.captions).clone()
    }

    /// Somebody wants to see captions.
    pub fn want_captions(&self) {
        self.0.captions_wanted.store(true, Relaxed);
    }

    /// Whether somebody wants captions, and they are not there: they are to be embedded. Once for each that wants them.
    pub fn take_wanted_captions(&self) -> bool {
        self.0.captions_wanted.swap(false, Relaxed) && self.captions().is_none()
    }

    /// The captions are embedded.
    ///
    /// # Errors
    /// An embedding of another model.
    pub fn set_captions(&self, embeddings: &[TextEmbedding]) -> Result<()> {
        let captions = Captions::new(self.0.width, embeddings, self.0.calibration.clone())?;
        *lock(&self.0.captions) = Some(captions.into());
        Ok(())
    }
}

fn missing_prompt(id: &str) -> HistoryError {
    HistoryError::Missing(format!("there is no prompt {id:?}; prompts/get lists them"))
}

/// Milliseconds since 1970; what is before that counts below 0.
pub fn millis(time: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

/// The highest scores and when they were, no two of the same moment.
fn best(at: &[i64], scores: &[f32]) -> Vec<(i64, f32)> {
    let mut order: Vec<_> = at.iter().copied().zip(scores.iter().copied()).collect();
    // Of equal scores the newest.
    order.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
    let mut best: Vec<(i64, f32)> = Vec::with_capacity(BEST);
    for (at, score) in order {
        if best.len() == BEST {
            break;
        }
        if best.iter().all(|(other, _)| (other - at).abs() >= APART_MS) {
            best.push((at, score));
        }
    }
    best
}

/// Hands in the windows of one source.
pub struct Recorder {
    history: History,
    ring: Arc<Mutex<Ring>>,
    /// Another detector than that of the window before listens now.
    anew: bool,
}

impl Recorder {
    /// A window was scored, which ended at this time of day.
    pub fn window(&mut self, window: &ScoredWindow<'_>, end: SystemTime) {
        let link = match (std::mem::take(&mut self.anew), window.continues) {
            (true, _) => Link::Anew,
            (false, true) => Link::Continues,
            (false, false) => Link::Interrupted,
        };
        let stored = StoredWindow {
            at: millis(end) - self.history.offset(),
            start: window.start,
            end: window.end,
            lost: window.lost,
            gated: window.gated,
            link,
        };
        let capacity = self.history.capacity();
        let mut ring = lock(&self.ring);
        if ring.capacity() != capacity.max(1) {
            *ring = ring.with_capacity(capacity);
        }
        ring.push(stored, window.embedding);
    }

    /// Listening stops for now; what comes next has another detector.
    pub fn interrupt(&mut self) {
        self.anew = true;
    }
}

#[cfg(test)]
mod tests;
