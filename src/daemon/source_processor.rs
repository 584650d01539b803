//! From one source's blocks of sound to its reports, counters and progress.
//!
//! The prompts, the pace and a pause may change between any two blocks. A pipeline that begins late begins where the
//! source is, so that the place in the source's time is not lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyhow::{Result, ensure};
use clapd_core::embed::Model;
use clapd_core::level::Gain;
use clapd_core::pipeline::{MAX_OUTAGE, OnStep, Output, Pace, Pipeline};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;

use super::event_reporter::EventReporter;
use super::source_control::{ListenConfig, SourceControl};
use super::source_status::SourceStatus;
use super::source_taps::SourceTaps;
use crate::capture::SourceSpec;
use crate::counter::Counter;
use crate::loudness::LoudnessJudge;
use crate::time::WallAnchor;

/// Windows in a row with which the model fails: then it is no single window, and somebody should look.
const FAILING_AFTER: u64 = 5;

/// Runs the pipeline of one source.
pub(super) struct SourceProcessor {
    status: Arc<SourceStatus>,
    model: Model,
    control: Arc<SourceControl>,
    /// What was taken of the control last.
    config: Arc<ListenConfig>,
    pace: Pace,
    reporter: EventReporter,
    current: Option<CurrentPipeline>,
    /// The sound is dropped.
    paused: bool,
    /// Samples a second of the source, and how many came at this rate: a new pipeline's clock agrees with the source's.
    rate: u32,
    position: u64,
    /// Windows that failed since the last one that got scores.
    failed_in_row: u64,
    losses: Counter,
    /// When sound last came.
    last_sound: Instant,
    /// Windows that earlier pipelines of this source skipped.
    skipped: u64,
    gain: Gain,
    loudness: LoudnessJudge,
}

struct CurrentPipeline {
    pipeline: Pipeline,
    anchor: WallAnchor,
    /// The first frame that no spectrogram has shown; none where none is wanted.
    mel_from: Option<u64>,
}

impl SourceProcessor {
    pub(super) fn new(
        status: Arc<SourceStatus>,
        spec: &SourceSpec,
        model: Model,
        control: Arc<SourceControl>,
        reporter: EventReporter,
    ) -> Self {
        // What comes at the pace of the world can't wait for us; a file and a pipe can.
        let pace = if spec.kind.is_live() { Pace::Live } else { Pace::Every };
        let loudness = LoudnessJudge::new(spec.kind.clone(), spec.gain, model.level);
        Self {
            status,
            model,
            config: control.config(),
            control,
            pace,
            reporter,
            current: None,
            paused: false,
            rate: 0,
            position: 0,
            failed_in_row: 0,
            losses: Counter::default(),
            last_sound: Instant::now(),
            skipped: 0,
            gain: spec.gain,
            loudness,
        }
    }

    pub(super) fn status(&self) -> &SourceStatus {
        &self.status
    }

    pub(super) fn control(&self) -> &Arc<SourceControl> {
        &self.control
    }

    /// Takes up what the control says now.
    pub(super) fn apply_control(&mut self) {
        let config = self.control.config();
        if !Arc::ptr_eq(&config, &self.config) {
            self.change_config(config);
        }
        self.paused = self.control.is_paused();
        if self.paused {
            self.close_open_events();
        }
    }

    /// The sound goes on, and so do the windows and the events of prompts that stay.
    fn change_config(&mut self, config: Arc<ListenConfig>) {
        if !config.has_same_pace(&self.config) {
            self.close_open_events();
        }
        if let Some(CurrentPipeline { pipeline, anchor, .. }) = &mut self.current {
            let reporter = &mut self.reporter;
            pipeline.change_prompts(Arc::clone(&config.prompts), &mut |output| reporter.report(&output, anchor));
        }
        self.reporter.change_prompts(Arc::clone(&config.prompts));
        self.config = config;
    }

