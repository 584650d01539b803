//! Devices opened by cpal; tests/program/architecture.rs holds that only this file knows it.
//!
//! The stream's callback runs on a thread of cpal's and fills a ring of frames; it does not allocate, lock, log, block or panic. The thread
//! that holds the stream reads them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clapd_core::samples::RATES;
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, Data, DeviceId, ErrorKind, I24, InputCallbackInfo, SampleFormat, StreamConfig, SupportedBufferSize,
    SupportedStreamConfigRange,
};

use super::card_name::pcm_name;
use super::clock::shift;
use super::input_stream::{
    ChannelNeed, Fetched, PERIODS_A_SECOND, PREFERRED_RATE, SUFFICIENT_RATE, StreamFormat, channel_cost, rate_cost,
};
use super::ring::{RingReader, RingWriter, ring_of};

/// How many of a device's configurations are tried, best first. The list is a product of ranges, and some products
/// turn out impossible (96 kHz but only in mono); eight in a row mean something else.
const TRIES: usize = 8;
/// Seconds of frames between the callback and the thread that reads them, which is kept from it by a busy machine only; the 30 s in which
/// the pipeline may be busy are those of each source's own ring. 3 MB for eight channels.
const RING_SECONDS: usize = 2;
/// How long to wait for sound: a fifth of a period.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A device that cpal has opened.
pub(super) struct CpalStream {
    /// Held for its drop.
    _stream: cpal::Stream,
    frames: RingReader,
    health: Arc<StreamHealth>,
    /// Position and moment of a sample that the callback has marked.
    mark: Option<(u64, Instant)>,
    format: StreamFormat,
}

/// What the callbacks of a stream show its reader.
#[derive(Debug, Default)]
struct StreamHealth {
    /// Errors that were reported since the reader last looked.
    errors: AtomicU32,
    /// The device was removed, the stream is void: nothing will come any more.
    is_removed: AtomicBool,
}

/// Opens a device and starts it.
///
/// # Errors
/// No such device, none of its configurations is usable, or it can't be opened now.
pub(super) fn open(name: &str, need: ChannelNeed) -> Result<CpalStream> {
    let device = find(name)?;
    let offered = device.supported_input_configs().with_context(|| format!("device {name:?} can't be opened"))?;
    let offered: Vec<_> = offered.collect();
    let candidates = rank(&offered, need);
    if candidates.is_empty() {
        bail!("{}", unusable(name, &offered));
    }
    let mut last = None;
    for candidate in candidates.into_iter().take(TRIES) {
        match start(&device, candidate) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = Some((candidate, error)),
        }
    }
    let (tried, error) = last.context("no configuration was tried")?;
    Err(error.context(format!(
        "device {name:?} can't be started at {} Hz, {} channels, {}",
        tried.rate, tried.channels, tried.format
    )))
}

/// Whether opening failed because somebody uses the device.
pub(super) fn is_busy(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<cpal::Error>().is_some_and(|error| error.kind() == ErrorKind::DeviceBusy))
}

fn host() -> Result<cpal::Host> {
    // The default host is the first; asked for as that it panics where it is not to be had.
    let id = cpal::ALL_HOSTS.first().context("cpal was built without a sound system")?;
    cpal::host_from_id(*id).map_err(|error| anyhow!("the sound system can't be reached: {error}"))
}

fn find(name: &str) -> Result<cpal::Device> {
    let (host, pcm) = (host()?, pcm_name(name));
    if pcm == "default" {
        return host.default_input_device().context("there is no default input device");
    }
    let mut devices = host.devices().map_err(|error| anyhow!("can't list input devices: {error}"))?;
    let listed = devices.find(|device| device.id().is_ok_and(|id| id.id() == pcm));
    listed
        .or_else(|| host.device_by_id(&DeviceId::new(host.id(), pcm)))
        .with_context(|| format!("there is no device {name:?}; `clapd devices` lists those there are"))
}

/// One way to open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    rate: u32,
    channels: u16,
    format: SampleFormat,
    /// Frames a period; `None` leaves it to the device.
    period: Option<u32>,
}

