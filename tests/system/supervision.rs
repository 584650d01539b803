//! Nothing dies unseen, and nothing that hangs keeps the daemon from its work: each of its threads panics once, files that are never
//! written to are read, and sources change while others go on.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::broker::{Broker, PATIENCE, Watcher};
use crate::support::node::{Daemon, NOBODY, RECORDING, mqtt, wav};
use crate::support::sound_server::{DEVICE, SoundServer};

/// An event that every score starts, and none ends.
const ANY: &str = "[[prompt]]\nid = \"any\"\ntext = \"a sound\"\nstart = 0\nstop = 0\nconfirm = [1, 1]\n";
const PIPE: &str = "[[source]]\nid = \"pipe\"\nstdin = true\n";
/// Systemd's TimeoutStopSec in our unit. Whatever hangs, an end takes 5 s at the most; what would not end would take for ever.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A daemon in the care of somebody in systemd's place.
struct Node {
    daemon: Daemon,
    /// Held open.
    stdin: ChildStdin,
    systemd: UnixDatagram,
}

impl Node {
    fn start_in(folder: TempDir, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut systemd = None;
        let mut daemon = Daemon::start_in(folder, config, |command, folder| {
            let path = folder.join("notify");
            let _ = fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("is set");
            systemd = Some(socket);
            command.stdin(Stdio::piped()).env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "1000000");
            command.env("CLAPD_TEST_PANIC", folder.join("panic"));
            change(command);
        });
        let stdin = daemon.process.stdin.take().expect("is piped");
        Self { daemon, stdin, systemd: systemd.expect("was bound") }
    }

    fn folder(&self) -> &Path {
        self.daemon.folder.path()
    }

    /// Systemd hears this word, from now on.
    fn notifies(&self, word: &str, times: usize) {
        let mut message = [0; 4096];
        let mut heard = 0;
        while heard < times {
            let count = match self.systemd.recv(&mut message) {
                // A child of the test has ended.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                received => received.unwrap_or_else(|error| panic!("{word}: {heard} of {times}: {error}")),
            };
            heard += usize::from(&message[..count] == word.as_bytes());
        }
    }

    /// What it answers.
    fn ask(&self, broker: &Broker, watcher: &mut Watcher, command: &str, mut payload: Value) -> Value {
        let transaction = fastrand::u32(..);
        payload["transaction"] = transaction.into();
        broker.publish(&format!("clapd/attic/request/{command}"), payload.to_string().as_bytes());
        let line = watcher.wait_for(&format!("0 1 clapd/attic/response/{command} {{\"transaction\":{transaction},"));
        serde_json::from_str(&line[line.find('{').expect("is JSON")..]).expect("is JSON")
    }

    /// Tells it to stop; its log.
    fn stop(self) -> String {
        let began = Instant::now();
        self.daemon.signal("-TERM");
        let (status, log) = self.daemon.end();
        assert!(status.success(), "{log}");
        assert!(began.elapsed() < STOP_TIMEOUT, "{log}");
        drop(self.stdin);
        log
    }
}

/// The id in the last event of this prompt, and its kind.
fn last_event(watcher: &Watcher, topic: &str) -> Option<(String, String)> {
    let event: Value = serde_json::from_str(watcher.payloads(topic).last()?).expect("is JSON");
    let text = |key: &str| event[key].as_str().expect("a text").to_owned();
    Some((text("id"), text("event_type")))
}

