//! A small study to train on: sounds that differ in all a spectrogram shows, and ratings by invented listeners.
//!
//! It is wav files and a manifest in a folder: 10 recordings to learn from, 4 to validate with and 2 to test on.
#![allow(dead_code)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::wav::Wav;

pub const RECORDINGS: usize = 16;
const RATE: u32 = 48_000;
const TEXTS: [&str; 6] = ["a low hum", "a whistle", "rain on a roof", "a bell", "steps on gravel", "a faint hiss"];

pub fn split(recording: usize) -> &'static str {
    match recording {
        0..10 => "train",
        10..14 => "validation",
        _ => "test",
    }
}

/// Each recording with three texts, rated by three listeners of its split.
pub fn dataset(folder: &Path) -> PathBuf {
    let mut random = fastrand::Rng::with_seed(5);
    let mut manifest = "audio,text,score,listener,split\n".to_owned();
    for n in 0..RECORDINGS {
        let (hertz, noise) = (120.0 * 1.4_f32.powi(n as i32 % 8), if n < 8 { 0.02 } else { 0.3 });
        let sound = |i: usize| 0.4 * (std::f32::consts::TAU * hertz * i as f32 / RATE as f32).sin();
        let mut sample = |i: usize| ((sound(i) + noise * (2.0 * random.f32() - 1.0)) * 32767.0) as i16;
        let wav = Wav::mono(RATE, (0..RATE as usize / 2).map(&mut sample));
        fs::write(folder.join(format!("{n}.wav")), wav.bytes()).unwrap();
        for other in 0..3 {
            let text = TEXTS[(n + 2 * other) % TEXTS.len()];
            for listener in 0..3 {
                let score = (3 * n + 5 * other + listener) % 11;
                let split = split(n);
                writeln!(manifest, "{n}.wav,{text},{score},{split}{listener},{split}").unwrap();
            }
        }
    }
    let path = folder.join("study.csv");
    fs::write(&path, manifest).unwrap();
    path
}

pub fn claptune(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_claptune")).args(arguments).output().unwrap()
}

#[track_caller]
pub fn succeeds(arguments: &[&str]) -> String {
    let output = claptune(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[track_caller]
pub fn fails(arguments: &[&str], words: &[&str]) {
    let output = claptune(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in what {arguments:?} says: {said}");
    }
}
