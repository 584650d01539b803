//! The pipeline with a fake encoder: what must hold for any cutting, gap or overload, whatever the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use clapd_core::detect::{Event, EventKind};
use clapd_core::dsp::FrontendSpec;
use clapd_core::embed::{ClipEmbedder, Model};
use clapd_core::level::{Gain, LevelRange};
use clapd_core::model::{Encode, TextEmbedding, Windowing};
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
use clapd_core::samples::Samples;
use clapd_core::score::Calibration;
use proptest::prelude::*;

const RATE: u32 = 16_000;

/// Hears loudness: the cosine with the prompt "loud" is 1 for a loud patch and 0 for a silent one.
#[derive(Default)]
struct Loudness {
    encoded: AtomicUsize,
    broken: AtomicBool,
    /// Calls that fail from now on, whatever comes behind them.
    failing: AtomicUsize,
}

impl Encode for Loudness {
    fn feature_len(&self) -> usize {
        1
    }

    fn embedding_len(&self) -> usize {
        2
    }

    fn encode(&self, patch: &[f32], features: &mut [f32]) -> Result<()> {
        ensure!(!self.broken.load(Ordering::Relaxed), "broken");
        let fewer = |left: usize| left.checked_sub(1);
        let failing = self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        ensure!(failing.is_err(), "failing");
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let mean = patch.iter().sum::<f32>() / patch.len() as f32;
        // The log-mel of silence is ln(0.001) = -6.9, of our tone about -6; noise fills the range above.
        features[0] = ((mean + 6.9) / 4.0).clamp(0.0, 1.0);
        Ok(())
    }

    fn embed(&self, mean: &[f32], embedding: &mut [f32]) -> Result<()> {
        embedding.copy_from_slice(&[mean[0], (1.0 - mean[0] * mean[0]).sqrt()]);
        Ok(())
    }
}

fn model(patches: usize) -> (Model, Arc<Loudness>) {
    let encoder = Arc::new(Loudness::default());
    let frontend = FrontendSpec::yamnet();
    let windowing = Windowing { patch: frontend.patch_samples() as u64, patch_hop: 7_680, patches };
    let calibration = Calibration::new(vec![[-1.0, 0.0], [0.0, 0.0], [1.0, 10.0]]).unwrap();
    (Model { encoder: encoder.clone(), frontend, windowing, calibration, level: None }, encoder)
}

fn loud() -> Arc<PromptTable> {
    let rule = Rule { start: 6.0, stop: 4.5, confirm: (2, 3), cooldown: Duration::ZERO };
    let text = TextEmbedding { vector: vec![1.0, 0.0], coverage: None };
    let prompt = Prompt::of_text(PromptId::numbered(0), "something loud", rule);
    PromptTable::new(2, vec![PreparedPrompt::of_text(prompt, text)]).unwrap().into()
}

fn noise(seconds: f64, level: f32) -> Vec<f32> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as i32 as f32 / i32::MAX as f32 * level
    };
    (0..(seconds * f64::from(RATE)) as usize).map(|_| next()).collect()
}

/// Quiet, loud from 10 to 20 s, quiet to 30 s.
fn scene() -> Vec<f32> {
    [noise(10.0, 0.0), noise(10.0, 0.9), noise(10.0, 0.0)].concat()
}

#[derive(Debug, Default, PartialEq)]
struct Outputs {
    windows: Vec<(f64, f64, f32, f32)>,
    /// Windows that do not go on from the one before.
    anew: Vec<usize>,
    events: Vec<Event>,
}

impl Outputs {
    fn take(&mut self, output: Output<'_>) {
        match output {
            Output::Window(w) => {
                if !w.continues {
                    self.anew.push(self.windows.len());
                }
                self.windows.push((w.start.as_secs_f64(), w.end.as_secs_f64(), w.lost, w.scores[0].score));
            }
            Output::Event(event) => self.events.push(event),
        }
    }
}

fn run(samples: &[f32], cuts: &[usize], pace: Pace) -> Outputs {
    let pipeline = Pipeline::new(model(4).0, loud(), RATE, Duration::from_millis(500), pace).unwrap();
    run_through(pipeline, samples, cuts)
}

