//! What is sent, and in which order.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config::Broker;
use crate::mqtt::discovery::{Node, PromptEntity};
use crate::mqtt::identity::Identity;
use crate::mqtt::topics::Topics;
use crate::outbox::{EventRecord, OutboxSpec};

fn topic(name: &str) -> Arc<str> {
    name.into()
}

fn outgoing() -> (Outgoing, Outbox) {
    let outbox = Outbox::open(&OutboxSpec::default());
    let node = Node { id: "n".into(), topics: Topics::new("n"), version: "1".into(), model: "m".into() };
    let broker = Broker {
        host: "hub".into(),
        port: 1883,
        user: None,
        password: None,
        tls: None,
        discovery_prefix: Some("ha".into()),
    };
    let departures = Departures::new(Identity::open(None, &broker, "n", [], []));
    let namesakes = NamesakeWatch::new(node.topics.clone(), "i");
    (Outgoing::new(outbox.clone(), Announcements::new(node, Some("ha")), departures, namesakes), outbox)
}

fn record(duration: Option<Duration>) -> EventRecord {
    EventRecord {
        id: "i".into(),
        prompt: "p".into(),
        score: 7.0,
        peak: 8.0,
        started_at: UNIX_EPOCH,
        duration,
        levels: None,
    }
}

fn begin(outgoing: &mut Outgoing, limits: BrokerLimits) {
    outgoing.begin_connection(limits, Vec::new(), Instant::now());
}

fn message_of(ticket: Ticket) -> SentMessage {
    let (kind, topic) = (MessageKind::Event, topic("event"));
    SentMessage { ticket, kind, topic, size: 100, wanted: PublishForm::ACKNOWLEDGED, form: PublishForm::ACKNOWLEDGED }
}

fn confirm(outgoing: &mut Outgoing, ticket: Ticket) {
    outgoing.accepted(&message_of(ticket));
}

fn sent(outgoing: &mut Outgoing) -> Vec<String> {
    sent_at(outgoing, Instant::now())
}

fn sent_at(outgoing: &mut Outgoing, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| outgoing.next(now))
        .map(|message| {
            let payload = String::from_utf8_lossy(&message.payload).into_owned();
            let payload = if payload.contains("components") { "device" } else { &payload };
            let payload = if payload.contains("ended") { "ended" } else { payload };
            format!("{}={}", message.sent.topic, if payload.contains("started\"") { "started" } else { payload })
        })
        .collect()
}

#[test]
fn retained_topics_come_first_and_again_on_each_connection() {
    let (mut outgoing, outbox) = outgoing();
    outgoing.set_score(&topic("score"), b"1".into());
    outbox.start(&topic("event"), record(None));
    outbox.end(&record(Some(Duration::ZERO)));
    outgoing.retain(&topic("status"), b"online".into());
    outgoing.retain(&topic("a"), b"OFF".into());
    assert_eq!(sent(&mut outgoing), ["status=online", "a=OFF", "event=started", "event=ended", "score=1"]);
    outgoing.retain(&topic("a"), b"OFF".into());
    assert_eq!(sent(&mut outgoing), [""; 0], "nothing has changed");
    outgoing.retain(&topic("a"), b"ON".into());
    assert_eq!(sent(&mut outgoing), ["a=ON"]);
    outgoing.on_ha_birth(Instant::now());
    assert_eq!(sent(&mut outgoing), ["status=online", "a=ON"], "and no event twice");
    confirm(&mut outgoing, Ticket::Event(0));
    begin(&mut outgoing, BrokerLimits::default());
    assert_eq!(sent(&mut outgoing), ["status=online", "a=ON", "event=ended"], "the end was not acknowledged");
    assert_eq!((outgoing.is_handed_out(), outgoing.waiting_events()), (true, 1));
    confirm(&mut outgoing, Ticket::Event(1));
    assert_eq!(outgoing.waiting_events(), 0);
}

#[test]
fn a_state_without_a_prompt_is_set_to_off_and_removed() {
    let (mut outgoing, _) = outgoing();
    outgoing.retain(&topic("a"), b"OFF".into());
    outgoing.found_state("a");
    outgoing.found_state("removed");
    assert_eq!(sent(&mut outgoing), ["a=OFF", "removed=OFF", "removed="]);
}

#[test]
fn a_prompt_that_goes_takes_its_state_along() {
    let (mut outgoing, _) = outgoing();
    outgoing.retain(&topic("a"), b"ON".into());
    outgoing.retain(&topic("b"), b"OFF".into());
    outgoing.remove_state("a");
    outgoing.remove_state("unknown");
    assert_eq!(sent(&mut outgoing), ["b=OFF", "a=OFF", "a="]);
    begin(&mut outgoing, BrokerLimits::default());
    assert_eq!(sent(&mut outgoing), ["b=OFF"]);
    outgoing.retain(&topic("a"), b"OFF".into());
    assert_eq!(sent(&mut outgoing), ["a=OFF"], "it may come again");
}

#[test]
fn responses_are_sent_once_and_are_bounded() {
    let (mut outgoing, _) = outgoing();
    let dropped: Vec<bool> =
        (0..MAX_RESPONSES + 2).map(|n| outgoing.add_response(topic(&n.to_string()), b"r".into(), None)).collect();
    assert_eq!(dropped.iter().filter(|dropped| **dropped).count(), 2);
    let sent = sent(&mut outgoing);
    assert_eq!((sent.len(), sent[0].as_str()), (MAX_RESPONSES, "2=r"));
}

