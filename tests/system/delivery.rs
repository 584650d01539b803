//! Brokers that are hard to please: TLS, access lists, an old version, somebody else with our name, states of the past.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clapd::config::{self, Secret, Tls};
use clapd::health::DeliveryCounters;
use clapd::mqtt::{self, Identity, Info, Publisher};
use clapd::outbox::{EventRecord, Outbox, OutboxSpec};

use crate::support::broker::{Broker, Link, PATIENCE, free_port};
use crate::support::certificates::Authority;

/// Long enough for a connection, short enough to wait for where there will be none.
const SOON: Duration = Duration::from_secs(3);

/// What is logged, by all tests of this program.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("clapd") {
            LOG.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn count_in_log(part: &str) -> usize {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|line| line.contains(part)).count()
}

fn wait_for_log(part: &str) {
    let deadline = Instant::now() + PATIENCE;
    while count_in_log(part) == 0 {
        assert!(Instant::now() < deadline, "{part:?} was not logged, but {:#?}", LOG.lock());
        thread::sleep(Duration::from_millis(20));
    }
}

fn at(port: u16) -> config::Broker {
    config::Broker { host: "127.0.0.1".into(), port, user: None, password: None, tls: None, discovery_prefix: None }
}

fn start(broker: &config::Broker, node: &str, outbox: &OutboxSpec) -> (Publisher, Arc<DeliveryCounters>) {
    // Whoever is first; the others share it.
    let _ = log::set_logger(&Logger).map(|()| log::set_max_level(log::LevelFilter::Info));
    let info = Info { version: "0".into(), bundle: "b".into(), bundle_version: "1".into(), pipeline_id: "p".into() };
    let counters = Arc::default();
    let identity = Identity::open(None, broker, node, [], []);
    let started = Publisher::start(broker, identity, &info, Outbox::open(outbox), Arc::clone(&counters));
    (started.expect("a thread"), counters)
}

/// Tells a whole event of a dog at the node's mic.
fn bark(publisher: &Publisher, id: &str) {
    let route = publisher.topics().route("mic", "dog");
    let started_at = UNIX_EPOCH + Duration::from_millis(1_795_370_400_123);
    for duration in [None, Some(Duration::from_millis(2_345))] {
        let (id, prompt) = (id.into(), "a dog barking".into());
        publisher.publish_event(
            &route,
            EventRecord { id, prompt, score: 7.0, peak: 8.0, started_at, duration, levels: None },
        );
    }
}

#[test]
fn tls_trusts_its_own_authority_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "theirs"));
    let port = free_port();
    let (cert, key) = ours.issue("127.0.0.1");
    let broker = Broker::start_with(|_| {
        let ca = ours.path.display();
        let (cert, key) = (cert.display(), key.display());
        format!(
            "allow_anonymous true\nlistener {port} 127.0.0.1\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true"
        )
    });
    let mut watcher = broker.watch();
    let read = |path: &Path| fs::read_to_string(path).expect("a text");
    let pair = |(cert, key): (std::path::PathBuf, std::path::PathBuf)| Some((read(&cert), Secret::new(read(&key))));
    let with = |authority: &Authority, client| config::Broker {
        tls: Some(Tls { ca: Some(read(&authority.path)), client }),
        ..at(port)
    };
    for (broker, why) in [
        (with(&theirs, pair(ours.issue("stranger"))), "the broker is not whom we trust"),
        (with(&ours, pair(theirs.issue("stranger"))), "the broker does not trust us"),
        (with(&ours, None), "the broker asks who we are"),
    ] {
        mqtt::check(&broker).expect("the files are in order");
        let (publisher, _) = start(&broker, "stranger", &OutboxSpec::default());
        bark(&publisher, "s");
        assert_eq!(publisher.stop(SOON), 2, "{why}");
    }
    let (publisher, _) = start(&with(&ours, pair(ours.issue("attic"))), "attic", &OutboxSpec::default());
    bark(&publisher, "a");
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/attic/status stopped");
    assert_eq!(watcher.payloads("clapd/attic/mic/dog/event").len(), 2);
    assert!(watcher.payloads("clapd/stranger/status").is_empty());
}

