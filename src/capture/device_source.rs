//! A device as a source: opened, watched, given up, waited for, opened again, on one time line that outages are part
//! of.
//!
//! Nothing here waits for the sound system without a limit. Opening and closing a stream may hang for ever (a
//! PulseAudio that is killed does that to ALSA), so each stream lives and dies on a thread of its own that is abandoned
//! where it hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;

use super::alsa_log::log_alsa_messages;
use super::clock::{StreamClock, samples_in};
use super::counters::{DeviceFailure, SourceCounters};
use super::device::{self, StreamHealth};
use super::ring::RingReader;
use super::source_state::SourceState;
use super::{Channel, Read};
use crate::backoff::{Backoff, random_time};
use crate::counter::Counter;
use crate::threads::{joined, panic_if_asked};
use crate::time::WallAnchor;

/// How often the watcher reads a stream's counters. A dead server's error flood burns a core for as long.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Opening takes milliseconds, with a sound server that has to start a second or two.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The first samples take up to 1.7 s through a sound server; three times that is silence of the wrong kind.
const FIRST_BLOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// A running stream brings a block every 0.1 s. Thirty that fail to come are no hiccup.
const NEXT_BLOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// Samples without a break after which a device that was away is relied on again: longer than a stream takes to die in which a sound
/// server only promised to deliver, shorter than anybody waits.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);
/// Errors without a block between them after which a stream is given up: an overrun or two are recovered from, a dead
/// server's errors come in thousands.
const MAX_ERRORS_IN_A_ROW: u32 = 3;
/// The wait before the first attempt to open again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait: a device that returns is heard within some 5 s.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A stream that has lived for so long was healthy: the next wait begins at the shortest again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Streams of one source that may hang in the sound system at once. Each costs three threads and some hundred KB; a
/// server that dies eight times in a process's life has an owner who should look, and a new process starts clean. Sixteen
/// sources at this bound stay within the unit's TasksMax and the 1,024 descriptors that a process has (seven a stream).
const MAX_HANGING_STREAMS: u64 = 8;
/// How long a reader sleeps before it reads the ring again: a fifth of a block.
const READER_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Room for new streams that the reader has not taken yet; while there is none the watcher waits.
const MAX_WAITING_STREAMS: usize = 2;