/// Lets the thread of this name panic while an event is open. The process says so and fails; its event ends, now or with the
/// next, which comes back as systemd would have it.
#[cfg(debug_assertions)]
fn dies_and_comes_back(thread: &str) {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let room = format!("[[source]]\nid = \"room\"\nfile = {RECORDING:?}\nrealtime = true\nloop = true\n");
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = format!("[outbox]\ndir = {:?}\n", folder.path().join("outbox"));
    // Nobody listens at port 1: its thread tries again and again.
    let stream = "[[source]]\nid = \"stream\"\nurl = \"http://127.0.0.1:1/\"\n";
    let config = format!("{ANY}{NOBODY}{PIPE}{room}{stream}{}discovery_prefix = \"\"\n{outbox}", mqtt(&broker));
    let mut node = Node::start_in(folder, &config, |_| ());
    // It waits for the rest.
    node.stdin.write_all(&wav(&[0; 16_000 * 30])[..16_000 * 8]).expect("is read");
    watcher.wait_for("0 1 clapd/attic/pipe/any/event {\"event_type\":\"started\"");
    let (id, _) = last_event(&watcher, "clapd/attic/pipe/any/event").expect("was published");
    fs::write(node.folder().join("panic"), thread).expect("a file");
    if thread == "worker" {
        node.daemon.signal("-HUP");
    }
    let folder = std::mem::replace(&mut node.daemon.folder, tempfile::tempdir().expect("a folder"));
    let (status, log) = node.daemon.end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("thread {thread} panicked (a test wants it), which is a fault in clapd")), "{log}");
    drop(node.stdin);

    fs::remove_file(folder.path().join("panic")).expect("is there");
    let node = Node::start_in(folder, &config, |_| ());
    let has_ended = |watcher: &Watcher| {
        watcher
            .payloads("clapd/attic/pipe/any/event")
            .iter()
            .any(|event| event.contains(&id) && event.contains("\"ended\""))
    };
    while !has_ended(&watcher) {
        watcher.wait_for("0 1 clapd/attic/pipe/any/event");
    }
    node.notifies("READY=1", 1);
    node.stop();
}

#[cfg(debug_assertions)]
#[test]
fn without_its_connection_it_ends() {
    dies_and_comes_back("mqtt");
}

#[cfg(debug_assertions)]
#[test]
fn without_its_outbox_it_ends() {
    dies_and_comes_back("outbox");
}

#[cfg(debug_assertions)]
#[test]
fn without_its_worker_it_ends() {
    dies_and_comes_back("worker");
}

#[cfg(debug_assertions)]
#[test]
fn without_a_source_it_ends() {
    dies_and_comes_back("source-pipe");
}

#[cfg(debug_assertions)]
#[test]
fn without_a_files_reader_it_ends() {
    dies_and_comes_back("read-room");
}

#[cfg(debug_assertions)]
#[test]
fn without_a_devices_watcher_it_ends() {
    dies_and_comes_back("watch-mic");
}

#[cfg(debug_assertions)]
#[test]
fn without_a_streams_thread_it_ends() {
    dies_and_comes_back("live-stream");
}

fn make_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
}

/// While the worker hangs: systemd is fed, health says so, requests are answered, other changes are refused, and it ends in time.
fn goes_on_and_stops(node: Node, broker: &Broker, watcher: &mut Watcher, doing: &str) {
    node.notifies("WATCHDOG=1", 4);
    let info = node.ask(broker, watcher, "info", json!({}));
    assert_eq!(info["status"], "ok", "{info}");
    for command in ["reload", "prompts/set"] {
        let refused = node.ask(
            broker,
            watcher,
            command,
            json!(if command == "reload" { json!({}) } else { json!({ "reset": true }) }),
        );
        let error = refused["error"].as_str();
        let busy = format!("another change is under way ({doing}");
        assert!(
            error.is_some_and(|error| error.starts_with(&busy)),
            "{refused}, after {:?}",
            watcher.payloads("clapd/attic/response/prompts/set")
        );
    }
    // A second SIGHUP is remembered, and waits for nothing.
    node.daemon.signal("-HUP");
    node.notifies("WATCHDOG=1", 2);
    let log = node.stop();
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert!(log.contains(&format!("worker: left behind, {doing}")), "{log}");
    let health: Value =
        serde_json::from_str(watcher.payloads("clapd/attic/health").last().expect("is published")).expect("is JSON");
    assert_eq!(health["threads"]["mqtt"]["state"], "ok", "{health}");
}

#[test]
fn a_configuration_that_is_never_written_delays_nothing() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let config = format!("{NOBODY}{}", mqtt(&broker));
    let node = Node::start_in(tempfile::tempdir().expect("a folder"), &config, |_| ());
    node.notifies("READY=1", 1);
    watcher.wait_for("0 1 clapd/attic/status online");
    make_fifo(&node.folder().join("clapd.toml"));
    node.daemon.signal("-HUP");
    node.notifies("RELOADING=1", 1);
    let doing = format!("reading {}", node.folder().join("clapd.toml").display());
    goes_on_and_stops(node, &broker, &mut watcher, &doing);
}

