//! A capture device that cpal can't open, read by ALSA's own means.
//!
//! A device is asked for what it has, so that ALSA converts nothing: rates and formats are converted here, and better. Where a device
//! can't be read as it is (a compressed format, 384 kHz, channels apart), it is opened again behind ALSA's `plug`.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use alsa::pcm::{Access, Format, Frames, HwParams, PCM, State};
use alsa::poll::{Descriptors, Flags, poll, pollfd};
use alsa::{Direction, ValueOr};
use anyhow::{Context, Result, anyhow, bail};
use clapd_core::samples::RATES;
use rustix::io::Errno;

use super::alsa_format::{FORMATS, SampleEncoding};
use super::alsa_log::{AlsaMessages, last_message, syntax_errors};
use super::card_name::{owner, pcm_name};
use super::input_stream::{
    ChannelNeed, DeviceBusy, Fetched, MAX_CHANNELS, PERIODS_A_SECOND, STANDARD_RATES, StreamFormat, channel_cost,
    rate_cost,
};

/// The sound system's buffer, in periods: the stream's thread may be kept from reading for 0.4 s before sound is lost.
const PERIODS: Frames = 5;
/// The formats of cpal's that have a byte order: little end first, big end first.
const ORDERED_FORMATS: [(Format, Format); 5] = [
    (Format::S16LE, Format::S16BE),
    (Format::S24LE, Format::S24BE),
    (Format::S32LE, Format::S32BE),
    (Format::FloatLE, Format::FloatBE),
    (Format::Float64LE, Format::Float64BE),
];
/// How long to wait for sound before the thread looks around.
const POLL_MS: i32 = 100;
/// A pause where a device says that it has sound and has none, over and over (ALSA's `pulse` when its server dies): no core is burnt.
const SPURIOUS_PAUSE: Duration = Duration::from_millis(5);

/// A device that ALSA has opened.
pub(super) struct AlsaStream {
    pcm: PCM,
    descriptors: Vec<pollfd>,
    bytes: Vec<u8>,
    encoding: SampleEncoding,
    period: Frames,
    format: StreamFormat,
}

/// Reads ALSA's configuration, if it has changed.
///
/// # Errors
/// It can't be read; with ALSA's file and line.
pub(super) fn check_configuration(messages: &mut AlsaMessages) -> Result<()> {
    /// Those that were logged; a device that is away is tried every few seconds, for days.
    static KNOWN_FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    messages.take();
    let updated = alsa::config::update();
    let said = messages.take();
    let faults = syntax_errors(&said);
    if let Err(error) = updated {
        let words = faults.into_iter().next().or_else(|| last_message(&said).map(str::to_owned));
        let words = words.unwrap_or_else(|| in_words(error));
        bail!("ALSA's configuration can't be read: {words}; mend the file there");
    }
    // A file that alsa.conf includes as optional is left out, and its devices are missed.
    let mut known = KNOWN_FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    if *known != faults {
        for fault in &faults {
            log::warn!("ALSA's configuration has a fault, and a part of it is left out: {fault}");
        }
        // What is not read again says nothing of its faults.
        if matches!(updated, Ok(true)) {
            *known = faults;
        }
    }
    Ok(())
}

/// Opens a device and starts it. ALSA's configuration is to be read before, see [`check_configuration`].
///
/// # Errors
/// There is no such device, it can't be opened now, or nothing that it offers can be used.
pub(super) fn open(name: &str, need: ChannelNeed, messages: &mut AlsaMessages) -> Result<AlsaStream> {
    let pcm = open_pcm(name, pcm_name(name), messages)?;
    let first = match start(pcm, need, false) {
        Ok(stream) => return Ok(stream),
        Err(reason) => reason,
    };
    // Once more with ALSA's own conversion of rates, then with all that it has.
    let converters = [(pcm_name(name).to_owned(), true), (format!("plug:'{}'", pcm_name(name)), true)];
    for (converter, resample) in converters {
        let converted = open_pcm(name, &converter, messages).and_then(|pcm| start(pcm, need, resample));
        if let Ok(stream) = converted {
            return Ok(stream);
        }
    }
    let said = messages.take();
    let said = last_message(&said).map_or_else(String::new, |message| format!(" (ALSA: {message})"));
    Err(first.context(format!("device {name:?} can't be used{said}")))
}

