//! A device that is opened once for all sources that take a channel of it: opened, watched, given up, waited for, opened again.
//!
//! A card can be opened by one at a time, so sources of one device share its stream; which devices are shared is known for the whole
//! process. Nothing here waits for the sound system without a limit: opening and closing a stream may hang for ever, so each stream lives
//! and dies on a thread of its own that is abandoned where it hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clapd_core::channel::Channel;

use super::card_name::device_key;
use super::counters::{DeviceFailure, SourceCounters};
use super::input_stream::{ChannelNeed, is_busy};
use super::ring::RingReader;
use super::source_state::{SourceState, state_of_flow};
use super::stream::{self, StreamControl, StreamReport};
use super::warnings::WarningKind;
use crate::backoff::{Backoff, random_time};
use crate::counter::Counter;
use crate::threads::{joined, panic_if_asked};

/// How often the watcher looks at a stream.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Opening takes milliseconds, with a sound server that has to start a second or two.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The first samples take up to 1.7 s through a sound server; three times that is silence of the wrong kind.
const FIRST_BLOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// A running stream brings a block every 0.1 s. Thirty that fail to come are no hiccup.
const NEXT_BLOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// The wait before the first attempt to open again.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait: a device that returns is heard within some 5 s.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A stream that has lived for so long was healthy: the next wait begins at the shortest again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Streams of one device that may hang in the sound system at once. Each costs three threads and some hundred KB; a
/// server that dies eight times in a process's life has an owner who should look, and a new process starts clean. Sixteen
/// devices at this bound stay within the unit's TasksMax and the 1,024 descriptors that a process has (seven a stream).
pub(super) const MAX_HANGING_STREAMS: u64 = 8;
/// Room for new streams that a reader has not taken yet; a stream that finds none tries again with its next block.
pub(super) const MAX_WAITING_STREAMS: usize = 2;

/// The devices that are in use now. A card is the machine's, so what shares it is the process's.
static DEVICES: Mutex<Vec<Arc<SharedDevice>>> = Mutex::new(Vec::new());

/// A device and who listens to it.
#[derive(Debug)]
pub(super) struct SharedDevice {
    /// The same for every name that it has.
    key: String,
    name: String,
    subscribers: Mutex<Subscribers>,
    /// The rate that it says, and the one that was measured.
    true_rate: Mutex<Option<(u32, u32)>>,
    streams_open: AtomicU64,
    /// The watcher's name, and its thread until its end was seen.
    watcher_name: String,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Subscribers {
    all: Vec<Arc<Subscriber>>,
    /// Grows with each change.
    version: u64,
}

/// A source that listens to a device.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The source's.
    pub id: String,
    /// What it takes.
    pub channel: Channel,
    /// Its counters.
    pub counters: Arc<SourceCounters>,
    /// Where its reader waits for new streams.
    pub sender: SyncSender<RingReader>,
    /// Times that the device had too few channels for it.
    refusals: Counter,
}

/// For as long as it lives, its source is among those of its device.
pub(super) struct Subscription {
    device: Arc<SharedDevice>,
    subscriber: Arc<Subscriber>,
}

/// Makes a source one of those that listen to the device `name`; its streams come out of the receiver.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn subscribe(
    id: &str,
    name: &str,
    channel: Channel,
    counters: &Arc<SourceCounters>,
) -> Result<(Subscription, Receiver<RingReader>)> {
    let (sender, streams) = sync_channel(MAX_WAITING_STREAMS);
    let (id, counters) = (id.to_owned(), Arc::clone(counters));
    let subscriber = Arc::new(Subscriber { id, channel, counters, sender, refusals: Counter::default() });
    let key = device_key(name);
    let mut devices = lock(&DEVICES);
    let known = devices.iter().find(|device| device.key == key).cloned();
    let watcher_name = format!("watch-{}", subscriber.id);
    let device = known.clone().unwrap_or_else(|| Arc::new(SharedDevice::new(key, name, watcher_name)));
    device.add(Arc::clone(&subscriber));
    if known.is_none() {
        let watcher = DeviceWatcher { device: Arc::clone(&device), failures: Counter::default() };
        let thread = thread::Builder::new()
            .name(device.watcher_name.clone())
            .spawn(move || watcher.run())
            .with_context(|| format!("source {:?}: can't start its thread", subscriber.id))?;
        *lock(&device.watcher) = Some(thread);
        devices.push(Arc::clone(&device));
    }
    Ok((Subscription { device, subscriber }, streams))
}

