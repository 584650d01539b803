//! Files and standard input as sources: blocks, loops, pacing.

use std::io::{Read as _, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clapd::capture::{Read, Source, SourceCounters, SourceKind, SourceSpec, SourceState};
use clapd::levels::Microphone;
use clapd_core::channel::Channel;
use clapd_core::level::Gain;

use crate::wav::{Wav, tone};

fn assert_tone(samples: &[f32], rate: u32, scale: f64, tolerance: f64) {
    for (frame, &sample) in samples.iter().enumerate() {
        let expected = tone(frame, rate) * scale;
        assert!((f64::from(sample) - expected).abs() < tolerance, "sample {frame}: {sample}, expected {expected}");
    }
}

fn open(kind: SourceKind) -> (Source, Arc<SourceCounters>) {
    let counters = Arc::new(SourceCounters::default());
    let spec = SourceSpec {
        id: "test".into(),
        kind,
        channel: Channel::Mix,
        gain: Gain::NONE,
        microphone: Microphone::default(),
    };
    (Source::open(&spec, counters.clone()).unwrap(), counters)
}

fn write(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("test.wav");
    std::fs::write(&path, bytes).unwrap();
    path
}

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_file_is_a_source_in_blocks_of_half_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &Wav::tone(16_000, 2, 1, 16, 20_500).bytes());
    let (mut source, counters) = open(SourceKind::File { path, looped: false, realtime: false });
    let (mut lengths, mut all, mut began) = (Vec::new(), Vec::new(), None);
    loop {
        match source.read(SOON).unwrap() {
            Read::Block { rate, samples, anchor } => {
                assert_eq!((rate, samples.lost), (16_000, 0));
                assert!((anchor.at.as_secs_f64() - all.len() as f64 / 16_000.0).abs() < 1e-6);
                assert_eq!(
                    *began.get_or_insert(anchor.wall_time(clapd_core::time::SampleTime::ZERO)),
                    anchor.wall_time(clapd_core::time::SampleTime::ZERO)
                );
                lengths.push(samples.data.len());
                all.extend_from_slice(samples.data);
            }
            Read::Idle => {}
            Read::End => break,
        }
    }
    assert_eq!(lengths, [8_000, 8_000, 4_500]);
    assert_tone(&all, 16_000, 0.75, 1e-4);
    assert!(matches!(source.read(SOON).unwrap(), Read::End));
    assert_eq!((counters.state(), counters.samples.get()), (SourceState::Ended, 20_500));
    // An amplitude of 0.375.
    assert_eq!(counters.level_db(), Some(-12));
}

#[test]
fn a_loop_goes_on_and_its_time_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &Wav::tone(8_000, 1, 1, 16, 5_000).bytes());
    let (mut source, _) = open(SourceKind::File { path, looped: true, realtime: false });
    let mut total = 0;
    while total < 5_000 * 7 {
        let Read::Block { samples, anchor, .. } = source.read(SOON).unwrap() else { panic!("a loop ended") };
        assert!((anchor.at.as_secs_f64() - total as f64 / 8_000.0).abs() < 1e-6);
        total += samples.data.len();
    }
}

#[test]
fn real_time_is_never_ahead_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &Wav::tone(8_000, 1, 1, 16, 4_000).bytes());
    let began = Instant::now();
    let (mut source, _) = open(SourceKind::File { path, looped: false, realtime: true });
    assert!(matches!(source.read(Duration::ZERO).unwrap(), Read::Idle));
    let (mut blocks, mut heard) = (0, 0.0);
    loop {
        match source.read(SOON).unwrap() {
            Read::Block { samples, .. } => {
                blocks += 1;
                heard += samples.data.len() as f64 / 8_000.0;
                assert!(began.elapsed().as_secs_f64() >= heard - 1e-3, "block {blocks} came too early");
            }
            Read::Idle => panic!("nothing for {SOON:?}"),
            Read::End => break,
        }
    }
    assert_eq!(blocks, 5);
}

#[test]
fn a_file_without_a_sample_is_an_error_even_in_a_loop() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, &Wav::tone(8_000, 1, 1, 16, 0).bytes());
    for looped in [false, true] {
        let (mut source, counters) = open(SourceKind::File { path: path.clone(), looped, realtime: false });
        let error = source.read(SOON).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("not a single sample"), "{error:#}");
        assert!(matches!(source.read(SOON).unwrap(), Read::End));
        assert_eq!(counters.state(), SourceState::Ended);
    }
}

#[test]
fn a_missing_file_is_an_error_at_once() {
    let kind = SourceKind::File { path: "/no/such.flac".into(), looped: false, realtime: false };
    let spec = SourceSpec {
        id: "test".into(),
        kind,
        channel: Channel::Mix,
        gain: Gain::NONE,
        microphone: Microphone::default(),
    };
    assert!(Source::open(&spec, Arc::default()).is_err());
}

/// Run by the next test with a wav on its standard input.
#[test]
#[ignore = "another test runs it, in a process of its own"]
fn child() {
    let (mut source, _) = open(SourceKind::Stdin { raw: None });
    let (mut total, mut rates) = (0, Vec::new());
    loop {
        match source.read(SOON).unwrap() {
            Read::Block { rate, samples, .. } => {
                total += samples.data.len();
                rates.push(rate);
            }
            Read::Idle => panic!("nothing came"),
            Read::End => break,
        }
    }
    rates.dedup();
    println!("heard {total} at {rates:?}");
}

/// This program again, with one of its tests and 512 MB of address space: an allocation by a lying length would end it.
fn in_little_memory(arguments: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v 524288; exec \"$0\" --exact {arguments} --nocapture --test-threads=1")])
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

#[test]
fn wav_on_standard_input_is_a_source_in_little_memory() {
    let mut wav = Wav::tone(48_000, 2, 1, 16, 48_000);
    for announced in [None, Some(u32::MAX), Some(u32::MAX / 4)] {
        wav.announced = announced;
        let mut child = in_little_memory("--ignored files::child").spawn().unwrap();
        child.stdin.take().unwrap().write_all(&wav.bytes()).unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(said.contains("heard 48000 at [48000]"), "{said}");
    }
}