fn run_through(mut pipeline: Pipeline, samples: &[f32], cuts: &[usize]) -> Outputs {
    let (mut seen, mut rest) = (Outputs::default(), samples);
    for cut in cuts {
        let (now, later) = rest.split_at((*cut).min(rest.len()));
        pipeline.push(Samples::whole(now), &mut |output| seen.take(output)).unwrap();
        rest = later;
    }
    pipeline.push(Samples::whole(rest), &mut |output| seen.take(output)).unwrap();
    pipeline.finish(&mut |output| seen.take(output)).unwrap();
    seen
}

#[test]
fn a_loud_stretch_is_one_event_at_its_time() {
    let seen = run(&scene(), &[], Pace::Every);
    let [start, end] = &seen.events[..] else { panic!("{:?}", seen.events) };
    assert_eq!((start.kind, end.kind), (EventKind::Started, EventKind::Ended));
    // Half a window of 2.4 s and a hop of 0.5 s are the resolution that a window has.
    assert!((start.started_at.as_secs_f64() - 10.0).abs() < 1.0, "{start:?}");
    assert!((end.ended_at.unwrap().as_secs_f64() - 20.0).abs() < 1.0, "{end:?}");
    assert_eq!(start.sequence, end.sequence);
}

#[test]
fn the_first_score_comes_with_the_first_patch() {
    let seen = run(&scene(), &[], Pace::Every);
    assert_eq!(seen.windows[0].0, 0.0);
    assert!(seen.windows[0].1 < 1.0, "{:?}", seen.windows[0]);
    let full = seen.windows.iter().find(|w| w.0 > 0.0).unwrap();
    assert!((full.1 - full.0 - 2.415).abs() < 1e-9, "{full:?}");
}

#[test]
fn a_patch_is_encoded_once() {
    let (model, encoder) = model(9);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(100), Pace::Every).unwrap();
    let mut windows = 0;
    pipeline.push(Samples::whole(&noise(20.0, 0.1)), &mut |_| windows += 1).unwrap();
    let patches = (20 * RATE as usize - 15_600) / 7_680 + 1;
    assert_eq!(encoder.encoded.load(Ordering::Relaxed), patches);
    assert!(windows > 4 * patches, "{windows} windows");
}

#[test]
fn overload_scores_the_newest_and_counts_the_others() {
    let (model, _) = model(4);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Live).unwrap();
    let mut seen = Outputs::default();
    pipeline.push(Samples::whole(&noise(30.0, 0.9)), &mut |output| seen.take(output)).unwrap();
    assert_eq!(seen.windows.len(), 1);
    assert!(seen.windows[0].1 > 29.0, "{:?}", seen.windows);
    let due = ((30.0 - 0.975) / 0.5) as u64 + 1;
    assert_eq!(pipeline.windows_skipped(), due - 1);
}

/// A tone of 5 s, an outage, silence of 5 s.
fn outage(seconds: u64) -> (Outputs, u64) {
    let (model, _) = model(4);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Live).unwrap();
    let mut seen = Outputs::default();
    for chunk in noise(5.0, 0.9).chunks(1_600) {
        pipeline.push(Samples::whole(chunk), &mut |output| seen.take(output)).unwrap();
    }
    assert_eq!(seen.events.len(), 1);
    let mut lost = seconds * u64::from(RATE);
    for chunk in noise(5.0, 0.0).chunks(1_600) {
        let samples = Samples { lost: std::mem::take(&mut lost), data: chunk };
        pipeline.push(samples, &mut |output| seen.take(output)).unwrap();
    }
    (seen, pipeline.windows_skipped())
}

fn end_of(seen: &Outputs) -> f64 {
    assert_eq!(seen.events.len(), 2, "{:?}", seen.events);
    seen.events[1].ended_at.unwrap().as_secs_f64()
}

#[test]
fn a_short_outage_keeps_time_and_holds_the_state() {
    let (seen, skipped) = outage(10);
    let end = end_of(&seen);
    assert!((15.0..18.0).contains(&end), "ended at {end}");
    assert_eq!(skipped, 0, "nothing was heard, so nothing was skipped");
    assert_eq!(seen.anew, [0]);
    assert!(seen.windows.iter().any(|window| window.2 > 0.2), "windows with losses say so");
}

