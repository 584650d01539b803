//! A dead microphone is reported, a quiet room is not taken for one, and what a daemon missed it does not chase: the daemon as a process
//! with a real sound server, a real broker, and a socket in systemd's place.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::broker::{Broker, PATIENCE, Watcher};
use crate::support::sound_server::{DEVICE, RATE, SoundServer};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg");
/// Systemd's WatchdogSec here: fed every 4 s, which is longer than a device that stalls takes to be noticed.
const WATCHDOG: Duration = Duration::from_secs(8);

/// A daemon with one source, which is killed when it is dropped.
struct Daemon {
    folder: TempDir,
    process: Child,
    watchdog: UnixDatagram,
}

impl Daemon {
    fn start(broker: &Broker, more: &str, environment: Vec<(&'static str, PathBuf)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (config, socket) = (folder.path().join("clapd.toml"), folder.path().join("notify"));
        let watchdog = UnixDatagram::bind(&socket).expect("a socket");
        watchdog.set_read_timeout(Some(PATIENCE)).expect("is set");
        let text = format!(
            "[node]\nid = \"attic\"\n[[prompt]]\nid = \"dog\"\ntext = \"a dog barking\"\n{more}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n",
            broker.port
        );
        fs::write(&config, text).expect("a file");
        let process = Command::new(env!("CARGO_BIN_EXE_clapd"))
            .args(["run", "--config"])
            .arg(&config)
            .env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"))
            .env("STATE_DIRECTORY", folder.path().join("state"))
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .envs(environment)
            .stderr(fs::File::create(folder.path().join("log")).expect("a file"))
            .spawn()
            .expect("clapd runs");
        Self { folder, process, watchdog }
    }

    /// Systemd hears so many more words of progress.
    fn feeds_the_watchdog(&self, times: u32) {
        self.watchdog.set_nonblocking(true).expect("is set");
        let mut word = [0; 4096];
        while self.watchdog.recv(&mut word).is_ok() {}
        self.watchdog.set_nonblocking(false).expect("is set");
        let mut pings = 0;
        while pings < times {
            let count = match self.watchdog.recv(&mut word) {
                // A child of the test has ended.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                received => received.unwrap_or_else(|error| panic!("{pings} of {times}: {error}; {}", self.log())),
            };
            pings += u32::from(&word[..count] == b"WATCHDOG=1");
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("is text")
    }

    /// Threads of this name.
    fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("clapd runs");
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|comm| comm.trim() == name).count()
    }

    fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("clapd runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is told");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Tells it to stop; what it logged.
    fn end(mut self, watcher: &mut Watcher) -> String {
        self.signal("-TERM");
        watcher.wait_for("0 1 clapd/attic/status stopped");
        assert!(self.process.wait().expect("ends").success(), "{}", self.log());
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn microphone() -> String {
    format!("[[source]]\nid = \"mic\"\ndevice = {DEVICE:?}")
}

#[track_caller]
fn wait_for_state(watcher: &mut Watcher, state: &str) -> Value {
    let line = watcher.wait_for_with("0 1 clapd/attic/health", &format!("\"state\":\"{state}\""));
    serde_json::from_str(&line[line.find('{').expect("is JSON")..]).expect("is JSON")
}

/// A wav in mono of 16 bits, a minute and a half of `sample`.
fn write_wav(path: &Path, mut sample: impl FnMut(u32) -> f64) {
    let bytes = 90 * RATE * 2;
    let mut wav = [b"RIFF".as_slice(), &(36 + bytes).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    wav.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
    wav.extend([RATE.to_le_bytes(), (RATE * 2).to_le_bytes()].concat());
    wav.extend([2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
    wav.extend([b"data".as_slice(), &bytes.to_le_bytes()].concat());
    // Beyond full scale, a cast saturates: that is clipping.
    (0..90 * RATE).for_each(|n| wav.extend(((sample(n) * 32_767.0).round() as i16).to_le_bytes()));
    fs::write(path, wav).expect("a file");
}

/// A quiet room: uniform noise of -80 dB, in 16 bits some three steps of the converter high.
fn write_room(path: &Path) {
    let mut random = fastrand::Rng::with_seed(3);
    write_wav(path, |_| (random.f64() - 0.5) * 2.0 * 1.73e-4);
}

#[test]
fn a_dead_microphone_a_loud_one_and_a_quiet_room_are_told_apart() {
    let (broker, mut server) = (Broker::start(), SoundServer::start(true));
    let (room, loud) = (server.path().join("room.wav"), server.path().join("loud.wav"));
    write_room(&room);
    write_wav(&loud, |n| (f64::from(n) * 0.06).sin() * 1.3);
    let mut watcher = broker.watch();
    let daemon = Daemon::start(&broker, &microphone(), server.environment());
    // Nothing plays: the monitor of a null sink gives zeros.
    let dead = wait_for_state(&mut watcher, "silent");
    assert_eq!(dead["sources"]["mic"]["level_db"], -144, "{dead}");
    server.play(&room);
    wait_for_state(&mut watcher, "live");
    server.play(&loud);
    wait_for_state(&mut watcher, "clipping");
    server.stop_playing();
    wait_for_state(&mut watcher, "silent");
    // Between hearing nothing and being away there is a difference, too.
    server.control(&["suspend-sink", "mic", "1"]);
    wait_for_state(&mut watcher, "stalled");
    server.control(&["suspend-sink", "mic", "0"]);
    wait_for_state(&mut watcher, "recovering");
    wait_for_state(&mut watcher, "silent");
    server.control(&["unload-module", "module-null-sink"]);
    wait_for_state(&mut watcher, "lost");
    server.control(&["load-module", "module-null-sink", "sink_name=mic", &format!("rate={RATE}")]);
    wait_for_state(&mut watcher, "recovering");
    server.play(&room);
    wait_for_state(&mut watcher, "live");
    daemon.feeds_the_watchdog(2);
    let log = daemon.end(&mut watcher);
    for line in [
        "mic: silent: samples come",
        "mic: clipping: it is cut off",
        "mic: stalled: ",
        "mic: lost: ",
        "mic: recovering",
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    assert_eq!(log.matches("mic: clipping").count(), 1, "a change is a line:\n{log}");
}

#[test]
fn a_server_behind_which_closing_hangs_neither_stops_the_daemon_nor_the_watchdog() {
    let (broker, mut server) = (Broker::start(), SoundServer::start(true));
    let room = server.path().join("room.wav");
    write_room(&room);
    let mut watcher = broker.watch();
    server.play(&room);
    let daemon = Daemon::start(&broker, &microphone(), server.environment());
    wait_for_state(&mut watcher, "live");
    daemon.feeds_the_watchdog(2);
    server.freeze(true);
    wait_for_state(&mut watcher, "stalled");
    // A new process could do no more than open the device again, which this one does.
    daemon.feeds_the_watchdog(2);
    let hanging = daemon.threads("stream-mic");
    assert!(hanging >= 2, "{hanging} streams: closing the first should hang");
    server.kill();
    server.restart();
    server.play(&room);
    wait_for_state(&mut watcher, "recovering");
    wait_for_state(&mut watcher, "live");
    // It ends, whoever hangs.
    server.freeze(true);
    wait_for_state(&mut watcher, "stalled");
    daemon.end(&mut watcher);
}

/// Times, by the wall clock, of the windows whose scores were published so far.
fn scored_at(watcher: &Watcher) -> Vec<SystemTime> {
    let time = |payload: &str| {
        let score: Value = serde_json::from_str(payload).expect("is JSON");
        humantime::parse_rfc3339(score["at"].as_str().expect("a text")).expect("is a time")
    };
    watcher.payloads("clapd/attic/room/dog/score").into_iter().map(time).collect()
}

fn skipped(health: &Value) -> u64 {
    health["sources"]["room"]["windows_skipped"].as_u64().expect("a number")
}

#[test]
fn what_a_stopped_or_starved_daemon_missed_is_skipped_and_counted() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let source = format!(
        "[[source]]\nid = \"room\"\nfile = {RECORDING:?}\nloop = true\nrealtime = true\n[scoring]\nhop_s = 0.25"
    );
    let daemon = Daemon::start(&broker, &source, Vec::new());
    (0..8).for_each(|_| drop(watcher.wait_for("0 0 clapd/attic/room/dog/score")));
    let (before, second) = (daemon.resident_kb(), Duration::from_secs(1));
    daemon.signal("-STOP");
    let stopped = SystemTime::now();
    thread::sleep(8 * second);
    let goes_on = SystemTime::now();
    daemon.signal("-CONT");
    while scored_at(&watcher).last().is_none_or(|last| *last < goes_on) {
        watcher.wait_for("0 0 clapd/attic/room/dog/score");
    }
    let late = |at: &&SystemTime| **at > stopped + second && **at < goes_on - second;
    let scored = scored_at(&watcher);
    assert_eq!(scored.iter().filter(late).count(), 0, "windows of the time in which it was stopped were scored");
    assert!(scored.is_sorted(), "{scored:?}");

    // A hundredth of the time is less than it needs.
    for _ in 0..40 {
        daemon.signal("-CONT");
        thread::sleep(Duration::from_millis(2));
        daemon.signal("-STOP");
        thread::sleep(Duration::from_millis(198));
    }
    daemon.signal("-CONT");
    let goes_on = SystemTime::now();
    while scored_at(&watcher).last().is_none_or(|last| *last < goes_on) {
        watcher.wait_for("0 0 clapd/attic/room/dog/score");
    }
    // What comes at once after a stop is a few MB at the most: 8 s of samples, twice, and their frames.
    let grown = daemon.resident_kb().saturating_sub(before);
    assert!(grown < 12_000, "{grown} KB more than before");
    let log = daemon.end(&mut watcher);
    let last = watcher.payloads("clapd/attic/health").last().map(|text| serde_json::from_str(text).expect("is JSON"));
    // Four windows a second were due in 8 s; one of them was scored, and one or two as it stopped.
    assert!(last.as_ref().map_or(0, skipped) >= 28, "{last:?}\n{log}");
    assert!(log.contains("windows skipped so far: this computer is too slow, or busy"), "{log}");
}