    /// Ends the open events where they were detected last, and drops the pipeline.
    pub(super) fn close_open_events(&mut self) {
        let Some(CurrentPipeline { mut pipeline, anchor, .. }) = self.current.take() else { return };
        pipeline.interrupt(&mut |output| self.reporter.report(&output, &anchor));
        self.skipped += pipeline.windows_skipped();
        self.reporter.taps().interrupt();
    }

    /// A new pipeline, whose clock begins where the source is.
    fn start_pipeline(&mut self, anchor: WallAnchor) -> Result<()> {
        let ListenConfig { prompts, hop, gate_db } = &*self.config;
        let pipeline = Pipeline::new(self.model.clone(), Arc::clone(prompts), self.rate, *hop, self.pace)?;
        let mut pipeline = pipeline.with_step(self.step()).with_gain(self.gain);
        if let Some(gate_db) = gate_db {
            pipeline = pipeline.with_gate(*gate_db);
        }
        // What came before it counts as lost; nothing can come of it.
        pipeline.push(Samples { lost: self.position, data: &[] }, &mut |_| ())?;
        self.current = Some(CurrentPipeline { pipeline, anchor, mel_from: None });
        Ok(())
    }

    /// Each part of a window is progress; none is begun once we are to stop, however long the window would take.
    fn step(&self) -> Arc<OnStep> {
        let (status, control) = (Arc::clone(&self.status), Arc::clone(&self.control));
        Arc::new(move || {
            ensure!(!control.is_stopping(), "the source is to stop");
            status.progress.record_part();
            Ok(())
        })
    }

    /// Runs a block of sound through the pipeline.
    ///
    /// # Errors
    /// A pipeline that cannot be made for this rate. A window that fails is counted and logged.
    pub(super) fn process(&mut self, rate: u32, samples: Samples<'_>, anchor: WallAnchor) -> Result<()> {
        if self.rate != rate {
            self.finish();
            log::info!("{}: listening at {rate} Hz", self.status.id);
            (self.rate, self.position) = (rate, 0);
        }
        if self.current.is_none() && !self.paused {
            self.start_pipeline(anchor)?;
        }
        self.position += samples.lost + samples.data.len() as u64;
        self.last_sound = Instant::now();
        let Some(current) = &mut self.current else {
            self.judge_loudness();
            self.status.progress.record_excused_silence();
            return Ok(());
        };
        current.anchor = anchor;
        let first = SampleTime::from_samples(self.position - samples.data.len() as u64, rate);
        self.reporter.taps().samples(rate, samples, anchor.wall_time(first));
        let (reporter, mut scored) = (&mut self.reporter, false);
        let (failed_before, began) = (current.pipeline.windows_failed(), Instant::now());
        let pushed = current.pipeline.push(samples, &mut |output| {
            scored |= matches!(output, Output::Window(_));
            reporter.report(&output, &anchor);
        });
        self.status.scoring.busy_us.add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        current.show_mel(self.reporter.taps());
        let failed = current.pipeline.windows_failed() - failed_before;
        let skipped = self.skipped + current.pipeline.windows_skipped();
        self.judge_loudness();
        let more = skipped - self.status.scoring.windows_skipped.get();
        if self.status.scoring.windows_skipped.add(more).is_some() {
            log::warn!(
                "{}: {skipped} windows skipped so far: this computer is too slow, or busy; see scoring.hop_s",
                self.status.id
            );
        }
        // The next window may go well. If none does, there is no progress, and the watchdog ends it.
        self.record_failures(failed, scored, pushed);
        self.report_losses(samples.lost, rate);
        let length = SampleTime::from_samples(samples.data.len() as u64, rate).since(SampleTime::ZERO);
        self.status.progress.record_sound(length, scored);
        Ok(())
    }

    /// Shows how loud the source was found to be.
    fn judge_loudness(&mut self) {
        let (pipeline, capture) = (self.current.as_ref().map(|current| &current.pipeline), &self.status.capture);
        self.loudness.judge(&self.status.id, capture.state(), &capture.warnings, pipeline);
        if self.gain == Gain::Auto {
            // A new pipeline begins without one.
            self.status.set_gain_db(pipeline.map_or(0.0, Pipeline::gain_db));
        }
        self.status.set_loudest_db(pipeline.and_then(Pipeline::loudest_db));
    }