#[test]
fn a_long_outage_ends_events_where_they_were_last_heard() {
    let (seen, skipped) = outage(3_600);
    let end = end_of(&seen);
    assert!((4.0..=5.0).contains(&end), "ended at {end}");
    assert_eq!(skipped, 0);
    assert!(seen.anew.len() == 2 && seen.windows[seen.anew[1]].1 > 3_600.0, "{:?}", seen.anew);
    assert!(seen.windows.last().unwrap().1 > 3_608.0, "the time line goes on: {:?}", seen.windows.last());
}

#[test]
fn windows_before_and_after_a_long_outage_do_not_confirm_each_other() {
    let (model, _) = model(1);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap();
    let mut seen = Outputs::default();
    let one_window = noise(0.98, 0.9);
    pipeline.push(Samples::whole(&one_window), &mut |output| seen.take(output)).unwrap();
    let later = Samples { lost: 3_600 * u64::from(RATE), data: &one_window };
    pipeline.push(later, &mut |output| seen.take(output)).unwrap();
    assert_eq!(seen.events, []);
    assert!(seen.windows.iter().filter(|window| window.3 >= 6.0).count() >= 2, "{:?}", seen.windows);
}

#[test]
fn an_encoder_that_fails_at_the_end_leaves_no_event_open() {
    let (model, encoder) = model(4);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap();
    let mut seen = Outputs::default();
    pipeline.push(Samples::whole(&noise(5.2, 0.9)), &mut |output| seen.take(output)).unwrap();
    encoder.broken.store(true, Ordering::Relaxed);
    let rest = pipeline.push(Samples::whole(&noise(0.7, 0.9)), &mut |output| seen.take(output));
    let finished = pipeline.finish(&mut |output| seen.take(output));
    assert!(rest.or(finished).unwrap_err().to_string().contains("broken"));
    assert_eq!(seen.events.len(), 2, "{:?}", seen.events);
}

#[test]
fn an_encoder_that_fails_loses_its_window_and_no_more() {
    let undisturbed = run(&scene(), &[], Pace::Every);
    // In one push and in many, at the beginning and in the middle of the sound.
    for (cut, failures) in [(16_000 * 30, 1), (16_000, 1), (1_600, 3)] {
        let (model, encoder) = model(4);
        let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap();
        let (mut seen, mut errors) = (Outputs::default(), 0);
        encoder.failing.store(failures, Ordering::Relaxed);
        for samples in scene().chunks(cut) {
            errors += usize::from(pipeline.push(Samples::whole(samples), &mut |output| seen.take(output)).is_err());
        }
        pipeline.finish(&mut |output| seen.take(output)).unwrap();
        assert!((1..=failures).contains(&errors), "{errors} errors");
        assert_eq!(pipeline.windows_failed(), failures as u64);
        assert_eq!(seen.windows, undisturbed.windows[failures..], "the other windows are where and what they were");
        assert_eq!(seen.events, undisturbed.events);
    }
}

#[test]
fn where_no_window_can_be_scored_for_long_an_event_ends_where_it_was_heard_last() {
    let (model, encoder) = model(4);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap();
    let mut seen = Outputs::default();
    pipeline.push(Samples::whole(&noise(5.0, 0.9)), &mut |output| seen.take(output)).unwrap();
    encoder.broken.store(true, Ordering::Relaxed);
    pipeline.push(Samples::whole(&noise(29.0, 0.9)), &mut |output| seen.take(output)).unwrap_err();
    assert_eq!(seen.events.len(), 1, "a short failure holds the state");
    pipeline.push(Samples::whole(&noise(3.0, 0.9)), &mut |output| seen.take(output)).unwrap_err();
    assert!((4.0..=5.0).contains(&end_of(&seen)), "{:?}", seen.events);
    encoder.broken.store(false, Ordering::Relaxed);
    pipeline.push(Samples::whole(&noise(3.0, 0.9)), &mut |output| seen.take(output)).unwrap();
    assert_eq!((seen.events.len(), seen.events[2].kind), (3, EventKind::Started), "it goes on: {:?}", seen.events);
}

