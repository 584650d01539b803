//! Samples without any header, of which somebody has said what they are: `16000:s16:1`.

use std::fmt;
use std::str::FromStr;

use super::check_source_format;
use super::pcm::{Encoding, Layout};
use crate::channel::Channel;
use crate::samples::RATES;

/// As many as a mixing desk has; a larger number is a slip.
const MAX_CHANNELS: usize = 64;

/// What each encoding is called: as ffmpeg has it, without the byte order.
const ENCODINGS: [(&str, Encoding); 7] = [
    ("u8", Encoding::U8),
    ("s16", Encoding::I16),
    ("s24", Encoding::I24),
    ("s32", Encoding::I32),
    ("f32", Encoding::F32),
    ("alaw", Encoding::ALaw),
    ("mulaw", Encoding::MuLaw),
];

/// How raw samples are stored: `RATE:FORMAT:CHANNELS`, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFormat {
    rate: u32,
    encoding: Encoding,
    channels: usize,
}

impl RawFormat {
    /// Samples a second.
    pub fn rate(self) -> u32 {
        self.rate
    }

    /// Samples in a frame.
    pub fn channels(self) -> usize {
        self.channels
    }

    /// Bytes in a frame, which has a sample of every channel.
    pub fn frame_bytes(self) -> usize {
        self.channels * self.encoding.bytes()
    }

    /// Appends to `out` one channel of whole frames; returns how many samples were NaN or infinite and became 0. Bytes
    /// behind the last whole frame are left alone.
    pub fn decode(self, bytes: &[u8], channel: Channel, out: &mut Vec<f32>) -> u64 {
        let mut samples_bad = 0;
        for frame in bytes.chunks_exact(self.frame_bytes()) {
            let mut bad = false;
            let samples = frame.chunks_exact(self.encoding.bytes()).map(|sample| self.encoding.decode(sample));
            out.push(channel.pick(samples, &mut bad));
            samples_bad += u64::from(bad);
        }
        samples_bad
    }

    /// Whether this channel can be taken of it.
    ///
    /// # Errors
    /// There is no such channel.
    pub fn check_channel(self, channel: Channel) -> anyhow::Result<()> {
        check_source_format("raw sound", self.rate, self.channels, channel)
    }
}

impl From<RawFormat> for Layout {
    fn from(raw: RawFormat) -> Self {
        let RawFormat { rate, encoding, channels } = raw;
        Self { rate, channels, encoding, big_endian: false, announced: None }
    }
}

impl FromStr for RawFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [rate, format, channels] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err("it is not RATE:FORMAT:CHANNELS, such as 16000:s16:1".into());
        };
        let rate = rate
            .parse()
            .ok()
            .filter(|rate| RATES.contains(rate))
            .ok_or_else(|| format!("its rate is no whole number from {} to {}", RATES.start(), RATES.end()))?;
        let (_, encoding) = *ENCODINGS.iter().find(|(name, _)| *name == format).ok_or_else(|| {
            let names = ENCODINGS.map(|(name, _)| name).join(", ");
            format!("its format is none of {names}, all little-endian, s24 in 3 bytes")
        })?;
        let channels = channels
            .parse()
            .ok()
            .filter(|channels| (1..=MAX_CHANNELS).contains(channels))
            .ok_or_else(|| format!("its channels are no whole number from 1 to {MAX_CHANNELS}"))?;
        Ok(Self { rate, encoding, channels })
    }
}

impl fmt::Display for RawFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ENCODINGS.iter().find(|(_, encoding)| *encoding == self.encoding).map_or("", |(name, _)| name);
        write!(f, "{}:{name}:{}", self.rate, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_they_are_written() {
        for text in
            ["16000:s16:1", "48000:s24:2", "8000:u8:1", "44100:s32:64", "192000:f32:1", "8000:alaw:1", "8000:mulaw:2"]
        {
            assert_eq!(text.parse::<RawFormat>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "16000",
            "16000:s16",
            "16000:s16:1:1",
            "7999:s16:1",
            "16k:s16:1",
            "16000:s17:1",
            "16000:s16:0",
            "16000:s16:65",
            "16000:S16:1",
            " 16000:s16:1",
        ] {
            assert!(text.parse::<RawFormat>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn whole_frames_are_decoded() {
        let format: RawFormat = "16000:s16:2".parse().unwrap();
        let mut out = Vec::new();
        assert_eq!(format.decode(&[0, 0x40, 0, 0, 0, 0x80, 0, 0x80, 1], Channel::Mix, &mut out), 0);
        assert_eq!(out, [0.25, -1.0]);
        assert_eq!(format.decode(&[0, 0, 0, 0x40], Channel::Index(1), &mut out), 0);
        assert_eq!(out, [0.25, -1.0, 0.5]);
        let floats: RawFormat = "16000:f32:1".parse().unwrap();
        assert_eq!(floats.decode(&f32::NAN.to_le_bytes(), Channel::Mix, &mut out), 1);
        assert!(format.check_channel(Channel::Index(2)).is_err() && format.check_channel(Channel::Index(1)).is_ok());
    }
}
