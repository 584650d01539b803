//! The daemon as a process: what is published of a recording, what systemd receives, and how it ends.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::dsp::resample_clip;
use serde_json::Value;

use crate::support::broker::{Broker, PATIENCE, Watcher};
use crate::support::node::{Daemon, NOBODY, RECORDING, float_wav, mqtt, wav};
use crate::support::sound_server::{DEVICE, SoundServer};

#[test]
fn a_recording_is_read_to_its_end() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let source = format!("[[source]]\nid = \"demo\"\nfile = {RECORDING:?}\n");
    let daemon = Daemon::start(&format!("{source}{}", mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/status stopped");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");

    let events: Vec<Value> = watcher
        .payloads("clapd/attic/demo/dog/event")
        .iter()
        .map(|payload| serde_json::from_str(payload).expect("is JSON"))
        .collect();
    assert!(!events.is_empty(), "no dog was heard: {log}");
    assert_eq!(events.len() % 2, 0, "every start has its end: {events:?}");
    for pair in events.chunks(2) {
        assert_eq!((&pair[0]["event_type"], &pair[1]["event_type"]), (&"started".into(), &"ended".into()));
        for same in ["id", "started_at", "prompt"] {
            assert_eq!(pair[0][same], pair[1][same]);
        }
        let time = |name: &str| {
            let text = pair[1][name].as_str().expect("is a text");
            humantime::parse_rfc3339(text).expect("is a time")
        };
        let lasted = time("ended_at").duration_since(time("started_at")).expect("is later").as_secs_f64();
        assert!((lasted - pair[1]["duration_s"].as_f64().expect("a number")).abs() < 0.002, "{pair:?}");
        assert!(
            pair[1]["peak"].as_f64() >= pair[0]["score"].as_f64() && pair[0]["score"].as_f64() >= Some(6.0),
            "{pair:?}"
        );
        assert!(log.contains("demo: \"a dog barking\" started"), "{log}");
    }
    let states = watcher.payloads("clapd/attic/demo/dog/state");
    assert_eq!((states.first(), states.last()), (Some(&"OFF"), Some(&"OFF")));
    let [device] = watcher.payloads("homeassistant/device/attic_demo/config")[..] else {
        panic!("{:#?}", watcher.received)
    };
    assert!(device.contains("\"name\":\"Dog barking\"") && device.contains("clapd/attic/demo/dog/state"), "{device}");
    let info: Value = serde_json::from_str(watcher.payloads("clapd/attic/info")[0]).expect("is JSON");
    assert_eq!((&info["bundle"], &info["version"]), (&"mini".into(), &env!("CARGO_PKG_VERSION").into()));
    let health = watcher.payloads("clapd/attic/health");
    let last: Value = serde_json::from_str(health.last().expect("was told")).expect("is JSON");
    let source = &last["sources"]["demo"];
    assert_eq!((&source["state"], &source["samples_lost"]), (&"ended".into(), &0.into()));
    assert_eq!(source["events_started"], events.len() / 2);
    assert!(source["windows_scored"].as_u64() > Some(60), "{last}");
    assert_eq!(source["windows_gated"], 0, "every window is scored unless a gate is asked for");
}

/// The recording, 50 dB quieter.
fn whispered() -> Vec<f32> {
    let mut decoder = Decoder::open(Path::new(RECORDING), Channel::Mix).expect("opens");
    let (rate, mut samples) = (decoder.rate(), Vec::new());
    while let Some(block) = decoder.next_block().expect("is sound") {
        samples.extend_from_slice(block.data);
    }
    let mut samples = resample_clip(&samples, rate, 16_000).expect("is resampled");
    // Whole seconds, and no more than a minute of them: a source that plays it again and again cuts it into the same seconds.
    samples.truncate(samples.len().min(60 * 16_000) / 16_000 * 16_000);
    samples.iter().map(|sample| sample * 10_f32.powf(-50.0 / 20.0)).collect()
}