#[test]
fn a_source_shorter_than_a_patch_is_one_window() {
    let seen = run(&noise(0.3, 0.9), &[], Pace::Every);
    assert_eq!(seen.windows.len(), 1);
    assert_eq!((seen.windows[0].0, seen.windows[0].1), (0.0, 0.3));
    assert_eq!(run(&[], &[], Pace::Every), Outputs::default());
}

#[test]
fn a_whole_clip_is_the_mean_over_its_patches() {
    let (model, encoder) = model(4);
    let mut clip = ClipEmbedder::new(model.clone(), RATE).unwrap();
    assert!(clip.push(Samples::whole(&scene())).unwrap());
    let (embedding, seconds) = clip.finish().unwrap();
    let patches = encoder.encoded.load(Ordering::Relaxed);
    assert_eq!(patches, (30 * RATE as usize - 15_600) / 7_680 + 1);
    assert!((seconds - 29.775).abs() < 0.3, "{seconds}");
    let loud = run(&scene(), &[], Pace::Every).windows.iter().map(|w| w.3).fold(0.0, f32::max) / 10.0;
    assert!((embedding[0] - loud / 3.0).abs() < 0.05, "a third of the scene is loud: {embedding:?}, {loud}");
    let nothing = ClipEmbedder::new(model, RATE).unwrap().finish().unwrap_err();
    assert!(nothing.to_string().contains("0 samples"), "{nothing}");
}