    /// No sound came for a while.
    pub(super) fn process_idle(&mut self) {
        self.judge_loudness();
        // A device that stalls is opened again and again, which a new process would do no better.
        let flowing = self.status.capture.state().is_flowing();
        if !self.status.steady || !flowing {
            self.status.progress.record_excused_silence();
        }
        if self.status.steady
            && !flowing
            && self.last_sound.elapsed() > MAX_OUTAGE
            && let Some(CurrentPipeline { pipeline, anchor, .. }) = &mut self.current
        {
            pipeline.interrupt(&mut |output| self.reporter.report(&output, anchor));
        }
    }

    /// So many windows failed, for the first of them why, and whether any got scores.
    fn record_failures(&mut self, failed: u64, scored: bool, outcome: Result<()>) {
        // Then the window was given up, and nothing has failed.
        if self.control.is_stopping() {
            return;
        }
        // What fails before there is a window loses one at least.
        let failed = if outcome.is_err() { failed.max(1) } else { 0 };
        self.failed_in_row = if scored { 0 } else { self.failed_in_row + failed };
        self.status.failing.store(self.failed_in_row >= FAILING_AFTER, Relaxed);
        if let (Some(times), Err(error)) = (self.status.scoring.windows_failed.add(failed), outcome) {
            log::error!("{}: a window could not be scored ({times} so far): {error:#}", self.status.id);
        }
    }

    fn report_losses(&mut self, lost: u64, rate: u32) {
        if lost > 0
            && let Some(times) = self.losses.add(1)
        {
            let seconds = lost as f64 / f64::from(rate);
            log::warn!("{}: {seconds:.2} s of sound were lost ({times} losses so far)", self.status.id);
        }
    }

    /// The sound is over: scores what is left, and ends what is open.
    pub(super) fn finish(&mut self) {
        let Some(mut current) = self.current.take() else { return };
        let (reporter, anchor, mut scored) = (&mut self.reporter, current.anchor, false);
        let failed_before = current.pipeline.windows_failed();
        let finished = current.pipeline.finish(&mut |output| {
            scored |= matches!(output, Output::Window(_));
            reporter.report(&output, &anchor);
        });
        self.skipped += current.pipeline.windows_skipped();
        self.record_failures(current.pipeline.windows_failed() - failed_before, scored, finished);
        self.judge_loudness();
        self.reporter.taps().interrupt();
    }
}

impl CurrentPipeline {
    /// Gives the frames that have come to the taps that want them, from when they do.
    fn show_mel(&mut self, taps: &mut SourceTaps) {
        if !taps.wants_mel() {
            self.mel_from = None;
            return;
        }
        let (anchor, from) = (self.anchor, self.mel_from.unwrap_or(u64::MAX));
        let next = self.pipeline.mel_rows(from, &mut |at, row| taps.mel(row, anchor.wall_time(at)));
        self.mel_from = Some(next);
    }
}

