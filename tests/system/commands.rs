//! What others may ask of a daemon while it listens: commands over MQTT, and SIGHUP. The sound comes through a pipe, so that
//! every window is scored, and the tests decide what is heard when.

use std::fs;
use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::broker::{Broker, Watcher};
use crate::support::node::{Daemon, NOBODY, RECORDING, mqtt, wav};

/// An event that every score starts, and none ends.
const ANY: &str = "[[prompt]]\nid = \"any\"\ntext = \"a sound\"\nstart = 0\nstop = 0\nconfirm = [1, 1]\n";
const PIPE: &str = "[[source]]\nid = \"pipe\"\nstdin = true\n";
/// Far more than any test feeds.
const SECONDS: usize = 1_000;

/// A daemon that hears what it is fed.
struct FedDaemon {
    daemon: Daemon,
    stdin: ChildStdin,
    broker: Broker,
    watcher: Watcher,
    asked: u32,
}

impl FedDaemon {
    fn start(prompts: &str) -> Self {
        let broker = Broker::start();
        Self::start_in(tempfile::tempdir().expect("a folder"), broker, prompts)
    }

    fn start_in(folder: TempDir, broker: Broker, prompts: &str) -> Self {
        let mut watcher = broker.watch();
        let mut daemon =
            Daemon::start_in(folder, &format!("{prompts}{PIPE}{}", mqtt_alone(&broker)), |command, folder| {
                command.stdin(Stdio::piped()).env("CACHE_DIRECTORY", folder.join("cache"));
            });
        let mut stdin = daemon.process.stdin.take().expect("is piped");
        stdin.write_all(&wav(&vec![0; 16_000 * SECONDS])[..44]).expect("is read");
        // It subscribes before it says so: what is asked earlier, nobody hears.
        watcher.wait_for("0 1 clapd/attic/status online");
        Self { daemon, stdin, broker, watcher, asked: 0 }
    }

    /// Lets it hear a second of noise, `count` times.
    fn feed(&mut self, count: usize) {
        let noise: Vec<u8> = (0..16_000 * count).flat_map(|_| fastrand::i16(-3000..3000).to_le_bytes()).collect();
        self.stdin.write_all(&noise).expect("is read");
    }

    /// Sends a command and waits for its response, whose transaction is taken off.
    #[track_caller]
    fn ask(&mut self, command: &str, mut payload: Value) -> Value {
        self.asked += 1;
        payload["transaction"] = self.asked.into();
        self.broker.publish(&format!("clapd/attic/request/{command}"), payload.to_string().as_bytes());
        let start = format!("0 1 clapd/attic/response/{command} {{\"transaction\":{},", self.asked);
        let line = self.watcher.wait_for(&start);
        let mut response: Value = serde_json::from_str(&line[line.find('{').expect("is JSON")..]).expect("is JSON");
        response.as_object_mut().expect("an object").remove("transaction");
        response
    }

    /// The ids of the prompts, and whose they are.
    fn prompts(&mut self) -> (Vec<String>, String) {
        let data = self.ask("prompts/get", json!({}))["data"].take();
        let id = |prompt: &Value| prompt["id"].as_str().expect("has an id").to_owned();
        (
            data["prompts"].as_array().expect("a list").iter().map(id).collect(),
            data["from"].as_str().expect("a text").into(),
        )
    }

    /// Waits until so many events, starts and ends, were heard of a prompt.
    fn events(&mut self, prompt: &str, count: usize) {
        while self.watcher.payloads(&format!("clapd/attic/pipe/{prompt}/event")).len() < count {
            self.watcher.wait_for("0 1 clapd/attic/");
        }
    }

    fn stop(self) -> (TempDir, Broker, String) {
        let Self { mut daemon, stdin, broker, .. } = self;
        let folder = std::mem::replace(&mut daemon.folder, tempfile::tempdir().expect("a folder"));
        daemon.signal("-TERM");
        let (status, log) = daemon.end();
        assert!(status.success(), "{log}");
        drop(stdin);
        (folder, broker, log)
    }

