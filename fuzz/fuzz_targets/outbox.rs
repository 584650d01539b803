//! Puts any bytes behind two events in the outbox's log, as a power cut, a bad card or somebody else may leave them.
//!
//! What must hold: the outbox opens, both events are still there, what is added is found again by the next run, and
//! whatever waits can be read and is removed once it is acknowledged.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clapd::outbox::{EventRecord, Outbox, OutboxSpec};
use libfuzzer_sys::fuzz_target;

const HEADER: &[u8] = b"clapd outbox 1\n";
const LONG: Duration = Duration::from_secs(5);

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let dir = folder.path();
    match how % 3 {
        // A file of which nothing is known: opened or refused, and never both.
        0 => {
            fs::write(dir.join("events.log"), bytes).expect("room");
            drop(waiting_events(&open(dir)));
        }
        // Noise that holds no record; what does may be about these two.
        1 if !holds_record(bytes) => {
            write_log(dir, bytes);
            let outbox = open(dir);
            let seen = waiting_events(&outbox);
            // Where it is only dropped, its thread lets go of the log a moment later.
            assert!(outbox.close(Instant::now() + LONG));
            assert_eq!(seen.get(..4).unwrap_or_default(), ["+first", "-first", "+second", "-second"], "{seen:?}");
            recovers(dir);
        }
        // What has a right checksum is believed, and may be about these two.
        _ => {
            write_log(dir, &with_checksums(bytes));
            recovers(dir);
        }
    }
});

fn open(dir: &Path) -> Outbox {
    let spec =
        OutboxSpec { dir: Some(dir.into()), max_events: 1000, max_age: Duration::from_secs(u64::from(u32::MAX)) };
    Outbox::open(&spec)
}

fn add_event(outbox: &Outbox, id: &str) {
    let record = |duration| EventRecord {
        id: id.into(),
        prompt: "a dog".into(),
        score: 7.0,
        peak: 8.0,
        started_at: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        duration,
    };
    outbox.start(&Arc::from(format!("clapd/fuzz/{id}")), record(None));
    outbox.end(&record(Some(Duration::from_secs(1))));
}

/// Writes a log of two events, and these bytes behind them.
fn write_log(dir: &Path, bytes: &[u8]) {
    let outbox = open(dir);
    add_event(&outbox, "first");
    add_event(&outbox, "second");
    assert!(outbox.close(Instant::now() + LONG));
    let log = dir.join("events.log");
    let events = fs::read(&log).expect("is there");
    assert!(events.starts_with(HEADER));
    fs::write(log, [&events, bytes].concat()).expect("room");
}

/// What waits, in order: `+` for a start, `-` for an end.
fn waiting_events(outbox: &Outbox) -> Vec<String> {
    outbox.rewind();
    let next = std::iter::from_fn(|| outbox.next());
    next.map(|waiting| {
        let sign = if waiting.record.duration.is_some() { '-' } else { '+' };
        format!("{sign}{}", waiting.record.id)
    })
    .collect()
}

fn recovers(dir: &Path) {
    let outbox = open(dir);
    assert_eq!(outbox.storage(), "disk");
    add_event(&outbox, "third");
    let before = waiting_events(&outbox);
    assert!(before.ends_with(&["+third".into(), "-third".into()]), "{before:?}");
    assert!(outbox.close(Instant::now() + LONG));
    let outbox = open(dir);
    assert_eq!(waiting_events(&outbox), before);
    outbox.rewind();
    while let Some(waiting) = outbox.next() {
        outbox.acknowledge(waiting.number);
    }
    assert_eq!(outbox.waiting(), 0);
    assert!(outbox.close(Instant::now() + LONG));
    assert!(waiting_events(&open(dir)).is_empty());
}

/// Whether a length and a checksum are right anywhere.
fn holds_record(bytes: &[u8]) -> bool {
    bytes.windows(7).enumerate().any(|(at, head)| {
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let sum = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        bytes[at + 6..].get(..length).is_some_and(|body| crc32fast::hash(body) == sum)
    })
}

/// Records of these bodies, whose lengths stand before them, with the checksums that belong to them.
fn with_checksums(mut bytes: &[u8]) -> Vec<u8> {
    let mut log = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (body, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        log.extend(u16::from(body.len() as u8).to_le_bytes());
        log.extend(crc32fast::hash(body).to_le_bytes());
        log.extend(body);
        bytes = rest;
    }
    log
}