#[test]
fn a_recording_that_is_never_written_delays_nothing() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("bark.wav");
    let noise: Vec<i16> = (0..16_000).map(|_| fastrand::i16(-3000..3000)).collect();
    fs::write(&recording, wav(&noise)).expect("a file");
    let config = format!("[[prompt]]\nid = \"bark\"\naudio = [{recording:?}]\n{NOBODY}{}", mqtt(&broker));
    let node = Node::start_in(folder, &config, |_| ());
    node.notifies("READY=1", 1);
    watcher.wait_for("0 1 clapd/attic/status online");
    make_fifo(&recording);
    // The prompts that stay are looked at again.
    broker.publish("clapd/attic/request/prompts/set", b"{\"merge\":[{\"text\":\"a cat\"}]}");
    goes_on_and_stops(node, &broker, &mut watcher, "reading the prompts and their recordings");
}

#[test]
fn sources_change_without_a_loss_and_the_answer_is_what_happened() {
    let (broker, server) = (Broker::start(), SoundServer::start(true));
    let mut watcher = broker.watch();
    let mic = format!("[[source]]\nid = \"mic\"\ndevice = {DEVICE:?}\n");
    let rest = format!("{}discovery_prefix = \"\"\n", mqtt(&broker));
    let environment = server.environment();
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start_in(folder, &format!("{mic}{rest}"), |command| {
        command.envs(environment);
    });
    let scored = |watcher: &mut Watcher| {
        watcher.wait_for("0 0 clapd/attic/mic/dog/score");
    };
    scored(&mut watcher);
    let reload = |watcher: &mut Watcher, sources: &str| {
        node.daemon.configure(&format!("{sources}{rest}"));
        node.ask(&broker, watcher, "reload", json!({}))
    };

    // What can't be opened in its place: it stays.
    let response = reload(&mut watcher, &NOBODY.replace("device", "channel = 0\ndevice"));
    let error = response["error"].as_str().expect("a text");
    assert!(
        error.starts_with("source mic: ") && error.contains("clapd_test_nobody") && error.contains("is live"),
        "{error}"
    );
    scored(&mut watcher);
    let missing = format!("{mic}[[source]]\nid = \"yard\"\nfile = \"/nowhere.wav\"\n");
    let response = reload(&mut watcher, &missing);
    assert!(response["error"].as_str().is_some_and(|error| error.contains("/nowhere.wav")), "{response}");
    let info = node.ask(&broker, &mut watcher, "info", json!({}));
    assert_eq!(info["data"]["sources"], json!(["mic"]), "{info}");
    scored(&mut watcher);

    // The device of the one before it, and beside it one that is away.
    let yard = NOBODY.replace("\"mic\"", "\"yard\"");
    let response = reload(&mut watcher, &format!("{mic}channel = 1\n{yard}"));
    let data = &response["data"];
    assert_eq!(data["sources"], json!({ "added": ["yard"], "changed": ["mic"], "removed": [] }), "{response}");
    assert_eq!(data["live"], json!(["mic"]), "{response}");
    let away = data["not_live"]["yard"].as_str().expect("a text");
    assert!(away.starts_with("lost: ") && away.contains("clapd_test_nobody"), "{away}");
    scored(&mut watcher);

    // Another that can be opened: a file in the microphone's place.
    let file = format!("[[source]]\nid = \"mic\"\nfile = {RECORDING:?}\nrealtime = true\nloop = true\n");
    let response = reload(&mut watcher, &file);
    let data = &response["data"];
    assert_eq!(data["sources"], json!({ "added": [], "changed": ["mic"], "removed": ["yard"] }), "{response}");
    assert_eq!((&data["live"], &data["not_live"]), (&json!(["mic"]), &json!({})), "{response}");
    scored(&mut watcher);
    // And back: the new one delivers before the other ends.
    let response = reload(&mut watcher, &mic);
    assert_eq!(response["data"]["live"], json!(["mic"]), "{response}");
    scored(&mut watcher);
    let log = node.stop();
    assert!(!log.contains("is left behind"), "{log}");
}
