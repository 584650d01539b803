//! Brokers with limits, announced and not: every event arrives, and of the rest what the broker takes.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clapd::command::{Caller, Reply};
use clapd::config;
use clapd::health::{DeliveryCounters, Health, SourceHealth};
use clapd::mqtt::{Identity, Info, Publisher};
use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use clapd_core::prompts::{Prompt, PromptId, Rule};
use clapd_core::score::Score;

use crate::support::broker::{Broker, Link, PATIENCE, Watcher, free_port};

/// Prompts, each with some 1 kB in the announcement: too large for every limit here.
const PROMPTS: usize = 12;
const EVENTS: usize = 6;

/// A daemon's connection, to a broker with a limit.
struct Limited {
    _broker: Broker,
    watcher: Watcher,
    publisher: Publisher,
    counters: Arc<DeliveryCounters>,
}

/// The protocol's version, in which a broker announces its limits or does not.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    V5,
    V4,
}

fn start(limit: &str, version: Version) -> Limited {
    // A watcher has a listener of its own, where `max_qos` goes by listener.
    let free = free_port();
    let broker = Broker::start_with(|folder| {
        let access = folder.join("access");
        fs::write(
            &access,
            "pattern readwrite #\npattern deny homeassistant/device/#\npattern deny homeassistant/+/+/+/config\n",
        )
        .expect("a file");
        let limit = limit.replace("ACCESS", &access.display().to_string());
        format!("allow_anonymous true\n{limit}\nlistener {free} 127.0.0.1\nallow_anonymous true")
    });
    let watcher = broker.watch_plainly(free);
    let port = if version == Version::V5 { broker.port } else { Link::old(&broker) };
    let settings = config::Broker {
        host: "127.0.0.1".into(),
        port,
        user: None,
        password: None,
        tls: None,
        discovery_prefix: Some("homeassistant".into()),
    };
    let info = Info { version: "0".into(), bundle: "b".into(), bundle_version: "1".into(), pipeline_id: "p".into() };
    let counters = Arc::default();
    let outbox = Outbox::open(&OutboxSpec::default());
    let publisher = Publisher::start(
        &settings,
        Identity::open(None, &settings, "hut", [], []),
        &info,
        outbox,
        Arc::clone(&counters),
    )
    .expect("a thread");
    Limited { _broker: broker, watcher, publisher, counters }
}

impl Limited {
    /// Publishes what a daemon does.
    fn publish(&self) {
        let rule = Rule { start: 6.0, stop: 4.0, confirm: (1, 1), cooldown: Duration::ZERO };
        let ids: Vec<String> = (0..PROMPTS).map(|n| format!("sound{n}")).collect();
        let prompt = |id: &String| Prompt::of_text(PromptId::new(id).expect("an id"), format!("a {id}"), rule);
        let prompts: Vec<Prompt> = ids.iter().map(prompt).collect();
        self.publisher.announce(["mic"], &prompts, Duration::from_secs(1));
        for id in &ids {
            let route = self.publisher.topics().route("mic", id);
            self.publisher.publish_state(&route, false);
            self.publisher.publish_score(&route, Score { cosine: 0.5, score: 5.0 }, UNIX_EPOCH);
        }
        let source = SourceHealth { id: "mic".into(), state: "live", ..SourceHealth::default() };
        self.publisher.publish_health(&Health { outbox: "disk", sources: vec![source], ..Health::default() });
    }

    fn tell(&self, numbers: std::ops::Range<usize>) {
        let route = self.publisher.topics().route("mic", "sound0");
        let started_at = UNIX_EPOCH + Duration::from_secs(1_795_370_400);
        for id in numbers.map(|n| format!("e{n}")) {
            for duration in [None, Some(Duration::from_secs(2))] {
                let (id, prompt) = (id.clone(), "a sound".into());
                self.publisher.publish_event(
                    &route,
                    EventRecord { id, prompt, score: 7.0, peak: 8.0, started_at, duration, levels: None },
                );
            }
        }
    }

