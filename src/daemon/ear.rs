//! From one source's blocks to what is told of it.
//!
//! In: blocks of sound, and [`Orders`] that may have changed between any two of them. Out: what a [`Teller`] tells, counters, progress.
//! Never: loses the place in the source's time: a pipeline that begins late begins where the source is.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clapd_core::embed::Model;
use clapd_core::pipeline::{MAX_OUTAGE, Output, Pace, Pipeline};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;

use super::listener::Seen;
use super::orders::{Orders, Task};
use super::teller::Teller;
use crate::capture::SourceKind;
use crate::counter::Counter;
use crate::time::WallAnchor;

/// From blocks to outputs.
pub(super) struct Ear {
    pub(super) seen: Arc<Seen>,
    model: Model,
    task: Arc<Task>,
    pace: Pace,
    teller: Teller,
    current: Option<Current>,
    /// The sound is dropped.
    paused: bool,
    /// Samples a second of the source, and how many came at this rate: a new pipeline's clock agrees with the source's.
    rate: u32,
    position: u64,
    failures: Counter,
    losses: Counter,
    /// When sound last came.
    heard: Instant,
    /// Windows that earlier pipelines of this source skipped.
    skipped: u64,
}

struct Current {
    pipeline: Pipeline,
    anchor: WallAnchor,
}

impl Ear {
    pub(super) fn new(seen: Arc<Seen>, kind: &SourceKind, model: Model, task: Arc<Task>, teller: Teller) -> Self {
        // What comes at the pace of the world can't wait for us; a file and a pipe can.
        let pace = match kind {
            SourceKind::Device { .. } | SourceKind::File { realtime: true, .. } => Pace::Live,
            SourceKind::File { .. } | SourceKind::Stdin => Pace::Every,
        };
        Self {
            seen,
            model,
            task,
            pace,
            teller,
            current: None,
            paused: false,
            rate: 0,
            position: 0,
            failures: Counter::default(),
            losses: Counter::default(),
            heard: Instant::now(),
            skipped: 0,
        }
    }

    /// Takes up what the orders say now.
    pub(super) fn obey(&mut self, orders: &Orders) {
        let task = orders.task();
        if !Arc::ptr_eq(&task, &self.task) {
            self.change_task(task);
        }
        self.paused = orders.is_paused();
        if self.paused {
            self.put_down();
        }
    }

    /// The sound goes on, and so do the windows and the events of prompts that stay.
    fn change_task(&mut self, task: Arc<Task>) {
        if !task.has_pace_of(&self.task) {
            self.put_down();
        }
        if let Some(Current { pipeline, anchor }) = &mut self.current {
            let teller = &mut self.teller;
            pipeline.change_prompts(Arc::clone(&task.prompts), &mut |output| teller.tell(&output, anchor));
        }
        self.teller.change_prompts(Arc::clone(&task.prompts));
        self.task = task;
    }

    /// Ends what is open where it was heard last, and forgets the sound.
    pub(super) fn put_down(&mut self) {
        let Some(Current { mut pipeline, anchor }) = self.current.take() else { return };
        pipeline.interrupt(&mut |output| self.teller.tell(&output, &anchor));
        self.skipped += pipeline.windows_skipped();
    }

    fn start(&mut self, anchor: WallAnchor) -> Result<()> {
        let Task { prompts, hop, gate_db } = &*self.task;
        let mut pipeline = Pipeline::new(self.model.clone(), Arc::clone(prompts), self.rate, *hop, self.pace)?;
        if let Some(gate_db) = gate_db {
            pipeline = pipeline.with_gate(*gate_db);
        }
        // What came before it was not heard, as if it had been lost; nothing can come of it.
        pipeline.push(Samples { lost: self.position, data: &[] }, &mut |_| ())?;
        self.current = Some(Current { pipeline, anchor });
        Ok(())
    }

