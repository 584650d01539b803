//! A device as a source: the samples of its streams on one time line that outages are part of.
//!
//! The streams come from `shared_device`, which opens and watches them on threads of their own; nothing here waits for the
//! sound system.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;

use super::card_name::is_index;
use super::clock::{StreamClock, samples_in};
use super::counters::SourceCounters;
use super::ring::RingReader;
use super::shared_device::{MAX_HANGING_STREAMS, Subscription, subscribe};
use super::{Channel, Read};
use crate::time::WallAnchor;

/// How long a reader sleeps before it reads the ring again: a fifth of a block.
const READER_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The reader's end of a device.
pub(super) struct DeviceSource {
    streams: Receiver<RingReader>,
    current: Option<CurrentStream>,
    /// Where the last stream ended: its rate, the moment, and the position on the time line.
    ended: Option<(u32, Instant, u64)>,
    samples: Vec<f32>,
    counters: Arc<SourceCounters>,
    id: String,
    /// Its place among those that listen to the device; none of what comes from elsewhere.
    subscription: Option<Subscription>,
}

struct CurrentStream {
    ring: RingReader,
    /// Set up by the first sample.
    clock: Option<StreamClock>,
    /// What the time line counts beside the ring's own position: earlier streams, outages, gaps.
    base: u64,
}

impl DeviceSource {
    pub fn start(id: &str, name: &str, channel: Channel, counters: &Arc<SourceCounters>) -> Result<Self> {
        if is_index(name) {
            log::warn!("source {id:?}: {name:?} counts cards, which change places; `clapd devices` lists stable names");
        }
        let (subscription, streams) = subscribe(id, name, channel, counters)?;
        Ok(Self { subscription: Some(subscription), ..Self::of_rings(id, streams, counters) })
    }

    /// What comes from elsewhere than a device: each ring is a connection, and between two of them is an outage.
    pub fn of_rings(id: &str, streams: Receiver<RingReader>, counters: &Arc<SourceCounters>) -> Self {
        let (id, counters) = (id.to_owned(), counters.clone());
        Self { streams, current: None, ended: None, samples: Vec::new(), counters, id, subscription: None }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn read(&mut self, timeout: Duration) -> Result<Read<'_>> {
        let deadline = Instant::now() + timeout;
        let lost = loop {
            if let Some(lost) = self.take() {
                break lost;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.subscription.as_ref().map_or(Ok(()), Subscription::check_watcher)?;
                self.check_hanging()?;
                return Ok(Read::Idle);
            }
            thread::sleep(left.min(READER_POLL_INTERVAL));
        };
        let Some(current) = &self.current else { return Ok(Read::Idle) };
        let rate = current.ring.rate;
        let len = self.samples.len() as u64;
        let first = current.ring.position() - len;
        let at = SampleTime::from_samples(current.base + first, rate);
        let wall = current
            .clock
            .as_ref()
            .map_or_else(std::time::SystemTime::now, |clock| clock.wall_time(current.base + first));
        Ok(Read::Block { rate, samples: Samples { lost, data: &self.samples }, anchor: WallAnchor { at, wall } })
    }

    /// Takes what the ring holds; the samples lost before it, or `None` where there is nothing.
    fn take(&mut self) -> Option<u64> {
        loop {
            if let Some(current) = &mut self.current
                && let Some(lost) = current.take(&mut self.samples, &mut self.ended, &self.counters)
            {
                return Some(lost);
            }
            // A stream ends when its successor comes: one that hangs in the sound system never says that it is over.
            let ring = self.streams.try_recv().ok()?;
            if let Some(ended) = self.current.take().and_then(|current| current.end()) {
                self.ended = Some(ended);
            }
            self.current = Some(CurrentStream { ring, clock: None, base: 0 });
        }
    }

    fn check_hanging(&self) -> Result<()> {
        let hanging = self.counters.streams_open.load(Ordering::Relaxed);
        if hanging > MAX_HANGING_STREAMS {
            bail!(
                "source {:?}: {hanging} streams hang in the sound system, at most {MAX_HANGING_STREAMS} are allowed; restart clapd, and \
                 see why the sound server keeps dying",
                self.id
            );
        }
        Ok(())
    }
}

impl CurrentStream {
    /// Reads from the ring and keeps the time line: what was lost before the samples, an outage before the stream
    /// included. On a stream with a new rate the time line begins again at zero.
    fn take(
        &mut self,
        samples: &mut Vec<f32>,
        ended: &mut Option<(u32, Instant, u64)>,
        counters: &SourceCounters,
    ) -> Option<u64> {
        let Self { ring, clock, base } = self;
        let (rate, mut inserted) = (ring.rate, 0);
        let lost = ring.read(samples, |position, captured| match clock {
            Some(clock) => inserted += clock.observe(*base + inserted + position, captured),
            None => {
                *clock = Some(match ended.take().filter(|&(old, ..)| old == rate) {
                    Some((_, moment, end)) => {
                        *base = end;
                        inserted = samples_in(captured.saturating_duration_since(moment), rate);
                        StreamClock::resumed(rate, end + inserted + position, captured)
                    }
                    None => StreamClock::new(rate, position, captured),
                });
            }
        })?;
        *base += inserted;
        counters.samples_lost.add(inserted);
        Some(lost + inserted)
    }

    fn end(&self) -> Option<(u32, Instant, u64)> {
        let position = self.base + self.ring.position();
        self.clock.as_ref().map(|clock| (self.ring.rate, clock.instant(position), position))
    }
}

#[cfg(test)]
mod tests;
