//! A capture device of ALSA's: opened, its configuration chosen, read.
//!
//! A device is asked for what it has, so that ALSA converts nothing: rates and formats are converted here, and better. Where a device
//! can't be read as it is (a compressed format, 384 kHz, channels apart), it is opened again behind ALSA's `plug`.

use std::ffi::CString;
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

/// The rate that is asked for where it can be had: what nearly every converter runs at, and what CLAP models take.
const PREFERRED_RATE: u32 = 48_000;
/// Rates from here on carry all that any bundle hears (CLAP's filter bank ends at 14 kHz).
const SUFFICIENT_RATE: u32 = 32_000;
/// Rates that converters run at; a device is asked for these and for its lowest and highest.
pub(super) const COMMON_RATES: [u32; 13] =
    [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000];
/// A period of the sound system, as a part of a second: ten wake-ups a second are nothing, and a listener for events needs no less.
const PERIODS_A_SECOND: u32 = 10;
/// The sound system's buffer, in periods: the stream's thread may be kept from reading for 0.4 s before sound is lost.
const PERIODS: Frames = 5;
/// The most channels of a card: 64 are a MADI line's. ALSA's converters offer ten thousand.
pub(super) const MAX_CHANNELS: u32 = 64;
/// Channels that are asked for where it does not matter: a microphone in one channel of two is only found in both.
const USUAL_CHANNELS: u32 = 2;
/// The most channels that are looked at where the best is to be found: a microphone array's.
const ARRAY_CHANNELS: u32 = 8;
/// How long to wait for sound before the thread looks around.
const POLL_MS: i32 = 100;
/// A pause where a device says that it has sound and has none, over and over (ALSA's `pulse` when its server dies): no core is burnt.
const SPURIOUS_PAUSE: Duration = Duration::from_millis(5);

/// The channels that somebody wants of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelNeed {
    /// At least so many, where it has them.
    pub least: usize,
    /// As many as it has, to choose from.
    pub all: bool,
}

/// An open device that delivers.
pub(super) struct CaptureStream {
    pcm: PCM,
    descriptors: Vec<pollfd>,
    bytes: Vec<u8>,
    encoding: SampleEncoding,
    period: Frames,
    /// Frames a second, as the device says.
    pub rate: u32,
    /// Samples a frame.
    pub channels: usize,
    /// For the log: rate, channels, format.
    pub description: String,
}

/// What [`CaptureStream::read`] found.
pub(super) enum Fetched {
    /// Frames, of which the first was captured then; so many of their samples were no numbers.
    Sound { captured: Instant, bad: u64 },
    /// Nothing came in time.
    Nothing,
    /// Sound was lost, and the device goes on.
    Overrun,
    /// The device reported an error and may go on.
    Fault(String),
}

/// Reads ALSA's configuration, if it has changed.
///
/// # Errors
/// It can't be read; with ALSA's file and line.
pub(super) fn check_configuration(messages: &mut AlsaMessages) -> Result<()> {
    messages.take();
    let updated = alsa::config::update();
    let said = messages.take();
    let mut faults = syntax_errors(&said);
    if let Err(error) = updated {
        let words = faults.next().or(last_message(&said)).map_or_else(|| in_words(error), str::to_owned);
        bail!("ALSA's configuration can't be read: {words}; mend the file there");
    }
    // A file that alsa.conf includes as optional is left out, and its devices are missed.
    faults.for_each(|fault| log::warn!("ALSA's configuration has a fault, and a part of it is left out: {fault}"));
    Ok(())
}

