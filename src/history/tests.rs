//! The past as it is asked for, against what the detector and the scorer say when they listen.

use std::sync::atomic::AtomicI64;

use clapd_core::detect::{Detector, Event, EventKind};
use clapd_core::prompts::{PreparedPrompt, Prompt};
use clapd_core::time::SampleTime;
use proptest::prelude::*;

use super::*;
use crate::time::BootTime;

/// When the computer was started, in milliseconds since 1970.
const STARTED: i64 = 1_795_000_000_000;
const ALWAYS: Period = Period { from: i64::MIN, to: i64::MAX };

fn curve() -> Calibration {
    Calibration::new(vec![[-1.0, 0.0], [0.0, 0.0], [1.0, 10.0]]).unwrap()
}

fn text(vector: &[f32]) -> TextEmbedding {
    TextEmbedding { vector: vector.to_vec(), coverage: None }
}

/// Whose cosine with [1, 0] is `cosine`.
fn pointing(cosine: f32) -> [f32; 2] {
    [cosine, (1.0 - cosine * cosine).sqrt()]
}

fn table(rule: Rule, contrast: &[f32]) -> Arc<PromptTable> {
    let id = PromptId::new("dog").unwrap();
    let contrast = contrast.iter().map(|cosine| text(&pointing(*cosine))).collect();
    let dog =
        PreparedPrompt { contrast, ..PreparedPrompt::of_text(Prompt::of_text(id, "a dog", rule), text(&[1.0, 0.0])) };
    let cat = Prompt::of_text(PromptId::new("cat").unwrap(), "a cat", rule);
    PromptTable::new(2, vec![dog, PreparedPrompt::of_text(cat, text(&[0.0, 1.0]))]).unwrap().into()
}

/// A clock that is `steps` milliseconds ahead of where it was, and shows the computer's start plus `passed`.
fn clock(steps: &Arc<AtomicI64>, passed_ms: u64) -> impl Fn() -> Clocks + Send + Sync + 'static {
    let steps = Arc::clone(steps);
    move || Clocks {
        boot: BootTime::from_start(Duration::from_millis(passed_ms)),
        suspended: Duration::ZERO,
        wall: time(STARTED + steps.load(Relaxed)) + Duration::from_millis(passed_ms),
    }
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

fn history(hours: u32) -> History {
    History::with_clock(HistorySpec { hours }, 2, curve(), clock(&Arc::default(), 0))
}

/// A window that ended at this second on the sample clock, and is two seconds long.
struct Heard {
    second: u64,
    cosine: f32,
    lost: f32,
    gated: bool,
    continues: bool,
}

impl Heard {
    fn times(&self) -> [SampleTime; 2] {
        [self.second.saturating_sub(2), self.second].map(|second| SampleTime::from_samples(second, 1))
    }

    /// Hands it in; its end is `at` on the wall.
    fn record(&self, recorder: &mut Recorder, table: &Arc<PromptTable>, at: i64) {
        let ([start, end], embedding) = (self.times(), pointing(self.cosine));
        let (prompts, scores, verdicts, lost, gated) = (table, &[][..], &[][..], self.lost, self.gated);
        let (embedding, continues) = ((!gated).then_some(&embedding[..]), self.continues);
        let window = ScoredWindow { start, end, lost, gated, prompts, scores, verdicts, embedding, continues };
        recorder.window(&window, time(at));
    }
}

/// Hands in a window a second, from second 0 of `STARTED` on.
fn record_cosines(history: &History, table: &Arc<PromptTable>, cosines: &[f32]) {
    history.set_prompts(Arc::clone(table), Duration::from_secs(1));
    let mut recorder = history.recorder("mic");
    for (second, cosine) in (0..).zip(cosines) {
        let heard = Heard { second, cosine: *cosine, lost: 0.0, gated: false, continues: second > 0 };
        heard.record(&mut recorder, table, STARTED + 1_000 * second as i64);
    }
}

#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    Outage,
    NewPipeline,
}

#[derive(Debug, Clone)]
struct Step {
    sixteenths: u8,
    lost: bool,
    gated: bool,
    before: Before,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let before = prop_oneof![
        20 => Just(Before::Nothing), 1 => Just(Before::Outage), 1 => Just(Before::NewPipeline),
    ];
    let step = (0_u8..17, prop::bool::weighted(0.1), prop::bool::weighted(0.1), before)
        .prop_map(|(sixteenths, lost, gated, before)| Step { sixteenths, lost, gated, before });
    prop::collection::vec(step, 0..250)
}

