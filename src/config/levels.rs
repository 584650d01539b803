//! Levels and the journal, checked: what is known of a source's microphone, how often levels are published, and how much of the past is
//! stored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clapd_core::sound_level::MicrophoneCorrection;
use clapd_core::text::shorten;

use super::checker::Checker;
use super::raw::{self, RawJournal, RawLevels, RawSource};
use super::section::Located;
use super::text_file;
use crate::journal::JournalSpec;
use crate::levels::{FULL_SCALE_DB, LevelPublishing, Microphone};

/// UMIK's files have 20 kB; a megabyte is something else.
const MAX_CORRECTION_BYTES: u64 = 1 << 20;
/// 20 MB are 70,000 events: 50 a day for four years.
const USUAL_JOURNAL_MB: f64 = 20.0;
/// Whoever needs more needs a database.
const MAX_JOURNAL_MB: f64 = 10_000.0;
/// A year and a day, so that the same week of last year is still there.
const USUAL_JOURNAL_DAYS: f64 = 366.0;
/// Ten years.
const MAX_JOURNAL_DAYS: f64 = 3_660.0;

/// The text of a configuration with this `full_scale_db` at a source, on a line of its own: in the place of the one that it has, or below its
/// id. The rest stays as somebody wrote it. None where there is no such source, or it is written in a way that has no place for a line.
pub fn with_full_scale_db(text: &str, path: &Path, source: &str, full_scale_db: f32) -> Option<String> {
    let raw = raw::read(text, path, &mut Vec::new());
    let is_meant = |raw: &&RawSource| raw.id.as_ref().is_some_and(|id| id.value == source);
    let raw = raw.sources.iter().find(is_meant)?;
    let old = raw.full_scale_db.as_ref().map(|key| key.location.line);
    let line = old.unwrap_or_else(|| raw.id.as_ref().and_then(|id| id.location.line))?;
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let written = lines.get(line.checked_sub(1)?)?.clone();
    let key = if old.is_some() { "full_scale_db" } else { "id" };
    let indent = &written[..written.len() - written.trim_start().len()];
    if !written.trim_start().starts_with(key) {
        return None;
    }
    let end = if written.ends_with("\r\n") { "\r\n" } else { "\n" };
    let new = format!("{indent}full_scale_db = {full_scale_db:.1}");
    if old.is_some() {
        let comment = written.find('#').map(|at| format!("  {}", written[at..].trim_end()));
        lines[line - 1] = format!("{new}{}{end}", comment.unwrap_or_default());
    } else {
        if !written.ends_with('\n') {
            lines[line - 1].push_str(end);
        }
        lines.insert(line, format!("{new}{end}"));
    }
    Some(lines.concat())
}

