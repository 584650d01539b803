//! What Home Assistant hears of us through a real broker: devices, again when it begins, and no more when they are gone.
//! How it takes that is `make ha`'s to show, with a real one.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clapd::config;
use clapd::mqtt::{Info, Publisher};
use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use clapd_core::prompts::{Prompt, PromptId, Rule};
use serde_json::Value;

use crate::support::broker::{Broker, PATIENCE, Watcher};

const MIC: &str = "homeassistant/device/den_mic/config";
const YARD: &str = "homeassistant/device/den_yard/config";

fn start(broker: &Broker, prefix: Option<&str>) -> Publisher {
    let broker = config::Broker {
        host: "127.0.0.1".into(),
        port: broker.port,
        user: None,
        password: None,
        tls: None,
        discovery_prefix: prefix.map(Into::into),
    };
    let info = Info { version: "0".into(), bundle: "b".into(), bundle_version: "1".into(), pipeline_id: "p".into() };
    Publisher::start(&broker, "den", &info, Outbox::open(&OutboxSpec::default()), Arc::default()).expect("a thread")
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

#[test]
fn devices_are_announced_before_their_events_and_again_when_home_assistant_begins() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let publisher = start(&broker, Some("homeassistant"));
    discover(&publisher, &["mic", "yard"], &["dog", "cat"]);
    let route = publisher.topics().route("mic", "dog");
    let (id, prompt) = ("a".into(), "a dog".into());
    publisher.publish_event(
        &route,
        EventRecord { id, prompt, score: 7.0, peak: 8.0, started_at: UNIX_EPOCH, duration: None },
    );
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
