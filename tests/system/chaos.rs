//! Nothing is lost: the daemon hears a recording again and again, while its broker dies or comes back with other limits, its link is
//! cut or goes dead, its disk is full and full again before it has recovered, its clock is set, it is stopped for a while and it is
//! killed itself. At the end the broker's subscriber has had every event that the daemon's log
//! speaks of, in order, with the times that an undisturbed run gives them.
//!
//! Of a suspended computer it is simulated that the process stands still while time goes on, its link is gone and the time of day may be
//! another when it wakes up. That CLOCK_MONOTONIC stands still meanwhile, and CLOCK_BOOTTIME does not, is not: tests of `time` and
//! `outbox` have that, with clocks of their own.
//!
//! `CLAPD_CHAOS_FAULTS` and `CLAPD_CHAOS_SEED` choose another number and order of faults (`make chaos`).

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::broker::{Broker, PATIENCE};
use crate::support::faults::{Gate, Received, Subscriber, TimeOfDay};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg");
/// Sounds of the recording, and rules that let it make many events.
const PROMPTS: [&str; 6] =
    ["a dog barking", "people applauding", "rain", "a person speaking", "footsteps on gravel", "music"];

/// Half a frame. Times are published in whole milliseconds, and a clock that is set is followed to about one.
const NEAR_MS: u128 = 5;
/// A clock is set by more than two hours, and no event of a run of the test lasts for one.
const STEP_S: std::ops::Range<i64> = 7_200..90_000;
const LONGEST_S: f64 = 3_600.0;
/// The outbox tries a disk that failed again after ten seconds.
const RETRY_AFTER: Duration = Duration::from_secs(11);
/// Starts after a step by which the new time of day is used: one or two may be under way.
const STARTS_AFTER_STEP: usize = 6;

/// Limits that a broker comes back with, each line of mosquitto's configuration in its turn. (Not "max_qos 0": what a broker does not
/// acknowledge is lost with the link by right.)
const LIMITS: &[&str] =
    &["max_inflight_messages 1", "max_packet_size 2000", "max_packet_size 8192", "retain_available false"];