/// A gate at -40 dB; what came, and how many patches were encoded.
fn gated(parts: &[Samples<'_>], gate_db: Option<f32>) -> (Outputs, usize, u64) {
    let (model, encoder) = model(4);
    let mut pipeline = Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap();
    if let Some(gate_db) = gate_db {
        pipeline = pipeline.with_gate(gate_db);
    }
    let mut seen = Outputs::default();
    for part in parts {
        pipeline.push(*part, &mut |output| seen.take(output)).unwrap();
    }
    pipeline.finish(&mut |output| seen.take(output)).unwrap();
    (seen, encoder.encoded.load(Ordering::Relaxed), pipeline.windows_gated())
}

#[test]
fn a_gate_spares_silence_and_changes_no_event() {
    // Faint noise at -91 dB around the loud stretch: not nothing, and below the gate.
    let scene = [noise(10.0, 5e-5), noise(10.0, 0.9), noise(10.0, 5e-5)].concat();
    let (open, encoded, none) = gated(&[Samples::whole(&scene)], None);
    let (seen, fewer, spared) = gated(&[Samples::whole(&scene)], Some(-40.0));
    assert_eq!(none, 0);
    assert!(spared > 20 && fewer < encoded * 2 / 3, "{spared} windows, {fewer} of {encoded} patches");
    let times =
        |seen: &Outputs| seen.events.iter().map(|e| (e.kind, e.started_at, e.ended_at, e.peak)).collect::<Vec<_>>();
    assert_eq!((times(&seen), seen.events.len()), (times(&open), 2));
    assert_eq!(seen.windows.len(), open.windows.len());
    // A window that touches the loud stretch keeps its score to the bit; the others score 0.
    for (ours, theirs) in seen.windows.iter().zip(&open.windows) {
        let heard = ours.1 > 10.0 && ours.0 < 20.05;
        assert_eq!(ours.3, if heard { theirs.3 } else { 0.0 }, "{ours:?}");
    }
}

#[test]
fn silence_ends_an_event_and_what_is_lost_does_not() {
    let (tone, quiet) = (noise(5.0, 0.9), noise(5.0, 0.0));
    let (seen, ..) = gated(&[Samples::whole(&tone), Samples::whole(&quiet)], Some(-40.0));
    assert!((end_of(&seen) - 5.0).abs() < 1.5, "{:?}", seen.events);
    // The same length, lost: gated as well, but nobody knows what was there.
    let lost = Samples { lost: quiet.len() as u64, data: &[] };
    let (seen, ..) = gated(&[Samples::whole(&tone), lost], Some(-40.0));
    assert!(end_of(&seen) > 9.9, "only the end of the source ends it: {:?}", seen.events);
}

#[test]
fn a_contrast_takes_the_score_away() {
    let rule = Rule { start: 6.0, stop: 4.5, confirm: (1, 1), cooldown: Duration::ZERO };
    let text = TextEmbedding { vector: vec![0.6, 0.8], coverage: None };
    let contrast = vec![TextEmbedding { vector: vec![1.0, 0.0], coverage: None }];
    let prompt = Prompt::of_text(PromptId::numbered(0), "something less loud", rule);
    let prompt = Prompt { contrast: vec!["something loud".into()], ..prompt };
    let prepared = PreparedPrompt { contrast, ..PreparedPrompt::of_text(prompt, text) };
    let prompts = PromptTable::new(2, vec![prepared]).unwrap();
    let mut pipeline = Pipeline::new(model(4).0, prompts.into(), RATE, Duration::from_secs(1), Pace::Every).unwrap();
    let mut seen = Outputs::default();
    pipeline.push(Samples::whole(&noise(3.0, 1.0)), &mut |output| seen.take(output)).unwrap();
    let window = seen.windows.last().unwrap();
    assert!(window.3 < 6.0, "the contrast fits better: {window:?}");
}

/// A pipeline whose model is known to hear from -25 dB on.
fn pipeline_with(gain: Gain) -> Pipeline {
    let model = Model { level: Some(LevelRange { faint_db: -45.0, clear_db: -25.0 }), ..model(4).0 };
    Pipeline::new(model, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap().with_gain(gain)
}

/// Sounds of 0.4 s, one a second, over noise at -113 dB.
fn sounds(seconds: usize, level: f32) -> Vec<f32> {
    (0..seconds).flat_map(|_| [noise(0.4, level), noise(0.6, 4e-6)].concat()).collect()
}

#[test]
fn the_automatic_gain_leaves_what_is_loud_enough_and_what_is_only_noise_to_the_bit() {
    for samples in [sounds(60, 0.2), noise(60.0, 1e-4), noise(60.0, 0.2), noise(60.0, 0.0), scene()] {
        let none = run_through(pipeline_with(Gain::NONE), &samples, &[]);
        assert_eq!(run_through(pipeline_with(Gain::Auto), &samples, &[]), none);
    }
    let unmeasured = Pipeline::new(model(4).0, loud(), RATE, Duration::from_millis(500), Pace::Every).unwrap();
    let faint = sounds(60, 2e-3);
    let none = run_through(pipeline_with(Gain::NONE), &faint, &[]);
    assert_eq!(run_through(unmeasured.with_gain(Gain::Auto), &faint, &[]), none, "nobody knows what that model needs");
}

#[test]
fn the_automatic_gain_lifts_what_is_faint_and_the_gate_sees_what_came() {
    let faint = sounds(60, 2e-3);
    let best = |gain| run_through(pipeline_with(gain), &faint, &[]).windows.iter().map(|w| w.3).fold(0.0, f32::max);
    let (none, auto) = (best(Gain::NONE), best(Gain::Auto));
    assert!(auto > none + 1.0, "{auto} with it, {none} without");
    let mut pipeline = pipeline_with(Gain::Auto).with_gate(-50.0);
    pipeline.push(Samples::whole(&faint), &mut |_| ()).unwrap();
    // Sounds at -59 dB for 0.4 s are -63 dB a second, and the noise may rise to -82 dB.
    assert!((25.0..33.0).contains(&pipeline.gain_db()), "{}", pipeline.gain_db());
    assert!(pipeline.loudest_db().is_some_and(|level| (-40.0..-28.0).contains(&level)), "{:?}", pipeline.loudest_db());
    assert_eq!(pipeline.windows_gated(), 119, "all of them");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gains_are_the_same_however_cut(cuts in prop::collection::vec(1_usize..60_000, 0..40)) {
        let faint = sounds(30, 2e-3);
        let run = |cuts: &[usize]| run_through(pipeline_with(Gain::Auto), &faint, cuts);
        prop_assert_eq!(run(&cuts), run(&[]));
    }

    #[test]
    fn the_same_samples_give_the_same_outputs_however_cut(cuts in prop::collection::vec(1_usize..60_000, 0..40)) {
        prop_assert_eq!(run(&scene(), &cuts, Pace::Every), run(&scene(), &[], Pace::Every));
    }
}
