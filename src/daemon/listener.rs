//! The thread of one source: it reads, scores and tells until the source is over or the daemon stops.
//!
//! In: a [`Source`]'s blocks. Out: what a [`Teller`] tells, counters, progress.
//! Never: ends with an event open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::progress::Progress;
use super::teller::Teller;
use crate::capture::{Rarely, Read, Source, SourceCounters, SourceKind, State};
use crate::health::{ScoringCounters, SourceHealth};
use crate::pipeline::{MAX_OUTAGE, Model, Output, Pace, Pipeline, PromptSet};
use crate::samples::Samples;
use crate::time::{SampleTime, WallAnchor};

/// How long a listener waits for sound before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(200);

/// What the main thread can see of a source.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) id: String,
    /// Whether silence of the source itself is suspicious: a microphone always delivers samples, a pipe may not.
    pub(super) steady: bool,
    pub(super) capture: Arc<SourceCounters>,
    pub(super) scoring: Arc<ScoringCounters>,
    pub(super) progress: Progress,
}

impl Seen {
    pub(super) fn new(id: &str, kind: &SourceKind) -> Self {
        Self { id: id.into(), steady: matches!(kind, SourceKind::Device { .. }), ..Self::default() }
    }

    pub(super) fn health(&self) -> SourceHealth {
        SourceHealth {
            id: self.id.clone(),
            state: match self.capture.state() {
                State::Starting => "starting",
                State::Live => "live",
                State::Lost => "lost",
                State::Ended => "ended",
            },
            samples_lost: self.capture.samples_lost.load(Relaxed),
            samples_bad: self.capture.samples_bad.load(Relaxed),
            reopens: self.capture.reopens.load(Relaxed),
            stream_errors: self.capture.stream_errors.load(Relaxed),
            windows_scored: self.scoring.windows_scored.get(),
            windows_skipped: self.scoring.windows_skipped.get(),
            windows_gated: self.scoring.windows_gated.get(),
            events_started: self.scoring.events_started.get(),
        }
    }
}

/// Whatever a pipeline is made of.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) model: Model,
    pub(super) prompts: PromptSet,
    pub(super) hop: Duration,
    /// Level below which a window is silent, in dB; none: every window is scored.
    pub(super) gate_db: Option<f32>,
}

/// One source's thread, before it runs.
pub(super) struct Listener {
    pub(super) source: Source,
    pub(super) ear: Ear,
    pub(super) stop: Arc<AtomicBool>,
}

impl Listener {
    /// Starts the thread; its result is why the source could not be read to its end.
    pub(super) fn spawn(mut self) -> io::Result<JoinHandle<Result<()>>> {
        let name = format!("hear-{}", self.ear.seen.id);
        thread::Builder::new().name(name).spawn(move || {
            let read = self.read_all();
            if self.stop.load(Relaxed) {
                self.ear.leave();
                return read;
            }
            let finished = self.ear.finish();
            read.and(finished)
        })
    }

    fn read_all(&mut self) -> Result<()> {
        while !self.stop.load(Relaxed) {
            match self.source.read(LOOK)? {
                Read::Block { rate, samples, anchor } => self.ear.hear(rate, samples, anchor)?,
                Read::Idle => self.ear.hear_nothing(),
                Read::End => break,
            }
        }
        Ok(())
    }
}

/// From blocks to outputs.
pub(super) struct Ear {
    seen: Arc<Seen>,
    recipe: Recipe,
    pace: Pace,
    teller: Teller,
    current: Option<Current>,
    failures: Rarely,
    losses: Rarely,
    /// When sound last came.
    heard: Instant,
    /// Windows that earlier pipelines of this source skipped.
    skipped: u64,
}

struct Current {
    rate: u32,
    pipeline: Pipeline,
    anchor: WallAnchor,
}

impl Ear {
    pub(super) fn new(seen: Arc<Seen>, kind: &SourceKind, recipe: Recipe, teller: Teller) -> Self {
        // What comes at the pace of the world can't wait for us; a file and a pipe can.
        let pace = match kind {
            SourceKind::Device { .. } | SourceKind::File { realtime: true, .. } => Pace::Live,
            SourceKind::File { .. } | SourceKind::Stdin => Pace::Every,
        };
        Self {
            seen,
            recipe,
            pace,
            teller,
            current: None,
            failures: Rarely::default(),
            losses: Rarely::default(),
            heard: Instant::now(),
            skipped: 0,
        }
    }

