//! Input devices of the sound system; tests/program/architecture.rs holds that only this file knows cpal.
//!
//! A device is named by its stable name and not by its card's index, since cards change places at a boot. The stream's
//! callback fills a ring; it does not allocate, lock, log, block or panic. Watching the stream is the task of
//! `device_source`.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clapd_core::channel::Channel;
use clapd_core::samples::RATES;
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, Data, DeviceDirection, DeviceId, ErrorKind, I24, InputCallbackInfo, SampleFormat, StreamConfig,
    SupportedBufferSize, SupportedStreamConfigRange,
};

use super::alsa_log::log_alsa_messages;
use super::counters::SourceCounters;
use super::ring::{RingReader, RingWriter, ring};

/// The rate that is asked for where it can be had: what nearly every converter runs at, and what CLAP models take.
const PREFERRED_RATE: u32 = 48_000;
/// Rates from here on carry all that any bundle hears (CLAP's filter bank ends at 14 kHz).
const SUFFICIENT_RATE: u32 = 32_000;
/// A period of the sound system, as a part of a second: ten wake-ups a second are nothing, and with the two periods that
/// cpal sets up, the pipeline's machine may be busy for 0.2 s before an overrun. A listener for events needs no less.
const PERIODS_A_SECOND: u32 = 10;
/// How many of a device's configurations are tried, best first. The list is a product of ranges, and some products
/// turn out impossible (96 kHz but only in mono); eight in a row mean something else.
const TRIES: usize = 8;

/// An input device, as the sound system describes it.
#[derive(Debug, Clone)]
pub struct InputDevice {
    /// The name to configure: stable over reboots and replugging.
    pub name: String,
    /// What the driver calls it.
    pub description: String,
    /// Whether it is the one that `default` means.
    pub is_default: bool,
    /// Sample rates in Hz, as ranges from lowest to highest.
    pub rates: Vec<(u32, u32)>,
    /// Channel counts.
    pub channels: Vec<u16>,
    /// Sample formats, best first.
    pub formats: Vec<String>,
    /// Why it can't be used now (busy, no permission, no server); then the lists are empty.
    pub problem: Option<String>,
}

/// All input devices, the default first. Opens each for a moment to see what it offers; may take a second, and as long
/// as the sound system likes where that is sick.
///
/// # Errors
/// No sound system at all.
pub fn list() -> Result<Vec<InputDevice>> {
    log_alsa_messages(list_all)
}

fn list_all() -> Result<Vec<InputDevice>> {
    let host = cpal::default_host();
    let devices = host.devices().map_err(|error| anyhow!("can't list input devices: {error}"))?;
    let mut found: Vec<InputDevice> = Vec::new();
    for device in host.default_input_device().into_iter().chain(devices) {
        let Ok(id) = device.id() else { continue };
        let direction = device.description().map_or(DeviceDirection::Unknown, |description| description.direction());
        let fresh = found.iter().all(|known| known.name != id.id());
        if fresh && direction != DeviceDirection::Output && !is_index(id.id()) {
            found.push(describe(&device, id.id()));
        }
    }
    Ok(found)
}

/// Whether a name counts cards instead of naming one: `hw:0,0`, `plughw:CARD=1,DEV=0`.
pub(super) fn is_index(name: &str) -> bool {
    let card = name.split_once(':').map_or("", |(_, arguments)| arguments).trim_start_matches("CARD=");
    card.starts_with(|first: char| first.is_ascii_digit())
        && card.split(',').next().is_some_and(|card| card.bytes().all(|byte| byte.is_ascii_digit()))
}

