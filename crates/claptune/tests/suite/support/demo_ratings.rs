//! A small study for tests: the sounds of the demonstration's recording, each a file, and ratings that are made up.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;

use crate::wav::Wav;

pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub fn claptune(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_claptune")).args(arguments).output().unwrap()
}

#[track_caller]
pub fn fails(arguments: &[&str], words: &[&str]) {
    let output = claptune(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
}

/// The recording's sounds: from, to, name.
pub fn sounds() -> Vec<(f64, f64, String)> {
    let text = fs::read_to_string(root().join("tests/audio/demo.csv")).unwrap();
    let sound = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].to_owned())
    };
    text.lines().skip(1).map(sound).collect()
}

/// A file a sound, and a manifest in which each is rated with its own name and three others' by three listeners, whose names
/// begin with `name`.
pub fn dataset(folder: &Path, name: &str) -> PathBuf {
    let mut decoder = Decoder::open(&root().join("tests/audio/demo.ogg"), Channel::Mix).unwrap();
    let (rate, mut samples) = (decoder.rate(), vec![]);
    while let Some(block) = decoder.next_block().unwrap() {
        samples.extend_from_slice(block.data);
    }
    let sounds = sounds();
    let mut manifest = "audio,text,score,listener,split,kind,category\n".to_owned();
    for (n, (start, end, _)) in sounds.iter().enumerate() {
        let [start, end] = [start, end].map(|s| (s * f64::from(rate)) as usize);
        let sound = samples[start..end].iter().map(|s| (s * 32767.0) as i16);
        fs::write(folder.join(format!("{n}.wav")), Wav::mono(rate, sound).bytes()).unwrap();
        for other in [0, 3, 7, 10] {
            let text = &sounds[(n + other) % sounds.len()].2;
            for listener in 0..3 {
                let score = if other == 0 { 9 - listener } else { 1 + (listener + n + other) % 3 };
                let kind = if n % 2 == 0 { "natural" } else { "tango" };
                let category = if n < 4 { "first" } else { "rest" };
                writeln!(manifest, "{n}.wav,{text},{score},{name}{listener},test,{kind},{category}").unwrap();
            }
        }
    }
    fs::write(folder.join("m.csv"), manifest).unwrap();
    folder.join("m.csv")
}