#[test]
fn an_ipv6_address_is_a_brokers_too_with_tls_and_without() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this computer has no IPv6: left out");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new(folder.path(), "six");
    let (cert, key) = ours.issue("::1");
    let (plain, secure) = (free_port(), free_port());
    let broker = Broker::start_with(|_| {
        let (cert, key) = (cert.display(), key.display());
        format!("allow_anonymous true\nlistener {plain} ::1\nlistener {secure} ::1\ncertfile {cert}\nkeyfile {key}")
    });
    let mut watcher = broker.watch();
    let authority = folder.path().join("six.pem");
    let environment = config::Environment { host_name: "six".into(), ..config::Environment::default() };
    for (node, mqtt) in [
        ("plain", format!("url = \"mqtt://[::1]:{plain}\"")),
        ("secure", format!("url = \"mqtts://[::1]:{secure}\"\nca_file = {authority:?}")),
    ] {
        let text =
            format!("[mqtt]\n{mqtt}\n[[source]]\nid = \"mic\"\nstdin = true\n[[prompt]]\ntext = \"a dog barking\"");
        let (settings, _) = config::parse(&text, &folder.path().join("clapd.toml"), &environment).expect("is in order");
        let (publisher, _) = start(&settings.broker.expect("is named"), node, &OutboxSpec::default());
        bark(&publisher, "a");
        assert_eq!(publisher.stop(PATIENCE), 0, "{:#?}", LOG.lock());
        watcher.wait_for(&format!("0 1 clapd/{node}/status stopped"));
        assert_eq!(watcher.payloads(&format!("clapd/{node}/mic/dog/event")).len(), 2);
    }
    assert_eq!(count_in_log(&format!("connected to [::1]:{secure} as clapd-secure")), 1);
}

#[test]
fn certificates_that_are_none_are_found_before_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new(folder.path(), "ours");
    let read = |path: &Path| fs::read_to_string(path).expect("a text");
    let (cert, _) = ours.issue("a");
    let (_, other_key) = ours.issue("b");
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned();
    for (tls, word) in [
        (Tls { ca: Some(broken.clone()), client: None }, "mqtt.ca_file"),
        (Tls { ca: Some(read(&ours.path)), client: Some((broken, Secret::new(read(&other_key)))) }, "mqtt.client_cert"),
        (Tls { ca: None, client: Some((read(&cert), Secret::new("no key".into()))) }, "mqtt.client_key"),
        (Tls { ca: None, client: Some((read(&cert), Secret::new(read(&other_key)))) }, "mqtt.client_key"),
    ] {
        let error = mqtt::check(&config::Broker { tls: Some(tls), ..at(1) }).expect_err("is at fault");
        assert!(format!("{error:#}").contains(word), "{error:#}");
    }
}

#[test]
fn an_old_broker_is_served_in_its_version() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let (publisher, _) = start(&at(Link::old(&broker)), "old", &OutboxSpec::default());
    bark(&publisher, "a");
    watcher.wait_for("0 1 clapd/old/mic/dog/event {\"event_type\":\"ended\"");
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/old/status stopped");
    assert_eq!(count_in_log("as clapd-old (MQTT 3.1.1, in which a broker cannot say what it refuses)"), 1);
}

#[test]
fn a_refused_event_is_counted_named_and_stored() {
    let list = |more: &str| format!("pattern readwrite #\n{more}");
    let mut broker = Broker::start_with(|folder| {
        let access = folder.join("access");
        fs::write(&access, list("pattern deny clapd/shy/mic/dog/event\n")).expect("a file");
        format!("allow_anonymous true\nacl_file {}", access.display())
    });
    let mut watcher = broker.watch();
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = OutboxSpec { dir: Some(folder.path().into()), ..OutboxSpec::default() };
    let (publisher, counters) = start(&at(broker.port), "shy", &outbox);
    bark(&publisher, "a");
    wait_for_log("the broker refuses clapd/shy/mic/dog/event: this user may not write to it");
    // Others are not kept from it by the one that is refused.
    let route = publisher.topics().route("mic", "cat");
    let (id, prompt) = ("c".into(), "a cat".into());
    publisher.publish_event(
        &route,
        EventRecord { id, prompt, score: 7.0, peak: 8.0, started_at: UNIX_EPOCH, duration: None, levels: None },
    );
    watcher.wait_for("0 1 clapd/shy/mic/cat/event");
    assert!(counters.refused.get() >= 1, "{counters:?}");
    assert_eq!(publisher.stop(SOON), 2);
    broker.stop();
    fs::write(broker.folder().join("access"), list("")).expect("a file");
    broker.resume();
    let (publisher, _) = start(&at(broker.port), "shy", &outbox);
    watcher.wait_for("0 1 clapd/shy/mic/dog/event {\"event_type\":\"started\"");
    watcher.wait_for("0 1 clapd/shy/mic/dog/event {\"event_type\":\"ended\"");
    assert_eq!(publisher.stop(PATIENCE), 0);
}