    pub(super) fn hear(&mut self, rate: u32, samples: Samples<'_>, anchor: WallAnchor) -> Result<()> {
        if self.rate != rate {
            self.finish().unwrap_or_else(|error| self.missed(&error));
            log::info!("{}: listening at {rate} Hz", self.seen.id);
            (self.rate, self.position) = (rate, 0);
        }
        if self.current.is_none() && !self.paused {
            self.start(anchor)?;
        }
        self.position += samples.lost + samples.data.len() as u64;
        self.heard = Instant::now();
        let Some(current) = &mut self.current else {
            self.seen.progress.excused();
            return Ok(());
        };
        current.anchor = anchor;
        let (teller, mut scored) = (&mut self.teller, false);
        let pushed = current.pipeline.push(samples, &mut |output| {
            scored |= matches!(output, Output::Window(_));
            teller.tell(&output, &anchor);
        });
        let skipped = self.skipped + current.pipeline.windows_skipped();
        let more = skipped - self.seen.scoring.windows_skipped.get();
        if self.seen.scoring.windows_skipped.add(more).is_some() {
            log::warn!(
                "{}: {skipped} windows skipped so far: this computer is too slow, or busy; see scoring.hop_s",
                self.seen.id
            );
        }
        // The next window may go well. If none does, there is no progress, and the watchdog ends it.
        pushed.unwrap_or_else(|error| self.missed(&error));
        self.tell_losses(samples.lost, rate);
        let length = SampleTime::from_samples(samples.data.len() as u64, rate).since(SampleTime::ZERO);
        self.seen.progress.sound(length, scored);
        Ok(())
    }

    pub(super) fn hear_nothing(&mut self) {
        // A device that stalls is opened again and again, which a new process would do no better.
        let flowing = self.seen.capture.state().is_flowing();
        if !self.seen.steady || !flowing {
            self.seen.progress.excused();
        }
        if self.seen.steady
            && !flowing
            && self.heard.elapsed() > MAX_OUTAGE
            && let Some(Current { pipeline, anchor }) = &mut self.current
        {
            pipeline.interrupt(&mut |output| self.teller.tell(&output, anchor));
        }
    }

    fn missed(&mut self, error: &anyhow::Error) {
        if let Some(times) = self.failures.add(1) {
            log::error!("{}: a window could not be scored ({times} so far): {error:#}", self.seen.id);
        }
    }

    fn tell_losses(&mut self, lost: u64, rate: u32) {
        if lost > 0
            && let Some(times) = self.losses.add(1)
        {
            let seconds = lost as f64 / f64::from(rate);
            log::warn!("{}: {seconds:.2} s of sound were lost ({times} losses so far)", self.seen.id);
        }
    }

    /// The sound is over: scores what is left, and ends what is open.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let (teller, anchor) = (&mut self.teller, current.anchor);
        let finished = current.pipeline.finish(&mut |output| teller.tell(&output, &anchor));
        self.skipped += current.pipeline.windows_skipped();
        finished
    }
}

