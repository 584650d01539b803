//! What is listened to, checked.
//!
//! In: every `[[source]]` as written. Out: their [`SourceSpec`]s.
//! Never: asks a device; whether it is there is seen when it is opened, and again when it returns.

use std::collections::HashMap;

use clapd_core::channel::Channel;
use clapd_core::text::shorten;

use super::check::Check;
use super::file::WrittenSource;
use super::section::{At, TextOrInteger};
use crate::capture::{SourceKind, SourceSpec};

/// A source has a thread, a front end and 30 s of samples of its own; nobody has wired more microphones to one small computer.
const MAX_SOURCES: usize = 16;
/// First levels below `clapd/<node>/` that are not sources.
const RESERVED: [&str; 5] = ["status", "info", "health", "request", "response"];

impl Check<'_> {
    pub(super) fn sources(&mut self, written: &[WrittenSource]) -> Option<Vec<SourceSpec>> {
        if let Some(extra) = written.get(MAX_SOURCES) {
            self.fault(
                &extra.place,
                format!("is beyond the {MAX_SOURCES} sources that are allowed"),
                "run a second clapd",
            );
        }
        let mut seen = HashMap::new();
        let mut stdin = false;
        written
            .iter()
            .map(|source| {
                let spec = self.source(source, &mut seen)?;
                if matches!(spec.kind, SourceKind::Stdin) && std::mem::replace(&mut stdin, true) {
                    self.fault(&source.place, "is the second that reads standard input", "keep one of them");
                }
                Some(spec)
            })
            .collect::<Vec<_>>()
            .into_iter()
            .collect()
    }

    fn source(&mut self, written: &WrittenSource, seen: &mut HashMap<String, Option<usize>>) -> Option<SourceSpec> {
        let id = written.id.as_ref().and_then(|id| self.source_id(id));
        if let (Some(id), Some(at)) = (&id, &written.id) {
            self.unique(id, &at.place, seen);
        }
        let channel = self.channel(written.channel.as_ref());
        let kind = self.source_kind(written);
        if written.file.is_none() {
            for key in [&written.looped, &written.realtime].into_iter().flatten() {
                self.fault(&key.place, "is for files", "remove it, or name a `file`");
            }
        }
        Some(SourceSpec { id: id?, kind: kind?, channel: channel? })
    }

    fn source_kind(&mut self, written: &WrittenSource) -> Option<SourceKind> {
        if let Some(device) = &written.device {
            if device.value.trim().is_empty() {
                self.fault(&device.place, "is empty", "write \"default\", or a name that `clapd devices` lists");
                return None;
            }
            return Some(SourceKind::Device { name: device.value.clone() });
        }
        if let Some(file) = &written.file {
            let path = self.existing_file(file)?;
            let looped = written.looped.as_ref().is_some_and(|looped| looped.value);
            let realtime = written.realtime.as_ref().is_some_and(|realtime| realtime.value);
            if looped && !realtime {
                self.warn(&file.place, "is played for ever, as fast as this computer can", "add `realtime = true`");
            }
            return Some(SourceKind::File { path, looped, realtime });
        }
        let stdin = written.stdin.as_ref()?;
        if !stdin.value {
            self.fault(
                &stdin.place,
                "is false, and nothing else is named",
                "write `stdin = true`, or `device = \"default\"`",
            );
            return None;
        }
        Some(SourceKind::Stdin)
    }

    fn source_id(&mut self, written: &At<String>) -> Option<String> {
        if RESERVED.contains(&written.value.as_str()) {
            let seen = format!("\"{}\" is a topic of the node itself", written.value);
            self.fault(&written.place, seen, format!("write \"{}_1\"", written.value));
            return None;
        }
        self.id(&written.value, &written.place)
    }

    fn channel(&mut self, written: Option<&At<TextOrInteger>>) -> Option<Channel> {
        // cpal and symphonia count channels in 16 bits; a device with more than 64 inputs is a mixing desk's.
        const CHANNELS: std::ops::Range<i64> = 0..64;
        let Some(At { value, place }) = written else { return Some(Channel::Mix) };
        let seen = match value {
            TextOrInteger::Text(text) if text == "mix" => return Some(Channel::Mix),
            TextOrInteger::Integer(index) if CHANNELS.contains(index) => {
                return usize::try_from(*index).ok().map(Channel::Index);
            }
            TextOrInteger::Text(text) => format!("\"{}\"", shorten(text)),
            TextOrInteger::Integer(index) => index.to_string(),
        };
        let allowed = format!("{seen} is neither \"mix\" nor a channel from 0 to {}", CHANNELS.end - 1);
        self.fault(place, allowed, "write \"mix\"");
        None
    }
}
