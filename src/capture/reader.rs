//! Files and standard input as a source: a thread that decodes ahead of the reader.
//!
//! In: a [`Plan`]. Out: blocks of at most half a second, with position and anchor.
//! Never: nothing is skipped: where the reader is slow, the thread waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::{Decoder, Faults};
use clapd_core::samples::Samples;
use clapd_core::time::SampleTime;

use super::Read;
use super::counters::{SourceCounters, add};
use super::state::State;
use crate::time::{Clocks, WallAnchor};

/// Blocks that may wait for the reader: one being written while one is read keeps both busy.
const AHEAD: usize = 2;
/// A block's length as fast as possible: long enough to be cheap, short enough that a reader on it stays responsive.
const FAST_BLOCK: Duration = Duration::from_millis(500);
/// A block's length in real time: what a microphone's callback brings.
const LIVE_BLOCK: Duration = Duration::from_millis(100);
/// Blocks that may wait in real time, and that are read as one: 30 s, as many as a device's ring holds.
const LIVE_AHEAD: usize = 300;

/// Where the bytes come from.
pub(super) enum Origin {
    /// A file, or anything else with a path.
    File(PathBuf),
    /// Wav on standard input.
    Stdin,
}

/// What to do with them.
pub(super) struct Plan {
    /// Where the bytes come from.
    pub origin: Origin,
    /// Begin again at the end.
    pub looped: bool,
    /// One second a second.
    pub realtime: bool,
}

impl Plan {
    fn open(&self, channel: Channel) -> Result<Decoder> {
        match &self.origin {
            Origin::File(path) => Decoder::open(path, channel),
            Origin::Stdin => Decoder::open("-".as_ref(), channel),
        }
    }

    fn name(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::Stdin => "standard input".to_owned(),
        }
    }

    /// Whether opening may have to wait for somebody who writes.
    fn may_wait(&self) -> bool {
        match &self.origin {
            Origin::File(path) => path.metadata().is_ok_and(|kind| !kind.is_file() && !kind.is_dir()),
            Origin::Stdin => true,
        }
    }
}

struct Block {
    rate: u32,
    lost: u64,
    data: Vec<f32>,
    /// In real time, the one that follows should have been heard by now as well.
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
pub(super) struct Reader {
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
    /// When that was looked at.
    clocks: Clocks,
    counters: Arc<SourceCounters>,
}

impl Reader {
    /// Opens the file, so that its faults are told at once, and starts to decode. What may have to wait for a writer
    /// (standard input, a pipe) is opened by the thread.
    pub fn start(id: &str, plan: Plan, channel: Channel, counters: &Arc<SourceCounters>) -> Result<Self> {
        let first = if plan.may_wait() { None } else { Some(plan.open(channel)?) };
        let (sender, messages) = sync_channel(if plan.realtime { LIVE_AHEAD } else { AHEAD });
        let (used, recycled) = sync_channel(AHEAD + 1);
        let realtime = plan.realtime;
        let feeder =
            Feeder { plan, channel, sender, recycled, counters: counters.clone(), began: None, sent: Duration::ZERO };
        thread::Builder::new()
            .name(format!("read-{id}"))
            .spawn(move || feeder.run(first))
            .with_context(|| format!("source {id:?}: can't start its thread"))?;
        let block = Block { rate: 0, lost: 0, data: Vec::new(), late: false };
        let (clocks, counters) = (Clocks::now(), counters.clone());
        Ok(Self { messages, used, block, next: None, realtime, position: 0, began: clocks.wall, clocks, counters })
    }

    pub fn read(&mut self, timeout: Duration) -> Result<Read<'_>> {
        let message = self.next.take().map_or_else(|| self.messages.recv_timeout(timeout), Ok);
        let block = match message {
            Ok(Message::Block(block)) if self.realtime => self.gathered(block),
            Ok(Message::Block(block)) => block,
            Ok(Message::Failed(error)) => {
                self.counters.set_state(State::Ended);
                return Err(error);
            }
            Err(RecvTimeoutError::Timeout) => return Ok(Read::Idle),
            Err(RecvTimeoutError::Disconnected) => {
                self.counters.set_state(State::Ended);
                return Ok(Read::End);
            }
        };
        self.counters.set_state(State::Live);
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