/// The usable configurations, best first: by rate, then by channels, then the finest format (a quiet room lives below 16 bits).
fn rank(offered: &[SupportedStreamConfigRange], need: ChannelNeed) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = offered.iter().filter_map(candidate).collect();
    let counts: BTreeSet<u32> = candidates.iter().map(|candidate| candidate.channels.into()).collect();
    let counts: Vec<u32> = counts.into_iter().collect();
    candidates.sort_by_cached_key(|candidate| {
        let channels = channel_cost(candidate.channels.into(), &counts, need);
        (rate_cost(candidate.rate), channels, Reverse(resolution(candidate.format)))
    });
    candidates
}

fn candidate(config: &SupportedStreamConfigRange) -> Option<Candidate> {
    let low = config.min_sample_rate().max(*RATES.start());
    let high = config.max_sample_rate().min(*RATES.end());
    let fits = low <= high && config.channels() > 0 && resolution(config.sample_format()) > 0;
    let rate = if low <= SUFFICIENT_RATE { high.min(SUFFICIENT_RATE) } else { low };
    let rate = if (low..=high).contains(&PREFERRED_RATE) { PREFERRED_RATE } else { rate };
    let period = match *config.buffer_size() {
        SupportedBufferSize::Range { min, max } if min <= max => Some((rate / PERIODS_A_SECOND).clamp(min, max)),
        _ => None,
    };
    fits.then_some(Candidate { rate, channels: config.channels(), format: config.sample_format(), period })
}

/// Bits that a format resolves; 0 for those that are not read here (64-bit and wide unsigned integers, DSD). f32 leads: it needs no
/// conversion.
fn resolution(format: SampleFormat) -> u32 {
    match format {
        SampleFormat::F32 => 40,
        SampleFormat::F64 => 39,
        SampleFormat::I32 => 32,
        SampleFormat::I24 => 24,
        SampleFormat::I16 => 16,
        SampleFormat::I8 => 8,
        SampleFormat::U8 => 7,
        _ => 0,
    }
}

fn unusable(name: &str, offered: &[SupportedStreamConfigRange]) -> String {
    let formats: BTreeSet<String> = offered.iter().map(|config| config.sample_format().to_string()).collect();
    let formats: Vec<String> = formats.into_iter().collect();
    let low = offered.iter().map(SupportedStreamConfigRange::min_sample_rate).min().unwrap_or(0);
    let high = offered.iter().map(SupportedStreamConfigRange::max_sample_rate).max().unwrap_or(0);
    if formats.is_empty() {
        return format!("device {name:?} offers no format that cpal knows; choose another");
    }
    format!(
        "device {name:?} offers {low} to {high} Hz as {}; {} to {} Hz in integers of 8 to 32 bits or floats are read; choose another",
        formats.join(", "),
        RATES.start(),
        RATES.end()
    )
}

fn start(device: &cpal::Device, with: Candidate) -> Result<CpalStream> {
    let health = Arc::new(StreamHealth::default());
    // Whoever reads the frames counts what was lost, for each of its sources.
    let (writer, frames) = ring_of(RING_SECONDS, with.rate * u32::from(with.channels), Arc::default());
    let mut callback = Callback { writer };
    let errors = Arc::clone(&health);
    let config = StreamConfig {
        channels: with.channels,
        sample_rate: with.rate,
        buffer_size: with.period.map_or(BufferSize::Default, BufferSize::Fixed),
    };
    let stream = device.build_input_stream_raw(
        config,
        with.format,
        move |data: &Data, info: &InputCallbackInfo| callback.take(data, info),
        move |error| report(&error, &errors),
        None,
    )?;
    stream.play()?;
    let format = StreamFormat {
        rate: with.rate,
        channels: with.channels.into(),
        is_wide: with.format == SampleFormat::I32,
        description: format!("{} Hz, {} channels, {}", with.rate, with.channels, with.format),
    };
    Ok(CpalStream { _stream: stream, frames, health, mark: None, format })
}

