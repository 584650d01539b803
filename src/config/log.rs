//! Where scores are written, checked: `[log]` as written becomes a [`LogSpec`].
//!
//! The file is not made here; `clapd check` may be run by another user than the daemon.

use super::checker::Checker;
use super::raw::RawLog;
use crate::score_log::{Form, LogSpec};

/// Twenty prompts a second are 190 MB a day; a disk for months of them belongs to somebody who has a database.
const MAX_MB: f64 = 10_000.0;
/// A day of five prompts, and nothing that an SD card of 8 GB would notice.
const USUAL_MB: f64 = 50.0;

impl Checker<'_> {
    /// None where there is a fault.
    pub(super) fn check_log(&mut self, raw: &RawLog) -> Option<LogSpec> {
        let max_mb = self.check_whole_number(raw.max_mb.as_ref(), MAX_MB, USUAL_MB);
        let scores = raw.scores.as_ref()?;
        let path = self.resolve_path(scores)?;
        let Some(form) = Form::of(&path) else {
            let seen = format!("{}: its name ends neither in .jsonl nor in .csv", path.display());
            self.fault(&scores.location, seen, "write \"/var/lib/clapd/scores.jsonl\"");
            return None;
        };
        if path.is_dir() || !path.parent().is_some_and(|folder| folder.as_os_str().is_empty() || folder.is_dir()) {
            let seen = format!("{}: is a folder, or lies in one that is not there", path.display());
            self.fault(&scores.location, seen, "name a file in a folder that exists and that the daemon may write to");
            return None;
        }
        Some(LogSpec { path, form, max_bytes: (max_mb? * 1e6) as u64 })
    }
}
