//! What is published through a real broker: status and last will, states, scores, events, and what an outage does to them.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clapd::config::{self, Secret};
use clapd::health::{DeliveryCounters, Health, SourceHealth};
use clapd::mqtt::{Identity, Info, Publisher, Route};
use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use clapd_core::score::Score;

use crate::support::broker;
use crate::support::broker::{Broker, Link, PATIENCE, free_port};

/// A broker at this port of this machine.
fn at(port: u16, user: Option<(&str, &str)>) -> config::Broker {
    config::Broker {
        host: "127.0.0.1".into(),
        port,
        user: user.map(|(user, _)| user.into()),
        password: user.map(|(_, password)| Secret::new(password.into())),
        tls: None,
        discovery_prefix: None,
    }
}

fn start_with(broker: &config::Broker, outbox: &OutboxSpec) -> (Publisher, Arc<DeliveryCounters>) {
    let info =
        Info { version: "0.1.0".into(), bundle: "mini".into(), bundle_version: "1".into(), pipeline_id: "ab".into() };
    let counters = Arc::default();
    let outbox = Outbox::open(outbox);
    let publisher =
        Publisher::start(broker, Identity::open(None, broker, "attic", [], []), &info, outbox, Arc::clone(&counters))
            .expect("a thread");
    (publisher, counters)
}

fn start(port: u16, user: Option<(&str, &str)>) -> (Publisher, Arc<DeliveryCounters>) {
    start_with(&at(port, user), &OutboxSpec::default())
}

fn dog(publisher: &Publisher) -> Route {
    publisher.topics().route("mic", "dog")
}

fn record(id: &str, duration: Option<Duration>) -> EventRecord {
    let started_at = UNIX_EPOCH + Duration::from_secs(1_795_370_400);
    EventRecord {
        id: id.into(),
        prompt: "a dog barking".into(),
        score: 7.25,
        peak: 8.5,
        started_at,
        duration,
        levels: None,
    }
}

/// Tells a whole event.
fn pair(publisher: &Publisher, n: usize) {
    publisher.publish_event(&dog(publisher), record(&format!("r-mic-{n}"), None));
    publisher.publish_event(&dog(publisher), record(&format!("r-mic-{n}"), Some(Duration::from_secs(2))));
}

/// What [`events`] makes of such events.
fn pairs(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.flat_map(|n| [format!("started r-mic-{n}"), format!("ended r-mic-{n}")]).collect()
}

fn score(score: f32) -> Score {
    Score { cosine: 0.5, score }
}

/// Type and id of the events that were heard, each once: delivery is at least once, and a broker's restart may repeat some.
fn events(watcher: &broker::Watcher) -> Vec<String> {
    let mut events = Vec::new();
    for payload in watcher.payloads("clapd/attic/mic/dog/event") {
        let mut quoted = payload.split('"').skip(3).step_by(4);
        let event = format!("{} {}", quoted.next().expect("has a type"), quoted.next().expect("has an id"));
        if !events.contains(&event) {
            events.push(event);
        }
    }
    events
}