    /// Starts and ends that were heard, each once, in the order in which they were heard first.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        for payload in self.watcher.payloads("clapd/hut/mic/sound0/event") {
            let mut quoted = payload.split('"').skip(3).step_by(4);
            let event = format!("{} {}", quoted.next().expect("has a type"), quoted.next().expect("has an id"));
            if !heard.contains(&event) {
                heard.push(event);
            }
        }
        heard
    }

    /// Publishes and tells events, before and after it is known what the broker takes, until all have arrived.
    #[track_caller]
    fn run(limit: &str, version: Version) -> Self {
        let mut limited = start(limit, version);
        limited.tell(0..EVENTS / 2);
        limited.publish();
        limited.tell(EVENTS / 2..EVENTS);
        limited.wait_for(&format!("\"ended\",\"id\":\"e{}\"", EVENTS - 1));
        limited.wait_for(" clapd/hut/mic/sound0/score");
        limited.tell(EVENTS..EVENTS + 1);
        limited.wait_for(&format!("\"ended\",\"id\":\"e{EVENTS}\""));
        let expected: Vec<String> =
            (0..=EVENTS).flat_map(|n| [format!("started e{n}"), format!("ended e{n}")]).collect();
        assert_eq!(limited.heard(), expected, "{limit}");
        limited
    }

    /// Takes leave; nothing waits any more.
    #[track_caller]
    fn end(self) -> Watcher {
        let Self { publisher, mut watcher, .. } = self;
        assert_eq!((publisher.stop(PATIENCE), publisher_events(&watcher)), (0, EVENTS * 2 + 2));
        watcher.wait_for_with("0 ", "clapd/hut/status stopped");
        watcher
    }

    /// Waits for this, unless it was heard before.
    #[track_caller]
    fn wait_for(&mut self, part: &str) {
        if !self.watcher.received.iter().any(|line| line.contains(part)) {
            self.watcher.wait_for_with("0 ", part);
        }
    }

    /// Waits for an entity that is announced by itself.
    #[track_caller]
    fn wait_for_parts(&mut self) {
        self.wait_for(&format!("homeassistant/event/hut_mic/sound{}_event/config {{", PROMPTS - 1));
    }

    fn has_device(&self) -> bool {
        self.watcher.payloads("homeassistant/device/hut_mic/config").iter().any(|payload| !payload.is_empty())
    }
}

/// Events that were heard at least once.
fn publisher_events(watcher: &Watcher) -> usize {
    let mut all = watcher.payloads("clapd/hut/mic/sound0/event");
    all.sort_unstable();
    all.dedup();
    all.len()
}

#[test]
fn announced_packet_limits_are_kept_to() {
    for max in [1000, 2048, 4096, 8192] {
        let mut limited = Limited::run(&format!("max_packet_size {max}"), Version::V5);
        limited.wait_for_parts();
        assert!(!limited.has_device());
        assert_eq!(limited.counters.reconnects.get(), 0, "{max}: the broker had nothing to object to");
        limited.end();
    }
}

#[test]
fn packet_limits_that_are_not_announced_are_found_out() {
    for max in [1000, 2048, 4096, 8192] {
        let mut limited = Limited::run(&format!("max_packet_size {max}"), Version::V4);
        limited.wait_for_parts();
        assert!(limited.counters.reconnects.get() <= 3, "{max}: {}", limited.counters.reconnects.get());
        limited.end();
    }
}

#[test]
fn a_limit_on_messages_lets_what_is_small_through() {
    let mut limited = Limited::run("message_size_limit 1000", Version::V5);
    limited.wait_for_parts();
    limited.end();
    // In 3.1.1 the broker acknowledges what it throws away.
    Limited::run("message_size_limit 1000", Version::V4).end();
}

#[test]
fn without_retained_messages_states_are_sent_all_the_same() {
    for version in [Version::V5, Version::V4] {
        let mut limited = Limited::run("retain_available false", version);
        limited.wait_for("homeassistant/device/hut_mic/config {");
        let states = limited.watcher.payloads("clapd/hut/mic/sound1/state");
        assert!(states.contains(&"OFF"), "{states:?}");
        limited.end();
    }
}

#[test]
fn with_qos_0_only_events_are_delivered_and_counted() {
    for version in [Version::V5, Version::V4] {
        let limited = Limited::run("max_qos 0", version);
        let counters = Arc::clone(&limited.counters);
        limited.end();
        assert_eq!(counters.unconfirmed.get(), EVENTS as u64 * 2 + 2);
    }
}

#[test]
fn no_retained_messages_and_qos_0_only() {
    for version in [Version::V5, Version::V4] {
        Limited::run("max_qos 0\nretain_available false", version).end();
    }
}

#[test]
fn one_message_at_a_time_and_no_sessions_are_enough() {
    for version in [Version::V5, Version::V4] {
        for limit in ["max_inflight_messages 1", "persistence false", "max_keepalive 10", "max_topic_alias 0"] {
            let limited = Limited::run(limit, version);
            assert_eq!(limited.counters.refused.get(), 0);
            limited.end();
        }
    }
}

#[test]
fn an_access_list_without_discovery_holds_no_event_back() {
    for version in [Version::V5, Version::V4] {
        let limited = Limited::run("acl_file ACCESS", version);
        let watcher = limited.end();
        assert!(!watcher.received.iter().any(|line| line.contains("homeassistant")), "{:#?}", watcher.received);
    }
}

#[test]
fn an_answer_that_does_not_fit_says_so() {
    let mut limited = start("max_packet_size 1000", Version::V5);
    let reply = Reply { caller: Caller::Mqtt, command: "prompts/get".into(), transaction: Some(7.into()) };
    limited.publisher.respond(&reply, &Ok("x".repeat(5_000).into()));
    let heard = limited.watcher.wait_for_with("0 ", "clapd/hut/response/prompts/get");
    assert!(heard.contains(r#""transaction":7,"status":"error""#), "{heard}");
    assert!(heard.contains("the broker takes packets of at most 1000"), "{heard}");
}
