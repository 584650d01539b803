//! Tests of the queue: a crash at any moment, and time that jumps.

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn queue(max_events: usize) -> Queue {
    Queue::new(Limits { max_events, max_age: DAY })
}

fn at(wall_s: u64) -> Now {
    Now { steady: Instant::now(), wall: UNIX_EPOCH + Duration::from_secs(wall_s) }
}

fn notice(id: &str, duration: Option<Duration>) -> Notice {
    Notice { id: id.into(), prompt: "p".into(), score: 7.0, peak: 8.0, started_at: UNIX_EPOCH + DAY, duration }
}

/// Kind, topic and id of all that waits.
fn all(queue: &mut Queue) -> Vec<(bool, String, String)> {
    queue.cursor = 0;
    std::iter::from_fn(|| queue.next())
        .map(|waiting| (waiting.notice.duration.is_some(), waiting.topic.to_string(), waiting.notice.id))
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
                0 | 1 => _ = queue.start(topic, notice(&number.to_string(), None), at(9)),
                2 if !queue.open.is_empty() => {
                    let id = queue.events[&queue.open[which.index(queue.open.len())]].notice.id.clone();
                    queue.end(&notice(&id, Some(DAY)), at(9));
                }
                3 if !queue.waiting.is_empty() => {
                    let message = *queue.waiting.keys().nth(which.index(queue.waiting.len())).unwrap();
                    queue.acknowledge(message, at(9));
                }
                _ => drop(queue.next()),
            }
            journal.extend(queue.take_journal());
            prop_assert!(queue.events.len() - queue.open.len() <= 4 && queue.open.len() <= 3);
        }
        let waits = all(&mut queue);
        for bytes in [journal, queue.snapshot()] {
            let (records, damaged) = Record::read_all(&bytes);
            let mut again = self::queue(4);
            records.into_iter().for_each(|record| again.apply(record, at(9)));
            prop_assert_eq!((all(&mut again), damaged, again.open.len()), (waits.clone(), 0, queue.open.len()));
        }
    }
}

#[test]
fn age_is_of_the_steady_clock_and_between_runs_of_one_that_was_set() {
    let mut queue = queue(10);
    let topic: Arc<str> = "t".into();
    let now = at(2_000_000_000);
    queue.start(&topic, notice("a", None), now);
    queue.end(&notice("a", Some(DAY)), now);
    let set_forward = Now { wall: now.wall + 1000 * DAY, ..now };
    assert_eq!(queue.rewind(set_forward), 0, "a clock that is set makes nothing older");
    assert_eq!(queue.rewind(Now { steady: now.steady + DAY, ..now }), 1);
    for (kept_s, now_s, dropped) in [
        (1_999_900_000, 2_000_000_000, 1),
        (1_999_990_000, 2_000_000_000, 0),
        (77, 2_000_000_000, 0),
        (2_000_000_000, 77, 0),
    ] {
        let mut queue = self::queue(10);
        let kept_at = UNIX_EPOCH + Duration::from_secs(kept_s);
        queue.apply(Record::Started { event: 1, kept_at, topic: "t".into(), notice: notice("a", None) }, at(now_s));
        let duration = Duration::ZERO;
        queue.apply(Record::Ended { event: 1, kept_at, score: 0.0, peak: 0.0, duration }, at(now_s));
        assert_eq!(queue.rewind(at(now_s)), dropped, "kept at {kept_s} s, now {now_s} s");
    }
}