#[cfg(test)]
mod overload;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::capture::{Read, Source, SourceKind, SourceState};
    use crate::daemon::event_reporter::{ReportSink, SourceReport};
    use crate::daemon::quiet_monitor::SharedQuiet;
    use crate::daemon::source_taps::Tap;
    use crate::levels::Microphone;
    use crate::outbox::EventRecord;
    use clapd_core::detect::Verdict;
    use clapd_core::dsp::FrontendSpec;
    use clapd_core::model::{Encode, TextEmbedding, Windowing};
    use clapd_core::pipeline::ScoredWindow;
    use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
    use clapd_core::score::Calibration;

    /// Encodes loudness: a loud patch is the prompt, a silent one its opposite.
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

    fn processor(kind: &SourceKind, reports: Arc<Mutex<Vec<SourceReport>>>) -> SourceProcessor {
        let sink = Box::new(move |report| reports.lock().unwrap().push(report));
        processor_with(Arc::new(Loudness), Duration::from_secs(1), kind, sink)
    }

    fn table(prompts: impl IntoIterator<Item = Prompt>) -> Arc<PromptTable> {
        let text = TextEmbedding { vector: vec![1.0], coverage: None };
        let prepared = prompts.into_iter().map(|prompt| PreparedPrompt::of_text(prompt, text.clone()));
        PromptTable::new(1, prepared.collect()).unwrap().into()
    }

    /// A processor with patches of a second, a patch a window.
    pub(super) fn processor_with(
        encoder: Arc<dyn Encode>,
        hop: Duration,
        kind: &SourceKind,
        sink: ReportSink,
    ) -> SourceProcessor {
        let frontend = FrontendSpec::yamnet();
        let windowing = Windowing { patch: frontend.patch_samples() as u64, patch_hop: 0, patches: 1 };
        let calibration = Calibration::new(vec![[-1.0, 0.0], [1.0, 10.0]]).unwrap();
        let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
        let model = Model { encoder, frontend, windowing, calibration, level: None };
        let status = Arc::new(SourceStatus::new("mic", kind));
        let prompt = Prompt::of_text(PromptId::new("loud").unwrap(), "something loud", rule);
        let config = ListenConfig { prompts: table([prompt]), hop, gate_db: None };
        let (prompts, taps) = (Arc::clone(&config.prompts), SourceTaps::default());
        let (counters, quiet) = (Arc::clone(&status.scoring), SharedQuiet::default());
        let reporter = EventReporter::new("mic", "run", prompts, sink, taps, counters, quiet);
        let control = Arc::new(SourceControl::new(config.into(), false));
        let channel = clapd_core::channel::Channel::Mix;
        let spec = SourceSpec {
            id: "mic".into(),
            kind: kind.clone(),
            channel,
            gain: Gain::NONE,
            microphone: Microphone::default(),
        };
        SourceProcessor::new(status, &spec, model, control, reporter)
    }

    /// Processes a second a level, all at `rate`, from `began` on.
    fn process_levels(processor: &mut SourceProcessor, rate: u32, began: SystemTime, levels: &[f32]) {
        for (second, level) in (0_u64..).zip(levels) {
            let samples: Vec<f32> = (0..rate).map(|n| level * (n as f32 * 0.5).sin()).collect();
            let at = SampleTime::from_samples(second * u64::from(rate), rate);
            let anchor = WallAnchor { at, wall: began + at.since(SampleTime::ZERO) };
            processor.process(rate, Samples::whole(&samples), anchor).unwrap();
        }
    }

    fn records(reports: &Mutex<Vec<SourceReport>>) -> Vec<EventRecord> {
        let reports = reports.lock().unwrap();
        reports
            .iter()
            .filter_map(|report| if let SourceReport::Event(_, record) = report { Some(record.clone()) } else { None })
            .collect()
    }

    #[test]
    fn every_start_has_its_end_also_where_the_rate_changes() {
        let reports = Arc::default();
        let mut processor = processor(&SourceKind::Stdin { raw: None }, Arc::clone(&reports));
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        process_levels(&mut processor, 16_000, began, &[0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
        // The device returns with another rate: its clock begins again.
        let later = began + Duration::from_secs(3600);
        process_levels(&mut processor, 48_000, later, &[0.5, 0.5, 0.5, 0.0, 0.0, 0.0]);
        processor.finish();
        let records = records(&reports);
        let ids: Vec<_> = records.iter().map(|record| (record.id.as_str(), record.duration.is_some())).collect();
        let expected = [
            ("run-mic-0", false),
            ("run-mic-0", true),
            ("run-mic-1", false),
            ("run-mic-1", true),
            ("run-mic-2", false),
            ("run-mic-2", true),
        ];
        assert_eq!(ids, expected);
        for pair in records.chunks(2) {
            assert_eq!(pair[0].started_at, pair[1].started_at);
        }
        // The tone began at 3 s, and lasted for 3 s; a window's centre is known to half its length of a second.
        let near =
            |time: Duration, seconds: u64| time.abs_diff(Duration::from_secs(seconds)) <= Duration::from_millis(1000);
        let since = |time: SystemTime| time.duration_since(began).unwrap();
        assert!(near(since(records[0].started_at), 3), "{:?}", records[0]);
        assert!(records[1].duration.is_some_and(|duration| near(duration, 3)), "{:?}", records[1]);
        assert!(near(since(records[4].started_at), 3600), "{:?}", records[4]);
        assert_eq!(processor.status.health().events_started, 3);
    }

    fn windows(reports: &Mutex<Vec<SourceReport>>) -> Vec<SystemTime> {
        let reports = reports.lock().unwrap();
        let loud = |report: &SourceReport| match report {
            SourceReport::Score(prompt, _, at) if prompt.as_str() == "loud" => Some(*at),
            _ => None,
        };
        reports.iter().filter_map(loud).collect()
    }

    #[test]
    fn other_prompts_come_without_a_gap_and_a_pause_keeps_the_time() {
        let reports = Arc::default();
        let mut processor = processor(&SourceKind::Stdin { raw: None }, Arc::clone(&reports));
        let control = Arc::clone(processor.control());
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let process = |processor: &mut SourceProcessor, second: u32| {
            let samples: Vec<f32> = (0..16_000).map(|n| 0.5 * (n as f32 * 0.5).sin()).collect();
            let at = SampleTime::from_samples(u64::from(second) * 16_000, 16_000);
            processor.apply_control();
            processor
                .process(16_000, Samples::whole(&samples), WallAnchor { at, wall: began + at.since(SampleTime::ZERO) })
                .unwrap();
        };
        (0..5).for_each(|second| process(&mut processor, second));
        // The same prompt with another rule, and another before it.
        let loud = &processor.config.prompts.prompts()[0];
        let mut prompts = [loud.clone(), loud.clone()];
        prompts[0].id = PromptId::new("other").unwrap();
        prompts[1].rule.stop = 1.0;
        control.set_config(ListenConfig { prompts: table(prompts), hop: processor.config.hop, gate_db: None }.into());
        (5..10).for_each(|second| process(&mut processor, second));
        let ends = windows(&reports);
        let steps: Vec<_> = ends.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap().as_millis()).collect();
        assert_eq!(steps, [1000; 9], "no window is missing, none comes twice");
        let events: Vec<_> = reports
            .lock()
            .unwrap()
            .iter()
            .filter_map(|report| match report {
                SourceReport::Event(prompt, record) => {
                    Some((prompt.to_string(), record.id.clone(), record.duration.is_some()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            events,
            [("loud".into(), "run-mic-0".into(), false), ("other".into(), "run-mic-1".into(), false)],
            "the first goes on"
        );

        control.set_paused(true);
        (10..20).for_each(|second| process(&mut processor, second));
        assert_eq!(windows(&reports).len(), ends.len(), "what is paused is not scored");
        let open = reports
            .lock()
            .unwrap()
            .iter()
            .filter(|report| matches!(report, SourceReport::Event(_, record) if record.duration.is_some()))
            .count();
        assert_eq!(open, 2, "both events have ended");
        control.set_paused(false);
        (20..25).for_each(|second| process(&mut processor, second));
        let after = windows(&reports)[ends.len()].duration_since(began).unwrap().as_secs_f64();
        assert!((20.0..22.0).contains(&after), "the first window after the pause ends at {after}");
    }

    /// What a tap saw.
    #[derive(Debug, Clone, PartialEq)]
    enum Seen {
        Samples(SystemTime, usize),
        Window(SystemTime, usize, Vec<Verdict>),
        Annotated,
        Event(f32, bool),
        Mel(SystemTime),
        Interrupted,
    }

    /// Notes all that it sees, and takes the spectrogram while it is told to.
    struct Notes(Arc<Mutex<Vec<Seen>>>, Arc<AtomicBool>);

    impl Notes {
        fn add(&self, seen: Seen) {
            self.0.lock().unwrap().push(seen);
        }
    }

    impl Tap for Notes {
        fn samples(&mut self, _: u32, samples: Samples<'_>, at: SystemTime) {
            self.add(Seen::Samples(at, samples.data.len()));
        }

        fn window(&mut self, window: &ScoredWindow<'_>, _: SystemTime, end: SystemTime) {
            self.add(Seen::Window(end, window.embedding.map_or(0, <[f32]>::len), window.verdicts.to_vec()));
        }

        fn annotate(&mut self, _: &PromptId, record: &mut EventRecord) {
            record.peak = 9.5;
            self.add(Seen::Annotated);
        }

        fn event(&mut self, _: &PromptId, record: &EventRecord) {
            self.add(Seen::Event(record.peak, record.duration.is_some()));
        }

        fn wants_mel(&self) -> bool {
            self.1.load(Relaxed)
        }

        fn mel(&mut self, row: &[f32], at: SystemTime) {
            assert_eq!(row.len(), 64);
            self.add(Seen::Mel(at));
        }

        fn interrupt(&mut self) {
            self.add(Seen::Interrupted);
        }
    }

    #[test]
    fn taps_see_sound_windows_and_events_with_the_time_of_day_and_the_spectrogram_while_it_is_wanted() {
        let reports = Arc::default();
        let mut processor = processor(&SourceKind::Stdin { raw: None }, Arc::clone(&reports));
        let (seen, wanted) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(AtomicBool::new(false)));
        *processor.reporter.taps() = SourceTaps::new([Box::new(Notes(seen.clone(), wanted.clone())) as Box<dyn Tap>]);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let second = |n: u64| began + Duration::from_secs(n);
        process_levels(&mut processor, 16_000, began, &[0.0, 0.5]);
        let before = std::mem::take(&mut *seen.lock().unwrap());
        let (blocks, mel) =
            (|seen: &Seen| matches!(seen, Seen::Samples(..)), |seen: &Seen| matches!(seen, Seen::Mel(_)));
        let sound: Vec<Seen> = before.iter().filter(|seen| blocks(seen)).cloned().collect();
        assert_eq!(sound, [Seen::Samples(second(0), 16_000), Seen::Samples(second(1), 16_000)]);
        assert!(!before.iter().any(mel), "nobody wanted it");
        let windows: Vec<&Seen> = before.iter().filter(|seen| matches!(seen, Seen::Window(..))).collect();
        let Some(Seen::Window(end, 1, verdicts)) = windows.last() else { panic!("{windows:?}") };
        assert!(*end > second(1) && *end <= second(2) && *verdicts == [Verdict::Started], "{windows:?}");
        let started = before.iter().position(|seen| *seen == Seen::Event(9.5, false)).unwrap();
        assert_eq!(before[started - 1], Seen::Annotated);
        assert_eq!(records(&reports)[0].peak, 9.5, "what a tap says of an event is published");

        wanted.store(true, Relaxed);
        let go_on = |processor: &mut SourceProcessor, n: u64| {
            let at = SampleTime::from_samples(n * 16_000, 16_000);
            let anchor = WallAnchor { at, wall: began + at.since(SampleTime::ZERO) };
            processor.process(16_000, Samples::whole(&[0.1; 16_000]), anchor).unwrap();
        };
        go_on(&mut processor, 2);
        go_on(&mut processor, 3);
        let frames: Vec<SystemTime> = seen
            .lock()
            .unwrap()
            .iter()
            .filter_map(|seen| if let Seen::Mel(at) = seen { Some(*at) } else { None })
            .collect();
        assert_eq!(frames.len(), 100, "of a second, from when it was wanted");
        assert!(frames.windows(2).all(|pair| pair[1].duration_since(pair[0]).unwrap() == Duration::from_millis(10)));
        assert!(frames[0] > second(2) && frames[0] < second(4), "{frames:?}");
        processor.finish();
        assert_eq!(seen.lock().unwrap().last(), Some(&Seen::Interrupted));
    }

    /// Loudness, but for so many calls that fail first.
    struct Failing(AtomicUsize);

    impl Encode for Failing {
        fn feature_len(&self) -> usize {
            1
        }

        fn embedding_len(&self) -> usize {
            1
        }

        fn encode(&self, patch: &[f32], features: &mut [f32]) -> Result<()> {
            let failing = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
            anyhow::ensure!(failing.is_err(), "as this test wants it");
            Loudness.encode(patch, features)
        }

        fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
            Loudness.embed(mean, embedding)
        }
    }

    #[test]
    fn a_window_that_fails_is_counted_and_the_next_is_scored_and_where_all_fail_the_state_says_so() {
        let reports = Arc::<Mutex<Vec<SourceReport>>>::default();
        let (encoder, sent) = (Arc::new(Failing(AtomicUsize::new(1))), Arc::clone(&reports));
        let sink = Box::new(move |report| sent.lock().unwrap().push(report));
        let shared: Arc<dyn Encode> = encoder.clone();
        let mut processor = processor_with(shared, Duration::from_secs(1), &SourceKind::Stdin { raw: None }, sink);
        make_live(&processor.status);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut second = 0_u64;
        let mut process = |processor: &mut SourceProcessor, seconds: u64| {
            for _ in 0..seconds {
                let samples: Vec<f32> = (0..16_000).map(|n| 0.5 * (n as f32 * 0.5).sin()).collect();
                let at = SampleTime::from_samples(second * 16_000, 16_000);
                let anchor = WallAnchor { at, wall: began + at.since(SampleTime::ZERO) };
                processor.process(16_000, Samples::whole(&samples), anchor).unwrap();
                second += 1;
            }
            let health = processor.status.health();
            (health.windows_failed, windows(&reports).len(), health.state)
        };
        assert_eq!(process(&mut processor, 4), (1, 3, "live"), "one window is lost and no more");
        encoder.0.store(usize::MAX, Relaxed);
        assert_eq!(process(&mut processor, FAILING_AFTER - 1), (FAILING_AFTER, 3, "live"));
        assert_eq!(process(&mut processor, 1), (FAILING_AFTER + 1, 3, "failing"));
        encoder.0.store(0, Relaxed);
        assert_eq!(process(&mut processor, 1), (FAILING_AFTER + 1, 4, "live"));
        let steps: Vec<_> = windows(&reports).windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap()).collect();
        assert_eq!(steps, [1, 1, 1 + FAILING_AFTER].map(Duration::from_secs), "the time goes on");
        assert_eq!(records(&reports).len(), 1, "its event goes on");
    }

    #[test]
    fn a_microphone_that_is_live_and_silent_makes_no_progress() {
        let mut pipe = processor(&SourceKind::Stdin { raw: None }, Arc::default());
        pipe.process_idle();
        assert_eq!(pipe.status.progress.count(), 1, "standard input may pause");
        let mut device = processor(&SourceKind::Device { name: "default".into() }, Arc::default());
        device.process_idle();
        assert_eq!(device.status.progress.count(), 1, "a device that starts is waited for");
        make_live(&device.status);
        device.process_idle();
        assert_eq!(device.status.progress.count(), 1);
    }

    /// Has a block delivered, which is what makes a source live.
    fn make_live(status: &SourceStatus) {
        let path = tempfile::NamedTempFile::new().unwrap();
        let (rate, bytes) = (8_000_u32, 1_600_u32);
        let mut wav = [b"RIFF".as_slice(), &(36 + bytes).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
        wav.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
        wav.extend([rate.to_le_bytes(), (2 * rate).to_le_bytes()].concat());
        wav.extend([2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
        wav.extend([b"data".as_slice(), &bytes.to_le_bytes(), &vec![0; bytes as usize]].concat());
        std::fs::write(path.path(), wav).unwrap();
        let kind = SourceKind::File { path: path.path().into(), looped: false, realtime: false };
        let channel = clapd_core::channel::Channel::Mix;
        let spec = SourceSpec { id: "mic".into(), kind, channel, gain: Gain::NONE, microphone: Microphone::default() };
        let mut source = Source::open(&spec, Arc::clone(&status.capture)).unwrap();
        assert!(matches!(source.read(Duration::from_secs(60)).unwrap(), Read::Block { .. }));
        assert_eq!(status.capture.state(), SourceState::Live);
    }
}
