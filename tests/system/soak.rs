//! Nothing grows: the daemon hears a recording at twenty times real time on standard input, and once more at its own pace from a
//! file that it opens again and again, with a real broker that is restarted now and then. Memory, descriptors and threads are
//! looked at all the while.
//!
//! The rule: the median of the last quarter may not exceed the most of the second quarter by more than the slack below. The
//! first quarter is left out: buffers, arenas and caches fill. (The most, since a daemon whose broker is away has fewer descriptors.)
//! `CLAPD_SOAK_S` chooses the length (`make soak`: 30 minutes).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;

use crate::support::broker::Broker;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg");
/// Times real time at which standard input is fed, if the daemon takes it.
const SPEED: u32 = 20;
/// How often the daemon is looked at, at the most; a short soak has a hundred looks.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The least time between two restarts of the broker: the daemon is back within one or two seconds, and what is there most of the time is
/// what is judged.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(10);
/// What memory may have grown by, in KB: pages that an arena has touched and may touch again. In 30 minutes 36,000 windows pass, so
/// that a leak of 250 bytes a window is found (from the end of the second quarter to the middle of the last is 3/8 of the time).
const SLACK_KB: u64 = 3_000;

/// What was seen of the daemon at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    pub rss_kb: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Measurement {
    pub fn at(process: &Child) -> Self {
        let folder = Path::new("/proc").join(process.id().to_string());
        let status = fs::read_to_string(folder.join("status")).expect("clapd runs");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("is told");
            line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(folder.join("fd")).expect("clapd runs").count() as u64;
        Self { rss_kb: number("VmRSS:"), descriptors, threads: number("Threads:") }
    }
}

/// The recording's samples in 16 bits, and their rate.
fn recording() -> (u32, Vec<u8>) {
    let mut decoder = Decoder::open(Path::new(RECORDING), Channel::Mix).expect("is there");
    let mut bytes = Vec::new();
    while let Some(block) = decoder.next_block().expect("is whole") {
        bytes.extend(block.data.iter().flat_map(|x| ((x * 32_767.0) as i16).to_le_bytes()));
    }
    (decoder.rate(), bytes)
}

