//! A stream's thread: it opens a device, reads it, and hands each source its channel.
//!
//! Opening, reading and closing may hang for ever in the sound system (a PulseAudio that is killed does that to ALSA), so nobody waits
//! for this thread without a limit. It tells its watcher what it does by [`StreamReport`]s and a count of blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use anyhow::anyhow;
use clapd_core::channel::Channel;

#[cfg(target_os = "linux")]
use super::alsa_log::AlsaMessages;
use super::channels::ChannelMeter;
use super::input_stream::{self, ChannelNeed, Fetched, InputStream};
use super::rate_meter::{MeasuredRate, RateMeter};
use super::ring::{RingWriter, ring};
use super::shared_device::{SharedDevice, Subscriber};
use super::warnings::WarningKind;

/// Errors without a block between them after which a stream is given up: an overrun or two are recovered from, a dead
/// server's errors come in thousands.
const MAX_ERRORS_IN_A_ROW: u32 = 3;

/// What a stream's thread tells its watcher.
pub(super) enum StreamReport {
    /// It delivers, or is about to.
    Started(String),
    /// It is to be opened again, for more channels.
    Reopen,
    /// It is over.
    Failed(anyhow::Error),
}

/// What watcher and stream share.
#[derive(Debug, Default)]
pub(super) struct StreamControl {
    /// Blocks delivered.
    pub blocks: AtomicU64,
    /// Channels that it has.
    pub channels: AtomicUsize,
    /// Nobody wants it any more.
    pub closing: AtomicBool,
}

/// Runs one stream from its opening to its end.
pub(super) fn run(device: &Arc<SharedDevice>, control: &StreamControl, reports: &SyncSender<StreamReport>) {
    // ALSA's words are kept from the terminal for as long as this thread lives, and are the reasons of its errors.
    #[cfg(target_os = "linux")]
    let mut messages = AlsaMessages::collect();
    let need = device.channel_need();
    #[cfg(target_os = "linux")]
    let opened = input_stream::open(device.name(), need, &mut messages);
    #[cfg(not(target_os = "linux"))]
    let opened = input_stream::open(device.name(), need);
    let opened = opened.and_then(|stream| {
        // Where none of its sources gets what it wants, somebody may plug in another card of this name.
        let wanted = device.subscribers().iter().map(|subscriber| subscriber.channel.min_channels()).min();
        let has = stream.format().channels;
        match wanted {
            Some(wanted) if wanted > has => Err(too_few_channels(device.name(), has, wanted)),
            _ => Ok(stream),
        }
    });
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let _ = reports.send(StreamReport::Failed(error));
            return;
        }
    };
    if reports.send(StreamReport::Started(stream.format().description.clone())).is_err() {
        return;
    }
    control.channels.store(stream.format().channels, Ordering::Relaxed);
    match Delivery::new(device, &stream, need).read_all(&mut stream, control) {
        // A card that is still open can't be opened again.
        Some(StreamReport::Reopen) => {
            drop(stream);
            let _ = reports.send(StreamReport::Reopen);
        }
        // One that has failed may hang when it is closed.
        Some(end) => drop(reports.send(end)),
        None => {}
    }
}

/// From a stream's frames to the sources.
struct Delivery<'a> {
    device: &'a SharedDevice,
    /// Samples a second: as measured, where that is not what the device says.
    rate: u32,
    claimed: u32,
    channels: usize,
    /// What the device was asked for when it was opened.
    need: ChannelNeed,
    feeds: Vec<Feed>,
    /// The subscribers that `feeds` was made for.
    version: u64,
    meter: ChannelMeter,
    rates: RateMeter,
    rate_warning: Option<String>,
}

/// One source's end of the stream.
struct Feed {
    subscriber: Arc<Subscriber>,
    /// None while its reader has no room for another ring.
    writer: Option<RingWriter>,
    /// The channel that it gets: of those it may choose from, the best so far.
    channel: Channel,
}

impl<'a> Delivery<'a> {
    fn new(device: &'a SharedDevice, stream: &InputStream, need: ChannelNeed) -> Self {
        let format = stream.format();
        let (claimed, channels) = (format.rate, format.channels);
        let rate = device.true_rate(claimed).unwrap_or(claimed);
        let (meter, rates) = (ChannelMeter::new(claimed, channels, format.is_wide), RateMeter::new(rate));
        Self {
            device,
            rate,
            claimed,
            channels,
            need,
            feeds: Vec::new(),
            version: 0,
            meter,
            rates,
            rate_warning: rate_warning(claimed, rate),
        }
    }

    /// Reads until nobody wants it any more, or the stream ends; how it ended.
    fn read_all(&mut self, stream: &mut InputStream, control: &StreamControl) -> Option<StreamReport> {
        let (mut frames, mut errors_in_a_row) = (Vec::new(), 0_u32);
        while !control.closing.load(Ordering::Relaxed) {
            if !self.follow_subscribers() {
                return Some(StreamReport::Reopen);
            }
            match stream.read(&mut frames) {
                Ok(Fetched::Sound { captured, lost }) => {
                    errors_in_a_row = 0;
                    self.deliver(captured, lost, &mut frames);
                    control.blocks.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Fetched::Nothing) => {}
                Ok(Fetched::Trouble { errors }) => {
                    errors_in_a_row = errors_in_a_row.saturating_add(errors);
                    self.rates.interrupt();
                    for feed in &self.feeds {
                        feed.subscriber.counters.stream_errors.add(errors.into());
                    }
                }
                Err(error) => return Some(self.failure(&error)),
            }
            if errors_in_a_row >= MAX_ERRORS_IN_A_ROW {
                return Some(self.failure(&anyhow!("it reported {errors_in_a_row} errors and no sound")));
            }
        }
        None
    }