#[test]
fn a_faint_source_is_named_with_its_remedy_and_a_gain_makes_events_of_it() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("whispered.wav");
    let integers: Vec<i16> = whispered().iter().map(|sample| (sample * 32_768.0).round() as i16).collect();
    fs::write(&path, wav(&integers)).expect("is written");
    let faint = format!("[[source]]\nid = \"faint\"\nfile = {path:?}\nloop = true\n");
    let lifted = format!("[[source]]\nid = \"lifted\"\nfile = {path:?}\nloop = true\ngain_db = 50.0\n");
    let daemon = Daemon::start(&format!("{faint}{lifted}{}", mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/lifted/dog/event {\"event_type\":\"started\"");
    let of = |watcher: &Watcher, id: &str| {
        let health = watcher.payloads("clapd/attic/health");
        health
            .last()
            .map_or(Value::Null, |last| serde_json::from_str::<Value>(last).expect("is JSON")["sources"][id].clone())
    };
    let is_known = |source: &Value| !source["loudest_db"].is_null();
    while of(&watcher, "faint")["warnings"].is_null()
        || !is_known(&of(&watcher, "faint"))
        || !is_known(&of(&watcher, "lifted"))
    {
        watcher.wait_for("0 1 clapd/attic/health");
    }
    let (quiet, loud) = (of(&watcher, "faint"), of(&watcher, "lifted"));
    let warning = quiet["warnings"][0].as_str().expect("is a text");
    assert!(warning.starts_with("faint: nothing was louder than -") && warning.contains("set gain_db = "), "{warning}");
    assert!(loud["warnings"].is_null(), "{loud}");
    let level = |source: &Value| source["loudest_db"].as_i64().expect("a number");
    assert_eq!((&loud["gain_db"], &quiet["gain_db"]), (&50.into(), &Value::Null));
    assert_eq!(level(&loud) - level(&quiet), 50);
    assert!(watcher.payloads("clapd/attic/faint/dog/event").is_empty(), "the model hears nothing there");
    daemon.signal("-TERM");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    assert!(log.contains("faint: faint: nothing was louder than"), "{log}");
}

#[test]
fn the_automatic_gain_makes_events_of_a_faint_source_and_shows_in_health() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("whispered.wav");
    fs::write(&path, float_wav(&whispered())).expect("is written");
    let source =
        |id: &str, gain: &str| format!("[[source]]\nid = \"{id}\"\nfile = {path:?}\nloop = true\ngain_db = {gain}\n");
    let sources = [source("auto", "\"auto\""), source("none", "0.0")].concat();
    let daemon = Daemon::start(&format!("{sources}{}", mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/auto/dog/event {\"event_type\":\"started\"");
    let last = |watcher: &Watcher| {
        let health = watcher.payloads("clapd/attic/health");
        health
            .last()
            .map_or(Value::Null, |last| serde_json::from_str::<Value>(last).expect("is JSON")["sources"].clone())
    };
    while last(&watcher)["auto"]["loudest_db"].as_i64() < Some(-45) || last(&watcher)["none"]["loudest_db"].is_null() {
        watcher.wait_for("0 1 clapd/attic/health");
    }
    let (auto, none) = (last(&watcher)["auto"].clone(), last(&watcher)["none"].clone());
    assert!(none["gain_db"].is_null() && none["loudest_db"].as_i64() < Some(-60), "{none}");
    assert!(auto["gain_db"].as_i64().is_some_and(|gain_db| (15..=48).contains(&gain_db)), "{auto}");
    assert!(auto["warnings"].is_null(), "{auto}");
    assert!(watcher.payloads("clapd/attic/none/dog/event").is_empty(), "the model hears nothing there");
    daemon.signal("-TERM");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
}

#[test]
fn standard_input_and_no_broker_do_as_well() {
    let config = "[scoring]\ngate_db = -60.0\n[[source]]\nid = \"pipe\"\nstdin = true\n";
    // With a cache of its own, empty: the process begins anew after the prompt, and loses nothing of its input.
    let mut daemon = Daemon::start(config, |command, folder| {
        command.stdin(Stdio::piped()).env("CACHE_DIRECTORY", folder.join("cache"));
    });
    let mut stdin = daemon.process.stdin.take().expect("is piped");
    stdin.write_all(&wav(&[0; 16_000 * 3])).expect("is read");
    drop(stdin);
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    assert!(log.contains("events are logged, and told to nobody") && log.contains("pipe: over"), "{log}");
    assert!(log.contains("pipe: 1 silent window(s) so far, not encoded"), "{log}");
}

/// What systemd hears until it hears `last`.
fn notifications(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut received = Vec::new();
    let mut message = [0; 4096];
    while !received.iter().any(|message| message == last) {
        let count =
            socket.recv(&mut message).unwrap_or_else(|error| panic!("{last} was not heard, {received:?} was: {error}"));
        received.push(String::from_utf8_lossy(&message[..count]).into_owned());
    }
    received
}

#[test]
fn systemd_is_notified_of_start_progress_and_stop() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let mut socket = None;
    let daemon = Daemon::start(&format!("{NOBODY}{}", mqtt(&broker)), |command, folder| {
        let path: PathBuf = folder.join("notify");
        let bound = UnixDatagram::bind(&path).expect("a socket");
        bound.set_read_timeout(Some(PATIENCE)).expect("is set");
        socket = Some(bound);
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "400000");
    });
    let socket = socket.expect("was bound");
    assert!(daemon.folder.path().exists());
    let received = notifications(&socket, "READY=1");
    assert!(received[0].starts_with("STATUS=mic "), "{received:?}");
    // A device that is away is waited for: that is no reason to be restarted.
    notifications(&socket, "WATCHDOG=1");
    notifications(&socket, "WATCHDOG=1");
    watcher.wait_for("0 1 clapd/attic/status online");
    daemon.signal("-HUP");
    notifications(&socket, "RELOADING=1");
    notifications(&socket, "READY=1");
    notifications(&socket, "WATCHDOG=1");
    // Who reloads a file at fault is told in `systemctl status`.
    daemon.configure("[nonsense]\n");
    daemon.signal("-HUP");
    notifications(&socket, "RELOADING=1");
    let received = notifications(&socket, "READY=1");
    let status = received.iter().find(|word| word.starts_with("STATUS=everything stays as it was: "));
    assert!(status.is_some_and(|status| status.contains("nonsense: is not a known key")), "{received:?}");
    notifications(&socket, "WATCHDOG=1");
    daemon.signal("-TERM");
    notifications(&socket, "STOPPING=1");
    watcher.wait_for("0 1 clapd/attic/status stopped");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    assert!(log.contains("clapd.toml: read again"), "{log}");
}

