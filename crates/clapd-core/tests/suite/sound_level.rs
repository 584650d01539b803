//! The sound level meter against another implementation (tests/golden/make_sound_level.py), and its cost.

use clapd_core::samples::Samples;
use clapd_core::sound_level::{Measured, MicrophoneCorrection, MinuteLevels, SecondLevels, SoundLevelMeter};
use serde_json::Value;

const MMIX: (u64, u64) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);

fn white(length: usize, seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed;
    (0..length).map(move |_| {
        state = state.wrapping_mul(MMIX.0).wrapping_add(MMIX.1);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn signal(name: &str, rate: usize, seconds: usize) -> Vec<f32> {
    let length = rate * seconds;
    let (rate_hz, duration) = (rate as f64, seconds as f64);
    let sine = |cycles: f64| (std::f64::consts::TAU * cycles).sin();
    match name {
        "pink" => {
            let poles = [(0.99765, 0.099_046_0), (0.96300, 0.296_516_4), (0.57000, 1.052_691_3)];
            let mut states = [0.0; 3];
            let pink = white(length, 7).enumerate().map(|(n, white)| {
                for (state, (pole, gain)) in states.iter_mut().zip(poles) {
                    *state = pole * *state + gain * white;
                }
                let gain = if n / rate % 3 == 2 { 0.1 } else { 1.0 };
                (0.02 * gain * (states.iter().sum::<f64>() + 0.1848 * white)) as f32
            });
            pink.collect()
        }
        "sweep" => {
            let octaves = (0.45 * rate_hz / 31.5).ln();
            let cycles = |n: usize| 31.5 * duration / octaves * (n as f64 / rate_hz / duration * octaves).exp_m1();
            (0..length).map(|n| (0.3 * sine(cycles(n))) as f32).collect()
        }
        "tones" => {
            let hz = |n: usize| (40.0 * 2.0_f64.powf((n / rate) as f64 / 2.0)).min(0.45 * rate_hz);
            (0..length).map(|n| (0.2 * sine(hz(n) * (n % rate) as f64 / rate_hz)) as f32).collect()
        }
        other => panic!("{other}"),
    }
}

fn measure(sound: &[f32], rate: u32) -> (Vec<SecondLevels>, Vec<MinuteLevels>) {
    let mut meter = SoundLevelMeter::new(rate, None).unwrap();
    let (mut seconds, mut minutes) = (Vec::new(), Vec::new());
    meter.push(Samples::whole(sound), &mut |measured| match measured {
        Measured::Second(second) => seconds.push(second),
        Measured::Minute(minute) => minutes.push(minute),
    });
    (seconds, minutes)
}

#[test]
fn levels_are_those_of_a_reference_within_a_fifth_of_a_decibel() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/sound_level.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    let mut worst = 0.0_f64;
    for case in cases {
        let (name, rate) = (case["signal"].as_str().unwrap(), case["rate"].as_u64().unwrap() as u32);
        let count = case["seconds"].as_u64().unwrap() as usize;
        let (seconds, minutes) = measure(&signal(name, rate as usize, count), rate);
        assert_eq!(seconds.len(), count);
        let mut compare = |what: String, ours: f32, theirs: &Value| {
            let error = f64::from(ours) - theirs.as_f64().unwrap();
            worst = worst.max(error.abs());
            assert!(error.abs() < 0.2, "{name} at {rate}, {what}: {ours:.2} dB, off by {error:.3} dB");
        };
        for (n, second) in seconds.iter().enumerate() {
            for (what, ours) in [("laeq", second.laeq), ("lafmax", second.lafmax), ("lzeq", second.lzeq)] {
                compare(format!("{what} of second {n}"), ours, &case[what][n]);
            }
        }
        for minute in &minutes {
            for (what, ours) in [
                ("laeq", minute.laeq),
                ("lafmax", minute.lafmax),
                ("la10", minute.la10),
                ("la50", minute.la50),
                ("la90", minute.la90),
            ] {
                compare(format!("{what} of the minute"), ours, &case["minute"][what]);
            }
        }
        assert_eq!(minutes.len(), usize::from(count == 60));
    }
    println!("off by {worst:.3} dB at most");
}

#[test]
fn a_corrected_microphone_measures_what_a_flat_one_does() {
    let rate = 48_000;
    let correction =
        MicrophoneCorrection::parse("\"Sens Factor =-1.4dB\"\n20 -6\n200 0\n1000 0\n4000 3\n20000 8\n").unwrap();
    for hz in [1_000.0, 4_000.0, 8_000.0] {
        let heard = correction.gain_db(hz);
        let amplitude = 0.1 * 10_f64.powf(heard / 20.0);
        let tone: Vec<f32> = (0..3 * rate)
            .map(|n| (amplitude * (std::f64::consts::TAU * hz * f64::from(n) / f64::from(rate)).sin()) as f32)
            .collect();
        let mut meter = SoundLevelMeter::new(rate, Some(&correction)).unwrap();
        let mut last = None;
        meter.push(Samples::whole(&tone), &mut |measured| last = Some(measured));
        let Some(Measured::Second(second)) = last else { panic!("{last:?}") };
        assert!((second.lzeq + 23.01).abs() < 0.1, "{hz} Hz: {second:?}");
    }
}