/// Opens a device and starts it.
///
/// # Errors
/// ALSA's configuration can't be read; there is no such device, it can't be opened now, or nothing that it offers can be used.
pub(super) fn open(name: &str, need: ChannelNeed, messages: &mut AlsaMessages) -> Result<CaptureStream> {
    check_configuration(messages)?;
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
            anyhow!(
                "device {name:?} is in use by {by}, and can be used by one at a time; end that program, or take it from a sound server"
            )
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
fn start(pcm: PCM, need: ChannelNeed, resample: bool) -> Result<CaptureStream> {
    let (rate, channels, format, encoding, period, buffer) = configure(&pcm, need, resample)?;
    let software = pcm.sw_params_current()?;
    software.set_avail_min(period)?;
    pcm.sw_params(&software)?;
    drop(software);
    let descriptors = pcm.get()?;
    pcm.start().map_err(|error| anyhow!("it does not start: {}", in_words(error)))?;
    let bytes = vec![0; buffer as usize * channels as usize * encoding.bytes()];
    let description = format!("{rate} Hz, {channels} channels, {format}");
    Ok(CaptureStream { pcm, descriptors, bytes, encoding, period, rate, channels: channels as usize, description })
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
    let channels = choose_channels(&offered, need).ok_or_else(|| anyhow!("it offers no channels at {rate} Hz"))?;
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
    let tried = COMMON_RATES.into_iter().chain([low, high]);
    let mut rates: Vec<u32> = tried.filter(|rate| RATES.contains(rate) && offered.test_rate(*rate).is_ok()).collect();
    rank_rates(&mut rates);
    rates
}

fn rank_rates(rates: &mut Vec<u32>) {
    rates.sort_unstable_by_key(|&rate| match rate {
        PREFERRED_RATE => (0, 0),
        SUFFICIENT_RATE.. => (1, rate),
        _ => (2, u32::MAX - rate),
    });
    rates.dedup();
}

/// Of the counts that a device offers: two or what is needed, else the next higher, else the most; all, where one of them is to be
/// chosen, but not of a converter's ten thousand.
fn choose_channels(offered: &[u32], need: ChannelNeed) -> Option<u32> {
    let least = USUAL_CHANNELS.max(need.least as u32);
    let converts = offered.len() == MAX_CHANNELS as usize;
    if need.all && !converts {
        let array = offered.iter().copied().filter(|&count| count <= ARRAY_CHANNELS.max(least)).max();
        return array.or_else(|| offered.first().copied());
    }
    offered.iter().copied().find(|&count| count >= least).or_else(|| offered.last().copied())
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

impl CaptureStream {
    /// How its samples lie in their bytes.
    pub fn encoding(&self) -> SampleEncoding {
        self.encoding
    }

    /// Waits a while for sound, and replaces what is in `out` by all that has come, frame by frame.
    ///
    /// # Errors
    /// The device is gone for good.
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<Fetched> {
        out.clear();
        match poll(&mut self.descriptors, POLL_MS) {
            Ok(0) => return self.look_around(),
            Err(error) if Errno::from_raw_os_error(error.errno()) == Errno::INTR => return Ok(Fetched::Nothing),
            Err(error) => return Ok(Fetched::Fault(in_words(error))),
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
        let frame = self.channels * self.encoding.bytes();
        let most = (available as usize).saturating_mul(frame).min(self.bytes.len());
        let read = self.pcm.io_bytes().readi(&mut self.bytes[..most]);
        match read {
            Ok(frames) => {
                let bad = self.encoding.decode(&self.bytes[..frames * frame], out);
                let age = Duration::from_secs_f64(delay.max(0) as f64 / f64::from(self.rate));
                Ok(Fetched::Sound { captured: now.checked_sub(age).unwrap_or(now), bad })
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
            _ => Ok(Fetched::Fault(in_words(error))),
        }
    }

    /// After an overrun.
    fn restart(&self) -> Result<Fetched> {
        match self.pcm.prepare().and_then(|()| self.pcm.start()) {
            Ok(()) => Ok(Fetched::Overrun),
            Err(error) if Errno::from_raw_os_error(error.errno()) == Errno::NODEV => bail!("it is gone"),
            Err(error) => Ok(Fetched::Fault(format!("it does not go on after an overrun: {}", in_words(error)))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_rate_then_the_lowest_sufficient_then_the_highest() {
        let ranked = |rates: &[u32]| {
            let mut rates = rates.to_vec();
            rank_rates(&mut rates);
            rates
        };
        assert_eq!(ranked(&[8_000, 44_100, 48_000, 96_000, 48_000, 16_000]), [48_000, 44_100, 96_000, 16_000, 8_000]);
        assert_eq!(ranked(&[96_000, 32_000]), [32_000, 96_000]);
    }

    #[test]
    fn channels_are_two_or_what_is_needed_and_all_for_a_choice() {
        let few = |least| ChannelNeed { least, all: false };
        let all = ChannelNeed { least: 1, all: true };
        let converter: Vec<u32> = (1..=MAX_CHANNELS).collect();
        for (offered, need, chosen) in [
            (&[1][..], few(1), Some(1)),
            (&[1, 2], few(1), Some(2)),
            (&[6], few(1), Some(6)),
            (&[2, 4, 8], few(3), Some(4)),
            (&[1, 2], few(4), Some(2)),
            (&[1, 2, 8, 18], all, Some(8)),
            (&[18], all, Some(18)),
            (&converter, all, Some(2)),
            (&converter, few(5), Some(5)),
            (&[], all, None),
        ] {
            assert_eq!(choose_channels(offered, need), chosen, "{offered:?}, {need:?}");
        }
    }
}