#[cfg(test)]
mod overload;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::capture::{Read, Source, SourceState};
    use crate::daemon::teller::{Audience, Told};
    use crate::outbox::EventRecord;
    use clapd_core::dsp::FrontendSpec;
    use clapd_core::model::{Encode, TextEmbedding, Windowing};
    use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
    use clapd_core::score::Calibration;

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
        let audience = Box::new(move |word| told.lock().unwrap().push(word));
        ear_with(Arc::new(Loudness), Duration::from_secs(1), kind, audience)
    }

    fn table(prompts: impl IntoIterator<Item = Prompt>) -> Arc<PromptTable> {
        let text = TextEmbedding { vector: vec![1.0], coverage: None };
        let prepared = prompts.into_iter().map(|prompt| PreparedPrompt::of_text(prompt, text.clone()));
        PromptTable::new(1, prepared.collect()).unwrap().into()
    }

    /// An ear for patches of a second, a patch a window.
    pub(super) fn ear_with(encoder: Arc<dyn Encode>, hop: Duration, kind: &SourceKind, audience: Audience) -> Ear {
        let frontend = FrontendSpec::yamnet();
        let windowing = Windowing { patch: frontend.patch_samples() as u64, patch_hop: 0, patches: 1 };
        let calibration = Calibration::new(vec![[-1.0, 0.0], [1.0, 10.0]]).unwrap();
        let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
        let model = Model { encoder, frontend, windowing, calibration };
        let seen = Arc::new(Seen::new("mic", kind));
        let prompt = Prompt::of_text(PromptId::new("loud").unwrap(), "something loud", rule);
        let task = Task { prompts: table([prompt]), hop, gate_db: None };
        let teller = Teller::new("mic", "run", Arc::clone(&task.prompts), audience, Arc::clone(&seen.scoring));
        Ear::new(seen, kind, model, task.into(), teller)
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

    fn notices(told: &Mutex<Vec<Told>>) -> Vec<EventRecord> {
        let told = told.lock().unwrap();
        told.iter()
            .filter_map(|word| if let Told::Notice(_, notice) = word { Some(notice.clone()) } else { None })
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

    fn windows(told: &Mutex<Vec<Told>>) -> Vec<SystemTime> {
        let told = told.lock().unwrap();
        let loud = |word: &Told| match word {
            Told::Score(prompt, _, at) if prompt.as_str() == "loud" => Some(*at),
            _ => None,
        };
        told.iter().filter_map(loud).collect()
    }

    #[test]
    fn other_prompts_come_without_a_gap_and_a_pause_keeps_the_time() {
        let told = Arc::default();
        let mut ear = ear(&SourceKind::Stdin, Arc::clone(&told));
        let orders = Orders::new(Arc::clone(&ear.task), false);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hear = |ear: &mut Ear, second: u32| {
            let samples: Vec<f32> = (0..16_000).map(|n| 0.5 * (n as f32 * 0.5).sin()).collect();
            let at = SampleTime::from_samples(u64::from(second) * 16_000, 16_000);
            ear.obey(&orders);
            ear.hear(16_000, Samples::whole(&samples), WallAnchor { at, wall: began + at.since(SampleTime::ZERO) })
                .unwrap();
        };
        (0..5).for_each(|second| hear(&mut ear, second));
        // The same prompt with another rule, and another before it.
        let loud = &ear.task.prompts.prompts()[0];
        let mut prompts = [loud.clone(), loud.clone()];
        prompts[0].id = PromptId::new("other").unwrap();
        prompts[1].rule.stop = 1.0;
        orders.set_task(Task { prompts: table(prompts), hop: ear.task.hop, gate_db: None }.into());
        (5..10).for_each(|second| hear(&mut ear, second));
        let ends = windows(&told);
        let steps: Vec<_> = ends.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap().as_millis()).collect();
        assert_eq!(steps, [1000; 9], "no window is missing, none comes twice");
        let seen: Vec<_> = told
            .lock()
            .unwrap()
            .iter()
            .filter_map(|word| match word {
                Told::Notice(prompt, notice) => {
                    Some((prompt.to_string(), notice.id.clone(), notice.duration.is_some()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            seen,
            [("loud".into(), "run-mic-0".into(), false), ("other".into(), "run-mic-1".into(), false)],
            "the first goes on"
        );

        orders.set_paused(true);
        (10..20).for_each(|second| hear(&mut ear, second));
        assert_eq!(windows(&told).len(), ends.len(), "what is paused is not scored");
        let open = told
            .lock()
            .unwrap()
            .iter()
            .filter(|word| matches!(word, Told::Notice(_, notice) if notice.duration.is_some()))
            .count();
        assert_eq!(open, 2, "both events have ended");
        orders.set_paused(false);
        (20..25).for_each(|second| hear(&mut ear, second));
        let after = windows(&told)[ends.len()].duration_since(began).unwrap().as_secs_f64();
        assert!((20.0..22.0).contains(&after), "the first window after the pause ends at {after}");
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
        let spec = crate::capture::SourceSpec { id: "mic".into(), kind, channel: clapd_core::channel::Channel::Mix };
        let mut source = Source::open(&spec, Arc::clone(&seen.capture)).unwrap();
        assert!(matches!(source.read(Duration::from_secs(60)).unwrap(), Read::Block { .. }));
        assert_eq!(seen.capture.state(), SourceState::Live);
    }
}
