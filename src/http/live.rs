//! What a source hears, as it is sent: windows with why there was no event, columns of the spectrogram, levels, events.
//!
//! The source's own thread writes it, once for all viewers, and only what somebody watches: without a viewer a window costs a lock
//! and a copy of its scores, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clapd_core::detect::Verdict;
use clapd_core::dsp::FrontendSpec;
use clapd_core::level::{PowerSums, decibels};
use clapd_core::pipeline::ScoredWindow;
use clapd_core::prompts::{Prompt, PromptId};
use clapd_core::samples::Samples;
use clapd_core::score::Score;
use serde::Serialize;
use serde_json::Value;

use super::Site;
use super::api::past::{CaptionBody, captions};
use super::feed::EventKind;
use crate::mqtt::{self, rounded, time_of_day};
use crate::outbox::EventRecord;

/// The levels that a byte of a column stands for at 0 and 255. A quiet room through a small microphone has bands of -90 dB; nothing that
/// is not clipped is above full scale. Steps are 0.4 dB, which nobody sees.
pub(super) const FLOOR_DB: f32 = -100.0;
pub(super) const TOP_DB: f32 = 0.0;
/// From one message of columns, and of a level, to the next: the eye takes four a second for motion, and each costs a viewer a packet.
const BATCH: Duration = Duration::from_millis(250);
/// Captions of a window: a line.
const CAPTIONS: usize = 3;
/// What is quieter has no sound in it, as 16 bits have.
const QUIETEST_DB: f64 = -120.0;

/// What metrics say of sources, beside health.
#[derive(Default)]
pub(super) struct Observed(Mutex<BTreeMap<String, SourceObserved>>);

/// What was seen of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceObserved {
    /// The newest score of each prompt.
    pub(super) scores: Vec<(PromptId, f32)>,
    /// Starts, by prompt.
    pub(super) events: BTreeMap<PromptId, u64>,
}

impl Observed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SourceObserved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn set(&self, source: &str, observed: SourceObserved) {
        self.lock().insert(source.into(), observed);
    }

    /// All of it, by source.
    pub(super) fn get(&self) -> BTreeMap<String, SourceObserved> {
        self.lock().clone()
    }
}

/// Milliseconds from one column to the next.
pub(super) fn hop_ms(frontend: &FrontendSpec) -> f64 {
    1e3 * frontend.hop_length as f64 / f64::from(frontend.sample_rate)
}

/// Where one source hands in what it hears.
pub struct LiveSource {
    site: Arc<Site>,
    id: String,
    columns: Columns,
    level: LevelMeter,
}

#[derive(Default)]
struct Columns {
    began: Option<SystemTime>,
    /// A byte a band, column after column.
    bytes: Vec<u8>,
}

#[derive(Default)]
struct LevelMeter {
    sums: PowerSums,
    peak: f32,
    count: u64,
}

/// A window; its names are frozen, as all below are.
#[derive(Serialize)]
struct WindowBody<'a> {
    source: &'a str,
    started_at: String,
    ended_at: String,
    /// The share of it that was lost, 0 to 1.
    lost: f64,
    /// It was silent, and was not encoded.
    gated: bool,
    /// The stock captions that describe it best; left out where it was silent, and until they are embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<Vec<CaptionBody>>,
    prompts: Vec<WindowPrompt<'a>>,
}

#[derive(Serialize)]
struct WindowPrompt<'a> {
    id: &'a str,
    score: f64,
    cosine: f64,
    verdict: &'static str,
    /// Why no event began, in words; left out where one is open, begins or ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize)]
struct MelBody<'a> {
    source: &'a str,
    /// When the first column is.
    at: String,
    hop_ms: f64,
    bands: usize,
    /// Base64 of a byte a band, column after column.
    columns: String,
}

#[derive(Serialize)]
struct LevelBody<'a> {
    source: &'a str,
    at: String,
    /// RMS in dB below full scale.
    db: f64,
    /// The largest sample in dB below full scale.
    peak_db: f64,
}

impl LiveSource {
    pub(super) fn new(site: Arc<Site>, id: &str) -> Self {
        Self { site, id: id.into(), columns: Columns::default(), level: LevelMeter::default() }
    }

    /// Whether anybody watches the spectrogram.
    pub fn wants_mel(&self) -> bool {
        self.site.feed.has_spectrograms()
    }

    /// A block of sound, whose first sample has this time of day.
    pub fn samples(&mut self, rate: u32, samples: Samples<'_>, at: SystemTime) {
        if !self.site.feed.has_viewers() {
            self.level = LevelMeter::default();
            return;
        }
        let mut done = 0;
        let block = (f64::from(rate) * BATCH.as_secs_f64()) as u64;
        for sample in samples.data {
            self.level.sums.push(*sample);
            self.level.peak = self.level.peak.max(sample.abs());
            (self.level.count, done) = (self.level.count + 1, done + 1);
            if self.level.count >= block {
                let end = at + Duration::from_secs_f64(f64::from(done) / f64::from(rate));
                self.send_level(end);
            }
        }
    }

    fn send_level(&mut self, at: SystemTime) {
        let LevelMeter { sums, peak, .. } = std::mem::take(&mut self.level);
        let bounded = |db: f64| rounded(db.max(QUIETEST_DB), 1);
        let db = decibels(sums.power());
        let peak_db = 2.0 * decibels(f64::from(peak));
        let body = LevelBody { source: &self.id, at: time_of_day(at), db: bounded(db), peak_db: bounded(peak_db) };
        self.site.feed.publish(EventKind::Level, Some(&self.id), &body);
    }