    fn follow_clock(&mut self, now: Clocks) {
        if let Some(step) = now.step_since(&self.clocks) {
            (self.began, self.clocks) = (step.correct(self.began), now);
        }
    }
}

impl Reader {
    /// In real time, all that has come meanwhile, as of a device's ring: what is late is scored once, not window by window.
    fn gathered(&mut self, mut block: Block) -> Block {
        for _ in 1..LIVE_AHEAD {
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
struct Feeder {
    plan: Plan,
    channel: Channel,
    sender: SyncSender<Message>,
    recycled: Receiver<Vec<f32>>,
    counters: Arc<SourceCounters>,
    began: Option<Instant>,
    /// Sound sent so far, all passes of a loop together.
    sent: Duration,
}

/// The reader has gone: nobody listens any more.
struct Gone;

impl Feeder {
    fn run(mut self, first: Option<Decoder>) {
        if let Err(error) = self.passes(first) {
            let _ = self.sender.send(Message::Failed(error));
        }
    }

    fn passes(&mut self, mut opened: Option<Decoder>) -> Result<()> {
        loop {
            let decoder = match opened.take() {
                Some(decoder) => decoder,
                None => self.plan.open(self.channel)?,
            };
            let before = self.sent;
            let Ok(()) = self.pass(decoder)? else { return Ok(()) };
            ensure!(self.sent > before, "{}: there is not a single sample in it; record it again", self.plan.name());
            if !self.plan.looped {
                return Ok(());
            }
        }
    }

    /// Sends one file from its beginning to its end.
    fn pass(&mut self, mut decoder: Decoder) -> Result<std::result::Result<(), Gone>> {
        let rate = decoder.rate();
        let length = if self.plan.realtime { LIVE_BLOCK } else { FAST_BLOCK };
        let full = (length.as_secs_f64() * f64::from(rate)) as usize;
        let mut block = self.empty(rate, full);
        let mut told = Faults::default();
        while let Some(samples) = decoder.next_block()? {
            let mut rest = samples.data;
            if samples.lost > 0 {
                add(&self.counters.samples_lost, samples.lost);
                if !block.data.is_empty() {
                    let next = self.empty(rate, full);
                    let Ok(()) = self.send(std::mem::replace(&mut block, next)) else { return Ok(Err(Gone)) };
                }
                block.lost += samples.lost;
            }
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(full - block.data.len()));
                block.data.extend_from_slice(now);
                rest = later;
                if block.data.len() == full {
                    let next = self.empty(rate, full);
                    let Ok(()) = self.send(std::mem::replace(&mut block, next)) else { return Ok(Err(Gone)) };
                }
            }
            self.tell(&mut told, decoder.faults());
        }
        self.tell(&mut told, decoder.faults());
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

    /// Hands a block over; in real time, at the moment at which its last sample would have been heard.
    fn send(&mut self, mut block: Block) -> std::result::Result<(), Gone> {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.sent += block.length();
        if self.plan.realtime {
            thread::sleep(self.sent.saturating_sub(began.elapsed()));
            block.late = began.elapsed() > self.sent + LIVE_BLOCK;
        }
        self.sender.send(Message::Block(block)).map_err(|_| Gone)
    }

    fn tell(&self, told: &mut Faults, now: Faults) {
        add(&self.counters.samples_bad, now.samples_bad - told.samples_bad);
        add(&self.counters.packets_bad, now.packets_bad - told.packets_bad);
        if now.truncated && !told.truncated {
            log::warn!("{}: shorter than its header says; what is there is used", self.plan.name());
        }
        *told = now;
    }
}