/// Whether a device has a format of several bytes in the byte order only that this computer does not have; cpal would read it as if it had.
///
/// # Errors
/// There is no such device, or it can't be opened now.
pub(super) fn has_foreign_order(name: &str, messages: &mut AlsaMessages) -> Result<bool> {
    let pcm = open_pcm(name, pcm_name(name), messages)?;
    // One that offers nothing is refused with its reason later.
    let Ok(offered) = HwParams::any(&pcm) else { return Ok(false) };
    let has = |format: Format| offered.test_format(format).is_ok();
    Ok(ORDERED_FORMATS.iter().any(|&(little, big)| {
        let (ours, foreign) = if cfg!(target_endian = "little") { (little, big) } else { (big, little) };
        has(foreign) && !has(ours)
    }))
}

/// Opens ALSA's `pcm` for the device that is configured as `name`.
pub(super) fn open_pcm(name: &str, pcm: &str, messages: &mut AlsaMessages) -> Result<PCM> {
    messages.take();
    let pcm_text = CString::new(pcm).with_context(|| format!("device {name:?} has a zero byte in its name"))?;
    PCM::open(&pcm_text, Direction::Capture, true).map_err(|error| explain(name, error, &messages.take()))
}

/// Why a device could not be opened, and what to do.
fn explain(name: &str, error: alsa::Error, said: &str) -> anyhow::Error {
    let words = last_message(said).map_or_else(|| in_words(error), str::to_owned);
    match Errno::from_raw_os_error(error.errno()) {
        Errno::NOENT => anyhow!("there is no device {name:?} ({words}); `clapd devices` lists those there are"),
        Errno::NODEV | Errno::NXIO => {
            anyhow!("device {name:?} is not there ({words}); plug it in, or see what `clapd devices` lists")
        }
        Errno::BUSY | Errno::AGAIN => {
            let by = owner(pcm_name(name)).unwrap_or_else(|| "another program".into());
            let text = format!("device {name:?} is in use by {by}, and can be used by one at a time; end that program");
            DeviceBusy(text).into()
        }
        Errno::ACCESS | Errno::PERM => {
            anyhow!("device {name:?} may not be opened by this user ({words}); it has to be in the group audio")
        }
        _ => anyhow!("device {name:?} can't be opened: {words}"),
    }
}

/// ALSA's errors are the system's.
fn in_words(error: alsa::Error) -> String {
    std::io::Error::from_raw_os_error(error.errno()).to_string()
}

/// Chooses a configuration and starts it. `resample`: ALSA may convert rates.
fn start(pcm: PCM, need: ChannelNeed, resample: bool) -> Result<AlsaStream> {
    let (rate, channels, format, encoding, period, buffer) = configure(&pcm, need, resample)?;
    let software = pcm.sw_params_current()?;
    software.set_avail_min(period)?;
    pcm.sw_params(&software)?;
    drop(software);
    let descriptors = pcm.get()?;
    pcm.start().map_err(|error| anyhow!("it does not start: {}", in_words(error)))?;
    let bytes = vec![0; buffer as usize * channels as usize * encoding.bytes()];
    let format = StreamFormat {
        rate,
        channels: channels as usize,
        is_wide: encoding.is_wide_integer(),
        description: format!("{rate} Hz, {channels} channels, {format}, by ALSA"),
    };
    Ok(AlsaStream { pcm, descriptors, bytes, encoding, period, format })
}

type Configuration = (u32, u32, Format, SampleEncoding, Frames, Frames);

/// The best that a device offers: the preferred rate, else the lowest that is sufficient, else the highest; then channels, then the
/// finest format.
fn configure(pcm: &PCM, need: ChannelNeed, resample: bool) -> Result<Configuration> {
    let all = HwParams::any(pcm).map_err(|error| anyhow!("it offers nothing: {}", in_words(error)))?;
    // Some plugins know of no such switch, and convert nothing.
    let _ = all.set_rate_resample(resample);
    all.set_access(Access::RWInterleaved).map_err(|_| anyhow!("it offers no interleaved frames"))?;
    let rates = ranked_rates(&all);
    if rates.is_empty() {
        let (low, high) = (all.get_rate_min()?, all.get_rate_max()?);
        bail!("it offers {low} to {high} Hz; {} to {} Hz are read", RATES.start(), RATES.end());
    }
    let mut last = None;
    for rate in rates {
        match configure_at(pcm, &all, rate, need) {
            Ok(configuration) => return Ok(configuration),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow!("it offers nothing")))
}