    fn hear(&mut self, rate: u32, samples: Samples<'_>, anchor: WallAnchor) -> Result<()> {
        if self.current.as_ref().is_none_or(|current| current.rate != rate) {
            self.finish().unwrap_or_else(|error| self.missed(&error));
            log::info!("{}: listening at {rate} Hz", self.seen.id);
            let Recipe { model, prompts, hop, gate_db } = self.recipe.clone();
            let mut pipeline = Pipeline::new(model, prompts, rate, hop, self.pace)?;
            if let Some(gate_db) = gate_db {
                pipeline = pipeline.with_gate(gate_db);
            }
            self.current = Some(Current { rate, pipeline, anchor });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.anchor = anchor;
        let (teller, mut scored) = (&mut self.teller, false);
        let pushed = current.pipeline.push(samples, &mut |output| {
            scored |= matches!(output, Output::Window(_));
            teller.tell(&output, &anchor);
        });
        let skipped = self.skipped + current.pipeline.windows_skipped();
        let more = skipped - self.seen.scoring.windows_skipped.get();
        if self.seen.scoring.windows_skipped.add(more) {
            log::warn!(
                "{}: {skipped} windows skipped so far: this computer is too slow, or busy; see scoring.hop_s",
                self.seen.id
            );
        }
        // The next window may go well. If none does, there is no progress, and the watchdog ends it.
        pushed.unwrap_or_else(|error| self.missed(&error));
        self.tell_losses(samples.lost, rate);
        self.heard = Instant::now();
        let length = SampleTime::from_samples(samples.data.len() as u64, rate).since(SampleTime::ZERO);
        self.seen.progress.sound(length, scored);
        Ok(())
    }

    fn hear_nothing(&mut self) {
        let live = self.seen.capture.state() == State::Live;
        if !self.seen.steady || !live {
            self.seen.progress.excused();
        }
        if self.seen.steady
            && !live
            && self.heard.elapsed() > MAX_OUTAGE
            && let Some(Current { pipeline, anchor, .. }) = &mut self.current
        {
            pipeline.interrupt(&mut |output| self.teller.tell(&output, anchor));
        }
    }

    fn missed(&mut self, error: &anyhow::Error) {
        if let Some(times) = self.failures.happened(1) {
            log::error!("{}: a window could not be scored ({times} so far): {error:#}", self.seen.id);
        }
    }

    fn tell_losses(&mut self, lost: u64, rate: u32) {
        if lost > 0
            && let Some(times) = self.losses.happened(1)
        {
            let seconds = lost as f64 / f64::from(rate);
            log::warn!("{}: {seconds:.2} s of sound were lost ({times} losses so far)", self.seen.id);
        }
    }

    /// Ends what is open where it was heard last. The sound goes on: a window between two hops would only be scored to say
    /// something else than the next run of the same sound would, and there is little time to leave in.
    fn leave(&mut self) {
        if let Some(Current { pipeline, anchor, .. }) = &mut self.current {
            pipeline.interrupt(&mut |output| self.teller.tell(&output, anchor));
        }
    }

    /// The sound is over: scores what is left, and ends what is open.
    fn finish(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let (teller, anchor) = (&mut self.teller, current.anchor);
        let finished = current.pipeline.finish(&mut |output| teller.tell(&output, &anchor));
        self.skipped += current.pipeline.windows_skipped();
        finished
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use super::*;
    use crate::clap::{Encode, TextEmbedding, Windowing};
    use crate::daemon::teller::Told;
    use crate::detect::{Calibration, Prompt, Rule};
    use crate::dsp::FrontendSpec;
    use crate::outbox::Notice;

    /// Hears loudness: a loud patch is the prompt, a silent one its opposite.
    struct Loudness;

    impl Encode for Loudness {
        fn feature_len(&self) -> usize {
            1
        }

        fn embedding_len(&self) -> usize {
            1
        }

        fn encode(&self, patch: &[f32], features: &mut [f32]) -> Result<()> {
            // Silence is ln(0.001) = -6.9 in every band.
            features[0] = if patch.iter().any(|mel| *mel > -6.0) { 1.0 } else { -1.0 };
            Ok(())
        }

        fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
            embedding[0] = mean[0].signum();
            Ok(())
        }
    }

    fn ear(kind: &SourceKind, told: Arc<Mutex<Vec<Told>>>) -> Ear {
        let frontend = FrontendSpec::yamnet();
        let windowing = Windowing { patch: frontend.patch_samples() as u64, patch_hop: 0, patches: 1 };
        let calibration = Calibration::new(vec![[-1.0, 0.0], [1.0, 10.0]]).unwrap();
        let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
        let text = TextEmbedding { vector: vec![1.0], coverage: None };
        let prompts = PromptSet::new(1, [(&text, rule, &[][..])]).unwrap();
        let recipe = Recipe {
            model: Model { encoder: Arc::new(Loudness), frontend, windowing, calibration },
            prompts,
            hop: Duration::from_secs(1),
            gate_db: None,
        };
        let seen = Arc::new(Seen::new("mic", kind));
        let prompt = Prompt { id: "loud".into(), text: "something loud".into(), rule, contrast: Vec::new() };
        let house = Box::new(move |word| told.lock().unwrap().push(word));
        let teller = Teller::new("mic", "run", [prompt].into(), house, Arc::clone(&seen.scoring));
        Ear::new(seen, kind, recipe, teller)
    }

    /// Lets the ear hear a second a level, all at `rate`, from `began` on.
    fn hear(ear: &mut Ear, rate: u32, began: SystemTime, levels: &[f32]) {
        for (second, level) in (0_u64..).zip(levels) {
            let samples: Vec<f32> = (0..rate).map(|n| level * (n as f32 * 0.5).sin()).collect();
            let at = SampleTime::from_samples(second * u64::from(rate), rate);
            let anchor = WallAnchor { at, wall: began + at.since(SampleTime::ZERO) };
            ear.hear(rate, Samples::whole(&samples), anchor).unwrap();
        }
    }

    fn notices(told: &Mutex<Vec<Told>>) -> Vec<Notice> {
        let told = told.lock().unwrap();
        told.iter()
            .filter_map(|word| if let Told::Notice(0, notice) = word { Some(notice.clone()) } else { None })
            .collect()
    }

    #[test]
    fn every_start_has_its_end_also_where_the_rate_changes() {
        let told = Arc::default();
        let mut ear = ear(&SourceKind::Stdin, Arc::clone(&told));
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        hear(&mut ear, 16_000, began, &[0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
        // The device returns with another rate: its clock begins again.
        let later = began + Duration::from_secs(3600);
        hear(&mut ear, 48_000, later, &[0.5, 0.5, 0.5, 0.0, 0.0, 0.0]);
        ear.finish().unwrap();
        let notices = notices(&told);
        let ids: Vec<_> = notices.iter().map(|notice| (notice.id.as_str(), notice.duration.is_some())).collect();
        let expected = [
            ("run-mic-0", false),
            ("run-mic-0", true),
            ("run-mic-1", false),
            ("run-mic-1", true),
            ("run-mic-2", false),
            ("run-mic-2", true),
        ];
        assert_eq!(ids, expected);
        for pair in notices.chunks(2) {
            assert_eq!(pair[0].started_at, pair[1].started_at);
        }
        // The tone began at 3 s, and lasted for 3 s; a window's centre is known to half its length of a second.
        let near =
            |time: Duration, seconds: u64| time.abs_diff(Duration::from_secs(seconds)) <= Duration::from_millis(1000);
        let since = |time: SystemTime| time.duration_since(began).unwrap();
        assert!(near(since(notices[0].started_at), 3), "{:?}", notices[0]);
        assert!(notices[1].duration.is_some_and(|duration| near(duration, 3)), "{:?}", notices[1]);
        assert!(near(since(notices[4].started_at), 3600), "{:?}", notices[4]);
        assert_eq!(ear.seen.health().events_started, 3);
    }

    #[test]
    fn a_microphone_that_is_live_and_silent_makes_no_progress() {
        let mut pipe = ear(&SourceKind::Stdin, Arc::default());
        pipe.hear_nothing();
        assert_eq!(pipe.seen.progress.count(), 1, "standard input may pause");
        let mut device = ear(&SourceKind::Device { name: "default".into() }, Arc::default());
        device.hear_nothing();
        assert_eq!(device.seen.progress.count(), 1, "a device that starts is waited for");
        make_live(&device.seen);
        device.hear_nothing();
        assert_eq!(device.seen.progress.count(), 1);
    }

    /// Has a block delivered, which is what makes a source live.
    fn make_live(seen: &Seen) {
        let path = tempfile::NamedTempFile::new().unwrap();
        let (rate, bytes) = (8_000_u32, 1_600_u32);
        let mut wav = [b"RIFF".as_slice(), &(36 + bytes).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
        wav.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
        wav.extend([rate.to_le_bytes(), (2 * rate).to_le_bytes()].concat());
        wav.extend([2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
        wav.extend([b"data".as_slice(), &bytes.to_le_bytes(), &vec![0; bytes as usize]].concat());
        std::fs::write(path.path(), wav).unwrap();
        let kind = SourceKind::File { path: path.path().into(), looped: false, realtime: false };
        let spec = crate::capture::SourceSpec { id: "mic".into(), kind, channel: crate::capture::Channel::Mix };
        let mut source = Source::open(&spec, Arc::clone(&seen.capture)).unwrap();
        assert!(matches!(source.read(Duration::from_secs(60)).unwrap(), Read::Block { .. }));
        assert_eq!(seen.capture.state(), State::Live);
    }
}