    /// A column of the spectrogram, as the model's front end has it.
    pub fn mel(&mut self, row: &[f32], at: SystemTime) {
        let frontend = &self.site.frontend;
        let byte = |value: &f32| {
            let share = (frontend.band_decibels(*value) - FLOOR_DB) / (TOP_DB - FLOOR_DB);
            // No number becomes 0, as silence does.
            (share.clamp(0.0, 1.0) * 255.0).round() as u8
        };
        self.columns.began.get_or_insert(at);
        self.columns.bytes.extend(row.iter().map(byte));
        let columns = self.columns.bytes.len() / frontend.mel_bins.max(1);
        if columns as f64 * hop_ms(frontend) >= BATCH.as_secs_f64() * 1e3 {
            self.send_columns();
        }
    }

    fn send_columns(&mut self) {
        let Columns { began, bytes } = std::mem::take(&mut self.columns);
        let Some(began) = began else { return };
        let frontend = &self.site.frontend;
        let body = MelBody {
            source: &self.id,
            at: time_of_day(began),
            hop_ms: hop_ms(frontend),
            bands: frontend.mel_bins,
            columns: STANDARD.encode(bytes),
        };
        self.site.feed.publish(EventKind::Mel, Some(&self.id), &body);
    }

    /// A window that was scored.
    pub fn window(&mut self, window: &ScoredWindow<'_>, start: SystemTime, end: SystemTime) {
        let scores: Vec<_> = window.by_prompt().map(|(id, score)| (id.clone(), score.score)).collect();
        {
            let mut observed = self.site.observed.lock();
            let source = observed.entry(self.id.clone()).or_default();
            // Of prompts that are listened for no more nothing is said.
            if source.events.len() > scores.len() {
                source.events.retain(|id, _| window.prompts.get(id).is_some());
            }
            source.scores = scores;
        }
        if self.site.feed.has_viewers() {
            let heard = self.site.past.history.as_ref().zip(window.embedding);
            let heard = heard.and_then(|(history, embedding)| captions(history, embedding, CAPTIONS));
            let body = WindowBody { heard, ..window_body(&self.id, window, start, end) };
            self.site.feed.publish(EventKind::Window, Some(&self.id), &body);
        }
    }

    /// A start or an end.
    pub fn event(&mut self, prompt: &PromptId, record: &EventRecord) {
        if record.duration.is_none() {
            let mut observed = self.site.observed.lock();
            let source = observed.entry(self.id.clone()).or_default();
            *source.events.entry(prompt.clone()).or_default() += 1;
        }
        match event_value(&self.id, prompt, record) {
            Ok(value) => self.site.feed.publish(EventKind::Event, Some(&self.id), &value),
            Err(error) => log::error!("http: an event cannot be written: {error}"),
        }
    }

    /// What comes next does not continue what came before.
    pub fn interrupt(&mut self) {
        self.send_columns();
        self.level = LevelMeter::default();
    }
}

impl Drop for LiveSource {
    /// Of a source that is listened to no more nothing is said.
    fn drop(&mut self) {
        self.site.observed.lock().remove(&self.id);
    }
}

fn window_body<'a>(source: &'a str, window: &ScoredWindow<'a>, start: SystemTime, end: SystemTime) -> WindowBody<'a> {
    let verdicts = window.verdicts.iter().copied().chain(std::iter::repeat(Verdict::Below));
    let prompts = window.prompts.prompts().iter().zip(window.scores).zip(verdicts).map(|((prompt, score), verdict)| {
        let (verdict, why) = explain(verdict, prompt, *score, window);
        WindowPrompt {
            id: prompt.id.as_str(),
            score: rounded(score.score, 2),
            cosine: rounded(score.cosine, 4),
            verdict,
            why,
        }
    });
    WindowBody {
        source,
        started_at: time_of_day(start),
        ended_at: time_of_day(end),
        lost: rounded(window.lost, 3),
        gated: window.gated,
        heard: None,
        prompts: prompts.collect(),
    }
}

/// A verdict's name, and why no event began, in words.
fn explain(
    verdict: Verdict,
    prompt: &Prompt,
    score: Score,
    window: &ScoredWindow<'_>,
) -> (&'static str, Option<String>) {
    let start = prompt.rule.start;
    match verdict {
        Verdict::Lost => ("lost", Some(format!("{:.0}% of the window was lost", window.lost * 100.0))),
        Verdict::Below if window.gated => ("gated", Some("it is silent (scoring.gate_db)".into())),
        Verdict::Below => ("below", Some(format!("{:.1} is below {start:.1}", score.score))),
        Verdict::Contrasted(alone) => (
            "contrasted",
            Some(format!("{alone:.1} alone, and a contrast scored higher: {:.1} is below {start:.1}", score.score)),
        ),
        Verdict::Confirming(agreeing, needed) => ("confirming", Some(format!("{agreeing} of {needed} windows agree"))),
        Verdict::Cooling(left) => ("cooling", Some(format!("cooling down for {:.0} s", left.as_secs_f64().ceil()))),
        Verdict::Started => ("started", None),
        Verdict::Open => ("open", None),
        Verdict::Ended => ("ended", None),
        Verdict::Quiet => ("quiet", Some("quiet hours, or a snooze".into())),
    }
}

/// What MQTT says of an event, and of which source and prompt it is: over MQTT that stands in the topic.
fn event_value(source: &str, prompt: &PromptId, record: &EventRecord) -> serde_json::Result<Value> {
    let mut value: Value = serde_json::from_slice(&mqtt::event_payload(record)?)?;
    value["source"] = source.into();
    value["prompt_id"] = prompt.as_str().into();
    Ok(value)
}