fn configure_at(pcm: &PCM, all: &HwParams<'_>, rate: u32, need: ChannelNeed) -> Result<Configuration> {
    let chosen = all.clone();
    let narrow = |what: &str, error: alsa::Error| anyhow!("it refuses {what} at {rate} Hz: {}", in_words(error));
    chosen.set_rate(rate, ValueOr::Nearest).map_err(|error| narrow("to run", error))?;
    let offered: Vec<u32> = (1..=MAX_CHANNELS).filter(|&count| chosen.test_channels(count).is_ok()).collect();
    let channels = offered.iter().copied().min_by_key(|count| channel_cost(*count, &offered, need));
    let channels = channels.ok_or_else(|| anyhow!("it offers no channels at {rate} Hz"))?;
    chosen.set_channels(channels).map_err(|error| narrow("its channels", error))?;
    let readable = FORMATS.iter().find(|(format, _)| chosen.test_format(*format).is_ok());
    let Some(&(format, encoding)) = readable else {
        let formats = all_formats(&chosen).join(", ");
        bail!("it offers samples as {formats} only, and neither clapd nor ALSA's plug reads that");
    };
    chosen.set_format(format).map_err(|error| narrow("its format", error))?;
    let period = Frames::from(rate / PERIODS_A_SECOND);
    // Near is enough, and some devices have one size.
    chosen.set_buffer_size_near(PERIODS * period).map_err(|error| narrow("a buffer", error))?;
    chosen.set_period_size_near(period, ValueOr::Nearest).map_err(|error| narrow("a period", error))?;
    pcm.hw_params(&chosen).map_err(|error| narrow(&format!("{channels} channels, {format}"), error))?;
    let (period, buffer) = (chosen.get_period_size()?, chosen.get_buffer_size()?);
    if period < 1 || buffer < period {
        bail!("it has a buffer of {buffer} frames and a period of {period}");
    }
    Ok((rate, channels, format, encoding, period, buffer))
}

/// The rates that a device has of those that are tried, best first.
fn ranked_rates(offered: &HwParams<'_>) -> Vec<u32> {
    let (Ok(low), Ok(high)) = (offered.get_rate_min(), offered.get_rate_max()) else { return Vec::new() };
    let mut rates = rates_of(offered, low, high);
    rates.retain(|rate| RATES.contains(rate));
    rates.sort_unstable_by_key(|rate| rate_cost(*rate));
    rates
}

/// Of the standard rates, and of the `low`est and `high`est that a device states, those that it has; in their order.
pub(super) fn rates_of(offered: &HwParams<'_>, low: u32, high: u32) -> Vec<u32> {
    let mut rates: Vec<u32> = STANDARD_RATES.into_iter().chain([low, high]).collect();
    rates.retain(|rate| offered.test_rate(*rate).is_ok());
    rates.sort_unstable();
    rates.dedup();
    rates
}

/// All formats that are left, by ALSA's names.
pub(super) fn all_formats(offered: &HwParams<'_>) -> Vec<String> {
    const UNREAD: [Format; 15] = [
        Format::IEC958SubframeLE,
        Format::IEC958SubframeBE,
        Format::ImaAdPCM,
        Format::MPEG,
        Format::GSM,
        Format::Special,
        Format::G72324,
        Format::G723241B,
        Format::G72340,
        Format::G723401B,
        Format::DSDU8,
        Format::DSDU16LE,
        Format::DSDU16BE,
        Format::DSDU32LE,
        Format::DSDU32BE,
    ];
    let formats = FORMATS.iter().map(|(format, _)| *format).chain(UNREAD);
    formats.filter(|format| offered.test_format(*format).is_ok()).map(|format| format.to_string()).collect()
}