    /// Time from each score of a prompt to the next.
    fn steps(&self, prompt: &str) -> Vec<Duration> {
        let topic = format!("clapd/attic/pipe/{prompt}/score");
        let at = |payload: &&str| {
            let score: Value = serde_json::from_str(payload).expect("is JSON");
            humantime::parse_rfc3339(score["at"].as_str().expect("a text")).expect("is a time")
        };
        let times: Vec<SystemTime> = self.watcher.payloads(&topic).iter().map(at).collect();
        times.windows(2).map(|pair| pair[1].duration_since(pair[0]).expect("is later")).collect()
    }
}

/// Without Home Assistant: while a device is announced, scores wait, and the newer takes the older one's place.
fn mqtt_alone(broker: &Broker) -> String {
    format!("{}discovery_prefix = \"\"\n", mqtt(broker))
}

/// The most memory that a process has had, in MB.
fn peak_mb(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("is there");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).expect("a number") / 1024
}

/// Whether no window is missing between two: with a hop of 1 s, and the default model's patches every 0.48 s, it is two or three of them.
fn near(step: &Duration) -> bool {
    [960, 1440].iter().any(|ms| step.abs_diff(Duration::from_millis(*ms)) <= Duration::from_millis(2))
}

#[test]
fn prompts_are_set_while_it_listens_and_outlive_it() {
    let mut daemon = FedDaemon::start(ANY);
    daemon.feed(5);
    daemon.events("any", 1);
    assert_eq!(daemon.prompts(), (vec!["dog".into(), "any".into()], "file".into()));
    let before = peak_mb(daemon.daemon.process.id());
    let merge = json!([{ "text": "heavy rain on a tin roof", "id": "rain", "start": 0, "stop": 0, "confirm": [1, 1] }]);
    let response = daemon.ask("prompts/set", json!({ "merge": merge, "remove": ["dog"] }));
    assert_eq!((&response["status"], &response["data"]["kept"]), (&json!("ok"), &json!(true)), "{response}");
    assert_eq!(response["data"]["prompts"][1]["text"], "heavy rain on a tin roof");
    let grown = peak_mb(daemon.daemon.process.id()) - before;
    assert!(grown < 25, "the text model of 90 MB was loaded into the daemon: {before} MB grew by {grown} MB");
    // In force from the next window on.
    daemon.feed(2);
    daemon.events("rain", 1);
    daemon.feed(3);
    daemon.watcher.wait_for("0 0 clapd/attic/pipe/rain/score");
    while daemon.watcher.payloads("clapd/attic/pipe/dog/state").last() != Some(&"") {
        daemon.watcher.wait_for("0 1 clapd/attic/pipe/dog/state");
    }
    assert_eq!(daemon.watcher.payloads("clapd/attic/pipe/any/event").len(), 1, "its event goes on");
    let steps = daemon.steps("any");
    assert!(steps.len() >= 5 && steps.iter().all(near), "no window is missing: {steps:?}");

    let (folder, broker, _) = daemon.stop();
    let mut daemon = FedDaemon::start_in(folder, broker, ANY);
    assert_eq!(daemon.prompts(), (vec!["any".into(), "rain".into()], "mqtt".into()));
    let response = daemon.ask("prompts/set", json!({ "prompts": [{ "text": "a cat", "start": 4.5 }] }));
    assert_eq!(
        response["data"]["prompts"],
        json!([{ "id": "a_cat", "text": "a cat", "start": 4.5, "stop": 3.0, "confirm": [2, 3], "cooldown_s": 10.0 }])
    );
    assert_eq!(daemon.ask("prompts/set", json!({ "reset": true }))["status"], "ok");
    assert_eq!(daemon.prompts(), (vec!["dog".into(), "any".into()], "file".into()));
    assert!(!daemon.daemon.folder.path().join("state/prompts.toml").exists());
    daemon.stop();
}

