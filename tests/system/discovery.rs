//! What Home Assistant hears of us through a real broker: devices, again when it begins, and no more when they are gone.
//! How it takes that is `make ha`'s to show, with a real one.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clapd::config;
use clapd::health::DeliveryCounters;
use clapd::mqtt::{Identity, Info, Publisher};
use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use clapd_core::prompts::{Prompt, PromptId, Rule};
use serde_json::Value;

use crate::support::broker::{Broker, PATIENCE, Watcher};

const MIC: &str = "homeassistant/device/den_mic/config";
const YARD: &str = "homeassistant/device/den_yard/config";

fn start(broker: &Broker, prefix: Option<&str>) -> Publisher {
    start_as("den", broker, prefix, Arc::default())
}

fn start_as(node: &str, broker: &Broker, prefix: Option<&str>, counters: Arc<DeliveryCounters>) -> Publisher {
    let broker = config::Broker {
        host: "127.0.0.1".into(),
        port: broker.port,
        user: None,
        password: None,
        tls: None,
        discovery_prefix: prefix.map(Into::into),
    };
    let info = Info { version: "0".into(), bundle: "b".into(), bundle_version: "1".into(), pipeline_id: "p".into() };
    let identity = Identity::open(None, &broker, node, [], []);
    Publisher::start(&broker, identity, &info, Outbox::open(&OutboxSpec::default()), counters).expect("a thread")
}

/// Begins as the daemon does: devices, then every state.
fn discover(publisher: &Publisher, sources: &[&str], prompts: &[&str]) {
    let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
    let prompt = |id: &&str| Prompt::of_text(PromptId::new(id).expect("an id"), format!("a {id}"), rule);
    let all: Vec<Prompt> = prompts.iter().map(prompt).collect();
    publisher.announce(sources.iter().copied(), &all, Duration::from_secs(1));
    for (source, prompt) in sources.iter().flat_map(|source| prompts.iter().map(move |prompt| (source, prompt))) {
        publisher.publish_state(&publisher.topics().route(source, prompt), false);
    }
}

/// Entities in a config: those that are removed with a minus.
fn entities(payload: &str) -> Vec<String> {
    let payload: Value = serde_json::from_str(payload).unwrap_or_else(|error| panic!("{error}: {payload}"));
    let components = payload["components"].as_object().expect("is a table");
    let mark = |component: &Value| if component.get("unique_id").is_some() { "" } else { "-" };
    components.iter().map(|(id, component)| format!("{}{id}", mark(component))).collect()
}

fn of(prompts: &[&str]) -> Vec<String> {
    let mut all = vec!["events_dropped".into(), "status".into(), "windows_skipped".into()];
    for prompt in prompts {
        let (mark, id) = prompt.strip_prefix('-').map_or(("", *prompt), |id| ("-", id));
        all.extend(["event", "score", "state"].map(|leaf| format!("{mark}{id}_{leaf}")));
    }
    all.sort_by(|a: &String, b: &String| a.trim_start_matches('-').cmp(b.trim_start_matches('-')));
    all
}

/// The newest payload of a topic.
fn last<'a>(watcher: &'a Watcher, topic: &str) -> &'a str {
    watcher.payloads(topic).last().expect("was told")
}

fn position(watcher: &Watcher, start: &str) -> usize {
    watcher
        .received
        .iter()
        .position(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("{start:?} was not heard"))
}

/// The start of an event.
fn start_record() -> EventRecord {
    let (id, prompt) = ("a".into(), "a dog".into());
    EventRecord { id, prompt, score: 7.0, peak: 8.0, started_at: UNIX_EPOCH, duration: None, levels: None }
}

#[test]
fn devices_are_announced_before_their_events_and_again_when_home_assistant_begins() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let publisher = start(&broker, Some("homeassistant"));
    discover(&publisher, &["mic", "yard"], &["dog", "cat"]);
    let route = publisher.topics().route("mic", "dog");
    publisher.publish_event(&route, start_record());
    // Nothing but the end of the pause has the event sent.
    watcher.wait_for("0 1 clapd/den/mic/dog/event");
    let event = position(&watcher, "0 1 clapd/den/mic/dog/event");
    assert!(position(&watcher, &format!("0 1 {MIC}")) < event && position(&watcher, &format!("0 1 {YARD}")) < event);
    assert_eq!(entities(last(&watcher, MIC)), of(&["cat", "dog"]));

    watcher.received.clear();
    broker.publish("homeassistant/status", "offline");
    broker.publish("homeassistant/status", "online");
    watcher.wait_for("0 1 clapd/den/yard/cat/state OFF");
    assert!(position(&watcher, &format!("0 1 {YARD}")) < position(&watcher, "0 1 clapd/den/yard/cat/state"));
    assert_eq!(watcher.payloads(MIC).len(), 1);
    assert_eq!(watcher.payloads("clapd/den/status"), ["online"]);
    assert!(watcher.payloads("clapd/den/mic/dog/event").is_empty(), "no event twice");
    assert_eq!(publisher.stop(PATIENCE), 0);
    let retained = broker.watch().retained.clone();
    for topic in [MIC, YARD] {
        assert!(retained.iter().any(|line| line.starts_with(&format!("1 1 {topic} {{"))), "{topic}: {retained:#?}");
    }
}