impl AlsaStream {
    /// What it was opened with.
    pub fn format(&self) -> &StreamFormat {
        &self.format
    }

    /// See [`super::input_stream::InputStream::read`].
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<Fetched> {
        out.clear();
        match poll(&mut self.descriptors, POLL_MS) {
            Ok(0) => return self.look_around(),
            Err(error) if Errno::from_raw_os_error(error.errno()) == Errno::INTR => return Ok(Fetched::Nothing),
            Err(error) => return Ok(trouble(&in_words(error))),
            Ok(_) => {}
        }
        let events = match self.pcm.revents(&self.descriptors) {
            Ok(events) => events,
            Err(error) => return self.recover(error),
        };
        if events.intersects(Flags::HUP | Flags::NVAL) {
            bail!("it was unplugged");
        }
        if events.is_empty() {
            thread::sleep(SPURIOUS_PAUSE);
            return Ok(Fetched::Nothing);
        }
        match self.pcm.avail_delay() {
            Ok((available, _)) if available < self.period => {
                thread::sleep(SPURIOUS_PAUSE);
                Ok(Fetched::Nothing)
            }
            Ok((available, delay)) => self.fetch(available, delay, out),
            Err(error) => self.recover(error),
        }
    }

    fn fetch(&mut self, available: Frames, delay: Frames, out: &mut Vec<f32>) -> Result<Fetched> {
        let now = Instant::now();
        let frame = self.format.channels * self.encoding.bytes();
        let most = (available as usize).saturating_mul(frame).min(self.bytes.len());
        let read = self.pcm.io_bytes().readi(&mut self.bytes[..most]);
        match read {
            Ok(frames) => {
                self.encoding.decode(&self.bytes[..frames * frame], out);
                let age = Duration::from_secs_f64(delay.max(0) as f64 / f64::from(self.format.rate));
                Ok(Fetched::Sound { captured: now.checked_sub(age).unwrap_or(now), lost: 0 })
            }
            Err(error) if Errno::from_raw_os_error(error.errno()) == Errno::AGAIN => Ok(Fetched::Nothing),
            Err(error) => self.recover(error),
        }
    }

    /// Nothing came: some plugins don't say why when they are asked for events.
    fn look_around(&self) -> Result<Fetched> {
        match self.pcm.state_raw() {
            state if state == State::Disconnected as i32 => bail!("it was unplugged"),
            state if state == State::XRun as i32 => self.restart(),
            state if state == State::Suspended as i32 => self.resume(),
            _ => Ok(Fetched::Nothing),
        }
    }

    fn recover(&self, error: alsa::Error) -> Result<Fetched> {
        match Errno::from_raw_os_error(error.errno()) {
            Errno::PIPE => self.restart(),
            Errno::NODEV | Errno::BADF => bail!("it is gone ({})", in_words(error)),
            _ if self.pcm.state_raw() == State::Suspended as i32 => self.resume(),
            _ => Ok(trouble(&in_words(error))),
        }
    }

    /// After an overrun.
    fn restart(&self) -> Result<Fetched> {
        match self.pcm.prepare().and_then(|()| self.pcm.start()) {
            Ok(()) => Ok(trouble("an overrun")),
            Err(error) if Errno::from_raw_os_error(error.errno()) == Errno::NODEV => bail!("it is gone"),
            Err(error) => Ok(trouble(&format!("it does not go on after an overrun: {}", in_words(error)))),
        }
    }

    /// After the computer has slept: a card that can't go on by itself is started again.
    fn resume(&self) -> Result<Fetched> {
        match self.pcm.resume() {
            Ok(()) => {
                // It may be running already.
                let _ = self.pcm.start();
                Ok(Fetched::Nothing)
            }
            Err(error) if Errno::from_raw_os_error(error.errno()) == Errno::AGAIN => {
                thread::sleep(SPURIOUS_PAUSE);
                Ok(Fetched::Nothing)
            }
            Err(_) => self.restart(),
        }
    }
}

/// Errors are counted above; their words are for the log.
fn trouble(words: &str) -> Fetched {
    log::debug!("a stream of ALSA's: {words}");
    Fetched::Trouble { errors: 1 }
}
