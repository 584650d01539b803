//! The bundle in models/mini is the method of models/mini/METHOD.md: an independent numpy implementation in f32 and f64
//! (tests/golden/mini_reference.py) gives the same cosines, up to what storing weights in 8 and 16 bits moves.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::dsp::clip_patch;
use clapd_core::embed::Model;
use clapd_core::level::Gain;
use clapd_core::model::{Bundle, Compute, Encode, TextEmbedding};
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
use clapd_core::samples::Samples;
use clapd_kernels::Isa;
use serde_json::Value;

/// Cosines between prompts and windows: the largest difference seen is 0.0050 (8-bit weights), and half as much in reserve.
const COSINE_TOLERANCE: f32 = 0.0075;
/// Similarity of a prompt to the best caption, and single numbers of a unit vector of 940.
const NUMBER_TOLERANCE: f32 = 0.01;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("tests/golden/mini_reference.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn bundle() -> Bundle {
    Bundle::open(root().join("models/mini")).unwrap()
}

fn texts(bundle: &Bundle, golden: &Value) -> Vec<TextEmbedding> {
    let encoder = bundle.text_encoder().unwrap();
    let prompts = golden["prompts"].as_array().unwrap();
    prompts.iter().map(|p| encoder.embed(p["text"].as_str().unwrap()).unwrap()).collect()
}

/// Three patches at 16 kHz, by the formulas of the script.
fn signal(name: &str) -> Vec<f32> {
    let tau = std::f64::consts::TAU;
    (0..95 * 160 + 400 + 2 * 7680)
        .map(|n| {
            let t = f64::from(n) / 16_000.0;
            let sample = match name {
                "zeros" => 0.0,
                "sine" => 0.1 * (tau * 440.0 * t).sin(),
                "sweep" => 0.3 * (tau * (200.0 * t + 450.0 * t * t)).sin(),
                "clicks" if n % 4000 < 40 => 0.5 * (tau * 2500.0 * t).sin(),
                "clicks" => 0.0,
                other => panic!("the script has a signal `{other}` that this test does not know"),
            };
            sample as f32
        })
        .collect()
}

/// Mean class probabilities of a golden window: given by formula, or of a signal through the front end and the tower.
fn features(bundle: &Bundle, encoder: &impl Encode, window: &Value) -> Vec<f32> {
    let mut mean: Vec<f32> = (0..encoder.feature_len()).map(|c| 0.001 + 0.0001 * (c % 7) as f32).collect();
    if let Some(given) = window["given"].as_object() {
        for (class, probability) in given {
            mean[class.parse::<usize>().unwrap()] = probability.as_f64().unwrap() as f32;
        }
        return mean;
    }
    let signal = signal(window["name"].as_str().unwrap());
    mean.fill(0.0);
    let mut probabilities = vec![0.0; mean.len()];
    for patch in 0..3 {
        let clip = &signal[patch * 7680..patch * 7680 + 15_600];
        encoder.encode(&clip_patch(&bundle.frontend(), clip).unwrap(), &mut probabilities).unwrap();
        mean.iter_mut().zip(&probabilities).for_each(|(m, p)| *m += p / 3.0);
    }
    mean
}

#[test]
fn prompts_are_where_the_reference_puts_them() {
    let golden = golden();
    for (text, expected) in texts(&bundle(), &golden).iter().zip(golden["prompts"].as_array().unwrap()) {
        let prompt = &expected["text"];
        assert_eq!(text.vector.len() as u64, golden["dimensions"].as_u64().unwrap());
        let coverage = expected["coverage"].as_f64().unwrap() as f32;
        assert!((text.coverage.unwrap() - coverage).abs() < NUMBER_TOLERANCE, "{prompt}: coverage {:?}", text.coverage);
        for (ours, theirs) in text.vector[521..529].iter().zip(numbers(&expected["caption_part_521_529"])) {
            assert!((ours - theirs).abs() < NUMBER_TOLERANCE, "{prompt}: {ours} against {theirs}");
        }
    }
}

