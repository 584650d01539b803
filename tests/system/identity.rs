//! What becomes of a node's name at a real broker: of a former one, and of one that two computers have.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clapd::config;
use clapd::health::DeliveryCounters;
use clapd::mqtt::{Identity, Info, Publisher};
use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use clapd_core::prompts::{Prompt, PromptId, Rule};

use crate::support::broker::{Broker, PATIENCE, Watcher, free_port};
use crate::support::node::{Daemon, NOBODY, mqtt};

const PREFIX: &str = "homeassistant";

fn at(port: u16, prefix: &str) -> config::Broker {
    config::Broker {
        host: "127.0.0.1".into(),
        port,
        user: None,
        password: None,
        tls: None,
        discovery_prefix: Some(prefix.into()),
    }
}

fn started(broker: &config::Broker, state: &Path, node: &str) -> (Publisher, Arc<DeliveryCounters>) {
    let info = Info { version: "0".into(), bundle: "b".into(), bundle_version: "1".into(), pipeline_id: "p".into() };
    let counters = Arc::<DeliveryCounters>::default();
    let outbox = Outbox::open(&OutboxSpec::default());
    let identity = Identity::open(Some(state), broker, node, ["mic".into(), "yard".into()], ["dog".into()]);
    let publisher = Publisher::start(broker, identity, &info, outbox, Arc::clone(&counters)).expect("a thread");
    (publisher, counters)
}

/// Begins as the daemon does: devices, health, then every state.
fn run(broker: &config::Broker, state: &Path, node: &str) -> Publisher {
    let (publisher, _) = started(broker, state, node);
    let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
    let dog = Prompt::of_text(PromptId::new("dog").expect("an id"), "a dog", rule);
    publisher.announce(["mic", "yard"], &[dog], Duration::from_secs(1));
    publisher.publish_health(&clapd::health::Health::default());
    for source in ["mic", "yard"] {
        publisher.publish_state(&publisher.topics().route(source, "dog"), true);
    }
    publisher
}

/// What is retained of a node, by its topics.
fn retained(broker: &Broker, node: &str) -> Vec<String> {
    let lines = broker.watch().retained.clone();
    let topics = lines.iter().filter_map(|line| line[4..].split(' ').next());
    let is_its = |topic: &&str| {
        topic.starts_with(&format!("clapd/{node}/"))
            || topic.split('/').any(|part| part.starts_with(&format!("{node}_")))
    };
    topics.filter(is_its).map(Into::into).collect()
}

const ALL: [&str; 7] = ["health", "info", "mic/dog/state", "status", "yard/dog/state", "mic", "yard"];

fn all_of(node: &str) -> Vec<String> {
    let topic = |leaf: &&str| match *leaf {
        "mic" | "yard" => format!("{PREFIX}/device/{node}_{leaf}/config"),
        leaf => format!("clapd/{node}/{leaf}"),
    };
    ALL.iter().map(topic).collect()
}

fn sorted(mut topics: Vec<String>) -> Vec<String> {
    topics.sort();
    topics
}

