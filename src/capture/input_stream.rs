//! A device that is open and delivers frames, whichever way it was opened: by cpal, or past it by ALSA.
//!
//! cpal opens what it can. What it lacks on Linux is ALSA's own: formats of three bytes, telephone codes and foreign byte orders, PCMs that no
//! configuration lists (`pulse:NAME`), rates that are in no list. Above this module nobody knows which of them it was.

use std::fmt;
use std::time::Instant;

use anyhow::Result;

use super::cpal_stream::{self, CpalStream};
#[cfg(target_os = "linux")]
use super::{
    alsa_log::AlsaMessages,
    alsa_pcm::{self, AlsaStream},
};

/// The rate that is asked for where it can be had: what nearly every converter runs at, and what CLAP models take.
pub(super) const PREFERRED_RATE: u32 = 48_000;
/// Rates from here on carry all that any bundle hears (CLAP's filter bank ends at 14 kHz).
pub(super) const SUFFICIENT_RATE: u32 = 32_000;
/// Rates that converters run at.
pub(super) const STANDARD_RATES: [u32; 13] =
    [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000];
/// A period of the sound system, as a part of a second: ten wake-ups a second are nothing, and a listener for events needs no less.
pub(super) const PERIODS_A_SECOND: u32 = 10;
/// The most channels of a card: 64 are a MADI line's. Who offers all of them is a converter, of which ALSA's offer ten thousand.
pub(super) const MAX_CHANNELS: u32 = 64;
/// Channels that are asked for where it does not matter: a microphone in one channel of two is only found in both.
const USUAL_CHANNELS: u32 = 2;
/// The most channels that are looked at where the best is to be found: a microphone array's.
const ARRAY_CHANNELS: u32 = 8;

/// The channels that somebody wants of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelNeed {
    /// At least so many, where it has them.
    pub least: usize,
    /// As many as it has, to choose from.
    pub all: bool,
}

/// What a device was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamFormat {
    /// Frames a second, as the device says.
    pub rate: u32,
    /// Samples a frame.
    pub channels: usize,
    /// Samples are integers of 32 bits, of which a converter of 24 may have been put at either end.
    pub is_wide: bool,
    /// For the log: rate, channels, format.
    pub description: String,
}

/// What a read found.
pub(super) enum Fetched {
    /// Frames. The first was captured then, and so many were lost before it that the stream knows of.
    Sound { captured: Instant, lost: u64 },
    /// Nothing came in time.
    Nothing,
    /// The device reported errors, an overrun perhaps, and may go on.
    Trouble { errors: u32 },
}

/// Somebody uses the device, who is named.
#[derive(Debug)]
pub(super) struct DeviceBusy(pub String);

impl fmt::Display for DeviceBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DeviceBusy {}

/// Whether opening failed because somebody uses the device.
pub(super) fn is_busy(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<DeviceBusy>()) || cpal_stream::is_busy(error)
}

/// A running stream. Dropping it may hang for ever where its sound server has died.
pub(super) enum InputStream {
    Cpal(CpalStream),
    #[cfg(target_os = "linux")]
    Alsa(AlsaStream),
}

/// Opens a device and starts it.
///
/// # Errors
/// There is no such device, it can't be opened now, or nothing that it offers can be used; ALSA's configuration can't be read.
#[cfg(target_os = "linux")]
pub(super) fn open(name: &str, need: ChannelNeed, messages: &mut AlsaMessages) -> Result<InputStream> {
    // cpal keeps ALSA's reasons to itself, and takes foreign byte orders for ours: ALSA is asked first.
    alsa_pcm::check_configuration(messages)?;
    if !alsa_pcm::has_foreign_order(name, messages)? {
        match cpal_stream::open(name, need) {
            Ok(stream) => return Ok(InputStream::Cpal(stream)),
            Err(error) => log::debug!("device {name:?}: cpal does not take it ({error:#})"),
        }
    }
    alsa_pcm::open(name, need, messages).map(InputStream::Alsa)
}

/// Opens a device and starts it.
///
/// # Errors
/// There is no such device, it can't be opened now, or nothing that it offers can be used.
#[cfg(not(target_os = "linux"))]
pub(super) fn open(name: &str, need: ChannelNeed) -> Result<InputStream> {
    cpal_stream::open(name, need).map(InputStream::Cpal)
}

impl InputStream {
    /// What it was opened with.
    pub fn format(&self) -> &StreamFormat {
        match self {
            Self::Cpal(stream) => stream.format(),
            #[cfg(target_os = "linux")]
            Self::Alsa(stream) => stream.format(),
        }
    }

    /// Waits a tenth of a second or less for sound, and replaces what is in `out` by all that has come, frame by frame.
    ///
    /// # Errors
    /// The device is gone for good.
    pub fn read(&mut self, out: &mut Vec<f32>) -> Result<Fetched> {
        match self {
            Self::Cpal(stream) => stream.read(out),
            #[cfg(target_os = "linux")]
            Self::Alsa(stream) => stream.read(out),
        }
    }
}

/// The order in which rates are tried, the lowest first: the preferred one, the lowest that is sufficient, the highest.
pub(super) fn rate_cost(rate: u32) -> (u32, u32) {
    match rate {
        PREFERRED_RATE => (0, 0),
        SUFFICIENT_RATE.. => (1, rate),
        _ => (2, u32::MAX - rate),
    }
}

/// The order in which counts of channels are tried, the lowest first: two or what is needed, the next higher, the most; all, where one of
/// them is to be chosen, but not of a converter's.
pub(super) fn channel_cost(count: u32, offered: &[u32], need: ChannelNeed) -> (u32, u32) {
    let least = USUAL_CHANNELS.max(need.least as u32);
    let converts = (1..=MAX_CHANNELS).all(|count| offered.contains(&count));
    match count {
        _ if need.all && !converts => {
            let most = ARRAY_CHANNELS.max(least);
            if count <= most { (0, most - count) } else { (1, count) }
        }
        _ if count >= least => (0, count),
        _ => (1, u32::MAX - count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_rate_then_the_lowest_sufficient_then_the_highest() {
        let mut rates = [8_000, 44_100, 48_000, 96_000, 16_000, 32_000];
        rates.sort_by_key(|rate| rate_cost(*rate));
        assert_eq!(rates, [48_000, 32_000, 44_100, 96_000, 16_000, 8_000]);
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
            let best = offered.iter().copied().min_by_key(|count| channel_cost(*count, offered, need));
            assert_eq!(best, chosen, "{offered:?}, {need:?}");
        }
    }
}
