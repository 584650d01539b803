//! Tests of the queue: a crash at any moment, and time that jumps.

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn queue(max_events: usize) -> Queue {
    Queue::new(Limits { max_events, max_age: DAY })
}

fn at(wall_s: u64) -> Clocks {
    Clocks {
        boot: BootTime::from_start(DAY),
        suspended: Duration::ZERO,
        wall: UNIX_EPOCH + Duration::from_secs(wall_s),
    }
}

fn record(id: &str, duration: Option<Duration>) -> EventRecord {
    EventRecord {
        id: id.into(),
        prompt: "p".into(),
        score: 7.0,
        peak: 8.0,
        started_at: UNIX_EPOCH + DAY,
        duration,
        levels: None,
    }
}

/// Kind, topic and id of all that waits.
fn all(queue: &mut Queue) -> Vec<(bool, String, String)> {
    queue.cursor = 0;
    std::iter::from_fn(|| queue.next(u64::MAX))
        .map(|waiting| (waiting.record.duration.is_some(), waiting.topic.to_string(), waiting.record.id))
        .collect()
}

proptest! {
    #[test]
    fn a_journal_and_a_snapshot_bring_back_what_waits(
        steps in prop::collection::vec((0_u8..5, 0_usize..3, any::<prop::sample::Index>()), 0..120),
    ) {
        let topics: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let (mut queue, mut journal) = (queue(4), Vec::new());
        for (number, (what, topic, which)) in steps.iter().enumerate() {
            let topic = &topics[*topic];
            match what {
                0 | 1 => _ = queue.start(topic, record(&number.to_string(), None), at(9)),
                2 if !queue.open.is_empty() => {
                    let id = queue.events[&queue.open[which.index(queue.open.len())]].record.id.clone();
                    queue.end(&record(&id, Some(DAY)), at(9));
                }
                3 if !queue.waiting.is_empty() => {
                    let message = *queue.waiting.keys().nth(which.index(queue.waiting.len())).unwrap();
                    queue.acknowledge(message, at(9));
                }
                _ => drop(queue.next(u64::MAX)),
            }
            journal.extend(queue.take_journal());
            prop_assert!(queue.events.len() - queue.open.len() <= 4 && queue.open.len() <= 3);
        }
        let waits = all(&mut queue);
        for bytes in [journal, queue.snapshot()] {
            let (entries, damaged) = LogEntry::read_all(&bytes);
            let mut again = self::queue(4);
            entries.into_iter().for_each(|entry| again.apply(entry, at(9)));
            prop_assert_eq!((all(&mut again), damaged, again.open.len()), (waits.clone(), 0, queue.open.len()));
        }
    }
}

#[test]
fn age_is_of_the_steady_clock_and_between_runs_of_one_that_was_set() {
    let mut queue = queue(10);
    let topic: Arc<str> = "t".into();
    let now = at(2_000_000_000);
    queue.start(&topic, record("a", None), now);
    queue.end(&record("a", Some(DAY)), now);
    let set_forward = Clocks { wall: now.wall + 1000 * DAY, ..now };
    assert_eq!(queue.rewind(set_forward), 0, "a clock that is set makes nothing older");
    assert_eq!(queue.rewind(Clocks { boot: now.boot + DAY, ..now }), 1);
    for (stored_s, now_s, dropped) in [
        (1_999_900_000, 2_000_000_000, 1),
        (1_999_990_000, 2_000_000_000, 0),
        (77, 2_000_000_000, 0),
        (2_000_000_000, 77, 0),
    ] {
        let mut queue = self::queue(10);
        let stored_at = UNIX_EPOCH + Duration::from_secs(stored_s);
        queue.apply(LogEntry::Started { event: 1, stored_at, topic: "t".into(), record: record("a", None) }, at(now_s));
        let duration = Duration::ZERO;
        queue.apply(LogEntry::Ended { event: 1, stored_at, score: 0.0, peak: 0.0, duration }, at(now_s));
        assert_eq!(queue.rewind(at(now_s)), dropped, "stored at {stored_s} s, now {now_s} s");
    }
}

