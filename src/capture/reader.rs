//! Files and standard input as a source: a thread that decodes ahead of the reader.
//!
//! Blocks are at most half a second long. Nothing is skipped: where the reader is slow, the thread waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::{Decoder, Faults, RawFormat};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;

use super::Read;
use super::counters::SourceCounters;
use super::source_state::SourceState;
use crate::threads::{joined, panic_if_asked};
use crate::time::{Clocks, WallAnchor};

/// Blocks that may wait for the reader: one being written while one is read keeps both busy.
const MAX_WAITING_BLOCKS: usize = 2;
/// A block's length as fast as possible: long enough to be cheap, short enough that a reader on it stays responsive.
const FAST_BLOCK: Duration = Duration::from_millis(500);
/// A block's length in real time: what a microphone's callback brings.
const LIVE_BLOCK: Duration = Duration::from_millis(100);
/// Blocks that may wait in real time, and that are read as one: 30 s, as many as a device's ring holds.
const MAX_WAITING_LIVE_BLOCKS: usize = 300;

/// What to read, and how.
pub(super) struct InputSpec {
    /// A file, or anything else with a path; none: standard input.
    pub path: Option<PathBuf>,
    /// What standard input carries, where it has no header.
    pub raw: Option<RawFormat>,
    /// Begin again at the end.
    pub looped: bool,
    /// One second a second.
    pub realtime: bool,
}

impl InputSpec {
    fn open(&self, channel: Channel) -> Result<Decoder> {
        match (&self.path, self.raw) {
            (Some(path), _) => Decoder::open(path, channel),
            (None, Some(format)) => Decoder::from_raw(Box::new(std::io::stdin()), format, "standard input", channel),
            (None, None) => Decoder::open("-".as_ref(), channel),
        }
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string())
    }

    /// Whether opening may have to wait for somebody who writes.
    fn may_wait(&self) -> bool {
        let is_special = |path: &PathBuf| path.metadata().is_ok_and(|kind| !kind.is_file() && !kind.is_dir());
        self.path.as_ref().is_none_or(is_special)
    }
}

struct Block {
    rate: u32,
    lost: u64,
    data: Vec<f32>,
    /// In real time, the one that follows should have come by now as well.
    late: bool,
}

impl Block {
    /// What it takes of the time line.
    fn length(&self) -> Duration {
        SampleTime::from_samples(self.lost + self.data.len() as u64, self.rate).since(SampleTime::ZERO)
    }
}

enum Message {
    Block(Block),
    Failed(anyhow::Error),
}

/// The reader's end.
pub(super) struct BlockReader {
    messages: Receiver<Message>,
    /// Blocks go back to the thread to be filled again.
    used: SyncSender<Vec<f32>>,
    block: Block,
    /// What came behind the block and is no part of it.
    next: Option<Message>,
    realtime: bool,
    position: u64,
    /// The time of day at which the sample clock stood at zero; a file is taken to happen from when it is opened. Where the
    /// computer's clock is set meanwhile, it was another time of day.
    began: SystemTime,
    /// The clocks when `began` was last corrected.
    clocks: Clocks,
    counters: Arc<SourceCounters>,
    /// The decoding thread, until its end was seen.
    thread: Option<JoinHandle<()>>,
}

impl BlockReader {
    /// Opens the file, so that its faults are reported at once, and starts to decode. What may have to wait for a writer
    /// (standard input, a pipe) is opened by the thread.
    pub fn start(id: &str, spec: InputSpec, channel: Channel, counters: &Arc<SourceCounters>) -> Result<Self> {
        let first = if spec.may_wait() { None } else { Some(spec.open(channel)?) };
        let (sender, messages) = sync_channel(if spec.realtime { MAX_WAITING_LIVE_BLOCKS } else { MAX_WAITING_BLOCKS });
        let (used, recycled) = sync_channel(MAX_WAITING_BLOCKS + 1);
        let realtime = spec.realtime;
        let thread = DecodeThread {
            spec,
            channel,
            sender,
            recycled,
            counters: counters.clone(),
            began: None,
            sent: Duration::ZERO,
        };
        let thread = thread::Builder::new()
            .name(format!("read-{id}"))
            .spawn(move || thread.run(first))
            .with_context(|| format!("source {id:?}: can't start its thread"))?;
        let block = Block { rate: 0, lost: 0, data: Vec::new(), late: false };
        let (clocks, counters, thread) = (Clocks::now(), counters.clone(), Some(thread));
        let (next, position, began) = (None, 0, clocks.wall);
        Ok(Self { messages, used, block, next, realtime, position, began, clocks, counters, thread })
    }