    fn failure(&self, error: &anyhow::Error) -> StreamReport {
        StreamReport::Failed(anyhow!("device {:?}: {error:#}", self.device.name()))
    }

    /// Takes up sources that came and lets go of those that went. False where more channels are wanted than were asked for.
    fn follow_subscribers(&mut self) -> bool {
        let (version, subscribers) = self.device.subscribers_since(self.version);
        if let Some(subscribers) = subscribers {
            self.version = version;
            let need = self.device.channel_need();
            if (need.least > self.need.least && need.least > self.channels) || (need.all && !self.need.all) {
                return false;
            }
            self.feeds.retain(|feed| subscribers.iter().any(|subscriber| Arc::ptr_eq(subscriber, &feed.subscriber)));
            for subscriber in subscribers {
                if !self.feeds.iter().any(|feed| Arc::ptr_eq(&subscriber, &feed.subscriber)) {
                    self.add_feed(subscriber);
                }
            }
            self.show_verdicts();
        }
        let rate = self.rate;
        self.feeds.iter_mut().filter(|feed| feed.writer.is_none()).for_each(|feed| feed.connect(rate));
        true
    }

    fn add_feed(&mut self, subscriber: Arc<Subscriber>) {
        if !subscriber.is_satisfied_by(self.channels) {
            let wanted = subscriber.channel.min_channels();
            subscriber.refuse(&too_few_channels(self.device.name(), self.channels, wanted));
            return;
        }
        let best = Channel::Index(self.meter.best());
        let channel = if subscriber.channel == Channel::Auto { best } else { subscriber.channel };
        self.feeds.push(Feed { subscriber, writer: None, channel });
    }

    fn deliver(&mut self, captured: Instant, lost: u64, frames: &mut [f32]) {
        if lost > 0 {
            self.rates.interrupt();
        }
        let bad = silence_what_is_no_number(frames);
        if let Some(measured) = self.rates.observe(captured, (frames.len() / self.channels) as u64) {
            self.take_rate(measured);
        }
        for Feed { subscriber, writer, channel } in &mut self.feeds {
            subscriber.counters.samples_bad.add(bad);
            let Some(writer) = writer else { continue };
            writer.lose(lost);
            let frames = frames.chunks_exact(self.channels);
            writer.write(captured, frames.map(|frame| channel.pick(frame.iter().copied(), &mut false)));
        }
        if self.meter.push(frames) {
            self.show_verdicts();
        }
    }

    /// A device that runs at another standard rate than the one it is taken at is taken at that from now on: the readers get new rings.
    fn take_rate(&mut self, found: MeasuredRate) {
        if let Some(rate) = found.standard {
            self.device.set_true_rate(self.claimed, rate);
            (self.rate, self.rates) = (rate, RateMeter::new(rate));
            self.rate_warning = rate_warning(self.claimed, rate);
            self.feeds.iter_mut().for_each(|feed| feed.writer = None);
        } else if self.rate_warning.is_none() {
            self.rate_warning = Some(format!(
                "the device says {} Hz and delivers {:.0} samples a second, at which no converter runs: sound is lost or doubled on its \
                 way; try another port or cable",
                self.claimed, found.measured
            ));
        }
        self.show_verdicts();
    }

    /// Tells each source what is wrong with its channels, and moves those that want the best.
    fn show_verdicts(&mut self) {
        let device = self.device.name();
        for feed in &mut self.feeds {
            let subscriber = &feed.subscriber;
            subscriber.warn(WarningKind::Rate, self.rate_warning.as_deref());
            subscriber.warn(WarningKind::Channels, self.meter.warning(subscriber.channel).as_deref());
            let bits = self.meter.is_low_bits().then_some(
                "of its 32 bits only the lower 24 have moved so far: it is 48 dB too quiet, as I2S microphones are with some drivers; raise its \
                 capture volume (alsamixer, F4), or set gain_db = 48.0 (see \"24 bits at the wrong end\" in docs/microphones.md)",
            );
            subscriber.warn(WarningKind::Bits, bits);
            if subscriber.channel == Channel::Auto {
                let best = Channel::Index(self.meter.best());
                if feed.channel != best {
                    log::info!(
                        "source {:?}: channel {} of {device:?} sounds best and is taken",
                        subscriber.id,
                        self.meter.best()
                    );
                    feed.channel = best;
                }
                subscriber.counters.set_channel(self.meter.best());
            }
        }
    }
}

impl Feed {
    /// Gives the source a ring, as soon as it takes one.
    fn connect(&mut self, rate: u32) {
        let (writer, reader) = ring(rate, self.subscriber.counters.clone());
        match self.subscriber.sender.try_send(reader) {
            Ok(()) => self.writer = Some(writer),
            // A reader that is busy for so long gets it later; one that is gone is taken off the list.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Replaces what is NaN or infinite by 0; how many were.
fn silence_what_is_no_number(samples: &mut [f32]) -> u64 {
    let mut bad = 0;
    for sample in samples.iter_mut().filter(|sample| !sample.is_finite()) {
        *sample = 0.0;
        bad += 1;
    }
    bad
}

/// Where a device does not run at the rate that it claims.
fn rate_warning(claimed: u32, rate: u32) -> Option<String> {
    let text =
        || format!("the device says {claimed} Hz and delivers {rate} samples a second; it is taken as {rate} Hz");
    (claimed != rate).then(text)
}

/// For somebody who wants more of a device than it has.
fn too_few_channels(name: &str, has: usize, wanted: usize) -> anyhow::Error {
    anyhow!("device {name:?} has {has} channels, channel {} was asked for (counted from 0); choose another", wanted - 1)
}
