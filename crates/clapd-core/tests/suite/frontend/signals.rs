//! The signals of tests/golden/make_frontend.py, made again: the same formulas in the same order, in f64, then f32.

use std::f64::consts::PI;

/// Knuth's MMIX linear congruential generator; its upper 24 bits as a uniform number in [-1, 1).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 23) - 1.0
    }
}

/// The signal of a golden case: a name, or a name and a length (`music-700`); otherwise one patch long.
pub fn signal(case: &str, rate: u32, patch: usize) -> Vec<f32> {
    let (name, length) = case.split_once('-').map_or((case, patch), |(name, n)| (name, n.parse().unwrap()));
    let samples: Vec<f64> = match name {
        "noise" => noise(length, 0.5),
        "faint" => noise(length, 0.00002),
        "tones" => each(length, |i| tones(i, f64::from(rate))),
        "sweep" => sweep(length, f64::from(rate)),
        "music" => each(length, |i| music(i as usize, rate)),
        "speech" => speech(length, rate),
        "silence" => vec![0.0; length],
        "dc" => vec![0.7; length],
        "clipped" => each(length, |i| (4.0 * (2.0 * PI * 300.7 * i / f64::from(rate)).sin()).clamp(-1.0, 1.0)),
        "impulse" => each(length, |i| f64::from(u8::from(i % 7919.0 == 100.0))),
        _ => panic!("no signal is called {name}"),
    };
    samples.into_iter().map(|x| x as f32).collect()
}

/// A sine of amplitude 0.5.
pub fn sine(hz: f64, rate: u32, length: usize) -> Vec<f32> {
    each(length, |i| 0.5 * (2.0 * PI * hz * i / f64::from(rate)).sin()).into_iter().map(|x| x as f32).collect()
}

fn each(length: usize, sample: impl FnMut(f64) -> f64) -> Vec<f64> {
    (0..length).map(|i| i as f64).map(sample).collect()
}

fn noise(length: usize, gain: f64) -> Vec<f64> {
    let mut source = Noise::new(1);
    each(length, |_| gain * source.next())
}

fn tones(i: f64, rate: f64) -> f64 {
    0.9 * (2.0 * PI * 440.3 * i / rate).sin()
        + 0.001 * (2.0 * PI * 3000.0 * i / rate).sin()
        + 0.00001 * (2.0 * PI * 6000.0 * i / rate).sin()
}

fn sweep(length: usize, rate: f64) -> Vec<f64> {
    let span = (0.45 * rate / 20.0).ln();
    let n = length as f64;
    let duration = n / rate;
    each(length, |i| 0.8 * (2.0 * PI * 20.0 * duration / span * ((i / n * span).exp() - 1.0)).sin())
}

fn music(i: usize, rate: u32) -> f64 {
    const CHORDS: [[f64; 3]; 4] =
        [[220.0, 277.18, 329.63], [196.0, 246.94, 293.66], [174.61, 220.0, 261.63], [164.81, 207.65, 246.94]];
    let half = rate as usize / 2;
    let (beat, t) = (i / half, (i % half) as f64 / f64::from(rate));
    let mut total = 0.0;
    for note in CHORDS[beat % 4] {
        for harmonic in 1..7 {
            let harmonic = f64::from(harmonic);
            total += (2.0 * PI * note * harmonic * t).sin() * (-3.0 * harmonic * t).exp() / harmonic;
        }
    }
    0.2 * total
}

fn speech(length: usize, rate: u32) -> Vec<f64> {
    const VOWELS: [[f64; 3]; 6] = [
        [730.0, 1090.0, 2440.0],
        [270.0, 2290.0, 3010.0],
        [300.0, 870.0, 2240.0],
        [530.0, 1840.0, 2480.0],
        [0.0; 3],
        [1.0; 3],
    ];
    let mut source = Noise::new(7);
    let syllable = rate as usize / 5;
    let rate = f64::from(rate);
    let mut state = [[0.0; 2]; 3];
    let mut phase = 0.0;
    let out: Vec<f64> = (0..length)
        .map(|i| {
            let vowel = VOWELS[(i / syllable) % 6];
            let breath = source.next();
            if vowel[0] < 2.0 {
                return vowel[0] * 0.1 * breath;
            }
            phase += (110.0 + 50.0 * (i % syllable) as f64 / syllable as f64) / rate;
            let pulse = if phase >= 1.0 { 1.0 } else { 0.0 };
            phase -= pulse;
            let mut value = pulse + 0.01 * breath;
            for (formant, past) in vowel.iter().zip(&mut state) {
                let radius = (-PI * 90.0 / rate).exp();
                let gain = 2.0 * radius * (2.0 * PI * formant / rate).cos();
                value = (1.0 - radius) * value + gain * past[0] - radius * radius * past[1];
                *past = [value, past[0]];
            }
            2000.0 * value * (48_000.0 / rate)
        })
        .collect();
    let peak = out.iter().fold(0.0, |peak: f64, x| peak.max(x.abs()));
    out.iter().map(|x| 0.7 * x / peak).collect()
}
