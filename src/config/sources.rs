//! What is listened to, checked: every `[[source]]` as written becomes a [`SourceSpec`].
//!
//! No device is asked; whether it is there is seen when it is opened, and again when it returns.

use std::collections::HashMap;

use clapd_core::channel::Channel;
use clapd_core::decode::RawFormat;
use clapd_core::level::Gain;
use clapd_core::text::shorten;

use super::checker::Checker;
use super::raw::RawSource;
use super::section::{Located, TextOrInteger, TextOrNumber};
use crate::capture::{SourceKind, SourceSpec};

/// A source has a thread, a front end and 30 s of samples of its own; nobody has wired more microphones to one small computer.
const MAX_SOURCES: usize = 16;
/// What is too loud by more than this is cut off already, which no gain mends.
pub const MIN_GAIN_DB: f64 = -20.0;
/// A microphone whose 24 bits lie at the lower end of 32 lacks 48 dB, and may be a quiet one. Beyond that, the lowest bit of 16 alone
/// would be louder than speech.
pub const MAX_GAIN_DB: f64 = 60.0;
/// First levels below `clapd/<node>/` that are not sources.
const RESERVED: [&str; 5] = ["status", "info", "health", "request", "response"];

impl Checker<'_> {
    pub(super) fn check_sources(&mut self, raw: &[RawSource]) -> Option<Vec<SourceSpec>> {
        if let Some(extra) = raw.get(MAX_SOURCES) {
            self.fault(
                &extra.location,
                format!("is beyond the {MAX_SOURCES} sources that are allowed"),
                "run a second clapd",
            );
        }
        let mut seen = HashMap::new();
        let mut stdin = false;
        raw.iter()
            .map(|source| {
                let spec = self.check_source(source, &mut seen)?;
                if matches!(spec.kind, SourceKind::Stdin { .. }) && std::mem::replace(&mut stdin, true) {
                    self.fault(&source.location, "is the second that reads standard input", "keep one of them");
                }
                Some(spec)
            })
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }

    fn check_source(&mut self, raw: &RawSource, seen: &mut HashMap<String, Option<usize>>) -> Option<SourceSpec> {
        let id = raw.id.as_ref().and_then(|id| self.check_source_id(id));
        if let (Some(id), Some(at)) = (&id, &raw.id) {
            self.require_unique(id, &at.location, seen);
        }
        let channel = self.check_channel(raw.channel.as_ref());
        let kind = self.check_source_kind(raw, id.as_deref());
        self.refuse_stream_keys(raw);
        if let (Some(Channel::Auto), None, Some(raw)) = (channel, &raw.device, &raw.channel) {
            self.fault(&raw.location, "\"auto\" is for devices", "write \"mix\", or a channel's number");
        }
        if raw.file.is_none() {
            for key in [&raw.looped, &raw.realtime].into_iter().flatten() {
                self.fault(&key.location, "is for files", "remove it, or name a `file`");
            }
        }
        let gain = raw.gain_db.as_ref().map(|gain_db| self.check_gain(gain_db));
        let microphone = self.check_microphone(raw);
        let kind = kind?;
        let gain = gain.unwrap_or_else(|| Some(kind.default_gain()));
        Some(SourceSpec { id: id?, kind, channel: channel?, gain: gain?, microphone: microphone? })
    }

    fn check_source_kind(&mut self, raw: &RawSource, id: Option<&str>) -> Option<SourceKind> {
        if let Some(device) = &raw.device {
            if device.value.trim().is_empty() {
                self.fault(&device.location, "is empty", "write \"default\", or a name that `clapd devices` lists");
                return None;
            }
            return Some(SourceKind::Device { name: device.value.clone() });
        }
        if let Some(file) = &raw.file {
            let path = self.require_file(file)?;
            let looped = raw.looped.as_ref().is_some_and(|looped| looped.value);
            let realtime = raw.realtime.as_ref().is_some_and(|realtime| realtime.value);
            if looped && !realtime {
                self.warn(&file.location, "is played for ever, as fast as this computer can", "add `realtime = true`");
            }
            return Some(SourceKind::File { path, looped, realtime });
        }
        if let Some(url) = &raw.url {
            return self.check_stream(raw, url, id).map(SourceKind::Stream);
        }
        if let Some(listen) = &raw.listen {
            return self.check_listen(raw, listen).map(SourceKind::Listen);
        }
        let stdin = raw.stdin.as_ref()?;
        if !stdin.value {
            self.fault(
                &stdin.location,
                "is false, and nothing else is named",
                "write `stdin = true`, or `device = \"default\"`",
            );
            return None;
        }
        Some(SourceKind::Stdin { raw: self.check_stdin_format(raw.raw.as_ref())? })
    }

    /// What standard input carries: `None` inside for wav and the like, which say it themselves.
    #[expect(clippy::option_option, reason = "a fault and no format are two things")]
    fn check_stdin_format(&mut self, raw: Option<&Located<String>>) -> Option<Option<RawFormat>> {
        raw.map_or(Some(None), |raw| self.check_raw_format(raw).map(Some))
    }

    /// What raw samples are declared to be.
    pub(super) fn check_raw_format(&mut self, raw: &Located<String>) -> Option<RawFormat> {
        match raw.value.parse() {
            Ok(format) => Some(format),
            Err(seen) => {
                let seen = format!("\"{}\": {seen}", shorten(&raw.value));
                self.fault(&raw.location, seen, "write \"16000:s16:1\": rate, format, channels");
                None
            }
        }
    }

    fn check_source_id(&mut self, raw: &Located<String>) -> Option<String> {
        if RESERVED.contains(&raw.value.as_str()) {
            let seen = format!("\"{}\" is a topic of the node itself", raw.value);
            self.fault(&raw.location, seen, format!("write \"{}_1\"", raw.value));
            return None;
        }
        self.check_id(&raw.value, &raw.location)
    }

    fn check_gain(&mut self, Located { value, location }: &Located<TextOrNumber>) -> Option<Gain> {
        let seen = match value {
            TextOrNumber::Text(text) if text == "auto" => return Some(Gain::Auto),
            TextOrNumber::Number(gain_db) if (MIN_GAIN_DB..=MAX_GAIN_DB).contains(gain_db) => {
                return Some(Gain::Fixed(*gain_db as f32));
            }
            TextOrNumber::Text(text) => format!("\"{}\"", shorten(text)),
            TextOrNumber::Number(gain_db) => gain_db.to_string(),
        };
        let allowed = format!("{seen} is neither \"auto\" nor a gain from {MIN_GAIN_DB} to {MAX_GAIN_DB} dB");
        self.fault(location, allowed, "write 0.0 for the source as it comes");
        None
    }

    fn check_channel(&mut self, raw: Option<&Located<TextOrInteger>>) -> Option<Channel> {
        // A device with more than 64 inputs is a mixing desk's, and MADI's lines have as many.
        const CHANNELS: std::ops::Range<i64> = 0..64;
        let Some(Located { value, location }) = raw else { return Some(Channel::Mix) };
        let seen = match value {
            TextOrInteger::Text(text) if text == "mix" => return Some(Channel::Mix),
            TextOrInteger::Text(text) if text == "auto" => return Some(Channel::Auto),
            TextOrInteger::Integer(index) if CHANNELS.contains(index) => {
                return usize::try_from(*index).ok().map(Channel::Index);
            }
            TextOrInteger::Text(text) => format!("\"{}\"", shorten(text)),
            TextOrInteger::Integer(index) => index.to_string(),
        };
        let allowed = format!("{seen} is neither \"mix\" nor \"auto\" nor a channel from 0 to {}", CHANNELS.end - 1);
        self.fault(location, allowed, "write \"mix\"");
        None
    }
}