impl Checker<'_> {
    /// None where there is a fault.
    pub(super) fn check_microphone(&mut self, raw: &RawSource) -> Option<Microphone> {
        let full_scale_db = match &raw.full_scale_db {
            Some(written) => Some(self.check_full_scale(written)?),
            None => None,
        };
        let correction = match &raw.correction_file {
            Some(file) => Some(Arc::new(self.read_correction(file)?)),
            None => None,
        };
        Some(Microphone { full_scale_db, correction })
    }

    fn check_full_scale(&mut self, written: &Located<f64>) -> Option<f32> {
        let Located { value, location } = written;
        if !FULL_SCALE_DB.contains(value) {
            let (low, high) = (FULL_SCALE_DB.start(), FULL_SCALE_DB.end());
            let seen = format!("{value} is not the level of digital full scale, from {low} to {high} dB");
            self.fault(location, seen, "take what `clapd calibrate mic` prints");
            return None;
        }
        Some(*value as f32)
    }

    fn read_correction(&mut self, file: &Located<String>) -> Option<MicrophoneCorrection> {
        let path = self.require_file(file)?;
        let remedy = "name the correction file that the microphone's maker gives for its serial number";
        let read = text_file::read_bytes(&path, MAX_CORRECTION_BYTES);
        let (seen, remedy) = match read {
            // Comments are for people, and in whatever encoding they had.
            Ok(bytes) => match MicrophoneCorrection::parse(&String::from_utf8_lossy(&bytes)) {
                Ok(correction) => return Some(correction),
                Err(error) => (error.to_string(), remedy),
            },
            Err(fault) => (fault.to_string(), fault.remedy("name a file that this user may read")),
        };
        self.fault(&file.location, format!("{}: {seen}", path.display()), remedy);
        None
    }

    /// None where there is a fault. Without the table nothing is published: it would be news to who has an MQTT broker, and rows in the
    /// recorder of Home Assistant.
    pub(super) fn check_levels(&mut self, raw: Option<&RawLevels>) -> Option<LevelPublishing> {
        let Some(raw) = raw else { return Some(LevelPublishing::Unasked) };
        let Some(Located { value, location }) = &raw.publish else { return Some(LevelPublishing::Minute) };
        match value.as_str() {
            "minute" => Some(LevelPublishing::Minute),
            "second" => Some(LevelPublishing::Second),
            "off" => Some(LevelPublishing::Off),
            other => {
                let seen = format!("\"{}\" is neither \"minute\" nor \"second\" nor \"off\"", shorten(other));
                self.fault(location, seen, "write \"minute\"");
                None
            }
        }
    }

    /// The journal; none inside where there is none, since nobody wants one or there is no state folder. Outer none: there is a fault.
    #[expect(clippy::option_option, reason = "a fault and no journal are two things")]
    pub(super) fn check_journal(&mut self, raw: Option<&RawJournal>) -> Option<Option<JournalSpec>> {
        let max_mb =
            self.check_whole_number(raw.and_then(|raw| raw.max_mb.as_ref()), MAX_JOURNAL_MB, USUAL_JOURNAL_MB)?;
        let days = raw.and_then(|raw| raw.max_days.as_ref());
        if days.is_some_and(|days| days.value == 0.0) {
            return Some(None);
        }
        let max_days = self.check_whole_number(days, MAX_JOURNAL_DAYS, USUAL_JOURNAL_DAYS)?;
        let spec = |folder| JournalSpec {
            folder,
            max_bytes: (max_mb * 1e6) as u64,
            max_age: Duration::from_secs_f64(max_days * 86_400.0),
        };
        Some(self.environment.state.clone().map(spec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_is_one_line_of_the_configuration_and_all_else_stays() {
        let set = |text: &str, source| with_full_scale_db(text, Path::new("clapd.toml"), source, 117.04);
        let text = "# mine\n[[source]]\n  id = \"mic\" # left\n  device = \"default\"\n[[source]]\nid = 'yard'\ndevice = \"x\"";
        let expected = "# mine\n[[source]]\n  id = \"mic\" # left\n  full_scale_db = 117.0\n  device = \"default\"\n[[source]]\nid = 'yard'\ndevice = \"x\"";
        assert_eq!(set(text, "mic").as_deref(), Some(expected));
        assert_eq!(set(expected, "mic").as_deref(), Some(expected), "again");
        assert_eq!(set(text, "cellar"), None);
        let old = "[[source]]\r\ndevice = \"x\"\r\nfull_scale_db = 90 # of May\r\nid = \"mic\"\r\n";
        let new = "[[source]]\r\ndevice = \"x\"\r\nfull_scale_db = 117.0  # of May\r\nid = \"mic\"\r\n";
        assert_eq!(set(old, "mic").as_deref(), Some(new));
        assert_eq!(
            set("[[source]]\nid = \"mic\"", "mic").unwrap(),
            "[[source]]\nid = \"mic\"\nfull_scale_db = 117.0\n"
        );
        assert_eq!(set("source = [{ device = \"x\", id = \"mic\" }]\n", "mic"), None, "no place for a line");
    }
}
