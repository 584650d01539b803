//! The configuration as it is used.
//!
//! In: [`Written`]. Out: [`Settings`], or what keeps it from being some: bounds, ids, what contradicts what; and warnings.
//! Never: stops at the first fault.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clapd_core::prompts::{MAX_ID, is_id};
use clapd_core::text::shorten;

use super::file::{Written, WrittenOutbox};
use super::finding::{Finding, Place, Recording};
use super::section::At;
use super::{Environment, Settings, broker, id};
use crate::outbox::OutboxSpec;

/// Windows of the models are 5 to 10 s long. Ten times a second is more than their resolution; less often than each
/// 10 s, sound falls between two windows.
const HOP_S: std::ops::RangeInclusive<f64> = 0.1..=10.0;
/// As many as `clap::Compute` allows.
const MAX_THREADS: f64 = 64.0;
/// The step of every front end's frames: a window begins at a frame.
const HOP_STEP_S: f64 = 0.01;
/// A window of several seconds once a second follows a sound closely and costs a small computer a few per cent of a core.
const DEFAULT_HOP_S: f64 = 1.0;

/// 16 bits hold nothing below -100 dB, and a quiet room through a small microphone lies at -70 to -50 dB. Above -30 dB a
/// gate would shut out a person who speaks at the other end of the room.
const GATE_DB: std::ops::RangeInclusive<f64> = -100.0..=-30.0;

/// A check in progress.
pub(super) struct Check<'a> {
    /// Where relative paths begin.
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
    found: Found,
}

/// What a check found besides what it makes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    pub(super) recordings: Vec<Recording>,
}

impl<'a> Check<'a> {
    pub(super) fn new(folder: &'a Path, environment: &'a Environment, faults: Vec<Finding>) -> Self {
        Self { folder, environment, found: Found { faults, ..Found::default() } }
    }

    /// What was found, faults handed in included.
    pub(super) fn into_found(self) -> Found {
        self.found
    }