#[test]
fn what_is_not_there_any_more_is_removed_in_this_run_and_the_next() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let publisher = start(&broker, Some("homeassistant"));
    discover(&publisher, &["mic", "yard"], &["dog", "cat", "cow"]);
    watcher.wait_for(&format!("0 1 {YARD}"));
    discover(&publisher, &["mic", "yard"], &["dog", "cat"]);
    watcher.wait_for_with(&format!("0 1 {YARD}"), "\"cow_state\":{\"platform\":\"binary_sensor\"}");
    assert_eq!(entities(last(&watcher, MIC)), of(&["cat", "-cow", "dog"]));
    assert_eq!(publisher.stop(PATIENCE), 0);

    let publisher = start(&broker, Some("homeassistant"));
    discover(&publisher, &["mic"], &["dog"]);
    watcher.wait_for_with(&format!("0 1 {MIC}"), "\"cat_state\":{\"platform\":\"binary_sensor\"}");
    while !last(&watcher, YARD).is_empty() {
        watcher.wait_for(&format!("0 1 {YARD}"));
    }
    assert_eq!(publisher.stop(PATIENCE), 0);
    let mut retained = broker.watch().retained.clone();
    retained.retain(|line| line.starts_with("1 1 homeassistant/"));
    assert_eq!(retained.len(), 1, "{retained:#?}");
    assert!(entities(&retained[0][4 + MIC.len()..]).contains(&"dog_state".into()));
}

#[test]
fn without_a_prefix_nothing_is_announced() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let publisher = start(&broker, None);
    discover(&publisher, &["mic"], &["dog"]);
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/den/status stopped");
    assert!(!watcher.received.iter().any(|line| line.contains("homeassistant")), "{:#?}", watcher.received);
}

#[test]
fn nodes_whose_ids_run_together_are_two_devices() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let (pi, pi_kitchen) =
        ("homeassistant/device/pi_kitchen_mic/config", "homeassistant/device/_10_pi_kitchen_mic/config");
    let first = start_as("pi", &broker, Some("homeassistant"), Arc::default());
    discover(&first, &["kitchen_mic"], &["dog"]);
    watcher.wait_for_with(&format!("0 1 {pi} "), "\"clapd/pi/kitchen_mic\"");
    let second = start_as("pi_kitchen", &broker, Some("homeassistant"), Arc::default());
    discover(&second, &["mic"], &["dog"]);
    watcher.wait_for_with(&format!("0 1 {pi_kitchen} "), "\"clapd/pi_kitchen/mic\"");
    // One renames its source, and takes only its own device away.
    discover(&first, &["attic"], &["dog"]);
    watcher.wait_for("0 1 homeassistant/device/pi_attic/config {");
    watcher.wait_for(&format!("0 1 {pi} "));
    assert_eq!((first.stop(PATIENCE), second.stop(PATIENCE)), (0, 0));
    let retained = broker.watch().retained.clone();
    let devices: Vec<_> =
        retained.iter().filter_map(|line| line[4..].strip_prefix("homeassistant/")?.split(' ').next()).collect();
    assert_eq!(devices, ["device/_10_pi_kitchen_mic/config", "device/pi_attic/config"]);
}

#[test]
fn a_topic_that_is_another_nodes_is_left_alone() {
    let broker = Broker::start();
    let other = r#"{"device":{"identifiers":["clapd/den_m/ic"]},"components":{}}"#;
    broker.publish_retained(MIC, other);
    let mut watcher = broker.watch();
    let counters = Arc::<DeliveryCounters>::default();
    let publisher = start_as("den", &broker, Some("homeassistant"), Arc::clone(&counters));
    discover(&publisher, &["mic", "yard"], &["dog"]);
    watcher.wait_for(&format!("0 1 {YARD} {{"));
    let route = publisher.topics().route("mic", "dog");
    publisher.publish_event(&route, start_record());
    watcher.wait_for("0 1 clapd/den/mic/dog/event");
    // Neither is it removed where we have such a source no more.
    discover(&publisher, &["yard"], &["dog"]);
    watcher.wait_for(&format!("0 1 {YARD} {{"));
    discover(&publisher, &["mic", "yard"], &["dog"]);
    watcher.wait_for(&format!("0 1 {YARD} {{"));
    assert_eq!(watcher.payloads(MIC), [""; 0]);
    assert_eq!(counters.names_taken.get(), 1, "it is said once");
    // The other one goes: the place is ours.
    broker.publish_retained_bytes(MIC, b"");
    watcher.wait_for_with(&format!("0 1 {MIC} {{"), "\"clapd/den/mic\"");
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn the_topic_of_a_former_version_is_taken_leave_of_once() {
    let broker = Broker::start();
    let (former, new) = ("homeassistant/device/my_den_mic/config", "homeassistant/device/_6_my_den_mic/config");
    broker.publish_retained(former, r#"{"device":{"identifiers":["clapd/my_den/mic"]},"components":{}}"#);
    let foreign = "homeassistant/device/my_den_yard/config";
    broker.publish_retained(foreign, r#"{"device":{"identifiers":["clapd/my/den_yard"]},"components":{}}"#);
    let mut watcher = broker.watch();
    let publisher = start_as("my_den", &broker, Some("homeassistant"), Arc::default());
    discover(&publisher, &["mic", "yard"], &["dog"]);
    watcher.wait_for("0 1 homeassistant/device/_6_my_den_yard/config {");
    while watcher.payloads(former).last() != Some(&"") {
        watcher.wait_for(&format!("0 1 {former} "));
    }
    assert_eq!(watcher.payloads(former), [r#"{"migrate_discovery":true}"#, ""], "Home Assistant keeps the entities");
    assert!(position(&watcher, &format!("0 1 {former} {{")) < position(&watcher, &format!("0 1 {new} {{")));
    assert_eq!(publisher.stop(PATIENCE), 0);
    let retained = broker.watch().retained.clone();
    assert!(retained.iter().any(|line| line.starts_with(&format!("1 1 {foreign} "))), "{retained:#?}");
    assert!(!retained.iter().any(|line| line.starts_with(&format!("1 1 {former} "))), "{retained:#?}");
}