/// Where no score lies on a threshold, which 16 bits may move by a thousandth.
fn rules() -> impl Strategy<Value = Rule> {
    (1_u8..10, 0_u8..5, 1_u32..4, 0_u32..3, 0_u64..20).prop_map(|(start, less, n, more, cooldown)| Rule {
        start: f32::from(start) + 0.03,
        stop: (f32::from(start) - f32::from(less)).max(0.2) + 0.01,
        confirm: (n, n + more),
        cooldown: Duration::from_secs(cooldown),
    })
}

/// A detector that listens, and what it says, on the wall.
#[derive(Default)]
struct Live(Vec<(i64, Option<i64>, f32)>);

impl Live {
    fn take(&mut self, event: &Event, at: i64, end: SampleTime) {
        let wall = |time: SampleTime| at - end.since(time).as_millis() as i64;
        match event.kind {
            EventKind::Started => self.0.push((wall(event.started_at), None, event.peak)),
            EventKind::Ended => {
                let open = self.0.last_mut().unwrap();
                *open = (open.0, event.ended_at.map(wall), event.peak);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_replay_says_what_a_detector_that_listens_said(steps in steps(), rule in rules(), contrast in -1_i8..15) {
        let contrasts: Vec<f32> = (contrast >= 0).then_some(f32::from(contrast) / 16.0 + 0.01).into_iter().collect();
        let table = table(rule, &contrasts);
        let history = history(1);
        history.set_prompts(Arc::clone(&table), Duration::from_secs(1));
        let mut recorder = history.recorder("mic");
        let mut scorer = PromptScorer::new(Arc::clone(&table), curve());
        let fresh = || Detector::new([(PromptId::new("dog").unwrap(), rule)]);
        let (mut detector, mut live, mut newest) = (fresh(), Live::default(), None);
        let (mut second, mut wall) = (2, STARTED);
        for (number, step) in steps.iter().enumerate() {
            wall += 1_000;
            second += 1;
            let ends_events = !matches!(step.before, Before::Nothing);
            if let Some((at, end)) = newest.filter(|_| ends_events) {
                detector.finish(end, |event| live.take(&event, at, end));
            }
            match step.before {
                Before::Nothing => {}
                Before::Outage => (second, wall) = (second + 40, wall + 40_000),
                Before::NewPipeline => {
                    recorder.interrupt();
                    // Another rate: the sample clock begins anew.
                    (detector, second, wall) = (fresh(), 2, wall + 5_000);
                }
            }
            let (cosine, lost) = (f32::from(step.sixteenths) / 16.0, if step.lost { 0.3 } else { 0.0 });
            let heard = Heard { second, cosine, lost, gated: step.gated, continues: number > 0 && !ends_events };
            heard.record(&mut recorder, &table, wall);
            let score = if step.gated { Score::default() } else { scorer.score(&pointing(cosine))[0] };
            let [start, end] = heard.times();
            detector.observe(start, end, lost, &[score], |event| live.take(&event, wall, end));
            newest = Some((wall, end));
        }
        let WhatIf { events, gone } = history.what_if("mic", "dog", rule, ALWAYS).unwrap();
        prop_assert_eq!(gone, 0);
        prop_assert_eq!(events.len(), live.0.len(), "{:?} {:?}", events, live.0);
        for (event, (started_at, ended_at, peak)) in events.iter().zip(&live.0) {
            prop_assert_eq!((event.started_at, event.ended_at, event.is_new), (*started_at, *ended_at, false));
            // Of an event that is open the detector has said no more than its start.
            if ended_at.is_some() {
                prop_assert!((event.peak - peak).abs() < 0.01, "{:?} {}", event, peak);
            }
        }
    }
}

#[test]
fn a_stricter_rule_loses_events_and_a_laxer_one_has_new_ones() {
    let rule = Rule { start: 6.0, stop: 4.5, confirm: (1, 1), cooldown: Duration::ZERO };
    let (history, table) = (history(1), table(rule, &[]));
    let mut cosines = vec![0.0; 200];
    cosines[50..60].fill(0.9);
    cosines[100..110].fill(0.7);
    cosines[150..160].fill(0.5);
    record_cosines(&history, &table, &cosines);
    let starting = |start: f32| {
        let rule = Rule { start, stop: start - 1.0, ..rule };
        let WhatIf { events, gone } = history.what_if("mic", "dog", rule, ALWAYS).unwrap();
        (events.iter().map(|event| ((event.started_at - STARTED) / 1_000, event.is_new)).collect::<Vec<_>>(), gone)
    };
    assert_eq!(starting(6.0), (vec![(49, false), (99, false)], 0));
    assert_eq!(starting(8.0), (vec![(49, false)], 1));
    assert_eq!(starting(4.0), (vec![(49, false), (99, false), (149, true)], 0));
    // The first is over before, and the last begins after.
    let period = Period { from: STARTED + 90_000, to: STARTED + 120_000 };
    assert_eq!(history.what_if("mic", "dog", Rule { start: 4.0, stop: 3.0, ..rule }, period).unwrap().events.len(), 1);
}

#[test]
fn a_sentence_scores_what_it_would_have_as_a_prompt() {
    let (history, table) = (history(1), table(Rule::default(), &[]));
    let cosines: Vec<f32> = (0..100_u8).map(|n| f32::from(n % 50) / 50.0).collect();
    record_cosines(&history, &table, &cosines);
    let asked = history.ask("mic", &text(&[1.0, 0.0]), ALWAYS).unwrap();
    let known = history.scores("mic", Some(&["dog"]), ALWAYS).unwrap();
    assert_eq!(asked.at, known.at);
    assert!(asked.scores.iter().zip(&known.prompts[0].1).all(|(one, other)| (one - other).abs() < 0.001));
    for (score, cosine) in asked.scores.iter().zip(&cosines) {
        assert!((score - 10.0 * cosine).abs() < 0.001, "{score} {cosine}");
    }
    let best: Vec<_> = asked.best.iter().map(|(at, _)| (at - STARTED) / 1_000).collect();
    assert_eq!(best, [99, 49, 89, 39, 79], "ten seconds apart");
    let some = history.scores("mic", None, Period { from: STARTED + 5_000, to: STARTED + 7_000 }).unwrap();
    assert_eq!((some.at.len(), some.gated.len(), some.lost.len(), some.prompts.len()), (3, 3, 3, 2));
}

#[test]
fn times_follow_a_clock_that_is_set() {
    let steps = Arc::<AtomicI64>::default();
    let history = History::with_clock(HistorySpec { hours: 1 }, 2, curve(), clock(&steps, 1_000));
    let table = table(Rule::default(), &[]);
    record_cosines(&history, &table, &[0.5, 0.6]);
    let at = |history: &History| history.ask("mic", &text(&[1.0, 0.0]), ALWAYS).unwrap().at;
    assert_eq!(at(&history), [STARTED, STARTED + 1_000]);
    // By so little it is moved all the time.
    steps.store(300, Relaxed);
    assert_eq!(at(&history), [STARTED, STARTED + 1_000]);
    let hour = 3_600_000;
    steps.store(hour, Relaxed);
    assert_eq!(at(&history), [STARTED + hour, STARTED + 1_000 + hour]);
    let mut recorder = history.recorder("mic");
    let heard = Heard { second: 2, cosine: 0.7, lost: 0.0, gated: false, continues: true };
    heard.record(&mut recorder, &table, STARTED + 2_000 + hour);
    steps.store(0, Relaxed);
    assert_eq!(at(&history), [STARTED, STARTED + 1_000, STARTED + 2_000]);
}

#[test]
fn hours_have_a_bound_and_so_have_answers() {
    let (history, table) = (history(1), table(Rule::default(), &[]));
    record_cosines(&history, &table, &vec![0.5; 4_000]);
    let count = || history.ask("mic", &text(&[1.0, 0.0]), ALWAYS).unwrap().at.len();
    assert_eq!(count(), 3_600);
    // At another pace there is room for others.
    history.set_prompts(Arc::clone(&table), Duration::from_secs(2));
    let heard = Heard { second: 1, cosine: 0.5, lost: 0.0, gated: true, continues: false };
    heard.record(&mut history.recorder("mic"), &table, STARTED);
    assert_eq!(count(), 1_800);
    assert_eq!(history.scores("mic", None, ALWAYS).unwrap().gated.iter().filter(|gated| **gated).count(), 1);
    let large = History::new(HistorySpec { hours: 24 }, 940, curve());
    large.set_prompts(table, Duration::from_millis(100));
    assert!(large.capacity() * Ring::window_bytes(940) <= MAX_BYTES);
    let usual = History::new(HistorySpec { hours: DEFAULT_HOURS }, 940, curve());
    assert_eq!(usual.capacity(), 21_600);
    assert!(usual.capacity() * Ring::window_bytes(940) <= 42_000_000);
}

#[test]
fn what_is_not_there_is_named() {
    let (history, table) = (history(1), table(Rule::default(), &[]));
    let missing = |error: HistoryError| matches!(error, HistoryError::Missing(_));
    assert!(missing(history.ask("mic", &text(&[1.0, 0.0]), ALWAYS).unwrap_err()));
    record_cosines(&history, &table, &[0.5]);
    assert!(missing(history.scores("mac", None, ALWAYS).unwrap_err()));
    assert!(missing(history.scores("mic", Some(&["dog", "cow"]), ALWAYS).unwrap_err()));
    assert!(missing(history.what_if("mic", "cow", Rule::default(), ALWAYS).unwrap_err()));
    assert!(missing(history.ask("mic", &text(&[1.0]), ALWAYS).unwrap_err()));
    assert!(matches!(history.heard("mic", 5), Err(HistoryError::NotYet(_))));
    assert!(history.take_wanted_captions() && !history.take_wanted_captions());
    let captions: Vec<_> = Captions::texts().iter().map(|_| text(&[0.0, 1.0])).collect();
    history.set_captions(&captions).unwrap();
    let (at, heard) = history.heard("mic", 5).unwrap().unwrap();
    assert_eq!((at, heard.len()), (STARTED, 5));
    history.retain(|id| id != "mic");
    assert!(history.sources().is_empty());
}

/// Every caption's score in every window of the bundled recording, with the default bundle: packed embeddings against those that were
/// packed.
#[test]
fn packing_moves_no_score_of_the_default_bundle_by_a_hundredth() {
    use clapd_core::decode::Decoder;
    use clapd_core::embed::Model;
    use clapd_core::model::{Bundle, EmbeddingCache};
    use clapd_core::pipeline::{Output, Pace, Pipeline};

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundle = Bundle::open(root.join("models/mini")).unwrap();
    let model = Model::load(&bundle).unwrap();
    let captions = bundle.embed_texts(&Captions::texts(), &EmbeddingCache::none()).unwrap();
    let prepared = captions.into_iter().enumerate().map(|(number, embedding)| {
        PreparedPrompt::of_text(Prompt::of_text(PromptId::numbered(number), "x", Rule::default()), embedding)
    });
    let table = Arc::new(PromptTable::new(model.encoder.embedding_len(), prepared.collect()).unwrap());
    let history = History::new(HistorySpec { hours: 1 }, model.encoder.embedding_len(), model.calibration.clone());
    history.set_prompts(Arc::clone(&table), Duration::from_millis(500));
    let (mut recorder, mut live) = (history.recorder("mic"), Vec::<Vec<f32>>::new());
    let mut decoder = Decoder::open(&root.join("tests/audio/demo.ogg"), clapd_core::channel::Channel::Mix).unwrap();
    let hop = Duration::from_millis(500);
    let mut pipeline = Pipeline::new(model, table, decoder.rate(), hop, Pace::Every).unwrap();
    while let Some(samples) = decoder.next_block().unwrap() {
        pipeline
            .push(samples, &mut |output| {
                if let Output::Window(window) = output {
                    recorder.window(&window, time(STARTED + 500 * live.len() as i64));
                    live.push(window.scores.iter().map(|score| score.score).collect());
                }
            })
            .unwrap();
    }
    let past = history.scores("mic", None, ALWAYS).unwrap();
    assert!(past.at.len() == live.len() && live.len() > 40, "{}", live.len());
    let mut most = 0.0_f32;
    for (prompt, (_, scores)) in past.prompts.iter().enumerate() {
        scores.iter().zip(&live).for_each(|(score, live)| most = most.max((score - live[prompt]).abs()));
    }
    assert!(most < 0.01, "{most}");
}
