//! Capture against a real sound server: a tone arrives, the server dies, the server comes back.
//!
//! ALSA reads its configuration once a process, from the environment: each test runs the capture in a child process (this
//! test program again, `child` below), which prints a line for each block.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, UNIX_EPOCH};

use clapd::capture::{Read, Source, SourceCounters, SourceKind, SourceSpec, device};
use clapd::levels::Microphone;
use clapd_core::channel::Channel;
use clapd_core::level::Gain;

use crate::support::sound_server::{DEVICE, RATE, SoundServer};

/// Until when a test waits for something that should happen: a limit against hanging, not a measurement.
const PATIENCE: Duration = Duration::from_secs(90);
pub(super) const TONE_HZ: f64 = 441.0;
pub(super) const TONE_PEAK: f64 = 0.5;

/// The child: listens until its standard input closes.
#[test]
#[ignore = "the other tests run it, in a process of its own"]
fn child() {
    if std::env::var_os("CLAPD_TEST_LIST").is_some() {
        for device in device::list(device::Selection::Usual).unwrap() {
            println!("device name={} usable={}", device.name, device.problem.is_none());
        }
        return;
    }
    let counters = Arc::new(SourceCounters::default());
    let name = std::env::var("CLAPD_TEST_DEVICE").unwrap();
    let channel =
        std::env::var("CLAPD_TEST_CHANNEL").map_or(Channel::Mix, |index| Channel::Index(index.parse().unwrap()));
    let spec = SourceSpec {
        id: "test".into(),
        kind: SourceKind::Device { name },
        channel,
        gain: Gain::NONE,
        microphone: Microphone::default(),
    };
    let mut source = Source::open(&spec, counters.clone()).unwrap();
    let (closed, parent) = channel_of_end();
    while parent.try_recv().is_err() {
        let line = match source.read(Duration::from_millis(200)).unwrap() {
            Read::Block { rate, samples, anchor } => {
                let power = samples.data.iter().map(|s| f64::from(s * s)).sum::<f64>() / samples.data.len() as f64;
                let rises = samples.data.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
                let wall = anchor.wall.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
                let (at, len, lost) = (anchor.at.as_secs_f64(), samples.data.len(), samples.lost);
                format!(
                    "block rate={rate} lost={lost} len={len} rms={} rises={rises} at={at} wall={wall}",
                    power.sqrt()
                )
            }
            Read::Idle => "idle".to_owned(),
            Read::End => panic!("a device has no end"),
        };
        let (reopens, errors) = (counters.reopens.get(), counters.stream_errors.get());
        let open = counters.streams_open.load(Ordering::Relaxed);
        let warnings = counters.warnings.texts().join(";").replace(' ', "_");
        println!(
            "{line} state={:?} reopens={reopens} errors={errors} open={open} warnings={warnings}",
            counters.state()
        );
    }
    drop(source);
    drop(closed);
    println!("closed");
}

/// Something to receive from once standard input has closed.
fn channel_of_end() -> (std::sync::mpsc::Sender<()>, Receiver<()>) {
    let (sender, receiver) = channel();
    let end = sender.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = end.send(());
    });
    (sender, receiver)
}

/// A line of the child.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub kind: String,
    pub fields: HashMap<String, String>,
}

impl Line {
    /// `None` for what the test harness says around the child's lines.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim_start_matches("test capture::child ... ").split_whitespace();
        let kind = words.next().filter(|kind| ["block", "idle", "closed", "device"].contains(kind))?.to_owned();
        let fields = words.filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Some(Self { kind, fields })
    }

    pub fn number(&self, field: &str) -> f64 {
        self.fields[field].parse().unwrap()
    }

    fn is_tone(&self) -> bool {
        self.kind == "block" && self.number("len") > 2_000.0 && self.number("rms") > 0.2
    }
}

/// The child process and what it says.
pub(super) struct CaptureProcess {
    child: Child,
    lines: Receiver<Line>,
}

impl CaptureProcess {
    fn start(server: &SoundServer, settings: &[(&str, &str)]) -> Self {
        Self::start_in(server.environment(), settings)
    }