/// The error callback: a sound system that has died calls it thousands of times in a moment, so it only counts.
fn report(error: &cpal::Error, health: &StreamHealth) {
    match error.kind() {
        // News, not trouble: the stream goes on.
        ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => return,
        ErrorKind::DeviceNotAvailable | ErrorKind::StreamInvalidated => {
            health.is_removed.store(true, Ordering::Relaxed);
        }
        _ => {}
    }
    health.errors.fetch_add(1, Ordering::Relaxed);
}

/// The data callback's state.
struct Callback {
    writer: RingWriter,
}

impl Callback {
    fn take(&mut self, data: &Data, info: &InputCallbackInfo) {
        let times = info.timestamp();
        let age = times.callback.saturating_duration_since(times.capture);
        let now = Instant::now();
        let captured = now.checked_sub(age).unwrap_or(now);
        match data.sample_format() {
            SampleFormat::F32 => self.write(data.as_slice::<f32>(), captured, |value| value),
            SampleFormat::F64 => self.write(data.as_slice::<f64>(), captured, |value| value as f32),
            SampleFormat::I32 => self.write(data.as_slice::<i32>(), captured, |value| value as f32 / 2_147_483_648.0),
            // 24 bits lie in the lower bytes of four; what the fourth holds is the driver's affair.
            SampleFormat::I24 => {
                self.write(data.as_slice::<I24>(), captured, |value| (value.inner() << 8) as f32 / 2_147_483_648.0);
            }
            SampleFormat::I16 => self.write(data.as_slice::<i16>(), captured, |value| f32::from(value) / 32_768.0),
            SampleFormat::I8 => self.write(data.as_slice::<i8>(), captured, |value| f32::from(value) / 128.0),
            SampleFormat::U8 => self.write(data.as_slice::<u8>(), captured, |value| f32::from(value) / 128.0 - 1.0),
            _ => {}
        }
    }

    fn write<T: Copy>(&mut self, data: Option<&[T]>, captured: Instant, to_f32: impl Fn(T) -> f32) {
        self.writer.write(captured, data.unwrap_or_default().iter().map(|&value| to_f32(value)));
    }
}

impl CpalStream {
    /// What it was opened with.
    pub fn format(&self) -> &StreamFormat {
        &self.format
    }

    /// See [`super::input_stream::InputStream::read`].
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<Fetched> {
        let errors = self.health.errors.swap(0, Ordering::Relaxed);
        if errors > 0 && !self.health.is_removed.load(Ordering::Relaxed) {
            return Ok(Fetched::Trouble { errors });
        }
        let Self { frames, mark, .. } = self;
        let mut first = None;
        let lost = frames.read(out, |position, captured| {
            first = first.or(Some((position, captured)));
            *mark = Some((position, captured));
        });
        let Some(lost) = lost else {
            if self.health.is_removed.load(Ordering::Relaxed) {
                bail!("it is gone");
            }
            thread::sleep(POLL_INTERVAL);
            return Ok(Fetched::Nothing);
        };
        let begin = self.frames.position() - out.len() as u64;
        let captured = first.or(self.mark).map_or_else(Instant::now, |mark| moment(mark, begin, self.frames.rate));
        Ok(Fetched::Sound { captured, lost: lost / self.format.channels as u64 })
    }
}

/// When the sample at `position` was captured, of one that was `marked`, at so many samples a second.
fn moment((marked, captured): (u64, Instant), position: u64, rate: u32) -> Instant {
    let distance_s = position.abs_diff(marked) as f64 / f64::from(rate);
    shift(captured, if position < marked { -distance_s } else { distance_s })
}

/// Input devices by their names, as cpal lists them, with what they are called and whether cpal can open them; the default first.
///
/// # Errors
/// There is no sound system.
#[cfg(not(target_os = "linux"))]
pub(super) fn list() -> Result<Vec<super::device::InputDevice>> {
    let host = host()?;
    let devices = host.input_devices().map_err(|error| anyhow!("can't list input devices: {error}"))?;
    let default = host.default_input_device().and_then(|device| device.id().ok());
    let mut found: Vec<_> = devices.filter_map(|device| describe(&device, default.as_ref())).collect();
    found.sort_by_key(|device| !device.is_default);
    Ok(found)
}