/// Waits until the file in the state folder knows of no former name.
fn wait_until_struck_out(state: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(state.join("identity.json")).expect("is there");
        let file: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
        if file["former"].as_array().is_some_and(Vec::is_empty) {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn wait_for_name_taken(counters: &DeliveryCounters) {
    let deadline = Instant::now() + PATIENCE;
    while counters.names_taken.get() == 0 {
        assert!(Instant::now() < deadline, "the other was not noticed");
        thread::sleep(Duration::from_millis(20));
    }
}

fn position(watcher: &Watcher, start: &str) -> usize {
    let found = watcher.received.iter().position(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("{start:?} was not heard: {:#?}", watcher.received))
}

#[test]
fn a_name_that_was_changed_takes_leave_once_and_after_the_events() {
    let (broker, state) = (Broker::start(), tempfile::tempdir().expect("a folder"));
    let settings = at(broker.port, PREFIX);
    assert_eq!(run(&settings, state.path(), "attic").stop(PATIENCE), 0);
    assert_eq!(sorted(retained(&broker, "attic")), sorted(all_of("attic")));
    // A source and a prompt that only the broker remembers, and what is another's.
    broker.publish_retained("clapd/attic/porch/cat/state", "ON");
    let of = |source: &str| format!(r#"{{"device":{{"identifiers":["clapd/attic/{source}"]}},"components":{{}}}}"#);
    broker.publish_retained("homeassistant/device/attic_porch/config", &of("porch"));
    let part = r#"{"dev":{"ids":["clapd/attic/mic"]}}"#;
    broker.publish_retained("homeassistant/sensor/attic_mic/dog_score/config", part);
    broker.publish_retained("homeassistant/sensor/attic_mic/foreign/config", r#"{"dev":{"ids":"sonoff"}}"#);
    let mut watcher = broker.watch();
    let publisher = run(&settings, state.path(), "loft");
    let route = publisher.topics().route("mic", "dog");
    let (id, prompt) = ("a".into(), "a dog".into());
    let event = EventRecord { id, prompt, score: 7.0, peak: 8.0, started_at: UNIX_EPOCH, duration: None, levels: None };
    publisher.publish_event(&route, event);
    watcher.wait_for("0 1 clapd/attic/info ");
    wait_until_struck_out(state.path());
    assert_eq!(watcher.payloads("clapd/attic/mic/dog/state"), ["OFF", ""]);
    assert_eq!(watcher.payloads("clapd/attic/porch/cat/state"), ["OFF", ""]);
    assert_eq!(watcher.payloads("clapd/attic/status"), ["stopped", ""]);
    assert!(position(&watcher, "0 1 clapd/loft/mic/dog/event") < position(&watcher, "0 1 clapd/attic/"));
    assert_eq!(publisher.stop(PATIENCE), 0);
    assert_eq!(retained(&broker, "attic"), ["homeassistant/sensor/attic_mic/foreign/config"]);
    assert_eq!(sorted(retained(&broker, "loft")), sorted(all_of("loft")));
    // Once: what somebody puts there later is nobody's business.
    broker.publish_retained("clapd/attic/status", "mine");
    let publisher = run(&settings, state.path(), "loft");
    publisher.stop(PATIENCE);
    assert!(retained(&broker, "attic").contains(&"clapd/attic/status".into()));
}

#[test]
fn names_of_before_wait_for_their_broker() {
    let (mut broker, state) = (Broker::start(), tempfile::tempdir().expect("a folder"));
    let settings = at(broker.port, PREFIX);
    run(&settings, state.path(), "attic").stop(PATIENCE);
    broker.stop();
    for node in ["loft", "roof"] {
        run(&settings, state.path(), node).stop(Duration::from_millis(100));
    }
    // Another broker is none of theirs.
    run(&at(free_port(), PREFIX), state.path(), "roof").stop(Duration::from_millis(100));
    broker.resume();
    let publisher = run(&settings, state.path(), "den");
    let mut watcher = broker.watch();
    watcher.wait_for("0 1 clapd/roof/info ");
    assert_eq!(retained(&broker, "attic"), [""; 0]);
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn another_prefix_takes_leave_of_the_devices_alone() {
    let (broker, state) = (Broker::start(), tempfile::tempdir().expect("a folder"));
    run(&at(broker.port, PREFIX), state.path(), "attic").stop(PATIENCE);
    let publisher = run(&at(broker.port, "home"), state.path(), "attic");
    wait_until_struck_out(state.path());
    assert_eq!(publisher.stop(PATIENCE), 0);
    let left = sorted(retained(&broker, "attic"));
    let expected = sorted(all_of("attic").into_iter().filter(|topic| topic.starts_with("clapd/")).collect());
    assert_eq!(left, expected);
}

#[test]
fn states_that_we_may_not_read_are_removed_as_they_are_remembered() {
    let access = |folder: &Path| {
        // Of states nothing can be found.
        let rules = "topic readwrite clapd/+/status\ntopic readwrite clapd/+/info\ntopic write clapd/#\n\
                     topic readwrite homeassistant/#\n";
        let list = folder.join("access");
        fs::write(&list, format!("{rules}user watcher\ntopic readwrite #\n")).expect("a file");
        format!("allow_anonymous true\nacl_file {}", list.display())
    };
    let (broker, state) = (Broker::start_with(access), tempfile::tempdir().expect("a folder"));
    let settings = at(broker.port, PREFIX);
    run(&settings, state.path(), "attic").stop(PATIENCE);
    let publisher = run(&settings, state.path(), "loft");
    wait_until_struck_out(state.path());
    assert_eq!(publisher.stop(PATIENCE), 0);
    assert_eq!(retained(&broker, "attic"), [""; 0]);
}

#[test]
fn what_another_computer_is_called_now_is_left_alone() {
    let broker = Broker::start();
    let (state, other_state) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let settings = at(broker.port, PREFIX);
    run(&settings, state.path(), "attic").stop(PATIENCE);
    let other = run(&settings, other_state.path(), "attic");
    let mut watcher = broker.watch();
    watcher.wait_for("0 1 homeassistant/device/attic_yard/config");
    watcher.received.clear();
    let publisher = run(&settings, state.path(), "loft");
    wait_until_struck_out(state.path());
    assert_eq!(publisher.stop(PATIENCE), 0);
    let touched: Vec<_> = watcher.received.iter().filter(|line| line.contains("attic")).collect();
    assert!(touched.is_empty(), "{touched:#?}");
    assert_eq!(sorted(retained(&broker, "attic")), sorted(all_of("attic")));
    assert_eq!(other.stop(PATIENCE), 0);
}

#[test]
fn whoever_is_killed_in_the_leave_takes_it_again() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let rename = |_: &mut Command, folder: &Path| {
        let path = folder.join("clapd.toml");
        let text = fs::read_to_string(&path).expect("is there");
        fs::write(path, text.replace("\"attic\"", "\"loft\"")).expect("is written");
    };
    let more = NOBODY.to_owned() + &mqtt(&broker);
    let kill = |mut daemon: Daemon| {
        daemon.process.kill().expect("is there");
        daemon.process.wait().expect("ends");
        std::mem::replace(&mut daemon.folder, tempfile::tempdir().expect("a folder"))
    };
    let daemon = Daemon::start(&more, |_, _| ());
    watcher.wait_for("0 1 homeassistant/device/attic_mic/config {");
    let folder = kill(daemon);
    // Before anything is removed, and at the first that is.
    let daemon = Daemon::start_in(folder, &more, rename);
    watcher.wait_for("0 1 clapd/loft/info ");
    let folder = kill(daemon);
    watcher.received.clear();
    let daemon = Daemon::start_in(folder, &more, rename);
    watcher.wait_for("0 1 clapd/attic/mic/dog/state");
    let folder = kill(daemon);
    let daemon = Daemon::start_in(folder, &more, rename);
    wait_until_struck_out(&daemon.folder.path().join("state"));
    assert_eq!(retained(&broker, "attic"), [""; 0]);
}

#[test]
fn another_of_our_name_is_noticed() {
    let broker = Broker::start();
    let state = tempfile::tempdir().expect("a folder");
    let settings = at(broker.port, PREFIX);
    let mut watcher = broker.watch();
    let (publisher, counters) = started(&settings, state.path(), "attic");
    watcher.wait_for("0 1 clapd/attic/info {");
    // Our own last message is nobody's, also where the broker still says that we are online.
    assert_eq!(publisher.stop(PATIENCE), 0);
    broker.publish_retained("clapd/attic/status", "online");
    let (publisher, again) = started(&settings, state.path(), "attic");
    watcher.wait_for("0 1 clapd/attic/info {");
    assert_eq!((counters.names_taken.get(), again.names_taken.get()), (0, 0));
    // Somebody comes while we are here.
    let other = r#"{"version":"0.9.0","bundle":"b","bundle_version":"1","pipeline_id":"p","instance":"ff"}"#;
    broker.publish_retained("clapd/attic/info", other);
    wait_for_name_taken(&again);
    assert_eq!(publisher.stop(PATIENCE), 0);
    assert_eq!(again.names_taken.get(), 1);
    // And is here when we come.
    broker.publish_retained("clapd/attic/info", other);
    broker.publish_retained("clapd/attic/status", "online");
    let (publisher, last) = started(&settings, state.path(), "attic");
    wait_for_name_taken(&last);
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn two_of_one_name_take_turns_and_one_says_so() {
    let broker = Broker::start();
    let states = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let settings = at(broker.port, PREFIX);
    let mut watcher = broker.watch();
    let (first, counted) = started(&settings, states[0].path(), "attic");
    watcher.wait_for("0 1 clapd/attic/info {");
    let (second, also_counted) = started(&settings, states[1].path(), "attic");
    // The first is thrown out for the second, and throws it out when it comes back.
    let deadline = Instant::now() + 2 * PATIENCE;
    while counted.names_taken.get() + also_counted.names_taken.get() == 0 {
        assert!(Instant::now() < deadline, "nobody was noticed");
        thread::sleep(Duration::from_millis(20));
    }
    first.stop(PATIENCE);
    second.stop(PATIENCE);
}