/// The reader's end of a device.
pub(super) struct DeviceSource {
    streams: Receiver<RingReader>,
    current: Option<CurrentStream>,
    /// Where the last stream ended: its rate, the moment, and the position on the time line.
    ended: Option<(u32, Instant, u64)>,
    samples: Vec<f32>,
    counters: Arc<SourceCounters>,
    id: String,
    stop: Arc<AtomicBool>,
    /// The watcher's thread, until its end was seen.
    watcher: Option<JoinHandle<()>>,
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
        let (sender, streams) = sync_channel(MAX_WAITING_STREAMS);
        let stop = Arc::new(AtomicBool::new(false));
        if device::is_index(name) {
            log::warn!("source {id:?}: {name:?} counts cards, which change places; `clapd devices` lists stable names");
        }
        let watcher = DeviceWatcher {
            id: id.to_owned(),
            name: name.to_owned(),
            channel,
            counters: counters.clone(),
            stop: stop.clone(),
            sender,
            failures: Counter::default(),
        };
        let watcher = thread::Builder::new()
            .name(watcher_name(id))
            .spawn(move || watcher.run())
            .with_context(|| format!("source {id:?}: can't start its thread"))?;
        let (id, counters) = (id.to_owned(), counters.clone());
        let watcher = Some(watcher);
        Ok(Self { streams, current: None, ended: None, samples: Vec::new(), counters, id, stop, watcher })
    }

    /// What comes from elsewhere than a device: each ring is a connection, and between two of them is an outage.
    pub fn of_rings(id: &str, streams: Receiver<RingReader>, counters: &Arc<SourceCounters>) -> Self {
        let (id, counters) = (id.to_owned(), counters.clone());
        Self {
            streams,
            current: None,
            ended: None,
            samples: Vec::new(),
            counters,
            id,
            stop: Arc::default(),
            watcher: None,
        }
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
                self.check_watcher()?;
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

    /// Without its watcher a device that is lost stays lost.
    fn check_watcher(&mut self) -> Result<()> {
        let Some(watcher) = self.watcher.take_if(|watcher| watcher.is_finished()) else { return Ok(()) };
        let name = watcher_name(&self.id);
        joined(&name, watcher.join())?;
        bail!("thread {name} ended, which is a fault in clapd")
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

impl Drop for DeviceSource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
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

/// The thread that opens a device's streams, watches them and gives them up.
struct DeviceWatcher {
    id: String,
    name: String,
    channel: Channel,
    counters: Arc<SourceCounters>,
    stop: Arc<AtomicBool>,
    sender: SyncSender<RingReader>,
    failures: Counter,
}

/// Why a stream was given up, and where that leaves its source until samples come again.
struct StreamFailure {
    state: SourceState,
    reason: anyhow::Error,
}

/// The device is away, or says that it is.
fn lost(reason: anyhow::Error) -> StreamFailure {
    StreamFailure { state: SourceState::Lost, reason }
}

/// The device is there, and nothing comes of it.
fn stalled(reason: anyhow::Error) -> StreamFailure {
    StreamFailure { state: SourceState::Stalled, reason }
}

/// The state of a source in `before` whose samples have been coming for so long.
pub(super) fn state_of_flow(before: SourceState, since: Duration) -> SourceState {
    let troubled = matches!(before, SourceState::Lost | SourceState::Stalled | SourceState::Recovering);
    if troubled && since < RECOVERED_AFTER { SourceState::Recovering } else { SourceState::Live }
}

/// What the stream's own thread sends the watcher.
type Started = Result<(RingReader, Arc<StreamHealth>, String)>;

impl DeviceWatcher {
    fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        while !self.is_stopped() {
            panic_if_asked(&watcher_name(&self.id));
            let began = Instant::now();
            let StreamFailure { state, reason } = self.run_stream();
            if self.is_stopped() {
                return;
            }
            let failure = DeviceFailure { reason: format!("{reason:#}"), is_busy: device::is_busy(&reason) };
            self.counters.set_failure(failure);
            self.counters.set_state(state);
            if let Some(times) = self.failures.add(1) {
                log::warn!("source {:?}: {reason:#}; trying again (trouble {times})", self.id);
            }
            if began.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
            }
            // Jitter of a quarter either way: sources that lost the same server do not return to it in step.
            let wait = backoff.fail();
            self.sleep(random_time(wait.mul_f64(0.75), wait.mul_f64(1.25)));
            self.counters.reopens.add(1);
        }
    }

    /// Opens the device and watches it until it is given up; why it was.
    fn run_stream(&mut self) -> StreamFailure {
        if self.counters.streams_open.load(Ordering::Relaxed) > MAX_HANGING_STREAMS {
            return stalled(anyhow!("too many streams hang in the sound system"));
        }
        let (opened, _close) = match self.spawn_stream() {
            Ok(handles) => handles,
            Err(error) => return lost(error),
        };
        let (ring, health, description) = match opened.recv_timeout(OPEN_TIMEOUT) {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => return lost(error),
            Err(RecvTimeoutError::Timeout) => {
                return stalled(anyhow!("opening {:?} hangs in the sound system", self.name));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return lost(anyhow!("opening {:?} failed in the sound system", self.name));
            }
        };
        if self.sender.send(ring).is_err() {
            return lost(anyhow!("the source is closed"));
        }
        self.watch(&health, &description)
    }

    /// Starts the thread that holds one stream: it opens, waits until its `close` end is dropped, and closes.
    fn spawn_stream(&self) -> Result<(Receiver<Started>, SyncSender<()>)> {
        let (result, opened) = sync_channel(1);
        let (close, closing) = sync_channel::<()>(0);
        let (name, channel, counters) = (self.name.clone(), self.channel, self.counters.clone());
        counters.streams_open.fetch_add(1, Ordering::Relaxed);
        let open_stream = OpenStream(counters.clone());
        thread::Builder::new()
            .name(format!("stream-{}", self.id))
            .spawn(move || {
                let _open_stream = open_stream;
                match log_alsa_messages(|| device::open(&name, channel, &counters)) {
                    Ok(opened) => {
                        let started = (opened.samples, opened.health, opened.description);
                        if result.send(Ok(started)).is_ok() {
                            let _ = closing.recv();
                        }
                        drop(opened.stream);
                    }
                    Err(error) => drop(result.send(Err(error))),
                }
            })
            .context("can't start a thread for the stream")?;
        Ok((opened, close))
    }

    fn watch(&mut self, health: &StreamHealth, description: &str) -> StreamFailure {
        let (mut blocks, mut since, mut first) = (0, Instant::now(), None);
        while !self.is_stopped() {
            panic_if_asked(&watcher_name(&self.id));
            thread::sleep(POLL_INTERVAL);
            let now = health.blocks.load(Ordering::Relaxed);
            if now > 0 && first.is_none() {
                log::info!("source {:?}: listening to {:?} ({description})", self.id, self.name);
                first = Some(Instant::now());
            }
            if let Some(first) = first {
                self.counters.set_state(state_of_flow(self.counters.state(), first.elapsed()));
            }
            if now != blocks {
                (blocks, since) = (now, Instant::now());
            }
            let errors = health.errors_since_block.load(Ordering::Relaxed);
            if health.is_removed.load(Ordering::Relaxed) {
                return lost(anyhow!("device {:?} is gone", self.name));
            }
            if errors >= MAX_ERRORS_IN_A_ROW {
                return lost(anyhow!("device {:?} reported {errors} errors and no sound", self.name));
            }
            let limit = if blocks == 0 { FIRST_BLOCK_TIMEOUT } else { NEXT_BLOCK_TIMEOUT };
            if since.elapsed() >= limit {
                return stalled(anyhow!("device {:?} has delivered nothing for {} s", self.name, limit.as_secs()));
            }
        }
        lost(anyhow!("the source is closed"))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but not past a stop.
    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.is_stopped() && Instant::now() < until {
            thread::sleep(POLL_INTERVAL.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// Counts a stream's thread for as long as it lives.
struct OpenStream(Arc<SourceCounters>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The name of the thread that watches the device of the source with this id.
fn watcher_name(id: &str) -> String {
    format!("watch-{id}")
}

#[cfg(test)]
mod tests;