#[test]
fn cosines_are_the_references_on_every_instruction_set() {
    for isa in Isa::available() {
        cosines_are_the_references(isa);
    }
}

fn cosines_are_the_references(isa: Isa) {
    let (golden, bundle) = (golden(), bundle().with_compute(Compute::new(Some(isa.name()), 1).unwrap()));
    let encoder = bundle.audio_encoder().unwrap();
    let texts = texts(&bundle, &golden);
    let mut worst = 0.0f32;
    for window in golden["audio"].as_array().unwrap() {
        let mut embedding = vec![0.0; encoder.embedding_len()];
        encoder.embed(&features(&bundle, &encoder, window), &mut embedding).unwrap();
        for (text, expected) in texts.iter().zip(numbers(&window["cosines"])) {
            let cosine: f32 = text.vector.iter().zip(&embedding).map(|(a, b)| a * b).sum();
            worst = worst.max((cosine - expected).abs());
            let name = &window["name"];
            assert!((cosine - expected).abs() < COSINE_TOLERANCE, "{name}: {cosine} against {expected}");
        }
    }
    println!("{}: largest difference of a cosine: {worst}", isa.name());
}

/// Scores of every window of the demonstration's recording, and whether it was gated; and how many events there were.
fn demonstration(model: &Model, text: &TextEmbedding, gate_db: Option<f32>) -> (Vec<(f32, bool)>, usize) {
    let mut decoder = Decoder::open(&root().join("tests/audio/demo.ogg"), Channel::Mix).unwrap();
    let rule = Rule { start: 6.0, stop: 4.5, confirm: (2, 3), cooldown: Duration::ZERO };
    let prompt = Prompt::of_text(PromptId::numbered(0), "a sound", rule);
    let prepared = PreparedPrompt::of_text(prompt, text.clone());
    let prompts = PromptTable::new(text.vector.len(), vec![prepared]).unwrap();
    let hop = Duration::from_millis(500);
    let mut pipeline = Pipeline::new(model.clone(), prompts.into(), decoder.rate(), hop, Pace::Every).unwrap();
    if let Some(gate_db) = gate_db {
        pipeline = pipeline.with_gate(gate_db);
    }
    let (mut windows, mut events) = (Vec::new(), 0);
    let mut sink = |output: Output<'_>| match output {
        Output::Window(window) => windows.push((window.scores[0].score, window.gated)),
        Output::Event(_) => events += 1,
    };
    while let Some(samples) = decoder.next_block().unwrap() {
        pipeline.push(samples, &mut sink).unwrap();
    }
    pipeline.finish(&mut sink).unwrap();
    assert_eq!(pipeline.windows_gated(), windows.iter().filter(|(_, gated)| *gated).count() as u64);
    (windows, events)
}

#[test]
fn a_gate_spares_the_pauses_of_a_recording_and_hears_the_same() {
    let bundle = bundle();
    let model = Model::load(&bundle).unwrap();
    let text = bundle.text_encoder().unwrap().embed("a dog barking").unwrap();
    let (open, events) = demonstration(&model, &text, None);
    let (gated, same) = demonstration(&model, &text, Some(-50.0));
    assert_eq!((open.len(), events), (gated.len(), same));
    assert!(events >= 2, "the dog is heard");
    let spared = gated.iter().filter(|(_, gated)| *gated).count();
    // Its pauses lie at -58 dB. numpy counts 55 windows of 1.94 s, one every 0.48 s, without a louder 50 ms.
    assert!((45..65).contains(&spared), "{spared} of {} windows were spared", gated.len());
    for (ours, theirs) in gated.iter().zip(&open) {
        assert_eq!(ours.0.to_bits(), if ours.1 { 0 } else { theirs.0.to_bits() });
        assert!(!ours.1 || theirs.0 < 6.0, "a gated window would have counted for a start: {theirs:?}");
    }
}

