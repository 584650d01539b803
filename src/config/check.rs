//! From the configuration as it is written to the one that is used: bounds, and what contradicts what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clapd_core::text::shorten;

use super::checker::Checker;
use super::diagnostic::Location;
use super::raw::{RawConfig, RawOutbox};
use super::section::Located;
use super::{Settings, broker, id};
use crate::outbox::OutboxSpec;

/// Windows of the models are 5 to 10 s long. Ten times a second is more than their resolution; less often than each
/// 10 s, sound falls between two windows.
const HOP_S: std::ops::RangeInclusive<f64> = 0.1..=10.0;
/// As many as `clapd_core::model::Compute` allows.
const MAX_THREADS: f64 = 64.0;
/// The step of every front end's frames: a window begins at a frame.
const HOP_STEP_S: f64 = 0.01;
/// A window of several seconds once a second follows a sound closely and costs a small computer a few per cent of a core.
const DEFAULT_HOP_S: f64 = 1.0;

/// 16 bits hold nothing below -100 dB, and a quiet room through a small microphone lies at -70 to -50 dB. Above -30 dB a
/// gate would shut out a person who speaks at the other end of the room.
const GATE_DB: std::ops::RangeInclusive<f64> = -100.0..=-30.0;

impl Checker<'_> {
    /// The settings; none where a part could not be made, for which there is a fault then.
    pub(super) fn check_settings(&mut self, raw: &RawConfig, path: &Path) -> Option<Settings> {
        let whole = Location::of_file(path);
        let node = self.check_node(raw.node_id.as_ref(), &whole);
        let hop = self.check_hop(raw.hop_s.as_ref());
        let gate_db = self.check_gate(raw.gate_db.as_ref());
        let sources = self.check_sources(&raw.sources);
        let prompts = self.check_prompts(&raw.prompts);
        let broker = raw.mqtt.as_ref().map(|mqtt| broker::check(mqtt, self));
        if broker.is_none() {
            let remedy = "add `[mqtt]` with `url = \"mqtt://host\"`";
            self.warn(&whole.child(None, "mqtt"), "is missing: events are logged, and told to nobody", remedy);
        }
        let outbox = self.check_outbox(raw.outbox.as_ref());
        let threads = self.check_whole_number(raw.threads.as_ref(), MAX_THREADS, 1.0);
        let bundle = raw.bundle.as_ref().and_then(|bundle| self.resolve_path(bundle));
        let history = self.check_history(raw.history.as_ref(), raw.http.is_some());
        let place = self.check_place(raw.latitude.as_ref(), raw.longitude.as_ref());
        let is_placed = raw.latitude.is_some() || raw.longitude.is_some();
        let quiet = self.check_quiet(&raw.quiet, is_placed, sources.as_deref(), prompts.as_deref());
        let broker = match broker {
            Some(broker) => Some(broker?),
            None => None,
        };
        let log = match &raw.log {
            Some(log) => Some(self.check_log(log)?),
            None => None,
        };
        let http = match &raw.http {
            Some(http) => Some(self.check_http(http)?),
            None => None,
        };
        let levels = self.check_levels(raw.levels.as_ref());
        let journal = self.check_journal(raw.journal.as_ref());
        Some(Settings {
            log,
            http,
            history: history?,
            place: place?,
            quiet: quiet?,
            levels: levels?,
            journal: journal?,
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

    fn check_node(&mut self, raw: Option<&Located<String>>, whole: &Location) -> Option<String> {
        if let Some(raw) = raw {
            return self.check_id(&raw.value, &raw.location);
        }
        let name = id::slug(&self.environment.host_name);
        if name.is_none() {
            let seen =
                format!("is missing, and the host's name \"{}\" makes none", shorten(&self.environment.host_name));
            self.fault(&whole.child(None, "node.id"), seen, "add `[node]` with `id = \"kitchen\"`");
        }
        name
    }

    fn check_hop(&mut self, raw: Option<&Located<f64>>) -> Option<Duration> {
        let Some(Located { value, location }) = raw else { return Some(Duration::from_secs_f64(DEFAULT_HOP_S)) };
        let steps = (value / HOP_STEP_S).round();
        if !HOP_S.contains(value) || (value / HOP_STEP_S - steps).abs() > 1e-6 {
            let allowed =
                format!("{value} is not a multiple of {HOP_STEP_S} from {} to {}", HOP_S.start(), HOP_S.end());
            self.fault(location, allowed, "1.0 suits most");
            return None;
        }
        Some(Duration::from_millis(steps as u64 * 10))
    }

    fn check_gate(&mut self, raw: Option<&Located<f64>>) -> Option<f32> {
        let Located { value, location } = raw?;
        if !GATE_DB.contains(value) {
            let allowed = format!("{value} is not a level from {} to {} dB", GATE_DB.start(), GATE_DB.end());
            self.fault(location, allowed, "write -60.0 for a quiet room; without it every window is scored");
        }
        Some(*value as f32)
    }

    /// Whether the folder can be made and written is for the daemon's user to find out; `check` may be run by another.
    fn check_outbox(&mut self, raw: Option<&RawOutbox>) -> Option<OutboxSpec> {
        let usual = OutboxSpec::default();
        let dir = match raw.and_then(|outbox| outbox.dir.as_ref()) {
            Some(dir) => Some(self.require_creatable_folder(dir)?),
            None => self.environment.state.as_ref().map(|state| state.join("outbox")),
        };
        let Some(outbox) = raw else { return Some(OutboxSpec { dir, ..usual }) };
        // A million events are 200 MB of SD card, a year is longer than anybody's broker is away.
        let max_events = self.check_whole_number(outbox.max_events.as_ref(), 1_000_000.0, usual.max_events as f64);
        let max_age_h =
            self.check_whole_number(outbox.max_age_h.as_ref(), 8_760.0, usual.max_age.as_secs_f64() / 3600.0);
        Some(OutboxSpec {
            dir,
            max_events: max_events? as usize,
            max_age: Duration::from_secs_f64(max_age_h? * 3600.0),
        })
    }

    fn require_creatable_folder(&mut self, raw: &Located<String>) -> Option<PathBuf> {
        let path = self.resolve_path(raw)?;
        // What stands in the way for everybody.
        if let Some(file) = path.ancestors().find(|part| part.exists() && !part.is_dir()) {
            let seen = format!("{}: {} is no folder", path.display(), file.display());
            self.fault(&raw.location, seen, "name a folder; it is made where there is none");
            return None;
        }
        Some(path)
    }
}