/// Feeds the recording again and again at [`SPEED`], or as fast as it is taken; counts the milliseconds of sound.
fn feed(mut stdin: ChildStdin, fed_ms: &AtomicU64) -> io::Result<()> {
    let (rate, samples) = recording();
    // As arecord does where it does not know when it will end.
    let endless = 0x7FFF_FFFF_u32;
    let mut head = [b"RIFF".as_slice(), &endless.to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    head.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
    head.extend([rate.to_le_bytes(), (rate * 2).to_le_bytes()].concat());
    head.extend([2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
    head.extend([b"data".as_slice(), &(endless - 36).to_le_bytes()].concat());
    stdin.write_all(&head)?;
    let began = Instant::now();
    for second in samples.chunks(rate as usize * 2).cycle() {
        stdin.write_all(second)?;
        let sound = fed_ms.fetch_add(1_000 * second.len() as u64 / u64::from(rate * 2), Relaxed);
        thread::sleep((Duration::from_millis(sound) / SPEED).saturating_sub(began.elapsed()));
    }
    Ok(())
}

fn start(broker: &Broker, folder: &Path) -> Child {
    let config = folder.join("clapd.toml");
    let text = format!(
        "[node]\nid = \"attic\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[outbox]\ndir = {:?}\n\
         [[source]]\nid = \"fast\"\nstdin = true\n[[source]]\nid = \"slow\"\nfile = {RECORDING:?}\nloop = true\nrealtime = true\n\
         [[prompt]]\nid = \"dog\"\ntext = \"a dog barking\"\ncooldown_s = 0\n[[prompt]]\ntext = \"people applauding\"\ncooldown_s = 0\n",
        broker.port,
        folder.join("outbox")
    );
    fs::write(&config, text).expect("a file");
    Command::new(env!("CARGO_BIN_EXE_clapd"))
        .args(["run", "--config"])
        .arg(&config)
        .env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::piped())
        .stderr(File::create(folder.join("log")).expect("a file"))
        .spawn()
        .expect("clapd runs")
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Fails where one of the figures has grown.
pub fn judge(measurements: &[Measurement], log: &str) {
    let quarter = measurements.len() / 4;
    for (what, of, slack) in [
        ("KB of memory", (|measurement: &Measurement| measurement.rss_kb) as fn(&Measurement) -> u64, SLACK_KB),
        ("descriptors", |measurement| measurement.descriptors, 0),
        ("threads", |measurement| measurement.threads, 0),
    ] {
        let second = measurements[quarter..2 * quarter].iter().map(of).max().expect("there are looks");
        let last = median(measurements[measurements.len() - quarter..].iter().map(of));
        println!("{what}: {second} at the most in the second quarter, {last} in the last ({slack} more are allowed)");
        assert!(last <= second + slack, "{what} grow from {second} to {last}; the log ends with\n{log}");
    }
}

#[test]
fn nothing_grows() {
    let seconds = std::env::var("CLAPD_SOAK_S").map_or(24, |seconds| seconds.parse().expect("a number of seconds"));
    let (length, folder) = (Duration::from_secs(seconds), tempfile::tempdir().expect("a folder"));
    let every = (length / 100).min(POLL_INTERVAL);
    let mut broker = Broker::start();
    let mut watcher = broker.watch();
    let mut daemon = start(&broker, folder.path());
    let fed_ms = Arc::<AtomicU64>::default();
    let (stdin, counter) = (daemon.stdin.take().expect("is piped"), Arc::clone(&fed_ms));
    let feeder = thread::spawn(move || feed(stdin, &counter));
    watcher.wait_for("0 1 clapd/attic/fast/dog/event");

    // What a reconnect touches for the first time is no growth.
    broker.stop();
    broker.resume();
    println!("     time   times real time   memory KB   descriptors   threads");
    let (began, fed_before) = (Instant::now(), fed_ms.load(Relaxed));
    let (mut measurements, mut restarts) = (Vec::new(), 0_u32);
    while began.elapsed() < length {
        thread::sleep(every);
        let measurement = Measurement::at(&daemon);
        let (elapsed, daemon) = (began.elapsed().as_secs_f64(), fed_ms.load(Relaxed) - fed_before);
        let Measurement { rss_kb, descriptors, threads } = measurement;
        measurements.push(measurement);
        println!("{elapsed:7.1} s {:17.1} {rss_kb:11} {descriptors:13} {threads:9}", daemon as f64 / 1e3 / elapsed);
        // In a long soak sixteen restarts of the broker, as many in each quarter.
        if began.elapsed() > (length / 17).max(BETWEEN_RESTARTS) * (restarts + 1) {
            restarts += 1;
            broker.stop();
            broker.resume();
        }
    }
    let parse_event = Command::new("kill").arg(daemon.id().to_string()).status();
    assert!(parse_event.expect("kill runs").success());
    watcher.wait_for("0 1 clapd/attic/status stopped");
    let ended = daemon.wait().expect("ends");
    let log = fs::read_to_string(folder.path().join("log")).expect("is text");
    let log = &log[log.len().saturating_sub(4_000)..];
    assert!(ended.success(), "{log}");
    assert!(feeder.join().expect("does not panic").is_err(), "it feeds until nobody reads");

    let events = |kind: &str| -> BTreeSet<&str> {
        let lines = watcher.received.iter().filter(|line| line.contains(kind));
        lines.filter_map(|line| line.split_once("\"id\":\"")?.1.split('"').next()).collect()
    };
    let (started, over) = (events("\"event_type\":\"started\""), events("\"event_type\":\"ended\""));
    let hours = fed_ms.load(Relaxed) as f64 / 3.6e6;
    println!("{hours:.2} h of sound, {} events, {restarts} restarts of the broker", started.len());
    assert!(!started.is_empty(), "{log}");
    assert_eq!(started, over, "what began has ended: {log}");
    judge(&measurements, log);
}
