//! A source that somebody else sends: a stream in the network, or raw samples of a program on this computer.
//!
//! A thread connects, decodes and writes into a ring; where the connection breaks, stalls or can't be made, the thread tries
//! again for ever. Its sound comes from strangers: a panic in what reads it ends the connection, and no more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clapd_core::channel::Channel;

use super::counters::{DeviceFailure, SourceCounters};
use super::device_source::DeviceSource;
use super::live_writer::LiveWriter;
use super::source_state::SourceState;
use super::stream_url::{Scheme, StreamUrl};
use super::{ListenSpec, Read, http, listen, rtsp};
use crate::backoff::{Backoff, random_time};
use crate::counter::Counter;
use crate::threads::{joined, panic_if_asked};

/// Without a sample for so long a source is stalled: a page of ogg takes a second to fill, radio links pause for one or two.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Without a sample for so long a connection is given up: TCP has by then repeated a lost packet some five times, and a camera that
/// restarts has forgotten us.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(10);
/// The wait before the first attempt to connect again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: a camera takes a minute to start, and a server of strangers is not to be asked more often.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The wait after a refused password: cameras lock out who tries some five wrong ones within minutes.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
/// A connection that has delivered for so long was healthy: the next wait begins at the shortest again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Room for new rings that the reader has not taken yet; while there is none the writer waits.
const MAX_WAITING_STREAMS: usize = 2;

/// How RTP packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Within the connection of RTSP: nothing is lost on the way.
    #[default]
    Tcp,
    /// On their own: for cameras that want it.
    Udp,
}

/// Who asks for a stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// As the server knows it.
    pub user: String,
    /// In clear.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({:?}, ..)", self.user)
    }
}

/// A stream in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Where it is.
    pub url: StreamUrl,
    /// Who asks for it, where the server wants to know.
    pub credentials: Option<Credentials>,
    /// For RTSP.
    pub transport: Transport,
}

/// What a live source comes from.
pub(super) enum LiveOrigin {
    Stream(StreamSpec),
    Program(ListenSpec),
}

/// Marks an error after which the same request is not to be repeated soon.
#[derive(Debug)]
pub(super) struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("user or password are refused; set `user` and `password_file`")
    }
}

impl std::error::Error for Refused {}

/// How a connection ended that did not fail.
pub(super) enum Ended {
    /// It was a recording, and it is over.
    Recording,
    /// Nobody wants the source any more.
    Stopped,
}

/// The reader's end.
pub(super) struct LiveSource {
    reader: DeviceSource,
    counters: Arc<SourceCounters>,
    ended: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// When sound last came.
    last_sound: Instant,
    /// None once it was joined.
    thread: Option<JoinHandle<()>>,
}

impl LiveSource {
    pub fn start(id: &str, origin: LiveOrigin, channel: Channel, counters: &Arc<SourceCounters>) -> Result<Self> {
        let (sender, rings) = sync_channel(MAX_WAITING_STREAMS);
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let writer = LiveWriter::new(sender, Arc::clone(counters), Arc::clone(&stop));
        let thread = LiveThread {
            id: id.to_owned(),
            origin,
            channel,
            writer,
            ended: Arc::clone(&ended),
            failures: Counter::default(),
        };
        let thread = thread::Builder::new()
            .name(thread_name(id))
            .spawn(move || thread.run())
            .with_context(|| format!("source {id:?}: can't start its thread"))?;
        let reader = DeviceSource::of_rings(id, rings, counters);
        Ok(Self {
            reader,
            counters: Arc::clone(counters),
            ended,
            stop,
            last_sound: Instant::now(),
            thread: Some(thread),
        })
    }

    pub fn read(&mut self, timeout: Duration) -> Result<Read<'_>> {
        // What was written before the end was said, or before the thread ended in any way, is read before it.
        let ended = self.ended.load(Ordering::Acquire);
        let thread = self.thread.take_if(|thread| thread.is_finished());
        if let Some(thread) = thread {
            joined(&thread_name(self.reader.id()), thread.join())?;
        }
        let read = self.reader.read(timeout)?;
        if !matches!(read, Read::Idle) {
            self.last_sound = Instant::now();
        } else if ended {
            self.counters.set_state(SourceState::Ended);
            return Ok(Read::End);
        } else if self.last_sound.elapsed() >= STALLED_AFTER && self.counters.state().is_flowing() {
            self.counters.set_state(SourceState::Stalled);
        }
        Ok(read)
    }
}

impl Drop for LiveSource {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn thread_name(id: &str) -> String {
    format!("live-{id}")
}

/// The thread that connects again and again.
struct LiveThread {
    id: String,
    origin: LiveOrigin,
    channel: Channel,
    writer: LiveWriter,
    ended: Arc<AtomicBool>,
    failures: Counter,
}

impl LiveThread {
    fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        while !self.writer.is_stopped() {
            let error = match self.receive() {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Recording) => {
                    log::info!("source {:?}: the recording is over", self.id);
                    self.ended.store(true, Ordering::Release);
                    return;
                }
                Err(error) => error,
            };
            panic_if_asked(&thread_name(&self.id));
            if self.writer.is_stopped() {
                return;
            }
            let flowed = self.writer.flowing_for();
            self.writer.end_stream();
            self.writer.counters().set_state(SourceState::Lost);
            let failure = DeviceFailure { reason: format!("{error:#}"), is_busy: false };
            self.writer.counters().set_failure(failure);
            let refused = error.is::<Refused>();
            if let Some(times) = self.failures.add(1) {
                log::warn!("source {:?}: {error:#}; trying again (trouble {times})", self.id);
            }
            if flowed >= HEALTHY_AFTER {
                backoff.reset();
            }
            // Jitter of a quarter either way: sources that lost the same server do not return to it in step.
            let wait = if refused { REFUSED_WAIT } else { backoff.fail() };
            self.writer.sleep(random_time(wait.mul_f64(0.75), wait.mul_f64(1.25)));
            self.writer.counters().reopens.add(1);
        }
    }

    /// Connects and receives until the connection is over.
    fn receive(&mut self) -> Result<Ended> {
        let Self { id, origin, channel, writer, .. } = self;
        let work = AssertUnwindSafe(|| match origin {
            LiveOrigin::Program(spec) => listen::receive(id, spec, *channel, writer),
            LiveOrigin::Stream(spec) => {
                let received = match spec.url.scheme {
                    Scheme::Rtsp => rtsp::receive(id, spec, *channel, writer),
                    Scheme::Http | Scheme::Https => http::receive(id, spec, *channel, writer),
                };
                received.with_context(|| spec.url.to_string())
            }
        });
        catch_unwind(work)
            .unwrap_or_else(|_| Err(anyhow!("what it sends makes the decoder panic, which is a fault in it")))
    }
}