/// The line with `…` for the installation's id, which is made by chance.
fn without_instance(line: &str) -> String {
    let Some((before, rest)) = line.split_once(r#""instance":""#) else { return line.into() };
    let (id, after) = rest.split_once('"').expect("a string");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    format!(r#"{before}"instance":"…"{after}"#)
}

#[test]
fn status_states_scores_and_events_are_published() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let (publisher, _) = start(broker.port, None);
    let route = dog(&publisher);
    publisher.publish_state(&route, false);
    watcher.wait_for("0 1 clapd/attic/mic/dog/state OFF");
    publisher.publish_score(&route, score(7.25), UNIX_EPOCH);
    publisher.publish_state(&route, true);
    publisher.publish_event(&route, record("r-mic-0", None));
    watcher.wait_for("0 1 clapd/attic/mic/dog/event");
    let source = SourceHealth { id: "mic".into(), state: "live", ..SourceHealth::default() };
    publisher.publish_health(&Health { outbox: "disk", sources: vec![source], ..Health::default() });
    watcher.wait_for("0 1 clapd/attic/health {\"uptime_s\":0,");
    publisher.publish_event(&route, record("r-mic-0", Some(Duration::from_secs(3))));
    publisher.publish_state(&route, false);
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/attic/status stopped");

    let expected = [
        r#"0 1 clapd/attic/status online"#,
        r#"0 1 clapd/attic/info {"version":"0.1.0","bundle":"mini","bundle_version":"1","pipeline_id":"ab","instance":"…"}"#,
        r#"0 1 clapd/attic/mic/dog/state OFF"#,
        r#"0 0 clapd/attic/mic/dog/score {"score":7.25,"cosine":0.5,"at":"1970-01-01T00:00:00.000Z"}"#,
        r#"0 1 clapd/attic/mic/dog/state ON"#,
        r#"0 1 clapd/attic/mic/dog/event {"event_type":"started","id":"r-mic-0","prompt":"a dog barking","score":7.25,"peak":8.5,"started_at":"2026-11-22T18:00:00.000Z"}"#,
        r#"0 1 clapd/attic/health {"uptime_s":0,"outbox":"disk","events_waiting":0,"events_dropped":0,"scores_dropped":0,"reconnects":0,"refused":0,"events_unconfirmed":0,"events_set_aside":0,"commands_dropped":0,"sources":{"mic":{"state":"live","level_db":null,"samples_lost":0,"samples_bad":0,"reopens":0,"stream_errors":0,"windows_scored":0,"windows_skipped":0,"windows_gated":0,"events_started":0,"windows_failed":0}}}"#,
        r#"0 1 clapd/attic/mic/dog/event {"event_type":"ended","id":"r-mic-0","prompt":"a dog barking","score":7.25,"peak":8.5,"started_at":"2026-11-22T18:00:00.000Z","ended_at":"2026-11-22T18:00:03.000Z","duration_s":3.0}"#,
        r#"0 1 clapd/attic/mic/dog/state OFF"#,
        r#"0 1 clapd/attic/status stopped"#,
    ];
    let received: Vec<String> = watcher.received.iter().map(|line| without_instance(line)).collect();
    assert_eq!(received, expected);

    // Whoever comes later hears how things stand, and no event and no score of the past.
    let mut topics = broker.watch().retained.clone();
    topics.retain(|line| !line.contains("/info ") && !line.contains("/health "));
    topics.sort();
    assert_eq!(topics, ["1 1 clapd/attic/mic/dog/state OFF", "1 1 clapd/attic/status stopped", "1 1 ready now"]);
}

/// Set in the process that `a_killed_daemon_is_offline` kills.
const VICTIM_PORT: &str = "CLAPD_TEST_VICTIM_PORT";

#[test]
fn a_killed_daemon_is_offline() {
    if let Ok(port) = env::var(VICTIM_PORT) {
        let _publisher = start(port.parse().expect("a port"), None);
        std::thread::sleep(PATIENCE);
        return;
    }
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let mut victim = Command::new(env::current_exe().expect("is known"))
        .args(["--exact", "mqtt::a_killed_daemon_is_offline"])
        .env(VICTIM_PORT, broker.port.to_string())
        .spawn()
        .expect("this program runs");
    watcher.wait_for("0 1 clapd/attic/status online");
    victim.kill().expect("is there");
    victim.wait().expect("ends");
    watcher.wait_for("0 1 clapd/attic/status offline");
    assert!(broker.watch().retained.contains(&"1 1 clapd/attic/status offline".to_owned()));
}

#[test]
fn a_broker_that_comes_late_gets_what_waited() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let port = free_port();
    let (publisher, counters) = start(port, None);
    let route = dog(&publisher);
    publisher.publish_state(&route, true);
    publisher.publish_event(&route, record("r-mic-0", None));
    (1..=9).for_each(|n| publisher.publish_score(&route, score(n as f32), UNIX_EPOCH));
    Link::open(port, &broker);
    watcher.wait_for("0 0 clapd/attic/mic/dog/score {\"score\":9.0");
    assert_eq!(events(&watcher), ["started r-mic-0"]);
    assert_eq!(watcher.payloads("clapd/attic/mic/dog/score").len(), 1, "old scores are of no use");
    assert_eq!(counters.scores_dropped.get(), 8);
    assert_eq!(watcher.payloads("clapd/attic/mic/dog/state"), ["ON"]);
    assert_eq!(counters.reconnects.get(), 0);
}

#[test]
fn a_broker_that_restarts_loses_no_event() {
    let mut broker = Broker::start();
    let mut watcher = broker.watch();
    let (publisher, counters) = start(broker.port, None);
    let route = dog(&publisher);
    publisher.publish_event(&route, record("r-mic-0", None));
    watcher.wait_for("0 1 clapd/attic/mic/dog/event");
    broker.stop();
    publisher.publish_event(&route, record("r-mic-0", Some(Duration::ZERO)));
    publisher.publish_event(&route, record("r-mic-1", None));
    publisher.publish_state(&route, true);
    broker.resume();
    watcher.wait_for("0 1 clapd/attic/mic/dog/event {\"event_type\":\"started\",\"id\":\"r-mic-1\"");
    assert_eq!(events(&watcher), ["started r-mic-0", "ended r-mic-0", "started r-mic-1"]);
    let retained = broker.watch().retained.clone();
    for expected in ["1 1 clapd/attic/mic/dog/state ON", "1 1 clapd/attic/status online"] {
        assert!(retained.contains(&expected.to_owned()), "{expected:?} is not among {retained:#?}");
    }
    assert_eq!(counters.reconnects.get(), 1);
}