#[cfg(not(target_os = "linux"))]
fn describe(device: &cpal::Device, default: Option<&DeviceId>) -> Option<super::device::InputDevice> {
    let id = device.id().ok()?;
    let description = device.description().map_or_else(|_| id.id().to_owned(), |it| it.name().to_owned());
    let (configs, problem) = match device.supported_input_configs() {
        Ok(configs) => (configs.collect(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let rates: BTreeSet<_> = configs.iter().map(|it| (it.min_sample_rate(), it.max_sample_rate())).collect();
    let channels: BTreeSet<u16> = configs.iter().map(SupportedStreamConfigRange::channels).collect();
    let mut formats: Vec<SampleFormat> = configs.iter().map(SupportedStreamConfigRange::sample_format).collect();
    formats.sort_by_key(|&format| Reverse(resolution(format)));
    formats.dedup();
    Some(super::device::InputDevice {
        name: id.id().to_owned(),
        description,
        is_default: default == Some(&id),
        rates: rates.into_iter().collect(),
        channels: channels.into_iter().collect(),
        formats: formats.iter().map(ToString::to_string).collect(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: ChannelNeed = ChannelNeed { least: 1, all: false };

    fn range(channels: u16, rates: (u32, u32), format: SampleFormat) -> SupportedStreamConfigRange {
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, SupportedBufferSize::Unknown, format)
    }

    fn best(offered: &[SupportedStreamConfigRange], need: ChannelNeed) -> Option<(u32, u16, SampleFormat)> {
        rank(offered, need).first().map(|best| (best.rate, best.channels, best.format))
    }

    #[test]
    fn negotiates_rate_then_channels_then_format() {
        use SampleFormat::{F32, I16, I32};
        let plugin = [range(1, (1, 384_000), I16), range(2, (1, 384_000), F32), range(3, (1, 384_000), F32)];
        assert_eq!(best(&plugin, ANY), Some((48_000, 2, F32)));
        assert_eq!(best(&plugin, ChannelNeed { least: 3, all: false }), Some((48_000, 3, F32)));
        let card = [range(2, (44_100, 44_100), I16), range(2, (96_000, 96_000), I32), range(2, (8_000, 8_000), I32)];
        assert_eq!(best(&card, ANY), Some((44_100, 2, I16)));
        let telephone = [range(1, (8_000, 8_000), I16), range(1, (16_000, 16_000), I16)];
        assert_eq!(best(&telephone, ANY), Some((16_000, 1, I16)));
        assert_eq!(best(&[range(1, (4_000, 20_000), I16)], ANY), Some((20_000, 1, I16)));
    }

    #[test]
    fn what_can_not_be_used_is_refused_by_name() {
        let low = [range(1, (4_000, 5_512), SampleFormat::I16)];
        assert_eq!(best(&low, ANY), None);
        let message = unusable("hw:CARD=X", &low);
        assert!(message.contains("4000 to 5512 Hz as i16") && message.contains("8000 to 192000 Hz"), "{message}");
        assert_eq!(best(&[range(2, (48_000, 48_000), SampleFormat::DsdU8)], ANY), None);
    }

    #[test]
    fn periods_are_a_tenth_of_a_second_within_what_is_offered() {
        let offered = |min, max| SupportedBufferSize::Range { min, max };
        let config = |buffer| SupportedStreamConfigRange::new(1, 48_000, 48_000, buffer, SampleFormat::I16);
        let period = |buffer| rank(&[config(buffer)], ANY)[0].period;
        assert_eq!(period(offered(16, 100_000)), Some(4_800));
        assert_eq!(period(offered(16, 1_024)), Some(1_024));
        assert_eq!(period(SupportedBufferSize::Unknown), None);
    }

    #[test]
    fn moments_between_marks_are_counted_from_them() {
        let marked = Instant::now() + Duration::from_secs(9);
        assert_eq!(moment((8_000, marked), 4_000, 8_000), marked - Duration::from_millis(500));
        assert_eq!(moment((8_000, marked), 16_000, 8_000), marked + Duration::from_secs(1));
    }
}