fn describe(device: &cpal::Device, name: &str) -> InputDevice {
    let description =
        device.description().map_or_else(|_| name.to_owned(), |description| description.name().to_owned());
    let (configs, problem) = match device.supported_input_configs() {
        Ok(configs) => (configs.collect(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let mut rates: Vec<_> = configs.iter().map(|c| (c.min_sample_rate(), c.max_sample_rate())).collect();
    let mut channels: Vec<u16> = configs.iter().map(SupportedStreamConfigRange::channels).collect();
    let mut formats: Vec<SampleFormat> = configs.iter().map(SupportedStreamConfigRange::sample_format).collect();
    rates.sort_unstable();
    rates.dedup();
    channels.sort_unstable();
    channels.dedup();
    formats.sort_by_key(|&format| Reverse(resolution(format)));
    formats.dedup();
    let formats = formats.iter().map(ToString::to_string).collect();
    InputDevice { name: name.to_owned(), description, is_default: name == "default", rates, channels, formats, problem }
}

/// What the callbacks of a stream show its watcher.
#[derive(Debug, Default)]
pub(super) struct StreamHealth {
    /// Blocks delivered.
    pub blocks: AtomicU64,
    /// Errors reported since the last block.
    pub errors_since_block: AtomicU32,
    /// The device was removed, the stream is void: nothing will come any more.
    pub is_removed: AtomicBool,
}

/// A running stream. Dropping it may hang for ever where its sound server has died.
pub(super) struct OpenedStream {
    /// Held for its drop.
    pub stream: cpal::Stream,
    /// What it delivers.
    pub samples: RingReader,
    /// How it fares.
    pub health: Arc<StreamHealth>,
    /// For the log: rate, channels, format.
    pub description: String,
}

/// Opens a device and starts it.
///
/// # Errors
/// No such device, none of its configurations is usable, or it can't be opened now.
pub(super) fn open(name: &str, channel: Channel, counters: &Arc<SourceCounters>) -> Result<OpenedStream> {
    let device = find(name)?;
    let offered = device.supported_input_configs().with_context(|| format!("device {name:?} can't be opened"))?;
    let offered: Vec<_> = offered.collect();
    let candidates = rank(&offered, channel);
    if candidates.is_empty() {
        bail!("{}", unusable(name, &offered, channel));
    }
    let mut last = None;
    for candidate in candidates.into_iter().take(TRIES) {
        match start(&device, candidate, channel, counters) {
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

fn find(name: &str) -> Result<cpal::Device> {
    let host = cpal::default_host();
    let host_prefix = format!("{}:", host.id());
    let pcm = name.strip_prefix(&host_prefix).unwrap_or(name);
    if pcm == "default" {
        return host.default_input_device().context("there is no default input device");
    }
    let mut devices = host.devices().map_err(|error| anyhow!("can't list input devices: {error}"))?;
    let listed = devices.find(|device| device.id().is_ok_and(|id| id.id() == pcm));
    listed.or_else(|| host.device_by_id(&DeviceId::new(host.id(), pcm))).with_context(|| {
        format!(
            "there is no device {name:?}; `clapd devices` lists those there are (a PCM of one's own in asound.conf needs \
             `hint {{ show on }}` to be listed)"
        )
    })
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

/// The usable configurations, best first: the preferred rate, else the lowest that is sufficient, else the highest; as
/// few channels as the choice of channel allows (less to carry; the sound system mixes as it would for anybody), but
/// several where one of them is wanted, for a sound system that is asked for one mixes; the finest format (a quiet room
/// lives below 16 bits).
fn rank(offered: &[SupportedStreamConfigRange], channel: Channel) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = offered.iter().filter_map(|config| candidate(config, channel)).collect();
    let cost = |channels: u16| if channels == 1 && channel != Channel::Mix { u16::MAX } else { channels };
    candidates.sort_by_key(|candidate| {
        let rate = match candidate.rate {
            PREFERRED_RATE => (2, Reverse(0)),
            rate if rate >= SUFFICIENT_RATE => (1, Reverse(rate)),
            rate => (0, Reverse(u32::MAX - rate)),
        };
        Reverse((rate, Reverse(cost(candidate.channels)), resolution(candidate.format)))
    });
    candidates
}

fn candidate(config: &SupportedStreamConfigRange, channel: Channel) -> Option<Candidate> {
    let low = config.min_sample_rate().max(*RATES.start());
    let high = config.max_sample_rate().min(*RATES.end());
    let fits = low <= high
        && usize::from(config.channels()) >= channel.min_channels()
        && resolution(config.sample_format()) > 0;
    let rate = if low <= SUFFICIENT_RATE { high.min(SUFFICIENT_RATE) } else { low };
    let rate = if (low..=high).contains(&PREFERRED_RATE) { PREFERRED_RATE } else { rate };
    let period = match *config.buffer_size() {
        SupportedBufferSize::Range { min, max } if min <= max => Some((rate / PERIODS_A_SECOND).clamp(min, max)),
        _ => None,
    };
    fits.then_some(Candidate { rate, channels: config.channels(), format: config.sample_format(), period })
}

/// Bits that a format resolves; 0 for those that are not read (64-bit and wide unsigned integers, DSD: no microphone has
/// them). f32 leads: it needs no conversion.
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

fn unusable(name: &str, offered: &[SupportedStreamConfigRange], channel: Channel) -> String {
    let most = offered.iter().map(SupportedStreamConfigRange::channels).max().unwrap_or(0);
    if usize::from(most) < channel.min_channels() {
        let asked = channel.min_channels() - 1;
        return format!(
            "device {name:?} has {most} channels, channel {asked} was asked for (counted from 0); choose another"
        );
    }
    let low = offered.iter().map(SupportedStreamConfigRange::min_sample_rate).min().unwrap_or(0);
    let high = offered.iter().map(SupportedStreamConfigRange::max_sample_rate).max().unwrap_or(0);
    format!(
        "device {name:?} offers {low} to {high} Hz in no usable format; {} to {} Hz in integers of 8 to 32 bits or floats are \
         read; put `plughw:` in place of `hw:`",
        RATES.start(),
        RATES.end()
    )
}

fn start(
    device: &cpal::Device,
    with: Candidate,
    channel: Channel,
    counters: &Arc<SourceCounters>,
) -> Result<OpenedStream> {
    let health = Arc::new(StreamHealth::default());
    let (writer, samples) = ring(with.rate, counters.clone());
    let mut callback = Callback {
        writer,
        channel,
        channels: usize::from(with.channels),
        counters: counters.clone(),
        health: health.clone(),
    };
    let errors = (health.clone(), counters.clone());
    let config = StreamConfig {
        channels: with.channels,
        sample_rate: with.rate,
        buffer_size: with.period.map_or(BufferSize::Default, BufferSize::Fixed),
    };
    let stream = device.build_input_stream_raw(
        config,
        with.format,
        move |data: &Data, info: &InputCallbackInfo| callback.take(data, info),
        move |error| report(&error, &errors.0, &errors.1),
        None,
    )?;
    stream.play()?;
    let description = format!("{} Hz, {} channels, {}", with.rate, with.channels, with.format);
    Ok(OpenedStream { stream, samples, health, description })
}

/// The error callback: a sound system that has died calls it thousands of times in a moment, so it only counts.
fn report(error: &cpal::Error, health: &StreamHealth, counters: &SourceCounters) {
    match error.kind() {
        // News, not trouble: the stream goes on.
        ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => return,
        ErrorKind::DeviceNotAvailable | ErrorKind::StreamInvalidated => {
            health.is_removed.store(true, Ordering::Relaxed);
        }
        _ => {}
    }
    health.errors_since_block.fetch_add(1, Ordering::Relaxed);
    counters.stream_errors.add(1);
}

/// The data callback's state.
struct Callback {
    writer: RingWriter,
    channel: Channel,
    channels: usize,
    counters: Arc<SourceCounters>,
    health: Arc<StreamHealth>,
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
        self.health.errors_since_block.store(0, Ordering::Relaxed);
        self.health.blocks.fetch_add(1, Ordering::Relaxed);
    }

    fn write<T: Copy>(&mut self, data: Option<&[T]>, captured: Instant, to_f32: impl Fn(T) -> f32) {
        let (channel, mut bad) = (self.channel, 0);
        let frames = data.unwrap_or_default().chunks_exact(self.channels);
        self.writer.write(
            captured,
            frames.map(|frame| {
                let mut is_bad = false;
                let sample = channel.pick(frame.iter().map(|&value| to_f32(value)), &mut is_bad);
                bad += u64::from(is_bad);
                sample
            }),
        );
        if bad > 0 {
            self.counters.samples_bad.add(bad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(channels: u16, rates: (u32, u32), format: SampleFormat) -> SupportedStreamConfigRange {
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, SupportedBufferSize::Unknown, format)
    }

    fn best(offered: &[SupportedStreamConfigRange], channel: Channel) -> Option<(u32, u16, SampleFormat)> {
        rank(offered, channel).first().map(|best| (best.rate, best.channels, best.format))
    }

    #[test]
    fn negotiates_rate_then_channels_then_format() {
        use SampleFormat::{F32, I16, I32};
        let plugin = [range(1, (1, 384_000), I16), range(2, (1, 384_000), F32), range(1, (1, 384_000), F32)];
        assert_eq!(best(&plugin, Channel::Mix), Some((48_000, 1, F32)));
        assert_eq!(best(&plugin, Channel::Index(1)), Some((48_000, 2, F32)));
        assert_eq!(best(&plugin, Channel::Index(0)), Some((48_000, 2, F32)));
        let card = [range(2, (44_100, 44_100), I16), range(2, (96_000, 96_000), I32), range(2, (8_000, 8_000), I32)];
        assert_eq!(best(&card, Channel::Mix), Some((44_100, 2, I16)));
        let telephone = [range(1, (8_000, 8_000), I16), range(1, (16_000, 16_000), I16)];
        assert_eq!(best(&telephone, Channel::Mix), Some((16_000, 1, I16)));
        assert_eq!(best(&[range(1, (4_000, 20_000), I16)], Channel::Mix), Some((20_000, 1, I16)));
    }

    #[test]
    fn what_can_not_be_used_is_refused_by_name() {
        let low = [range(1, (4_000, 5_512), SampleFormat::I16)];
        assert_eq!(best(&low, Channel::Mix), None);
        let message = unusable("hw:CARD=X", &low, Channel::Mix);
        assert!(message.contains("4000 to 5512 Hz") && message.contains("8000 to 192000 Hz"), "{message}");
        let message = unusable("hw:CARD=X", &low, Channel::Index(3));
        assert!(message.contains("1 channels") && message.contains("channel 3"), "{message}");
        assert_eq!(best(&[range(2, (48_000, 48_000), SampleFormat::DsdU8)], Channel::Mix), None);
    }

    #[test]
    fn periods_are_a_tenth_of_a_second_within_what_is_offered() {
        let offered = |min, max| SupportedBufferSize::Range { min, max };
        let config = |buffer| SupportedStreamConfigRange::new(1, 48_000, 48_000, buffer, SampleFormat::I16);
        let period = |buffer| rank(&[config(buffer)], Channel::Mix)[0].period;
        assert_eq!(period(offered(16, 100_000)), Some(4_800));
        assert_eq!(period(offered(16, 1_024)), Some(1_024));
        assert_eq!(period(SupportedBufferSize::Unknown), None);
    }

    #[test]
    fn indexes_are_told_from_names() {
        for index in ["hw:0", "hw:0,0", "plughw:1,0", "hw:CARD=0,DEV=0"] {
            assert!(is_index(index), "{index}");
        }
        for name in ["default", "mic", "hw:CARD=USB,DEV=0", "plughw:CARD=4chMic,DEV=0", "usbstream:CARD=USB"] {
            assert!(!is_index(name), "{name}");
        }
    }
}