/// What is under test: a daemon with its broker, link, disk and clock.
struct Rig {
    folder: tempfile::TempDir,
    broker: Broker,
    gate: Gate,
    received: Received,
    subscriber: Option<Subscriber>,
    daemon: Option<Child>,
    /// One for each run of the daemon.
    logs: Vec<PathBuf>,
    /// How its clock was set, in milliseconds, with the number of the run in which it was.
    steps: Vec<(usize, i128)>,
    clock: Option<TimeOfDay>,
    tmpfs: bool,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = Broker::start();
        let gate = Gate::new(broker.port);
        let outbox = folder.path().join("outbox");
        fs::create_dir(&outbox).expect("a folder");
        // Only root can make a disk that is soon full. The longest outage on a fast machine fills a quarter of it: at 256 kB, one
        // such disk was full without our doing.
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&outbox).output();
        let tmpfs = mount.is_ok_and(|done| done.status.success());
        if !tmpfs {
            eprintln!("no tmpfs can be mounted: full disks are left out");
        }
        let clock = TimeOfDay::new(folder.path());
        if clock.is_none() {
            eprintln!("no libfaketime: clocks that are set are left out");
        }
        let mut rig = Self {
            folder,
            broker,
            gate,
            received: Received::default(),
            subscriber: None,
            daemon: None,
            logs: Vec::new(),
            steps: Vec::new(),
            clock,
            tmpfs,
        };
        rig.configure("loop = true");
        rig.listen();
        rig
    }

    fn outbox(&self) -> PathBuf {
        self.folder.path().join("outbox")
    }

    fn configure(&self, more: &str) {
        let mut text = format!(
            "[node]\nid = \"attic\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[outbox]\ndir = {:?}\n[scoring]\nhop_s = 0.5\n\
             [[source]]\nid = \"demo\"\nfile = {RECORDING:?}\n{more}\n",
            self.gate.port,
            self.outbox()
        );
        for prompt in PROMPTS {
            text +=
                &format!("[[prompt]]\ntext = {prompt:?}\nstart = 3.0\nstop = 2.5\nconfirm = [1, 1]\ncooldown_s = 0\n");
        }
        fs::write(self.folder.path().join("clapd.toml"), text).expect("a file");
    }

    /// Has the subscriber at the broker before the daemon can be there.
    fn listen(&mut self) {
        self.subscriber = Some(Subscriber::start(self.broker.port, &self.received));
        self.gate.open();
    }

    fn start(&mut self) {
        let log = self.folder.path().join(format!("log-{}", self.logs.len()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_clapd"));
        command
            .args(["run", "--config"])
            .arg(self.folder.path().join("clapd.toml"))
            .env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"))
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a file"));
        if let Some(clock) = &self.clock {
            clock.give(&mut command);
        }
        self.daemon = Some(command.spawn().expect("clapd runs"));
        self.logs.push(log);
    }

    fn end(&mut self, signal: &str) {
        let Some(mut daemon) = self.daemon.take() else { return };
        assert_eq!(daemon.try_wait().expect("is ours"), None, "it ended by itself: {}", self.log());
        send_signal(&daemon, signal);
        let began = Instant::now();
        while daemon.try_wait().expect("is ours").is_none() {
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        self.logs.last().map_or_else(String::new, |log| fs::read_to_string(log).expect("a text"))
    }

    fn wait_for_log(&self, part: &str) {
        self.wait_for_more(part, 0);
    }

    fn count_in_log(&self, part: &str) -> usize {
        self.log().matches(part).count()
    }

    /// Waits until the log has it more than `before` times.
    fn wait_for_more(&self, part: &str, before: usize) {
        let began = Instant::now();
        while self.count_in_log(part) <= before {
            assert!(began.elapsed() < PATIENCE, "{part:?} is not in the log more than {before} times: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the broker, at once or as an administrator would, and starts it again, with what it remembers or without.
    fn restart_broker(&mut self, kill: bool, drop_state: bool, away: Duration, limit: &str) {
        self.gate.close();
        if kill {
            self.broker.kill();
        } else {
            self.broker.stop();
        }
        if let Some(subscriber) = self.subscriber.take() {
            subscriber.end();
        }
        if drop_state {
            let _ = fs::remove_file(self.broker.folder().join("mosquitto.db"));
        }
        let config = self.broker.folder().join("mosquitto.conf");
        let text = fs::read_to_string(&config).expect("a text");
        let own = text.lines().filter(|line| !LIMITS.contains(line)).chain([limit]);
        fs::write(config, own.collect::<Vec<_>>().join("\n") + "\n").expect("a file");
        thread::sleep(away);
        self.broker.resume();
        self.listen();
    }

    /// Fills the disk until the daemon says so, and empties it; where it `fails_again`, at first by so little that writing the log anew
    /// fails half way.
    fn fill_disk(&mut self, away: Duration, fails_again: bool) {
        let (failed, recovered) = ("events wait in memory", "the disk takes events again");
        let before = (self.count_in_log(failed), self.count_in_log(recovered));
        // With the broker there, all that waits has room in the log's first page.
        self.gate.close();
        let filler = self.fill();
        self.wait_for_more(failed, before.0);
        if fails_again {
            let log = fs::metadata(self.outbox().join("events.log")).expect("is there").len();
            let file = File::options().write(true).open(&filler).expect("is there");
            // A page or more, and less than the log has.
            file.set_len(file.metadata().expect("is there").len().saturating_sub((log / 2).max(4096))).expect("is cut");
            thread::sleep(RETRY_AFTER);
        }
        thread::sleep(away);
        fs::remove_file(filler).expect("is there");
        self.gate.open();
        self.wait_for_more(recovered, before.1);
    }

    /// Stops the process as a suspended computer would; it finds its link gone, and perhaps another time of day.
    fn suspend(&mut self, away: Duration, set_by_s: Option<i64>) {
        let Some(daemon) = &self.daemon else { return };
        send_signal(daemon, "-STOP");
        self.gate.cut();
        thread::sleep(away);
        if let Some(by_s) = set_by_s {
            self.set_time(by_s);
        }
        self.daemon.iter().for_each(|daemon| send_signal(daemon, "-CONT"));
        self.wait_for_starts();
    }

    /// The file that leaves no byte of the outbox's disk.
    fn fill(&self) -> PathBuf {
        let filler = self.outbox().join("filler");
        // To the last byte: a write of many fails before one of few does.
        let mut file = File::create(&filler).expect("a file");
        for chunk in [4096, 64, 1] {
            while std::io::Write::write_all(&mut file, &vec![1; chunk]).is_ok() {}
        }
        filler
    }

    /// Sets the daemon's clock, there and back again the next time.
    fn set_time(&mut self, by_s: i64) {
        let Some(clock) = &mut self.clock else { return };
        let new = if clock.offset_s == 0 { by_s } else { 0 };
        self.steps.push((self.logs.len() - 1, i128::from(new - clock.offset_s) * 1000));
        clock.set(new);
    }

    /// Waits until the time of day is used that was set.
    fn wait_for_starts(&self) {
        self.wait_for_more("\" started, ", self.count_in_log("\" started, ") + STARTS_AFTER_STEP);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if self.tmpfs {
            let _ = Command::new("umount").arg(self.outbox()).status();
        }
    }
}

fn send_signal(process: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// What an event is, apart from its id and the time of day: kind, prompt, and for an end its length and its peak.
#[derive(Debug, Clone, PartialEq)]
struct ReceivedEvent {
    kind: String,
    prompt: String,
    id: String,
    started_at: SystemTime,
    duration: Option<f64>,
}

fn parse_event(payload: &str) -> ReceivedEvent {
    let value: Value = serde_json::from_str(payload).expect("is JSON");
    let text = |name: &str| value[name].as_str().expect("a text").to_owned();
    ReceivedEvent {
        kind: text("event_type"),
        prompt: text("prompt"),
        id: text("id"),
        started_at: humantime::parse_rfc3339(&text("started_at")).expect("a time"),
        duration: value["duration_s"].as_f64(),
    }
}

/// What a run's log says that happened: its ids' beginning, and kind and prompt of each start and end in order.
fn parse_log(log: &Path) -> Option<(String, Vec<(String, String)>)> {
    let text = fs::read_to_string(log).expect("a text");
    let (_, rest) = text.split_once("ids of events begin with ")?;
    let run = rest.split_whitespace().next()?.to_owned();
    // What is logged while a disk hangs is not promised.
    let promised = text.lines().take_while(|line| !line.contains("the disk takes longer than"));
    let logged = promised.filter_map(|line| {
        let (_, rest) = line.split_once("demo: \"")?;
        let (prompt, what) = rest.split_once("\" ")?;
        let kind = ["started", "ended"].into_iter().find(|kind| what.starts_with(kind))?;
        Some((kind.to_owned(), prompt.to_owned()))
    });
    Some((run, logged.collect()))
}

/// Every event of a run, in the order in which it was first heard.
fn of_run(received: &[ReceivedEvent], run: &str) -> Vec<ReceivedEvent> {
    let mut events: Vec<ReceivedEvent> = Vec::new();
    for event in received.iter().filter(|event| event.id.starts_with(run)) {
        if !events.iter().any(|other| (&other.id, &other.kind) == (&event.id, &event.kind)) {
            events.push(event.clone());
        }
    }
    events
}

/// Milliseconds from the run's first start.
fn offset(events: &[ReceivedEvent], event: &ReceivedEvent) -> i128 {
    millis(event.started_at) - millis(events[0].started_at)
}

/// Since 1970.
fn millis(time: SystemTime) -> i128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    i128::try_from(since).unwrap_or(0)
}

/// Compares what was heard of a run with what it logged and with the undisturbed run; returns how many events that were. `steps` are
/// how its clock was set meanwhile and after it, in milliseconds.
fn check(
    events: &[ReceivedEvent],
    logged: &[(String, String)],
    truth: &[ReceivedEvent],
    run: &str,
    steps: &[i128],
) -> usize {
    let received: Vec<(&str, &str)> = events.iter().map(|event| (event.kind.as_str(), event.prompt.as_str())).collect();
    let logged: Vec<(&str, &str)> = logged.iter().map(|(kind, prompt)| (kind.as_str(), prompt.as_str())).collect();
    assert!(received.len() >= logged.len(), "{run}: {} were logged, {} heard", logged.len(), received.len());
    assert_eq!(received[..logged.len()], logged[..], "{run}: in the order of the log");
    let mut open: HashMap<&str, &ReceivedEvent> = HashMap::new();
    for event in events {
        match event.kind.as_str() {
            "started" => assert!(open.insert(&event.id, event).is_none()),
            _ => {
                let start = open.remove(event.id.as_str()).expect("an end has its start");
                // Where the clock was set in between, the end has the right time for both.
                let shift = millis(event.started_at) - millis(start.started_at);
                assert!(
                    shift == 0 || follow(&[0, shift], steps),
                    "{run}: {start:?} and {event:?} are {shift} ms apart"
                );
                assert!(event.duration.is_some_and(|duration| duration < LONGEST_S), "{run}: {event:?}");
            }
        }
    }
    assert!(open.is_empty(), "{run}: every start has its end: {open:?}");
    // What the log speaks of is as it would have been, but for the ends at its own end: those were made by stopping.
    let undisturbed =
        |events: &[(&str, &str)]| events.iter().rposition(|(kind, _)| *kind == "started").map_or(0, |at| at + 1);
    let expected: Vec<(&str, &str)> = truth.iter().map(|event| (event.kind.as_str(), event.prompt.as_str())).collect();
    let mut shifts = Vec::new();
    for (event, expected) in events[..undisturbed(&logged)].iter().zip(&truth[..undisturbed(&expected)]) {
        assert_eq!((&event.kind, &event.prompt), (&expected.kind, &expected.prompt), "{run}");
        shifts.push(offset(events, event) - offset(truth, expected));
        assert_eq!(event.duration.is_some(), expected.duration.is_some());
        let lengths = event.duration.zip(expected.duration);
        assert!(lengths.is_none_or(|(a, b)| (a - b).abs() < 0.0015), "{run}: {event:?}, not {expected:?}");
    }
    assert!(follow(&shifts, steps), "{run}: off by {shifts:?} ms, where the clock was set by {steps:?}");
    logged.len()
}

/// Whether times are off by nothing but how the clock was set: each by all steps up to some moment. The first may have waited for
/// the broker meanwhile, and is then told with the right time.
fn follow(shifts: &[i128], steps: &[i128]) -> bool {
    let sums = || (0..=steps.len()).map(|count| steps[..count].iter().sum::<i128>());
    let near = |a: i128, b: i128| (a - b).unsigned_abs() <= NEAR_MS;
    sums().any(|first| shifts.iter().all(|shift| sums().any(|sum| near(*shift, sum - first))))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What may happen, and how often of a hundred times, where each has happened once.
const FAULTS: [(&str, u32); 13] = [
    ("daemon killed", 21),
    ("daemon killed after its clock was set", 6),
    ("daemon stopped", 10),
    ("clock set", 7),
    ("suspended", 6),
    ("broker killed", 10),
    ("broker restarted", 9),
    ("broker limited", 8),
    ("link cut", 11),
    ("link closed for a while", 5),
    ("link dead", 2),
    ("disk full", 3),
    ("disk full again in recovery", 2),
];

/// As many faults as are wanted, each kind at least once if there are enough.
fn plan(count: usize, random: &mut fastrand::Rng) -> Vec<&'static str> {
    let mut faults: Vec<&str> = FAULTS.iter().map(|(what, _)| *what).collect();
    random.shuffle(&mut faults);
    while faults.len() < count {
        let mut left = random.u32(0..100);
        let chosen = FAULTS.iter().find(|(_, share)| {
            let hit = left < *share;
            left = left.saturating_sub(*share);
            hit
        });
        faults.extend(chosen.map(|(what, _)| *what));
    }
    faults.truncate(count);
    faults
}

/// One fault; true where the daemon has to be started again.
fn inject_fault(rig: &mut Rig, what: &str, random: &mut fastrand::Rng) -> bool {
    let away = Duration::from_millis(random.u64(0..1500));
    let step_s = random.i64(STEP_S) * if random.bool() { 1 } else { -1 };
    match what {
        "daemon killed" => rig.end("-KILL"),
        "daemon stopped" => rig.end("-TERM"),
        "daemon killed after its clock was set" => {
            rig.set_time(step_s);
            // From before the daemon can know of it until after its log does.
            thread::sleep(away);
            rig.end("-KILL");
        }
        "clock set" => {
            rig.set_time(step_s);
            rig.wait_for_starts();
        }
        "suspended" => rig.suspend(2 * away, random.bool().then_some(step_s)),
        "broker killed" => rig.restart_broker(true, random.bool(), away, ""),
        "broker restarted" => rig.restart_broker(false, random.bool(), away, ""),
        "broker limited" => {
            let before = rig.count_in_log("mqtt: connected");
            rig.restart_broker(random.bool(), random.bool(), away, LIMITS[random.usize(..LIMITS.len())]);
            rig.wait_for_more("mqtt: connected", before);
        }
        "link cut" => rig.gate.cut(),
        "link closed for a while" => {
            rig.gate.close();
            thread::sleep(away);
            rig.gate.open();
        }
        "link dead" => {
            let before = rig.count_in_log("mqtt: connected");
            rig.gate.freeze();
            let began = Instant::now();
            while rig.count_in_log("mqtt: connected") == before && began.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(100));
            }
        }
        _ if rig.tmpfs => {
            let fails_again = what == "disk full again in recovery";
            rig.fill_disk(away, fails_again);
            if fails_again {
                // What it says that the disk has, the disk has.
                rig.end("-KILL");
            }
        }
        _ => {}
    }
    rig.daemon.is_none()
}

#[test]
fn nothing_is_lost() {
    let faults = number("CLAPD_CHAOS_FAULTS").unwrap_or(10);
    let seed = number("CLAPD_CHAOS_SEED").unwrap_or(7);
    let mut random = fastrand::Rng::with_seed(seed);
    let faults = plan(usize::try_from(faults).expect("a few"), &mut random);
    let mut rig = Rig::new();
    rig.start();
    for what in &faults {
        thread::sleep(Duration::from_millis(random.u64(100..1500)));
        if inject_fault(&mut rig, what, &mut random) {
            rig.start();
        }
    }
    rig.end("-KILL");
    // Nothing new is heard; what is left is delivered.
    rig.configure("realtime = true");
    rig.start();
    let began = Instant::now();
    while fs::metadata(rig.outbox().join("events.log")).map_or(0, |log| log.len()) > 15 {
        assert!(began.elapsed() < 2 * PATIENCE, "the outbox does not empty: {}", rig.log());
        thread::sleep(Duration::from_millis(50));
    }
    rig.end("-TERM");
    let disturbed = rig.logs.len() - 1;
    // The same without faults, from the first start on: what the recording's events are.
    rig.configure("");
    rig.start();
    rig.wait_for_log("stopped");
    rig.daemon.take().expect("was started").wait().expect("ends");
    rig.broker.stop();
    rig.subscriber.take().expect("listens").end();

    let received = rig.received.lock().expect("is whole");
    let received: Vec<ReceivedEvent> = received
        .iter()
        .filter(|(topic, _)| topic.ends_with("/event"))
        .map(|(_, payload)| parse_event(payload))
        .collect();
    let (run, logged) = parse_log(rig.logs.last().expect("ran")).expect("has run");
    let truth = of_run(&received, &run);
    assert_eq!(check(&truth, &logged, &truth, &run, &[]), truth.len());
    assert!(truth.len() > 20, "the recording makes {} messages", truth.len());
    let full = |log: &PathBuf| fs::read_to_string(log).map_or(0, |log| log.matches("events wait in memory").count());
    let filled = faults.iter().filter(|what| what.starts_with("disk full") && rig.tmpfs).count();
    assert_eq!(rig.logs.iter().map(full).sum::<usize>(), filled, "times that the disk was full");
    let (mut messages, mut runs) = (0, 0);
    for (number, log) in rig.logs[..disturbed].iter().enumerate() {
        // A daemon may be killed before it has begun.
        let Some((run, logged)) = parse_log(log) else { continue };
        let steps: Vec<i128> = rig.steps.iter().filter(|(run, _)| *run >= number).map(|(_, step)| *step).collect();
        messages += check(&of_run(&received, &run), &logged, &truth, &run, &steps);
        runs += 1;
    }
    assert!(messages > 0, "nothing was heard");
    let known: std::collections::HashSet<_> = received.iter().map(|event| (&event.id, &event.kind)).collect();
    let counts = FAULTS.map(|(what, _)| format!("{what} {}", faults.iter().filter(|other| **other == what).count()));
    eprintln!(
        "seed {seed}: {} faults in {runs} runs ({}): {messages} messages logged, 0 lost, {} duplicates, 0 order errors, 0 time errors",
        faults.len(),
        counts.join(", "),
        received.len() - known.len()
    );
}

/// Found by 200 faults on a slow machine, which filled the disk before the daemon had begun its log: it never tried again.
#[test]
fn a_disk_that_is_full_at_the_start_takes_events_once_there_is_room() {
    let mut rig = Rig::new();
    if !rig.tmpfs {
        return;
    }
    let filler = rig.fill();
    rig.start();
    rig.wait_for_log("events wait in memory");
    fs::remove_file(filler).expect("is there");
    rig.wait_for_log("the disk takes events again");
    rig.end("-KILL");
    // What the disk took, the next run finds.
    rig.gate.close();
    rig.start();
    rig.wait_for_log("\" started, ");
    rig.end("-KILL");
    rig.start();
    rig.wait_for_log("messages of an earlier run wait");
}