    pub(super) fn fault(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.faults.push(place.finding(message.into(), remedy.into()));
    }

    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.warnings.push(place.finding(message.into(), remedy.into()));
    }

    pub(super) fn add_recording(&mut self, path: PathBuf, place: &Place) {
        self.found.recordings.push(Recording { path, place: place.clone() });
    }

    /// The settings; none where a part could not be made, for which there is a fault then.
    pub(super) fn settings(&mut self, written: &Written, path: &Path) -> Option<Settings> {
        let whole = Place::of_file(path);
        let node = self.node(written.node_id.as_ref(), &whole);
        let hop = self.hop(written.hop_s.as_ref());
        let gate_db = self.gate_db(written.gate_db.as_ref());
        let sources = self.sources(&written.sources);
        let prompts = self.prompts(&written.prompts);
        let broker = written.mqtt.as_ref().map(|mqtt| broker::check(mqtt, self));
        if broker.is_none() {
            let remedy = "add `[mqtt]` with `url = \"mqtt://host\"`";
            self.warn(&whole.child(None, "mqtt"), "is missing: events are logged, and told to nobody", remedy);
        }
        let outbox = self.outbox(written.outbox.as_ref());
        let threads = self.whole_number(written.threads.as_ref(), MAX_THREADS, 1.0);
        let bundle = written.bundle.as_ref().and_then(|bundle| self.path(bundle));
        let broker = match broker {
            Some(broker) => Some(broker?),
            None => None,
        };
        let log = match &written.log {
            Some(log) => Some(self.log(log)?),
            None => None,
        };
        Some(Settings {
            log,
            node: node?,
            bundle,
            threads: threads? as usize,
            sources: sources?,
            hop: hop?,
            gate_db,
            prompts: prompts?,
            recordings: Vec::new(),
            broker,
            outbox: outbox?,
            state: self.environment.state.clone(),
        })
    }

    fn node(&mut self, written: Option<&At<String>>, whole: &Place) -> Option<String> {
        if let Some(written) = written {
            return self.id(&written.value, &written.place);
        }
        let name = id::slug(&self.environment.host_name);
        if name.is_none() {
            let seen =
                format!("is missing, and the host's name \"{}\" makes none", shorten(&self.environment.host_name));
            self.fault(&whole.child(None, "node.id"), seen, "add `[node]` with `id = \"kitchen\"`");
        }
        name
    }

    /// An id as somebody wrote it.
    pub(super) fn id(&mut self, id: &str, place: &Place) -> Option<String> {
        if is_id(id) {
            return Some(id.to_owned());
        }
        let seen = format!("\"{}\" is not an id: 1 to {} letters, digits, `_` and `-`", shorten(id), MAX_ID);
        let remedy = id::slug(id).unwrap_or_else(|| "kitchen".into());
        self.fault(place, seen, format!("write \"{remedy}\""));
        None
    }

    fn hop(&mut self, written: Option<&At<f64>>) -> Option<Duration> {
        let Some(At { value, place }) = written else { return Some(Duration::from_secs_f64(DEFAULT_HOP_S)) };
        let steps = (value / HOP_STEP_S).round();
        if !HOP_S.contains(value) || (value / HOP_STEP_S - steps).abs() > 1e-6 {
            let allowed =
                format!("{value} is not a multiple of {HOP_STEP_S} from {} to {}", HOP_S.start(), HOP_S.end());
            self.fault(place, allowed, "1.0 suits most");
            return None;
        }
        Some(Duration::from_millis(steps as u64 * 10))
    }

    fn gate_db(&mut self, written: Option<&At<f64>>) -> Option<f32> {
        let At { value, place } = written?;
        if !GATE_DB.contains(value) {
            let allowed = format!("{value} is not a level from {} to {} dB", GATE_DB.start(), GATE_DB.end());
            self.fault(place, allowed, "write -60.0 for a quiet room; without it every window is scored");
        }
        Some(*value as f32)
    }

    pub(super) fn unique(&mut self, id: &str, place: &Place, seen: &mut HashMap<String, Option<usize>>) {
        if let Some(first) = seen.insert(id.to_owned(), place.line) {
            let line = first.map(|line| format!(" on line {line}")).unwrap_or_default();
            self.fault(place, format!("\"{id}\" is taken{line}"), "give each an `id` of its own");
        }
    }

    /// Whether the folder can be made and written is for the daemon's user to find out; `check` may be run by another.
    fn outbox(&mut self, written: Option<&WrittenOutbox>) -> Option<OutboxSpec> {
        let usual = OutboxSpec::default();
        let dir = match written.and_then(|outbox| outbox.dir.as_ref()) {
            Some(dir) => Some(self.folder_to_be(dir)?),
            None => self.environment.state.as_ref().map(|state| state.join("outbox")),
        };
        let Some(outbox) = written else { return Some(OutboxSpec { dir, ..usual }) };
        // A million events are 200 MB of SD card, a year is longer than anybody's broker is away.
        let max_events = self.whole_number(outbox.max_events.as_ref(), 1_000_000.0, usual.max_events as f64);
        let max_age_h = self.whole_number(outbox.max_age_h.as_ref(), 8_760.0, usual.max_age.as_secs_f64() / 3600.0);
        Some(OutboxSpec {
            dir,
            max_events: max_events? as usize,
            max_age: Duration::from_secs_f64(max_age_h? * 3600.0),
        })
    }

    fn folder_to_be(&mut self, written: &At<String>) -> Option<PathBuf> {
        let path = self.path(written)?;
        // What stands in the way for everybody.
        if let Some(file) = path.ancestors().find(|part| part.exists() && !part.is_dir()) {
            let seen = format!("{}: {} is no folder", path.display(), file.display());
            self.fault(&written.place, seen, "name a folder; it is made where there is none");
            return None;
        }
        Some(path)
    }

    pub(super) fn whole_number(&mut self, written: Option<&At<f64>>, max: f64, usual: f64) -> Option<f64> {
        let Some(At { value, place }) = written else { return Some(usual) };
        if !((1.0..=max).contains(value) && value.fract() == 0.0) {
            self.fault(place, format!("{value} is not a whole number from 1 to {max}"), format!("{usual} is usual"));
            return None;
        }
        Some(*value)
    }

    /// A path, relative ones from the configuration's folder: a service runs in `/`, a person anywhere.
    pub(super) fn path(&mut self, written: &At<String>) -> Option<PathBuf> {
        if written.value.is_empty() {
            self.fault(&written.place, "is empty", "write a path, or remove the key");
            return None;
        }
        Some(self.folder.join(&written.value))
    }

    /// A path that leads to a file.
    pub(super) fn existing_file(&mut self, written: &At<String>) -> Option<PathBuf> {
        let path = self.path(written)?;
        let seen = match path.metadata() {
            Ok(found) if !found.is_dir() => return Some(path),
            Ok(_) => "is a folder".to_owned(),
            Err(error) => error.to_string(),
        };
        self.fault(&written.place, format!("{}: {seen}", path.display()), "name a file that this user may read");
        None
    }
}
