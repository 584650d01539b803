//! The reader's end of a device whose streams come and go, without a device.

use std::sync::mpsc::{SyncSender, sync_channel};

use super::*;
use crate::capture::ring::ring;

fn device_source() -> (DeviceSource, SyncSender<RingReader>) {
    let (sender, streams) = sync_channel(2);
    let it = DeviceSource::of_rings("t", streams, &Arc::default());
    (it, sender)
}

/// Reads one block: rate, samples lost before it, its length, its place in seconds.
fn block(source: &mut DeviceSource) -> (u32, u64, usize, f64) {
    match source.read(Duration::ZERO).unwrap() {
        Read::Block { rate, samples, anchor } => (rate, samples.lost, samples.data.len(), anchor.at.as_secs_f64()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_outage_is_time_and_a_new_rate_begins_anew() {
    let (mut source, sender) = device_source();
    let start = Instant::now();
    let (mut writer, reader) = ring(8_000, source.counters.clone());
    sender.send(reader).unwrap();
    writer.write(start, vec![0.1; 8_000].into_iter());
    assert_eq!(block(&mut source), (8_000, 0, 8_000, 0.0));
    // The old writer lives on, as that of a hanging stream does; its successor begins 5 s after its last sample.
    let (mut next, reader) = ring(8_000, source.counters.clone());
    sender.send(reader).unwrap();
    assert!(matches!(source.read(Duration::ZERO).unwrap(), Read::Idle));
    next.write(start + Duration::from_secs(6), vec![0.1; 800].into_iter());
    assert_eq!(block(&mut source), (8_000, 40_000, 800, 6.0));
    assert_eq!(source.counters.samples_lost.get(), 40_000);
    let (mut other, reader) = ring(16_000, source.counters.clone());
    sender.send(reader).unwrap();
    other.write(start + Duration::from_secs(9), vec![0.1; 1_600].into_iter());
    assert_eq!(block(&mut source), (16_000, 0, 1_600, 0.0));
}

#[test]
fn too_many_hanging_streams_are_an_error() {
    let (mut source, _sender) = device_source();
    source.counters.streams_open.store(MAX_HANGING_STREAMS + 1, Ordering::Relaxed);
    let error = source.read(Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("9 streams hang") && error.contains("restart"), "{error}");
}