#[test]
fn a_killed_daemon_is_offline_and_the_next_one_corrects_the_picture() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let config = format!("{NOBODY}{}", mqtt(&broker));
    let daemon = Daemon::start(&config, |_, _| ());
    watcher.wait_for("0 1 clapd/attic/mic/dog/state OFF");
    daemon.signal("-KILL");
    watcher.wait_for("0 1 clapd/attic/status offline");
    broker.publish_retained("clapd/attic/mic/dog/state", "ON");
    let next = Daemon::start(&config, |_, _| ());
    watcher.wait_for("0 1 clapd/attic/status online");
    watcher.wait_for("0 1 clapd/attic/mic/dog/state OFF");
    next.signal("-INT");
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert!(next.end().0.success());
}

#[test]
fn a_daemon_that_is_stopped_ends_what_is_open() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    // Every score starts this event, and none ends it.
    let prompt = "[[prompt]]\nid = \"any\"\ntext = \"a sound\"\nstart = 0\nstop = 0\nconfirm = [1, 1]\n";
    let source = "[[source]]\nid = \"pipe\"\nstdin = true\n";
    let mut daemon = Daemon::start(&format!("{prompt}{source}{}", mqtt(&broker)), |command, _| {
        command.stdin(Stdio::piped());
    });
    let mut stdin = daemon.process.stdin.take().expect("is piped");
    // A third of what its header promises: the daemon waits for the rest.
    stdin.write_all(&wav(&[0; 16_000 * 30])[..16_000 * 20]).expect("is read");
    watcher.wait_for("0 1 clapd/attic/pipe/any/event {\"event_type\":\"started\"");
    daemon.signal("-TERM");
    watcher.wait_for("0 1 clapd/attic/pipe/any/event {\"event_type\":\"ended\"");
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert_eq!(watcher.payloads("clapd/attic/pipe/any/state").last(), Some(&"OFF"));
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    drop(stdin);
}