    pub fn read(&mut self, timeout: Duration) -> Result<Read<'_>> {
        let message = self.next.take().map_or_else(|| self.messages.recv_timeout(timeout), Ok);
        let block = match message {
            Ok(Message::Block(block)) if self.realtime => self.gather(block),
            Ok(Message::Block(block)) => block,
            Ok(Message::Failed(error)) => {
                self.counters.set_state(SourceState::Ended);
                return Err(error);
            }
            Err(RecvTimeoutError::Timeout) => return Ok(Read::Idle),
            Err(RecvTimeoutError::Disconnected) => {
                self.counters.set_state(SourceState::Ended);
                // The thread has dropped its end, so it ends now. A panic is no end of the file.
                if let Some(thread) = self.thread.take() {
                    let name = thread.thread().name().unwrap_or("read").to_owned();
                    joined(&name, thread.join())?;
                }
                return Ok(Read::End);
            }
        };
        self.counters.set_state(SourceState::Live);
        let before = std::mem::replace(&mut self.block, block);
        if before.rate != self.block.rate {
            self.began += SampleTime::from_samples(self.position, before.rate).since(SampleTime::ZERO);
            self.position = 0;
        }
        // Where the thread is gone there is nobody to fill it again.
        let _ = self.used.try_send(before.data);
        self.follow_clock(Clocks::now());
        let Block { rate, lost, data, .. } = &self.block;
        let at = SampleTime::from_samples(self.position + lost, *rate);
        self.position += lost + data.len() as u64;
        let anchor = WallAnchor { at, wall: self.began + at.since(SampleTime::ZERO) };
        Ok(Read::Block { rate: *rate, samples: Samples { lost: *lost, data }, anchor })
    }

    /// Sound stands still while the computer is suspended, and goes on at the time of day at which it wakes up.
    fn follow_clock(&mut self, now: Clocks) {
        if let Some(step) = now.awake_step_since(&self.clocks) {
            (self.began, self.clocks) = (step.correct(self.began), now);
        }
    }

    /// In real time, all that has come meanwhile, as of a device's ring: what is late is scored once, not window by window.
    fn gather(&mut self, mut block: Block) -> Block {
        for _ in 1..MAX_WAITING_LIVE_BLOCKS {
            // The thread needs less than a block's time to decode what is late.
            let next = self.messages.recv_timeout(if block.late { LIVE_BLOCK } else { Duration::ZERO });
            match next {
                Ok(Message::Block(next)) if next.rate == block.rate && next.lost == 0 => {
                    block.data.extend_from_slice(&next.data);
                    block.late = next.late;
                    let _ = self.used.try_send(next.data);
                }
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        block
    }
}

/// The thread's side.
struct DecodeThread {
    spec: InputSpec,
    channel: Channel,
    sender: SyncSender<Message>,
    recycled: Receiver<Vec<f32>>,
    counters: Arc<SourceCounters>,
    began: Option<Instant>,
    /// Sound sent so far, all passes of a loop together.
    sent: Duration,
}

/// The reader was dropped: nobody takes blocks any more.
struct ReaderClosed;

impl DecodeThread {
    fn run(mut self, first: Option<Decoder>) {
        if let Err(error) = self.decode_all(first) {
            let _ = self.sender.send(Message::Failed(error));
        }
    }

    fn decode_all(&mut self, mut opened: Option<Decoder>) -> Result<()> {
        loop {
            let decoder = match opened.take() {
                Some(decoder) => decoder,
                None => self.spec.open(self.channel)?,
            };
            let before = self.sent;
            let Ok(()) = self.decode_once(decoder)? else { return Ok(()) };
            ensure!(self.sent > before, "{}: there is not a single sample in it; record it again", self.spec.name());
            if !self.spec.looped {
                return Ok(());
            }
        }
    }

    /// Sends one file from its beginning to its end.
    fn decode_once(&mut self, mut decoder: Decoder) -> Result<std::result::Result<(), ReaderClosed>> {
        let rate = decoder.rate();
        let length = if self.spec.realtime { LIVE_BLOCK } else { FAST_BLOCK };
        let full = (length.as_secs_f64() * f64::from(rate)) as usize;
        let mut block = self.empty(rate, full);
        let mut reported = Faults::default();
        while let Some(samples) = decoder.next_block()? {
            let mut rest = samples.data;
            if samples.lost > 0 {
                self.counters.samples_lost.add(samples.lost);
                if !block.data.is_empty() {
                    let next = self.empty(rate, full);
                    let Ok(()) = self.send(std::mem::replace(&mut block, next)) else { return Ok(Err(ReaderClosed)) };
                }
                block.lost += samples.lost;
            }
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(full - block.data.len()));
                block.data.extend_from_slice(now);
                rest = later;
                if block.data.len() == full {
                    let next = self.empty(rate, full);
                    let Ok(()) = self.send(std::mem::replace(&mut block, next)) else { return Ok(Err(ReaderClosed)) };
                }
            }
            self.report(&mut reported, decoder.faults());
        }
        self.report(&mut reported, decoder.faults());
        Ok(if block.data.is_empty() { Ok(()) } else { self.send(block) })
    }

    fn empty(&self, rate: u32, full: usize) -> Block {
        let mut data = self.recycled.try_recv().unwrap_or_default();
        data.clear();
        // What was read late as one was long.
        data.shrink_to(full);
        data.reserve(full);
        Block { rate, lost: 0, data, late: false }
    }

    /// Hands a block over; in real time, at the moment at which its last sample would have been captured.
    fn send(&mut self, mut block: Block) -> std::result::Result<(), ReaderClosed> {
        panic_if_asked(thread::current().name().unwrap_or_default());
        let began = *self.began.get_or_insert_with(Instant::now);
        self.sent += block.length();
        if self.spec.realtime {
            thread::sleep(self.sent.saturating_sub(began.elapsed()));
            block.late = began.elapsed() > self.sent + LIVE_BLOCK;
        }
        self.sender.send(Message::Block(block)).map_err(|_| ReaderClosed)
    }

    fn report(&self, reported: &mut Faults, now: Faults) {
        self.counters.samples_bad.add(now.samples_bad - reported.samples_bad);
        self.counters.packets_bad.add(now.packets_bad - reported.packets_bad);
        if now.truncated && !reported.truncated {
            log::warn!("{}: shorter than its header says; what is there is used", self.spec.name());
        }
        if now.divided_by > reported.divided_by {
            log::warn!("{}: floats beyond full scale; they are divided by {}", self.spec.name(), now.divided_by);
        }
        *reported = now;
    }
}
