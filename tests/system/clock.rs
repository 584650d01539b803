//! A computer that does not know the time yet: it starts in 1970, or where it was shut down, hears something, and is then set by
//! the network. What it detected is not too old for that, and is published with the time at which it was.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::broker::{Broker, PATIENCE, free_port};
use crate::support::faults::TimeOfDay;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg");
/// Longer than an event is kept by default.
const OFF_S: i64 = 5 * 86_400;

fn start(folder: &Path, port: u16, source: &str, clock: &TimeOfDay) -> Child {
    let text = format!(
        "[node]\nid = \"pi\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n[outbox]\ndir = {:?}\n[scoring]\nhop_s = 0.5\n\
         [[source]]\nid = \"demo\"\nfile = {RECORDING:?}\n{source}\n[[prompt]]\nid = \"dog\"\ntext = \"a dog barking\"\n\
         start = 3.0\nstop = 2.5\nconfirm = [1, 1]\ncooldown_s = 0\n",
        folder.join("outbox")
    );
    fs::write(folder.join("clapd.toml"), text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_clapd"));
    command
        .args(["run", "--config"])
        .arg(folder.join("clapd.toml"))
        .env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"))
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("log")).expect("a file"));
    clock.give(&mut command);
    command.spawn().expect("clapd runs")
}

/// Waits until the log speaks of so many starts.
fn wait_for_starts(folder: &Path, count: usize) {
    let log = || fs::read_to_string(folder.join("log")).expect("a text");
    let began = Instant::now();
    while log().matches("\" started, ").count() < count {
        assert!(began.elapsed() < PATIENCE, "fewer than {count} starts: {}", log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Hears something while the time of day is off by `off_s` and no broker is there, is set right, hears more, and dies before it
/// can tell anybody. The next run delivers all of it.
fn listen_then_learn_the_time(off_s: i64) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut clock) = TimeOfDay::new(folder.path()) else {
        eprintln!("no libfaketime: left out");
        return;
    };
    clock.set(off_s);
    let began = SystemTime::now();
    let mut daemon = start(folder.path(), free_port(), "loop = true", &clock);
    wait_for_starts(folder.path(), 3);
    clock.set(0);
    let before = fs::read_to_string(folder.path().join("log")).expect("a text").matches("\" started, ").count();
    wait_for_starts(folder.path(), before + 3);
    // The outbox looks for itself every ten seconds, and writes a second later; an event makes it look at once.
    thread::sleep(Duration::from_secs(2));
    daemon.kill().and_then(|()| daemon.wait()).expect("is there");
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let mut daemon = start(folder.path(), broker.port, "realtime = true", &clock);
    watcher.wait_for("0 1 clapd/pi/status online");
    let file_size = |log: &Path| fs::metadata(log).map_or(0, |log| log.len());
    let wait_began = Instant::now();
    while file_size(&folder.path().join("outbox/events.log")) > 15 {
        assert!(wait_began.elapsed() < PATIENCE, "the outbox does not empty");
        thread::sleep(Duration::from_millis(50));
    }
    daemon.kill().and_then(|()| daemon.wait()).expect("is there");
    watcher.wait_for("0 1 clapd/pi/status offline");
    let events = watcher.payloads("clapd/pi/demo/dog/event");
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).expect("is JSON")).collect();
    assert!(events.len() >= 2 * (before + 3), "{} starts were logged at least: {events:#?}", before + 3);
    let starts = events.iter().filter(|event| event["event_type"] == "started");
    let times: Vec<SystemTime> = starts
        .map(|event| humantime::parse_rfc3339(event["started_at"].as_str().expect("a text")).expect("a time"))
        .collect();
    // Sound is heard faster than it passes here: up to an hour of it. A window may just be scored while the clock is set: its time
    // was read before.
    let right = began - Duration::from_secs(1)..began + Duration::from_secs(3_600);
    let (right, wrong): (Vec<SystemTime>, Vec<SystemTime>) =
        times.iter().copied().partition(|time| right.contains(time));
    assert!(wrong.len() <= 1, "{times:?}");
    assert!(right.is_sorted(), "{times:?}");
    let longest = events.iter().filter_map(|event| event["duration_s"].as_f64()).fold(0.0, f64::max);
    assert!(longest < 60.0, "{longest} s: lengths are of the sound's own clock");
}

#[test]
fn a_clock_that_starts_in_1970_makes_nothing_too_old() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("is later").as_secs();
    listen_then_learn_the_time(30 - i64::try_from(now).expect("fits"));
}

#[test]
fn a_clock_that_starts_where_it_was_shut_down_makes_nothing_too_old() {
    listen_then_learn_the_time(-OFF_S);
}

/// The broker was told of the start at a time that never was; of the end, which the next run makes, nobody was told. It has the right
/// time, and its start and its length agree with it.
#[test]
fn an_end_after_a_crash_has_the_right_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut clock) = TimeOfDay::new(folder.path()) else {
        eprintln!("no libfaketime: left out");
        return;
    };
    clock.set(-OFF_S);
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let began = SystemTime::now();
    let mut daemon = start(folder.path(), broker.port, "loop = true\nrealtime = true", &clock);
    let started = watcher.wait_for_with("0 1 clapd/pi/demo/dog/event", "started");
    // It dies in the event, or in a later one: the last that it speaks of is open, or was.
    clock.set(0);
    daemon.kill().and_then(|()| daemon.wait()).expect("is there");
    let mut daemon = start(folder.path(), broker.port, "realtime = true", &clock);
    let id = |line: &str| -> String {
        let (_, payload) = line.split_once("event ").expect("has a payload");
        let event: Value = serde_json::from_str(payload).expect("is JSON");
        event["id"].as_str().expect("a text").to_owned()
    };
    let id = id(&started);
    let ended = loop {
        let line = watcher.wait_for_with("0 1 clapd/pi/demo/dog/event", &id);
        if line.contains("\"ended\"") {
            break line;
        }
    };
    daemon.kill().and_then(|()| daemon.wait()).expect("is there");
    let ended: Value = serde_json::from_str(ended.split_once("event ").expect("has a payload").1).expect("is JSON");
    let time = |name: &str| humantime::parse_rfc3339(ended[name].as_str().expect("a text")).expect("a time");
    let (started_at, ended_at) = (time("started_at"), time("ended_at"));
    let right = began - Duration::from_secs(60)..SystemTime::now() + Duration::from_secs(1);
    assert!(right.contains(&started_at) && right.contains(&ended_at), "{ended:#}");
    let lasted = ended_at.duration_since(started_at).expect("is later").as_secs_f64();
    assert!((lasted - ended["duration_s"].as_f64().expect("a number")).abs() < 0.002, "{ended:#}");
}