impl Subscription {
    /// Without its watcher a device that is lost stays lost.
    ///
    /// # Errors
    /// The watcher panicked, or ended otherwise.
    pub fn check_watcher(&self) -> Result<()> {
        let name = &self.device.watcher_name;
        let Some(watcher) = lock(&self.device.watcher).take_if(|watcher| watcher.is_finished()) else { return Ok(()) };
        joined(name, watcher.join())?;
        bail!("thread {name} ended, which is a fault in clapd")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.device.change(|all| all.retain(|subscriber| !Arc::ptr_eq(subscriber, &self.subscriber)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedDevice {
    fn new(key: String, name: &str, watcher_name: String) -> Self {
        let (subscribers, true_rate, streams_open, watcher) = Default::default();
        Self { key, name: name.to_owned(), subscribers, true_rate, streams_open, watcher_name, watcher }
    }

    /// As it is configured by the source that came first.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Subscriber>>)) {
        let mut subscribers = lock(&self.subscribers);
        change(&mut subscribers.all);
        subscribers.version += 1;
    }

    fn add(&self, subscriber: Arc<Subscriber>) {
        subscriber.counters.streams_open.store(self.streams_open.load(Ordering::Relaxed), Ordering::Relaxed);
        self.change(|all| all.push(subscriber));
    }

    /// Who listens now.
    pub fn subscribers(&self) -> Vec<Arc<Subscriber>> {
        lock(&self.subscribers).all.clone()
    }

    /// The subscribers, where they are others than at `version`; and their version now.
    pub fn subscribers_since(&self, version: u64) -> (u64, Option<Vec<Arc<Subscriber>>>) {
        let subscribers = lock(&self.subscribers);
        let changed = subscribers.version != version;
        (subscribers.version, changed.then(|| subscribers.all.clone()))
    }

    /// The channels that its subscribers want together.
    pub fn channel_need(&self) -> ChannelNeed {
        let subscribers = self.subscribers();
        ChannelNeed {
            least: subscribers.iter().map(|subscriber| subscriber.channel.min_channels()).max().unwrap_or(1),
            all: subscribers.iter().any(|subscriber| subscriber.channel == Channel::Auto),
        }
    }

    /// The rate at which it runs where it says `claimed`, if another was measured.
    pub fn true_rate(&self, claimed: u32) -> Option<u32> {
        lock(&self.true_rate).filter(|(other, _)| *other == claimed).map(|(_, rate)| rate)
    }

    /// From now on, and for its next stream.
    pub fn set_true_rate(&self, claimed: u32, rate: u32) {
        *lock(&self.true_rate) = Some((claimed, rate));
    }

    fn is_unused(&self) -> bool {
        lock(&self.subscribers).all.is_empty()
    }

    /// Where nobody listens any more, forgets it; whoever comes next starts anew.
    fn retire(&self) -> bool {
        let mut devices = lock(&DEVICES);
        let unused = self.is_unused();
        if unused {
            devices.retain(|device| !std::ptr::eq(&**device, self));
        }
        unused
    }

    fn count_stream(&self, count: impl FnOnce(&AtomicU64) -> u64) {
        let open = count(&self.streams_open);
        self.subscribers().iter().for_each(|other| other.counters.streams_open.store(open, Ordering::Relaxed));
    }

    /// For the log: its sources.
    fn ids(&self) -> String {
        let ids: Vec<String> = self.subscribers().iter().map(|subscriber| format!("{:?}", subscriber.id)).collect();
        ids.join(", ")
    }
}

impl Subscriber {
    /// Whether a device of so many channels has the one that is wanted.
    pub fn is_satisfied_by(&self, channels: usize) -> bool {
        self.channel.min_channels() <= channels
    }

    /// Notes, and says, that the device has too few channels for this source.
    pub fn refuse(&self, error: &anyhow::Error) {
        self.counters.set_failure(DeviceFailure { reason: format!("{error:#}"), is_busy: false });
        self.counters.set_state(SourceState::Lost);
        if self.refusals.add(1).is_some() {
            log::warn!("source {:?}: {error:#}", self.id);
        }
    }

    /// Shows a warning, or that it is over; the log has a line for each change.
    pub fn warn(&self, kind: WarningKind, text: Option<&str>) {
        if self.counters.warnings.set(kind, text) {
            match text {
                Some(words) => log::warn!("source {:?}: {words}", self.id),
                None => log::info!("source {:?}: a warning is over ({})", self.id, kind.name()),
            }
        }
    }
}

/// The thread that opens a device's streams, watches them and gives them up.
struct DeviceWatcher {
    device: Arc<SharedDevice>,
    failures: Counter,
}

/// How a stream ended.
enum StreamEnd {
    /// Nobody wants it any more.
    Unused,
    /// It is to be opened with more channels.
    Reopen,
    /// It was given up for a reason, which leaves its sources in a state until samples come again.
    Failed(SourceState, anyhow::Error),
}

/// The device is away, or says that it is.
fn lost(reason: anyhow::Error) -> StreamEnd {
    StreamEnd::Failed(SourceState::Lost, reason)
}

/// The device is there, and nothing comes of it.
fn stalled(reason: anyhow::Error) -> StreamEnd {
    StreamEnd::Failed(SourceState::Stalled, reason)
}

impl DeviceWatcher {
    fn run(self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        while !self.device.retire() {
            panic_if_asked(&self.device.watcher_name);
            let began = Instant::now();
            let (state, reason) = match self.run_stream() {
                StreamEnd::Failed(state, reason) => (state, reason),
                StreamEnd::Unused | StreamEnd::Reopen => continue,
            };
            let subscribers = self.device.subscribers();
            let failure = DeviceFailure { reason: format!("{reason:#}"), is_busy: is_busy(&reason) };
            for subscriber in &subscribers {
                subscriber.counters.set_failure(failure.clone());
                subscriber.counters.set_state(state);
            }
            if let Some(times) = self.failures.add(1) {
                log::warn!("source {}: {reason:#}; trying again (trouble {times})", self.device.ids());
            }
            if began.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
            }
            // Jitter of a quarter either way: devices that lost the same server do not return to it in step.
            let wait = backoff.fail();
            self.sleep(random_time(wait.mul_f64(0.75), wait.mul_f64(1.25)));
            for subscriber in &subscribers {
                subscriber.counters.reopens.add(1);
            }
        }
    }

    /// Opens the device and watches it until it is given up.
    fn run_stream(&self) -> StreamEnd {
        if self.device.streams_open.load(Ordering::Relaxed) > MAX_HANGING_STREAMS {
            return stalled(anyhow!("too many streams hang in the sound system"));
        }
        let control = Arc::new(StreamControl::default());
        let reports = match self.spawn_stream(&control) {
            Ok(reports) => reports,
            Err(error) => return lost(error),
        };
        let name = self.device.name();
        let end = match reports.recv_timeout(OPEN_TIMEOUT) {
            Ok(StreamReport::Started(description)) => self.watch(&control, &reports, &description),
            Ok(StreamReport::Reopen) => StreamEnd::Reopen,
            Ok(StreamReport::Failed(error)) => lost(error),
            Err(RecvTimeoutError::Timeout) => stalled(anyhow!("opening {name:?} hangs in the sound system")),
            Err(RecvTimeoutError::Disconnected) => lost(anyhow!("opening {name:?} failed in the sound system")),
        };
        control.closing.store(true, Ordering::Relaxed);
        end
    }

    /// Starts the thread that holds one stream.
    fn spawn_stream(&self, control: &Arc<StreamControl>) -> Result<Receiver<StreamReport>> {
        // It says that it has started and how it ended, and waits for nobody who would listen.
        let (sender, reports) = sync_channel(2);
        let (device, control) = (Arc::clone(&self.device), Arc::clone(control));
        let open = OpenStream::count(Arc::clone(&device));
        let name = device.subscribers().first().map_or_else(String::new, |subscriber| subscriber.id.clone());
        thread::Builder::new()
            .name(format!("stream-{name}"))
            .spawn(move || {
                let _open = open;
                stream::run(&device, &control, &sender);
            })
            .context("can't start a thread for the stream")?;
        Ok(reports)
    }

    fn watch(&self, control: &StreamControl, reports: &Receiver<StreamReport>, description: &str) -> StreamEnd {
        let (mut blocks, mut since, mut first) = (0, Instant::now(), None);
        let name = self.device.name();
        while !self.device.is_unused() {
            panic_if_asked(&self.device.watcher_name);
            match reports.recv_timeout(POLL_INTERVAL) {
                Ok(StreamReport::Failed(error)) => return lost(error),
                Ok(StreamReport::Reopen) => return StreamEnd::Reopen,
                Ok(StreamReport::Started(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return lost(anyhow!("device {name:?}: its stream ended in the sound system"));
                }
            }
            let now = control.blocks.load(Ordering::Relaxed);
            if now > 0 && first.is_none() {
                log::info!("source {}: listening to {name:?} ({description})", self.device.ids());
                first = Some(Instant::now());
            }
            if now != blocks {
                (blocks, since) = (now, Instant::now());
            }
            if let Some(first) = first {
                self.show_flow(control, first);
            }
            let limit = if blocks == 0 { FIRST_BLOCK_TIMEOUT } else { NEXT_BLOCK_TIMEOUT };
            if since.elapsed() >= limit {
                return stalled(anyhow!("device {name:?} has delivered nothing for {} s", limit.as_secs()));
            }
        }
        StreamEnd::Unused
    }

    /// Samples have been coming since `first`, to those sources that get any.
    fn show_flow(&self, control: &StreamControl, first: Instant) {
        let channels = control.channels.load(Ordering::Relaxed);
        for Subscriber { counters, channel, .. } in self.device.subscribers().iter().map(|subscriber| &**subscriber) {
            if channel.min_channels() <= channels {
                counters.set_state(state_of_flow(counters.state(), first.elapsed()));
            }
        }
    }

    /// Sleeps, but not while nobody listens.
    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.device.is_unused() && Instant::now() < until {
            thread::sleep(POLL_INTERVAL.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

/// Counts a stream's thread for as long as it lives.
struct OpenStream(Arc<SharedDevice>);

impl OpenStream {
    fn count(device: Arc<SharedDevice>) -> Self {
        device.count_stream(|open| open.fetch_add(1, Ordering::Relaxed) + 1);
        Self(device)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.count_stream(|open| open.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_one_card_are_one_device_and_the_last_one_closes_it() {
        let counters = || Arc::<SourceCounters>::default();
        let name = "hw:CARD=clapd_test_nobody,DEV=0";
        let (first, _streams) = subscribe("a", name, Channel::Index(0), &counters()).unwrap();
        let (second, _more) = subscribe("b", "plughw:clapd_test_nobody", Channel::Auto, &counters()).unwrap();
        assert!(Arc::ptr_eq(&first.device, &second.device));
        assert_eq!(first.device.channel_need(), ChannelNeed { least: 1, all: true });
        let device = Arc::clone(&first.device);
        drop((first, second));
        assert!(device.is_unused());
        // Its watcher sees that within a moment, and whoever comes next starts anew.
        let (third, _others) = subscribe("c", name, Channel::Index(3), &counters()).unwrap();
        assert_eq!(third.device.channel_need(), ChannelNeed { least: 4, all: false });
    }
}
