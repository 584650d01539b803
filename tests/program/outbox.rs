//! What a house is promised of the outbox: events outlive crashes, in order, within bounds, and whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use proptest::prelude::*;

/// A log as version 1 wrote it: two events, of which the first's start was told, and one that is open.
const OLD: &[u8] = include_bytes!("../golden/outbox/events-1.log");

fn spec(dir: &Path) -> OutboxSpec {
    OutboxSpec { dir: Some(dir.into()), ..OutboxSpec::default() }
}

fn topic() -> Arc<str> {
    "clapd/attic/mic/dog/event".into()
}

fn began() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(1_795_370_400_123_456_789)
}

fn record(id: &str, duration: Option<Duration>) -> EventRecord {
    EventRecord {
        id: id.into(),
        prompt: "a dog barking".into(),
        score: 7.25,
        peak: 8.5,
        started_at: began(),
        duration,
        levels: None,
    }
}

/// A whole event, as the daemon names it.
fn bark(outbox: &Outbox, n: usize) {
    let id = format!("0123456789abcdef-mic-{n}");
    outbox.start(&topic(), record(&id, None));
    outbox.end(&record(&id, Some(Duration::from_millis(2_345))));
}

/// How long anything may take before a test gives up: far longer than it does, for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the disk has all that was added: on a busy machine a caller may have gone on before.
fn wait_for_disk(outbox: &Outbox) {
    let began = Instant::now();
    while outbox.storage() != "disk" {
        assert!(began.elapsed() < PATIENCE, "the disk does not take events");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What waits, in order: `+` a start, `-` an end, and the event's number.
fn waits(outbox: &Outbox) -> Vec<String> {
    outbox.rewind();
    std::iter::from_fn(|| outbox.next())
        .map(|waiting| {
            let sign = if waiting.record.duration.is_some() { '-' } else { '+' };
            format!("{sign}{}", waiting.record.id.rsplit('-').next().expect("has a number"))
        })
        .collect()
}

fn pairs(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.flat_map(|n| [format!("+{n}"), format!("-{n}")]).collect()
}

/// What a process leaves behind that is killed now.
fn remains(of: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    fs::copy(log(of), log(copy.path())).expect("is there");
    copy
}

fn log(dir: &Path) -> PathBuf {
    dir.join("events.log")
}

/// What an outbox is told at the end of a daemon; nothing can be told to it any more.
#[expect(clippy::needless_pass_by_value, reason = "a closed outbox is gone")]
fn close(outbox: Outbox) -> bool {
    outbox.close(Instant::now() + PATIENCE)
}

#[test]
fn a_killed_process_leaves_every_event_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = Outbox::open(&spec(folder.path()));
    for n in 0..50 {
        bark(&outbox, n);
        wait_for_disk(&outbox);
        let after = remains(folder.path());
        let next = Outbox::open(&spec(after.path()));
        assert_eq!(next.waiting(), 2 * (n + 1));
        if n % 10 == 9 {
            assert_eq!(waits(&next), pairs(0..n + 1));
        }
    }
    outbox.rewind();
    let first = outbox.next().expect("waits");
    assert_eq!((first.record, first.topic), (record("0123456789abcdef-mic-0", None), topic()), "to the nanosecond");
}

#[test]
fn an_event_that_a_crash_cut_off_ends_when_it_was_heard_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = Outbox::open(&spec(folder.path()));
    outbox.start(&topic(), record("r-1", None));
    outbox.touch(&topic(), Duration::from_secs(7), 9.5);
    outbox.touch(&"clapd/attic/mic/cat/event".into(), Duration::from_secs(8), 9.9);
    // The start of another is written, and with it nothing of the windows; those are written by closing at the latest.
    assert!(close(outbox));
    let next = Outbox::open(&spec(folder.path()));
    assert_eq!(waits(&next), ["+1", "-1"]);
    next.rewind();
    let end = [next.next(), next.next()].into_iter().flatten().last().expect("waits").record;
    assert_eq!((end.duration, end.peak, end.id), (Some(Duration::from_secs(7)), 9.5, "r-1".into()));
}

#[test]
fn over_the_bound_the_oldest_pair_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let few = OutboxSpec { max_events: 3, ..spec(folder.path()) };
    let outbox = Outbox::open(&few);
    (0..3).for_each(|n| bark(&outbox, n));
    // The first is under way: the broker may have its start, and shall have its end.
    assert!(outbox.next().is_some());
    (3..6).for_each(|n| bark(&outbox, n));
    assert_eq!(outbox.dropped(), 3);
    assert_eq!(waits(&outbox), pairs([0, 4, 5].into_iter()));
    assert!(close(outbox));
    let outbox = Outbox::open(&OutboxSpec { max_events: 1, ..few });
    assert_eq!((outbox.dropped(), waits(&outbox)), (2, pairs(5..6)), "also where the bound was lowered since");
}

#[test]
fn what_is_acknowledged_is_gone_and_costs_no_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = Outbox::open(&spec(folder.path()));
    (0..100).for_each(|n| bark(&outbox, n));
    wait_for_disk(&outbox);
    let size = fs::metadata(log(folder.path())).expect("is there").len();
    let each = size / 100;
    assert!((100..=200).contains(&each), "{each} bytes an event");
    eprintln!("{each} bytes an event, both messages");
    outbox.rewind();
    while let Some(waiting) = outbox.next() {
        outbox.acknowledge(waiting.number);
    }
    assert_eq!(outbox.waiting(), 0);
    let deadline = Instant::now() + PATIENCE;
    while fs::metadata(log(folder.path())).expect("is there").len() > 15 {
        assert!(Instant::now() < deadline, "the log is not emptied");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_folder_that_cannot_be_used_leaves_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    for dir in [file.join("outbox"), file] {
        let outbox = Outbox::open(&spec(&dir));
        bark(&outbox, 0);
        assert_eq!((outbox.storage(), waits(&outbox)), ("memory", pairs(0..1)));
        assert!(!close(outbox), "what waits in memory is lost, and that is said");
    }
    let first = Outbox::open(&spec(folder.path()));
    assert_eq!(Outbox::open(&spec(folder.path())).storage(), "memory", "two do not write into one log");
    wait_for_disk(&first);
}

#[test]
fn a_log_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(log(folder.path()), OLD).expect("a file");
    let outbox = Outbox::open(&OutboxSpec { max_age: Duration::from_secs(u64::from(u32::MAX)), ..spec(folder.path()) });
    assert_eq!(waits(&outbox), ["-0", "+1", "-1", "+2", "-2"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The last append of a power cut may be torn anywhere; a page of it may be zeros.
    #[test]
    fn a_torn_log_loses_what_was_torn_only(cut in 0.0_f64..1.0, zeros in any::<bool>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = Outbox::open(&spec(folder.path()));
        (0..10).for_each(|n| bark(&outbox, n));
        wait_for_disk(&outbox);
        let after = remains(folder.path());
        let mut bytes = fs::read(log(after.path())).expect("is there");
        let cut = (bytes.len() as f64 * cut) as usize;
        if zeros { bytes[cut..].fill(0) } else { bytes.truncate(cut) }
        fs::write(log(after.path()), bytes).expect("a file");
        let next = Outbox::open(&spec(after.path()));
        let left = waits(&next);
        // An event whose end was torn off is ended as well.
        let expected = pairs(0..left.len() / 2);
        prop_assert_eq!(left, expected);
        bark(&next, 99);
        prop_assert!(close(next));
        let last = Outbox::open(&spec(after.path()));
        prop_assert!(waits(&last).ends_with(&pairs(99..100)));
    }
}