#[test]
fn a_daemon_that_was_killed_ends_its_event_at_the_next_start() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let state = tempfile::tempdir().expect("a folder");
    let prompt = "[[prompt]]\nid = \"any\"\ntext = \"a sound\"\nstart = 0\nstop = 0\nconfirm = [1, 1]\n";
    let source = "[[source]]\nid = \"pipe\"\nstdin = true\n";
    let outbox = format!("[outbox]\ndir = {:?}\n", state.path());
    let mut daemon = Daemon::start(&format!("{prompt}{source}{}{outbox}", mqtt(&broker)), |command, _| {
        command.stdin(Stdio::piped());
    });
    let mut stdin = daemon.process.stdin.take().expect("is piped");
    stdin.write_all(&wav(&[0; 16_000 * 30])[..16_000 * 20]).expect("is read");
    let started = watcher.wait_for("0 1 clapd/attic/pipe/any/event {\"event_type\":\"started\"");
    daemon.signal("-KILL");
    watcher.wait_for("0 1 clapd/attic/status offline");
    let next = Daemon::start(&format!("{NOBODY}{}{outbox}", mqtt(&broker)), |_, _| ());
    let ended = watcher.wait_for("0 1 clapd/attic/pipe/any/event {\"event_type\":\"ended\"");
    let id = |line: &str| line.split('"').nth(7).expect("has one").to_owned();
    assert_eq!(id(&started), id(&ended));
    // Neither that prompt nor that source is there any more, and nobody is left with `ON`.
    while watcher.payloads("clapd/attic/pipe/any/state").last() != Some(&"") {
        watcher.wait_for("0 1 clapd/attic/pipe/any/state");
    }
    assert!(watcher.payloads("clapd/attic/pipe/any/state").ends_with(&["ON", "OFF", ""]));
    next.signal("-TERM");
    assert!(next.end().0.success());
}

#[test]
fn a_microphone_is_heard_also_after_its_sound_server_died() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let mut server = SoundServer::start(false);
    let config = format!("[[source]]\nid = \"mic\"\ndevice = {DEVICE:?}\n{}", mqtt(&broker));
    let environment = server.environment();
    let began = SystemTime::now();
    let daemon = Daemon::start(&config, |command, _| {
        command.envs(environment);
    });
    for life in 0..2 {
        if life > 0 {
            server.kill();
            watcher.wait_for_with("0 1 clapd/attic/health", "\"state\":\"lost\"");
            server.restart();
        }
        let state = if life == 0 { "\"state\":\"live\"" } else { "\"state\":\"recovering\"" };
        watcher.wait_for_with("0 1 clapd/attic/health", state);
        server.play(Path::new(RECORDING));
        watcher.wait_for("0 1 clapd/attic/mic/dog/event {\"event_type\":\"started\"");
        let ended = watcher.wait_for("0 1 clapd/attic/mic/dog/event {\"event_type\":\"ended\"");
        let ended: Value = serde_json::from_str(&ended[ended.find('{').expect("is JSON")..]).expect("is JSON");
        let time = |name: &str| humantime::parse_rfc3339(ended[name].as_str().expect("a text")).expect("is a time");
        assert!(began < time("started_at") && time("started_at") <= time("ended_at"), "{ended}");
        assert!(time("ended_at") <= SystemTime::now(), "{ended}");
    }
    daemon.signal("-TERM");
    watcher.wait_for("0 1 clapd/attic/status stopped");
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
}

#[test]
fn what_cannot_be_begun_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let noise = folder.path().join("noise.wav");
    fs::write(&noise, b"this is not a recording").expect("a file");
    for (more, code, words) in [
        (format!("[[source]]\nid = \"x\"\nfile = {noise:?}\n"), 4, "source x"),
        (NOBODY.replace("device", "devise"), 2, "did you mean `device`?"),
        (format!("{NOBODY}[model]\nbundle = \"none\"\n"), 3, "none"),
    ] {
        let (status, log) = Daemon::start(&more, |_, _| ()).end();
        assert_eq!(status.code(), Some(code), "{more}: {log}");
        assert!(log.contains(words), "{more}: {log}");
    }
}
