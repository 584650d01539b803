//! From a connection's sound to the ring that its source reads: the time line, the pace and the state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::arrival_clock::ArrivalClock;
use super::counters::SourceCounters;
use super::ring::{RingReader, RingWriter, ring};
use super::source_state::state_of_flow;

/// How often whoever waits looks whether the source is still wanted.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How far a live stream may run ahead of the clock before whoever sends it is made to wait: what was late by as much as a
/// connection is waited for is taken at once, and the ring of 30 s does not overflow.
const MAX_AHEAD: Duration = Duration::from_secs(10);
/// So much faster than time is in time: a sender's clock is off by less than a tenth of that, and must not be held back for it.
const SLACK: f64 = 0.01;

/// Writes what a source's connections deliver.
pub(super) struct LiveWriter {
    rings: SyncSender<RingReader>,
    counters: Arc<SourceCounters>,
    stop: Arc<AtomicBool>,
    stream: Option<Stream>,
    max_ahead: Duration,
}

/// What came without a break, at one rate.
struct Stream {
    rate: u32,
    ring: RingWriter,
    clock: ArrivalClock,
    began: Instant,
    /// Samples written and samples lost.
    position: u64,
    /// How far its sound runs ahead of the clock, in seconds, as of this moment.
    ahead: (f64, Instant),
}

impl LiveWriter {
    pub fn new(rings: SyncSender<RingReader>, counters: Arc<SourceCounters>, stop: Arc<AtomicBool>) -> Self {
        Self { rings, counters, stop, stream: None, max_ahead: MAX_AHEAD }
    }

    pub fn counters(&self) -> &SourceCounters {
        &self.counters
    }

    /// Set once nobody wants the source any more.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Whether nobody wants the source any more.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but not past a stop.
    pub fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.is_stopped() && Instant::now() < until {
            thread::sleep(POLL_INTERVAL.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Makes whoever sends wait where sound runs ahead by more than this: what comes all at once is not to be scored at once.
    pub fn hold_back(&mut self, max_ahead: Duration) {
        self.max_ahead = max_ahead;
    }

    /// The connection is over: what comes next comes after an outage.
    pub fn end_stream(&mut self) {
        (self.stream, self.max_ahead) = (None, MAX_AHEAD);
    }

    /// For how long sound has come without a break.
    pub fn flowing_for(&self) -> Duration {
        self.stream.as_ref().map_or(Duration::ZERO, |stream| stream.began.elapsed())
    }

    /// Writes samples that have just arrived, with `lost` samples missing before them. Waits where they run ahead of time.
    ///
    /// # Errors
    /// The source is closed.
    pub fn write(&mut self, rate: u32, lost: u64, samples: &[f32]) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        if self.stream.as_ref().is_none_or(|stream| stream.rate != rate) {
            self.begin_stream(rate)?;
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let (arrived, len) = (Instant::now(), samples.len() as u64);
        // What was lost before the first samples nobody has missed.
        let lost = if stream.position == 0 { 0 } else { lost };
        let gap = lost + stream.clock.observe(stream.position + lost + len, arrived);
        stream.ring.lose(gap);
        stream.position += gap;
        stream.ring.write(stream.clock.captured(stream.position), samples.iter().copied());
        stream.position += len;
        self.counters.set_state(state_of_flow(self.counters.state(), stream.began.elapsed()));
        let (ahead, since) = stream.ahead;
        let passed = arrived.saturating_duration_since(since).as_secs_f64();
        let ahead = (ahead - passed * (1.0 + SLACK)).max(0.0) + len as f64 / f64::from(rate);
        stream.ahead = (ahead, arrived);
        self.sleep(Duration::from_secs_f64(ahead).saturating_sub(self.max_ahead));
        if self.is_stopped() {
            bail!("the source is closed");
        }
        Ok(())
    }

    fn begin_stream(&mut self, rate: u32) -> Result<()> {
        let (writer, mut reader) = ring(rate, Arc::clone(&self.counters));
        while let Err(refused) = self.rings.try_send(reader) {
            let TrySendError::Full(returned) = refused else { bail!("the source is closed") };
            reader = returned;
            self.sleep(POLL_INTERVAL);
            if self.is_stopped() {
                bail!("the source is closed");
            }
        }
        let clock = ArrivalClock::new(rate);
        let began = Instant::now();
        self.stream = Some(Stream { rate, ring: writer, clock, began, position: 0, ahead: (0.0, began) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn what_was_lost_is_in_the_time_line_and_another_rate_is_another_stream() {
        let (sender, rings) = sync_channel(2);
        let counters = Arc::new(SourceCounters::default());
        let mut writer = LiveWriter::new(sender, Arc::clone(&counters), Arc::default());
        writer.write(8_000, 99, &[0.1; 80]).unwrap();
        writer.write(8_000, 40, &[0.2; 80]).unwrap();
        writer.write(16_000, 0, &[0.3; 80]).unwrap();
        let (mut first, mut second, mut out) = (rings.try_recv().unwrap(), rings.try_recv().unwrap(), Vec::new());
        let mut read = |ring: &mut RingReader| (ring.read(&mut out, |_, _| ()), ring.position());
        assert_eq!(read(&mut first), (Some(0), 80));
        assert_eq!(read(&mut first), (Some(40), 200));
        assert_eq!((second.rate, read(&mut second)), (16_000, (Some(0), 80)));
        assert_eq!(counters.samples_lost.get(), 40);
    }

    #[test]
    fn a_closed_source_is_an_error() {
        let (sender, rings) = sync_channel(2);
        let mut writer = LiveWriter::new(sender, Arc::default(), Arc::default());
        drop(rings);
        assert!(writer.write(8_000, 0, &[0.0; 80]).is_err());
    }
}