    pub fn start_in(environment: Vec<(&'static str, PathBuf)>, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "capture::child", "--nocapture", "--test-threads=1"])
            .envs(environment)
            .envs(settings.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("CLAPD_TEST_SHOW").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if std::env::var_os("CLAPD_TEST_SHOW").is_some() {
                    eprintln!("{line}");
                }
                let closed = Line::parse(&line).is_some_and(|line| sender.send(line).is_err());
                if closed {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The first line from now on for which `matches` holds, and all lines before it.
    pub fn wait_for(&self, what: &str, matches: impl Fn(&Line) -> bool) -> (Line, Vec<Line>) {
        let until = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if matches(&line) => return (line, before),
                Ok(line) => before.push(line),
                Err(_) => panic!("waited in vain for {what}; the last lines were {:#?}", before.iter().rev().take(3)),
            }
        }
    }

    /// Closes the child's standard input; it must then end by itself, whatever hangs in the sound system.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        self.wait_for("the end of the child", |line| line.kind == "closed");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for CaptureProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tone in stereo, `left` and `right` its peaks; 120 s, longer than any test listens.
fn write_tone(server: &SoundServer, left: f64, right: f64) -> PathBuf {
    let path = server.path().join("tone.wav");
    write_tone_to(&path, left, right);
    path
}

pub(super) fn write_tone_to(path: &std::path::Path, left: f64, right: f64) {
    let frames = 120 * RATE;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let bytes = frames * 4;
    file.write_all(b"RIFF").unwrap();
    file.write_all(&(bytes + 36).to_le_bytes()).unwrap();
    file.write_all(b"WAVEfmt \x10\0\0\0\x01\0\x02\0").unwrap();
    file.write_all(&RATE.to_le_bytes()).unwrap();
    file.write_all(&(RATE * 4).to_le_bytes()).unwrap();
    file.write_all(b"\x04\0\x10\0data").unwrap();
    file.write_all(&bytes.to_le_bytes()).unwrap();
    for frame in 0..frames {
        let phase = (f64::from(frame) * TONE_HZ / f64::from(RATE)).fract() * std::f64::consts::TAU;
        for peak in [left, right] {
            file.write_all(&((phase.sin() * peak * 32_767.0) as i16).to_le_bytes()).unwrap();
        }
    }
    file.flush().unwrap();
}

pub(super) fn assert_is_our_tone(line: &Line, peak: f64) {
    let rms = line.number("rms");
    assert!((rms - peak / 2.0_f64.sqrt()).abs() < 0.02 * peak, "rms {rms} for a peak of {peak}");
    let hz = line.number("rises") * line.number("rate") / line.number("len");
    let resolution = line.number("rate") / line.number("len");
    assert!((hz - TONE_HZ).abs() <= resolution + 1.0, "{hz} Hz (blocks resolve {resolution} Hz)");
}

/// A whole block of tone, three seconds after its first: by then the latency of the sound server has settled.
fn steady_tone(listening: &CaptureProcess) -> Line {
    let (first, _) = listening.wait_for("a tone", Line::is_tone);
    let settled = first.number("at") + 3.0;
    listening.wait_for("a steady tone", |line| line.is_tone() && line.number("at") > settled).0
}

#[test]
fn a_tone_is_heard_at_its_level_pitch_and_time() {
    let mut server = SoundServer::start(true);
    let tone = write_tone(&server, TONE_PEAK, TONE_PEAK);
    server.play(&tone);
    let listening = CaptureProcess::start(&server, &[("CLAPD_TEST_DEVICE", DEVICE)]);
    let first = steady_tone(&listening);
    assert_is_our_tone(&first, TONE_PEAK);
    assert_eq!(first.number("rate"), f64::from(RATE));
    assert_eq!(first.fields["state"], "Live");
    // Three seconds of the sample clock on, the wall clock agrees and nothing was lost.
    let (later, between) = listening
        .wait_for("three seconds more", |line| line.is_tone() && line.number("at") >= first.number("at") + 3.0);
    let (sound, wall) = (later.number("at") - first.number("at"), later.number("wall") - first.number("wall"));
    assert!((sound - wall).abs() < 0.2, "{sound} s of sound in {wall} s");
    let blocks: Vec<&Line> = between.iter().filter(|line| line.kind == "block").collect();
    assert!(blocks.iter().all(|line| line.number("lost") == 0.0));
    assert!(blocks.windows(2).all(|pair| pair[1].number("wall") > pair[0].number("wall")), "the anchor jumps back");
    listening.end();
}

#[test]
fn one_channel_is_heard_alone() {
    let mut server = SoundServer::start(true);
    let tone = write_tone(&server, 0.0, 0.8);
    server.play(&tone);
    let right = CaptureProcess::start(&server, &[("CLAPD_TEST_DEVICE", DEVICE), ("CLAPD_TEST_CHANNEL", "1")]);
    assert_is_our_tone(&steady_tone(&right), 0.8);
    right.end();
    let left = CaptureProcess::start(&server, &[("CLAPD_TEST_DEVICE", DEVICE), ("CLAPD_TEST_CHANNEL", "0")]);
    let (line, _) = left.wait_for("half a second", |line| line.kind == "block" && line.number("at") > 0.5);
    assert_eq!(line.number("rms"), 0.0);
    left.end();
}

#[test]
fn devices_are_listed_by_name() {
    let server = SoundServer::start(true);
    let listing = CaptureProcess::start(&server, &[("CLAPD_TEST_LIST", "1")]);
    let (mic, before) =
        listing.wait_for("the microphone", |line| line.fields.get("name").is_some_and(|name| name == "mic"));
    assert_eq!(mic.fields["usable"], "true");
    let default = before.iter().find(|line| line.kind == "device").unwrap();
    assert_eq!((default.fields["name"].as_str(), default.fields["usable"].as_str()), ("default", "true"));
}

fn survives_the_server(shm: bool) {
    let mut server = SoundServer::start(shm);
    let tone = write_tone(&server, TONE_PEAK, TONE_PEAK);
    server.play(&tone);
    let listening = CaptureProcess::start(&server, &[("CLAPD_TEST_DEVICE", DEVICE)]);
    for death in 1..=2 {
        let before = steady_tone(&listening);
        server.kill();
        listening.wait_for("the loss to be noticed", |line| line.fields["state"] == "Lost");
        server.restart();
        server.play(&tone);
        let after = steady_tone(&listening);
        assert_is_our_tone(&after, TONE_PEAK);
        // It is live once it has been heard for a while.
        assert!(["Recovering", "Live"].contains(&after.fields["state"].as_str()), "{after:?}");
        assert!(after.number("reopens") >= f64::from(death));
        // The time line went on through the outage, as the wall clock did.
        let (sound, wall) = (after.number("at") - before.number("at"), after.number("wall") - before.number("wall"));
        assert!((sound - wall).abs() < 0.5, "{sound} s on the time line, {wall} s on the wall");
    }
    listening.end();
}

#[test]
fn a_killed_server_with_shared_memory_is_survived() {
    survives_the_server(true);
}

#[test]
fn a_killed_server_without_shared_memory_is_survived() {
    survives_the_server(false);
}

#[test]
fn a_server_that_hangs_is_survived() {
    let mut server = SoundServer::start(true);
    let tone = write_tone(&server, TONE_PEAK, TONE_PEAK);
    server.play(&tone);
    let listening = CaptureProcess::start(&server, &[("CLAPD_TEST_DEVICE", DEVICE)]);
    let before = steady_tone(&listening);
    server.freeze(true);
    listening.wait_for("the loss to be noticed", |line| line.fields["state"] == "Stalled");
    // By then closing the old stream hangs, and opening the next.
    listening.wait_for("a hanging thread", |line| line.number("open") >= 2.0);
    server.freeze(false);
    server.play(&tone);
    let after = steady_tone(&listening);
    assert_is_our_tone(&after, TONE_PEAK);
    let (sound, wall) = (after.number("at") - before.number("at"), after.number("wall") - before.number("wall"));
    assert!((sound - wall).abs() < 0.5, "{sound} s on the time line, {wall} s on the wall");
    listening.end();
}

#[test]
fn a_device_that_is_not_there_is_waited_for() {
    let mut server = SoundServer::start(true);
    server.kill();
    let listening = CaptureProcess::start(&server, &[("CLAPD_TEST_DEVICE", DEVICE)]);
    let (line, _) = listening.wait_for("an attempt", |line| line.number("reopens") >= 2.0);
    assert_eq!((line.kind.as_str(), line.fields["state"].as_str()), ("idle", "Lost"));
    server.restart();
    let tone = write_tone(&server, TONE_PEAK, TONE_PEAK);
    server.play(&tone);
    let received = steady_tone(&listening);
    assert_is_our_tone(&received, TONE_PEAK);
    // Time begins with the first sample, not with the waiting for it.
    assert!(received.number("at") < received.number("wall"));
    listening.end();
}