#[test]
fn what_prompts_get_answers_can_be_set_again_and_tells_no_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let noise: Vec<i16> = (0..16_000).map(|_| fastrand::i16(-9000..9000)).collect();
    // Two of one name, one of them beside the configuration.
    let elsewhere = folder.path().join("sounds of the house");
    fs::create_dir(&elsewhere).expect("is made");
    for place in [folder.path(), &elsewhere] {
        let louder: Vec<i16> = noise.iter().map(|x| if place == elsewhere { x / 2 } else { *x }).collect();
        fs::write(place.join("bark.wav"), wav(&louder)).expect("is written");
    }
    let audio = format!("[\"bark.wav\", {:?}]", elsewhere.join("bark.wav"));
    let rule = "start = 4.2\nstop = 2.1\nconfirm = [1, 4]\ncooldown_s = 1.5\ncontrast = [\"a cat\", \"rain\"]\n";
    let prompts = format!("[[prompt]]\nid = \"bark\"\ntext = \"a dog\"\naudio = {audio}\n{rule}");
    let mut daemon = FedDaemon::start_in(folder, Broker::start(), &prompts);
    let answer = daemon.ask("prompts/get", json!({}));
    let folder = daemon.daemon.folder.path().display().to_string();
    assert!(!answer.to_string().contains(&folder) && !answer.to_string().contains("sounds of"), "{answer}");
    let bark = answer["data"]["prompts"].as_array().expect("a list").iter().find(|prompt| prompt["id"] == "bark");
    let recordings = bark.expect("is listed")["audio"].as_array().expect("a list").clone();
    assert!(recordings.len() == 2 && recordings[0] != recordings[1], "{answer}");

    // As it came, and what it has of prompts; also after others were set meanwhile.
    for payload in [answer.clone(), json!({ "prompts": answer["data"]["prompts"] })] {
        assert_eq!(daemon.ask("prompts/set", json!({ "prompts": [{ "text": "a cat" }] }))["status"], "ok");
        let set = daemon.ask("prompts/set", payload);
        assert_eq!((&set["status"], &set["data"]["prompts"]), (&json!("ok"), &answer["data"]["prompts"]), "{set}");
        assert!(!set.to_string().contains(&folder), "{set}");
    }
    // A recording that is gone, or was never the configuration's, is said by its name.
    let name = recordings[1].as_str().expect("a text");
    let file = std::path::Path::new(&folder).join("sounds of the house/bark.wav");
    fs::rename(&file, file.with_extension("away")).expect("is moved");
    let merge = json!([{ "id": "new", "audio": [name] }]);
    let error = daemon.ask("prompts/set", json!({ "merge": merge }))["error"].to_string();
    assert!(error.contains(name) && !error.contains(&folder), "{error}");
    fs::rename(file.with_extension("away"), &file).expect("is moved back");
    let error = daemon.ask("prompts/set", json!({ "merge": [{ "id": "new", "audio": ["other.wav"] }] }));
    assert!(error["error"].to_string().contains("is no recording that this node has"), "{error}");

    // And they outlive it, with their recordings.
    let (folder, broker, _) = daemon.stop();
    let mut daemon = FedDaemon::start_in(folder, broker, ANY);
    let again = daemon.ask("prompts/get", json!({}));
    assert_eq!((&again["data"]["prompts"], &again["data"]["from"]), (&answer["data"]["prompts"], &json!("mqtt")));
    daemon.stop();
}

#[test]
fn a_paused_source_is_not_scored() {
    let mut daemon = FedDaemon::start(ANY);
    daemon.feed(4);
    daemon.events("any", 1);
    assert_eq!(
        daemon.ask("pause", json!({ "source": "pipe" })),
        json!({ "status": "ok", "data": { "paused": ["pipe"] } })
    );
    daemon.events("any", 2);
    while !daemon.watcher.received.iter().any(|line| line.contains("\"pipe\":{\"state\":\"paused\"")) {
        daemon.watcher.wait_for("0 1 clapd/attic/health");
    }
    // A reload does not resume.
    assert_eq!(daemon.ask("reload", json!({}))["status"], "ok");
    let received = daemon.watcher.payloads("clapd/attic/pipe/any/score").len();
    daemon.feed(10);
    let info = daemon.ask("info", json!({}));
    assert_eq!((&info["data"]["bundle"], &info["data"]["paused"]), (&json!("mini"), &json!(["pipe"])));
    assert_eq!(daemon.ask("resume", json!({})), json!({ "status": "ok", "data": { "paused": [] } }));
    daemon.feed(5);
    daemon.events("any", 3);
    let after = daemon.watcher.payloads("clapd/attic/pipe/any/score").len();
    assert!(after - received <= 5, "{} scores of a pause and 5 s", after - received);
    let error = daemon.ask("pause", json!({ "source": "mike" }))["error"].take();
    assert_eq!(error, "`source` is \"mike\", and this node has pipe; leave it out for all");
    daemon.stop();
}