#[test]
fn another_client_with_our_id_is_named() {
    let (publisher, _) = start(&at(Link::taken_over()), "twin", &OutboxSpec::default());
    wait_for_log("somebody else has connected as clapd-twin; give every computer its own node.id");
    drop(publisher);
    // mosquitto 2.0.11 does not say why.
    let broker = Broker::start();
    let (first, _) = start(&at(broker.port), "double", &OutboxSpec::default());
    wait_for_log("as clapd-double (MQTT 5)");
    let (second, _) = start(&at(broker.port), "double", &OutboxSpec::default());
    wait_for_log("does another computer connect as clapd-double?");
    drop((first, second));
}

#[test]
fn a_wrong_password_is_logged_once() {
    let broker = Broker::start_with_password("clapd", "hunter2");
    let stranger =
        config::Broker { user: Some("clapd".into()), password: Some(Secret::new("wrong".into())), ..at(broker.port) };
    let (publisher, _) = start(&stranger, "forgetful", &OutboxSpec::default());
    let expected = format!("no connection to 127.0.0.1:{}: the broker does not let this user", broker.port);
    wait_for_log(&expected);
    bark(&publisher, "a");
    let began = Instant::now();
    assert_eq!(publisher.stop(PATIENCE), 2);
    assert!(began.elapsed() < PATIENCE / 2, "a door that is shut is not knocked at until the end");
    assert_eq!(count_in_log(&expected), 1);
}

#[test]
fn a_state_that_no_prompt_has_any_more_is_off_and_removed() {
    let broker = Broker::start();
    for state in ["mic/cat/state", "attic/dog/state", "mic/dog/state"] {
        broker.publish_retained(&format!("clapd/tidy/{state}"), "ON");
    }
    broker.publish_retained("clapd/other/mic/cat/state", "ON");
    let mut watcher = broker.watch();
    let (publisher, _) = start(&at(broker.port), "tidy", &OutboxSpec::default());
    publisher.publish_state(&publisher.topics().route("mic", "dog"), true);
    watcher.wait_for("0 1 clapd/tidy/mic/cat/state OFF");
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/tidy/status stopped");
    assert_eq!(watcher.payloads("clapd/tidy/attic/dog/state"), ["OFF", ""], "who looks on hears of it");
    let mut states = broker.watch().retained.clone();
    states.retain(|line| line.contains("/state "));
    states.sort();
    assert_eq!(states, ["1 1 clapd/other/mic/cat/state ON", "1 1 clapd/tidy/mic/dog/state ON"]);
}

#[test]
fn the_next_run_delivers_what_this_one_could_not() {
    let broker = Broker::start();
    let mut watcher = broker.watch();
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = OutboxSpec { dir: Some(folder.path().join("outbox")), ..OutboxSpec::default() };
    let (publisher, _) = start(&at(free_port()), "heir", &outbox);
    bark(&publisher, "a");
    bark(&publisher, "b");
    assert_eq!(publisher.stop(Duration::ZERO), 4);
    wait_for_log("4 messages wait in the outbox for the next start");
    let (publisher, _) = start(&at(broker.port), "heir", &outbox);
    bark(&publisher, "c");
    assert_eq!(publisher.stop(PATIENCE), 0);
    watcher.wait_for("0 1 clapd/heir/status stopped");
    let received = watcher.payloads("clapd/heir/mic/dog/event");
    let ids: Vec<&str> = received.iter().filter_map(|event| event.split('"').nth(7)).collect();
    assert_eq!(ids, ["a", "a", "b", "b", "c", "c"]);
    let expected = r#"{"event_type":"ended","id":"a","prompt":"a dog barking","score":7.0,"peak":8.0,"started_at":"2026-11-22T18:00:00.123Z","ended_at":"2026-11-22T18:00:02.468Z","duration_s":2.345}"#;
    assert_eq!(received[1], expected);
    assert!(
        fs::metadata(folder.path().join("outbox/events.log")).expect("is there").len() < 20,
        "nothing is left in it"
    );
}