#[test]
fn only_the_newest_score_of_a_topic_waits() {
    let (mut outgoing, _) = outgoing();
    assert!(!outgoing.set_score(&topic("b"), b"1".into()));
    assert!(!outgoing.set_score(&topic("a"), b"2".into()));
    assert!(outgoing.set_score(&topic("b"), b"3".into()));
    assert_eq!(sent(&mut outgoing), ["b=3", "a=2"]);
}

#[test]
fn events_and_scores_wait_for_home_assistant_to_know_the_device() {
    let (mut outgoing, outbox) = outgoing();
    outgoing.set_devices(vec!["mic".into()], vec![PromptEntity::new("dog", "a dog")], Duration::from_secs(1));
    outgoing.retain(&topic("status"), b"online".into());
    outbox.start(&topic("event"), record(None));
    outgoing.set_score(&topic("score"), b"1".into());
    let now = Instant::now();
    assert_eq!(sent_at(&mut outgoing, now), ["status=online", "ha/device/n_mic/config=device"]);
    outgoing.retain(&topic("a"), b"ON".into());
    assert_eq!(sent_at(&mut outgoing, now + Duration::from_millis(999)), ["a=ON"]);
    let now = now + Duration::from_secs(1);
    assert_eq!(sent_at(&mut outgoing, now), ["event=started", "score=1"]);
    // Home Assistant begins: devices first, then all that is retained, and no event twice.
    outgoing.on_ha_birth(now);
    assert_eq!(sent_at(&mut outgoing, now), ["ha/device/n_mic/config=device"]);
    assert_eq!(sent_at(&mut outgoing, now + Duration::from_secs(1)), ["status=online", "a=ON"]);
}

#[test]
fn a_prompt_of_an_earlier_run_is_removed_from_home_assistant() {
    let (mut outgoing, _) = outgoing();
    outgoing.set_devices(vec!["mic".into()], vec![PromptEntity::new("dog", "a dog")], Duration::from_secs(1));
    let now = Instant::now();
    sent_at(&mut outgoing, now);
    outgoing.found_state("clapd/n/yard/cat/state");
    assert_eq!(sent_at(&mut outgoing, now), ["clapd/n/yard/cat/state=OFF", "clapd/n/yard/cat/state="]);
    let device = "ha/device/n_yard/config";
    assert_eq!(sent_at(&mut outgoing, now + Duration::from_secs(1)), [format!("{device}=device")]);
    assert_eq!(sent_at(&mut outgoing, now + Duration::from_secs(2)), [format!("{device}=")]);
    assert!(outgoing.is_handed_out());
}

#[test]
fn a_start_whose_end_would_not_fit_is_not_sent() {
    let (mut outgoing, outbox) = outgoing();
    outbox.start(&topic("event"), record(None));
    let start = packet_size("event", message::event(&record(None)).unwrap().len());
    let end = EventRecord { levels: Some(message::LONGEST_LEVELS), ..record(Some(LONGEST_EVENT)) };
    let end = packet_size("event", message::event(&end).unwrap().len());
    assert!(start < end);
    let limited = |max_packet: usize| BrokerLimits {
        max_packet: Some(u32::try_from(max_packet).unwrap()),
        ..BrokerLimits::default()
    };
    begin(&mut outgoing, limited(start));
    assert_eq!((sent(&mut outgoing), outgoing.events_set_aside()), (Vec::<String>::new(), 1));
    // Scores of two decimals are longer than those of the record.
    begin(&mut outgoing, limited(end + 4));
    assert_eq!(sent(&mut outgoing), ["event=started"]);
}

#[test]
fn what_is_refused_but_for_its_size_holds_its_topic() {
    let reason = |code| Reason::of(crate::mqtt::reason::Answer::Publish, code);
    for (code, expected) in [(0x97, &[] as &[&str]), (0x87, &[]), (0x83, &["a=ON"])] {
        let (mut outgoing, _) = outgoing();
        outgoing.retain(&topic("a"), b"OFF".into());
        let message = outgoing.next(Instant::now()).unwrap();
        outgoing.refused(&message.sent, &reason(code));
        outgoing.retain(&topic("a"), b"ON".into());
        assert_eq!(sent(&mut outgoing), expected, "{code:x}: ON is smaller than OFF");
    }
}

#[test]
fn whose_topics_are_ours_is_asked_in_small_packets_and_after_events_where_care_is_called_for() {
    let (mut outgoing, outbox) = outgoing();
    let sources: Vec<String> = (0..40).map(|n| format!("source-{n}")).collect();
    outgoing.set_devices(sources.clone(), vec![PromptEntity::new("dog", "a dog")], Duration::from_secs(1));
    let filters = || vec![Filter { path: "states".into(), retained: true }];
    outgoing.begin_connection(BrokerLimits::default(), filters(), Instant::now());
    let packets = outgoing.take_filters(Instant::now());
    assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), sources.len());
    assert!(packets.iter().all(|packet| packet.iter().map(|filter| filter.path.len()).sum::<usize>() < 800));
    // The connection has ended at once.
    outbox.start(&topic("event"), record(None));
    outgoing.on_end(&[], None);
    outgoing.begin_connection(BrokerLimits::default(), filters(), Instant::now());
    assert!(outgoing.is_single_in_flight() && outgoing.take_filters(Instant::now()).is_empty());
    let sent = sent(&mut outgoing);
    assert_eq!((sent[0].as_str(), sent.len() > sources.len()), ("event=started", true), "{sent:?}");
    begin(&mut outgoing, BrokerLimits::default());
    assert!(outgoing.take_filters(Instant::now()).is_empty(), "it subscribes to nothing");
}