#[test]
fn hostile_requests_get_an_error_and_do_no_harm() {
    let mut daemon = FedDaemon::start(ANY);
    daemon.feed(4);
    daemon.events("any", 1);
    let deep = [&b"{\"prompts\":"[..], &[b'['; 50_000]].concat();
    let long = format!("{{\"prompts\":[{{\"text\":\"{}\"}}]}}", "dog ".repeat(20_000));
    let many = format!("{{\"prompts\":[{}{{}}]}}", "{\"text\":\"x\"},".repeat(2_000));
    for (command, payload, words) in [
        ("info", &b"\xff\xfe"[..], "not UTF-8"),
        ("info", b"{\"transaction\":", "not JSON"),
        ("info", b"[]", "an object is allowed"),
        ("reload", b"{\"now\":true}", "not a key of reload"),
        ("restart", b"", "is not a command"),
        ("pause", b"{\"source\":[\"pipe\"]}", "`source` is a list"),
        ("prompts/set", &deep, "not JSON"),
        ("prompts/set", long.as_bytes(), "prompts/set: prompt[0].text: has "),
        ("prompts/set", many.as_bytes(), "prompt[1000]: is beyond the 1000 prompts that are allowed"),
        ("prompts/set", b"{\"prompts\":[]}", "prompts/set: prompt: has no prompts; add"),
        ("prompts/set", b"{\"prompts\":[{\"text\":\"a\",\"start\":\"6\"}]}", "prompt[0].start: \"6\" is not a number"),
        ("prompts/set", b"{\"prompts\":[{\"text\":\"a\",\"start\":1e999}]}", "not JSON"),
        ("prompts/set", b"{\"prompts\":[{\"text\":\"a\",\"id\":\"a/b\"}]}", "prompt[0].id: \"a/b\" is not an id"),
        ("prompts/set", b"{\"remove\":[\"nobody\"]}", "there is no such prompt"),
        ("prompts/set", b"{\"remove\":[\"dog\",\"any\"]}", "prompt: has no prompts"),
    ] {
        daemon.broker.publish(&format!("clapd/attic/request/{command}"), payload);
        daemon.watcher.wait_for_with(
            &format!("0 1 clapd/attic/response/{command} {{\"status\":\"error\""),
            &words.replace('"', "\\\""),
        );
    }
    // Larger than a packet may be: a broker of MQTT 5 keeps it to itself. Under a name that is no topic: not even answered.
    daemon.broker.publish("clapd/attic/request/prompts/set", vec![b'['; 400_000]);
    daemon.broker.publish("clapd/attic/request/in fo", b"{}");
    // Nothing of it has changed anything.
    assert_eq!(daemon.prompts(), (vec!["dog".into(), "any".into()], "file".into()));
    daemon.broker.publish_lines("clapd/attic/request/info", &"{\"transaction\":\"flood\"}\n".repeat(3_000));
    daemon.feed(4);
    // Of the flood some are answered; afterwards it is as before.
    daemon.watcher.wait_for_with("0 1 clapd/attic/response/info", "\"transaction\":\"flood\",\"status\":\"ok\"");
    while !daemon.watcher.received.iter().any(|line| line.contains("\"transaction\":\"after\"")) {
        daemon.broker.publish("clapd/attic/request/info", b"{\"transaction\":\"after\"}");
        daemon.watcher.wait_for("0 1 clapd/attic/response/info");
    }
    let steps = daemon.steps("any");
    assert!(steps.iter().all(near), "no window is missing: {steps:?}");
    assert_eq!(daemon.watcher.payloads("clapd/attic/pipe/any/event").len(), 1, "and its event goes on");
    let (_, _, log) = daemon.stop();
    assert!(log.contains("a command is not carried out"), "{log}");
}