#[test]
fn what_was_not_acknowledged_is_sent_again() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let port = Link::swallow_first(&broker, "r-mic-2");
    let (publisher, _) = start(port, None);
    (0..4).for_each(|n| pair(&publisher, n));
    watcher.wait_for("0 1 clapd/attic/mic/dog/event {\"event_type\":\"ended\",\"id\":\"r-mic-3\"");
    assert_eq!(events(&watcher), pairs(0..4));
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let (publisher, counters) = start(broker.port, None);
    for n in 0..1_000 {
        pair(&publisher, n);
        publisher.publish_score(&dog(&publisher), score(5.0), SystemTime::now());
    }
    let dropped = publisher.outbox().dropped();
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert_eq!(events(&watcher), pairs(0..1_000));
    assert_eq!(watcher.payloads("clapd/attic/mic/dog/event").len(), 2_000, "none twice on a sound link");
    assert_eq!((dropped, counters.refused.get()), (0, 0));
}

#[test]
fn stopping_without_a_broker_reports_what_is_left() {
    let (publisher, _) = start(free_port(), None);
    publisher.publish_event(&dog(&publisher), record("r-mic-0", None));
    assert_eq!(publisher.stop(Duration::from_secs(1)), 1);
}

#[test]
fn requests_wait_and_old_ones_and_too_many_are_dropped() {
    let broker = Broker::start();
    broker.publish_retained("clapd/attic/request/pause", "{}");
    let mut watcher = broker.watch();
    let (publisher, counters) = start(broker.port, None);
    watcher.wait_for("0 1 clapd/attic/info");
    // What was subscribed to before is answered before what comes now.
    broker.publish("clapd/attic/request/info", b"\xff{");
    let request = publisher.requests().take(PATIENCE).expect("one came");
    assert_eq!((request.command.as_str(), request.payload.as_slice()), ("info", &b"\xff{"[..]));
    broker.publish_lines("clapd/attic/request/info", &"{}\n".repeat(100));
    publisher.publish_state(&dog(&publisher), true);
    watcher.wait_for("0 1 clapd/attic/mic/dog/state ON");
    while counters.commands_dropped.get() == 0 {
        broker.publish("clapd/attic/request/info", b"");
    }
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn a_message_that_is_too_large_keeps_nobody_away() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    broker.publish_retained_bytes("clapd/attic/request/info", &vec![b'x'; 300 * 1024]);
    // In 3.1.1 nothing keeps the broker from sending it, on every connection that asks for commands.
    let (publisher, _) = start(Link::old(&broker), None);
    publisher.publish_state(&dog(&publisher), true);
    watcher.wait_for("0 1 clapd/attic/mic/dog/state ON");
    publisher.publish_event(&dog(&publisher), record("r-mic-0", None));
    watcher.wait_for("0 1 clapd/attic/mic/dog/event");
    publisher.publish_state(&dog(&publisher), false);
    watcher.wait_for("0 1 clapd/attic/mic/dog/state OFF");
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn home_assistant_gets_all_again_when_it_begins() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let with_discovery = config::Broker { discovery_prefix: Some("homeassistant".into()), ..at(broker.port, None) };
    let (publisher, _) = start_with(&with_discovery, &OutboxSpec::default());
    publisher.publish_state(&dog(&publisher), true);
    watcher.wait_for("0 1 clapd/attic/mic/dog/state ON");
    broker.publish("homeassistant/status", b"online");
    watcher.wait_for("0 1 clapd/attic/mic/dog/state ON");
    assert_eq!(watcher.payloads("clapd/attic/status"), ["online", "online"]);
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn a_password_lets_us_in() {
    let broker = Broker::start_with_password("clapd", "hunter2");
    let mut watcher = broker.watch();
    let (stranger, _) = start(broker.port, Some(("clapd", "wrong")));
    stranger.publish_event(&dog(&stranger), record("stranger", None));
    assert_eq!(stranger.stop(PATIENCE), 1, "the door stays shut");
    let (publisher, _) = start(broker.port, Some(("clapd", "hunter2")));
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert!(events(&watcher).is_empty());
}