/// A computer without a clock of its own: what it detects before it knows the time is neither too old afterwards, nor published
/// with a time that never was.
#[test]
fn what_was_stored_before_the_clock_was_set_is_young_and_gets_the_right_time() {
    let topic: Arc<str> = "t".into();
    let (shut_down, now_s) = (1_999_000_000, 2_000_000_000);
    for booted_s in [10, shut_down] {
        let mut queue = queue(10);
        let booted = at(booted_s);
        queue.begin_run(Some(1), booted);
        let started = |id: &str| EventRecord { started_at: booted.wall - Duration::from_secs(5), ..record(id, None) };
        queue.start(&topic, started("sent"), booted);
        assert!(queue.next(u64::MAX).is_some());
        queue.end(&record("sent", Some(DAY)), booted);
        queue.start(&topic, started("waits"), booted);
        queue.end(&record("waits", Some(Duration::from_secs(3))), booted);
        queue.start(&topic, started("open"), booted);
        queue.touch(&topic, Duration::from_secs(4), 9.0);
        queue.journal_touches();
        let unaware = queue.take_journal();
        let set = Clocks { boot: booted.boot + Duration::from_secs(60), wall: at(now_s).wall, ..booted };
        queue.follow_clock(set);
        let aware = [unaware.clone(), queue.take_journal()].concat();
        // The next run finds them in the log, an hour later, or half a day later and after another start of the computer.
        let later = Clocks { boot: set.boot + DAY / 24, wall: set.wall + DAY / 24, ..set };
        let started_again = Clocks { boot: BootTime::from_start(DAY / 24), ..at(now_s + 43_200) };
        for (log, boot_id, later, told) in [
            (&aware, 1, later, true),
            (&queue.snapshot(), 1, later, true),
            (&aware, 2, started_again, true),
            // It died before it knew that the clock was set.
            (&unaware, 1, later, false),
        ] {
            let mut next = self::queue(10);
            LogEntry::read_all(log).0.into_iter().for_each(|entry| next.apply(entry, later));
            next.begin_run(Some(boot_id), later);
            assert_eq!(next.rewind(later), 0, "nothing is too old");
            let waits: Vec<_> = std::iter::from_fn(|| next.next(u64::MAX)).map(|waiting| waiting.record).collect();
            let right = set.wall - Duration::from_secs(65);
            for record in &waits {
                // What the broker may have stays as it has it.
                let is_told = told && record.id == "sent" && record.duration.is_none();
                let expected = if is_told { booted.wall - Duration::from_secs(5) } else { right };
                assert_eq!(record.started_at, expected, "{record:?}");
            }
            let lengths: Vec<_> = waits.iter().filter_map(|record| record.duration).collect();
            assert_eq!(lengths, [DAY, Duration::from_secs(3), Duration::from_secs(4)]);
        }
    }
}

/// Version 0.1.0 noted the time of day of the last touch, by whatever clock.
#[test]
fn a_touch_of_the_first_version_is_read() {
    let (now, mut queue) = (at(2_000_000_000), queue(10));
    let at = UNIX_EPOCH + DAY + Duration::from_secs(7);
    for entry in [
        LogEntry::Started { event: 1, stored_at: now.wall, topic: "t".into(), record: record("a", None) },
        LogEntry::TouchedAt { event: 1, at, score: 1.0, peak: 9.0 },
    ] {
        queue.apply(entry, now);
    }
    queue.begin_run(Some(1), now);
    let end = std::iter::from_fn(|| queue.next(u64::MAX)).last().unwrap().record;
    assert_eq!((end.duration, end.peak), (Some(Duration::from_secs(7)), 9.0));
}

/// What waits does not grow older by a clock that is set, and does while the computer is suspended.
#[test]
fn a_suspension_makes_older_and_sets_no_clock() {
    let (now, topic, mut queue) = (at(2_000_000_000), Arc::<str>::from("t"), queue(10));
    queue.begin_run(Some(1), now);
    queue.start(&topic, EventRecord { started_at: now.wall, ..record("a", None) }, now);
    queue.end(&record("a", Some(Duration::from_secs(3))), now);
    let slept = |by: Duration| Clocks { boot: now.boot + by, suspended: by, wall: now.wall + by };
    assert_eq!(queue.rewind(slept(DAY / 2)), 0);
    assert_eq!(queue.next(u64::MAX).unwrap().record.started_at, now.wall);
    assert_eq!(queue.rewind(slept(DAY)), 1, "older than is allowed");
}

/// No log of ours does, but a card may hold another's remains: what it says must not wait for ever.
#[test]
fn a_log_that_counts_twice_is_believed_once() {
    let (now, topic) = (at(2_000_000_000), Arc::<str>::from("t"));
    let mut queue = queue(10);
    let started =
        |event, id| LogEntry::Started { event, stored_at: now.wall, topic: "t".into(), record: record(id, None) };
    let ended = LogEntry::Ended { event: 1, stored_at: now.wall, score: 1.0, peak: 1.0, duration: DAY };
    for entry in [started(1, "first"), ended, started(1, "again"), started(u64::MAX, "far")] {
        queue.apply(entry, now);
    }
    queue.begin_run(Some(1), now);
    queue.start(&topic, record("own", None), now);
    let ids: Vec<_> = all(&mut queue).into_iter().map(|(ended, _, id)| (ended, id)).collect();
    assert_eq!(ids, [(false, "first".into()), (true, "first".into()), (false, "own".to_owned())]);
    queue.end(&record("own", Some(DAY)), now);
    queue.rewind(now);
    while let Some(waiting) = queue.next(u64::MAX) {
        queue.acknowledge(waiting.number, now);
    }
    assert_eq!((queue.waiting(), queue.events()), (0, 0));
}