#[test]
fn sighup_changes_prompts_and_sources_and_a_bad_file_changes_nothing() {
    let mut daemon = FedDaemon::start(ANY);
    daemon.feed(5);
    daemon.events("any", 1);
    let mqtt = mqtt_alone(&daemon.broker);

    daemon.daemon.configure(&format!("{ANY}start = 11\n{PIPE}{mqtt}[outbox]\nmax_evnts = 5\n"));
    let error = daemon.ask("reload", json!({}))["error"].take();
    let error = error.as_str().expect("a text");
    assert!(error.contains("max_evnts: is not a known key; did you mean `max_events`?"), "{error}");
    assert!(error.contains("clapd.toml:"), "{error}");
    daemon.daemon.signal("-HUP");
    daemon.feed(2);
    assert_eq!(daemon.prompts(), (vec!["dog".into(), "any".into()], "file".into()));

    // A prompt and a source come; a prompt goes on by another rule; the model would need a restart.
    let cat = "[[prompt]]\nid = \"cat\"\ntext = \"a cat\"\nstart = 0\nstop = 0\nconfirm = [1, 1]\n";
    let calm = ANY.replace("start = 0", "start = 9");
    let second = format!("[[source]]\nid = \"second\"\nfile = {RECORDING:?}\nrealtime = true\nloop = true\n");
    daemon.daemon.configure(&format!("{cat}{calm}{PIPE}{second}{mqtt}[model]\nthreads = 2\n"));
    daemon.daemon.signal("-HUP");
    daemon.watcher.wait_for("0 1 clapd/attic/second/cat/state OFF");
    // Either may be published first: that it is live, or the score of its new prompt.
    let live =
        |line: &String| line.starts_with("0 1 clapd/attic/health") && line.contains("\"second\":{\"state\":\"live\"");
    while !daemon.watcher.received.iter().any(live) {
        daemon.watcher.wait_for("0 1 clapd/attic/health");
    }
    daemon.feed(4);
    daemon.events("cat", 1);
    assert_eq!(daemon.watcher.payloads("clapd/attic/pipe/any/event").len(), 1, "its event goes on");

    // The prompt with the open event goes, and so does the source.
    daemon.daemon.configure(&format!("{cat}{PIPE}{mqtt}"));
    let response = daemon.ask("reload", json!({}));
    assert_eq!(response["data"]["sources"], json!({ "added": [], "changed": [], "removed": ["second"] }), "{response}");
    while daemon.watcher.payloads("clapd/attic/pipe/any/state").last() != Some(&"")
        || daemon.watcher.payloads("clapd/attic/second/cat/state").last() != Some(&"")
    {
        daemon.watcher.wait_for("0 1 clapd/attic/");
    }
    daemon.feed(3);
    daemon.watcher.wait_for("0 0 clapd/attic/pipe/dog/score");
    let any = daemon.watcher.payloads("clapd/attic/pipe/any/event");
    assert!(any.len() == 2 && any[1].contains("\"event_type\":\"ended\""), "{any:?}");
    let steps = daemon.steps("dog");
    assert!(steps.len() >= 8 && steps.iter().all(near), "no window is missing: {steps:?}");
    assert_eq!(daemon.watcher.payloads("clapd/attic/status"), ["online"], "one connection for all of it");
    let (_, _, log) = daemon.stop();
    assert!(
        log.contains("everything stays as it was")
            && log.contains("model.threads has changed, which takes effect when"),
        "{log}"
    );
}

#[test]
fn a_retained_command_is_of_another_time() {
    let broker = Broker::start();
    broker.publish_retained("clapd/attic/request/pause", "{}");
    let mut watcher = broker.watch();
    let daemon = Daemon::start(&format!("{NOBODY}{}", mqtt(&broker)), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/info");
    broker.publish("clapd/attic/request/info", b"{\"transaction\":\"x\"}");
    let info = watcher.wait_for("0 1 clapd/attic/response/info {\"transaction\":\"x\",\"status\":\"ok\"");
    assert!(info.contains("\"paused\":[]"), "{info}");
    daemon.signal("-TERM");
    assert!(daemon.end().0.success());
}