/// The bits of all scores of the recording made `times` as loud, and the gain at its end.
fn scores(model: &Model, texts: &[&str], gain: Gain, times: f32) -> (Vec<u32>, f32) {
    let encoder = bundle().text_encoder().unwrap();
    let prepared = texts.iter().enumerate().map(|(n, text)| {
        PreparedPrompt::of_text(
            Prompt::of_text(PromptId::numbered(n), *text, Rule::default()),
            encoder.embed(text).unwrap(),
        )
    });
    let prepared: Vec<_> = prepared.collect();
    let table = PromptTable::new(940, prepared).unwrap();
    let mut decoder = Decoder::open(&root().join("tests/audio/demo.ogg"), Channel::Mix).unwrap();
    let hop = Duration::from_secs(1);
    let pipeline = Pipeline::new(model.clone(), table.into(), decoder.rate(), hop, Pace::Every).unwrap();
    let mut pipeline = pipeline.with_gain(gain);
    let mut bits = Vec::new();
    while let Some(block) = decoder.next_block().unwrap() {
        let data: Vec<f32> = block.data.iter().map(|sample| sample * times).collect();
        let mut take = |output: Output<'_>| {
            if let Output::Window(window) = output {
                bits.extend(window.scores.iter().map(|score| score.score.to_bits()));
            }
        };
        pipeline.push(Samples { lost: block.lost, data: &data }, &mut take).unwrap();
    }
    (bits, pipeline.gain_db())
}

#[test]
fn the_automatic_gain_needs_no_calibration_of_its_own() {
    let model = Model::load(&bundle()).unwrap();
    let texts = ["a dog barking", "rain", "a person speaking", "a car horn honking"];
    for times in [1.0, 0.3] {
        let none = scores(&model, &texts, Gain::NONE, times).0;
        assert!(none.len() > 400 && none.iter().any(|bits| f32::from_bits(*bits) > 6.0));
        assert!(scores(&model, &texts, Gain::Auto, times) == (none, 0.0), "{times} times as loud");
    }
    // 50 dB quieter, its noise too.
    let times = 10_f32.powf(-50.0 / 20.0);
    let best = |gain| {
        let (bits, gain_db) = scores(&model, &texts, gain, times);
        (bits.iter().map(|bits| f32::from_bits(*bits)).fold(0.0, f32::max), gain_db)
    };
    let ((none, _), (auto, gain_db)) = (best(Gain::NONE), best(Gain::Auto));
    assert!(none < 3.0 && auto > 8.0 && gain_db > 20.0, "{none} without, {auto} with {gain_db} dB");
}

#[test]
fn the_bundle_is_small_enough_for_its_repository() {
    let sizes = std::fs::read_dir(root().join("models/mini")).unwrap().map(|f| f.unwrap().metadata().unwrap());
    let bytes: u64 = sizes.filter(|m| m.is_file()).map(|m| m.len()).sum();
    assert!(bytes <= 32 << 20, "{bytes} bytes; 32 MiB are allowed");
}

#[test]
fn a_patch_is_computed_in_many_parts_and_given_up_between_two() {
    let encoder = bundle().audio_encoder().unwrap();
    let patch = clip_patch(&bundle().frontend(), &signal("sine")[..15_600]).unwrap();
    let (mut at_once, mut stepwise) = (vec![0.0; encoder.feature_len()], vec![0.0; encoder.feature_len()]);
    encoder.encode(&patch, &mut at_once).unwrap();
    let parts = Cell::new(0);
    let count = || {
        parts.set(parts.get() + 1);
        Ok(())
    };
    encoder.encode_stepwise(&patch, &mut stepwise, &count).unwrap();
    assert_eq!(at_once, stepwise);
    // The tower has 13 blocks, each an operator of ours.
    assert!(parts.get() > 13, "{} parts", parts.get());
    let stop = || if parts.replace(parts.get() - 1) > 10 { Ok(()) } else { Err(anyhow::anyhow!("enough")) };
    let error = encoder.encode_stepwise(&patch, &mut stepwise, &stop).unwrap_err();
    assert!(format!("{error:#}").contains("enough"), "{error:#}");
}
