//! The tools of every check of the configuration: where faults and warnings go, and what ids, numbers and paths must be.
//!
//! A [`Checker`] goes on after a fault, so that a person meets all of them at once.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clapd_core::prompts::{MAX_ID, is_id};
use clapd_core::text::shorten;

use super::diagnostic::{Diagnostic, Location, Recording};
use super::secret::Secret;
use super::section::Located;
use super::{Environment, RecordingNames, id};

/// A check in progress.
pub(super) struct Checker<'a> {
    /// Where relative paths begin.
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
    /// What recordings are called where they are no paths, in a request.
    recording_names: Option<&'a RecordingNames>,
    outcome: CheckOutcome,
}

/// What a checker found besides what it makes.
#[derive(Debug, Default)]
pub(super) struct CheckOutcome {
    pub(super) faults: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) recordings: Vec<Recording>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(folder: &'a Path, environment: &'a Environment, faults: Vec<Diagnostic>) -> Self {
        let outcome = CheckOutcome { faults, ..CheckOutcome::default() };
        Self { folder, environment, recording_names: None, outcome }
    }

    /// Recordings are named by these names.
    pub(super) fn with_recording_names(self, names: &'a RecordingNames) -> Self {
        Self { recording_names: Some(names), ..self }
    }

    /// What was found, faults handed in included.
    pub(super) fn into_outcome(self) -> CheckOutcome {
        self.outcome
    }

    pub(super) fn fault(&mut self, location: &Location, message: impl Into<String>, remedy: impl Into<String>) {
        self.outcome.faults.push(location.diagnostic(message.into(), remedy.into()));
    }

    pub(super) fn warn(&mut self, location: &Location, message: impl Into<String>, remedy: impl Into<String>) {
        self.outcome.warnings.push(location.diagnostic(message.into(), remedy.into()));
    }

    /// A recording: a path, or a name that is known.
    pub(super) fn check_recording(&mut self, raw: &Located<String>) -> Option<PathBuf> {
        let path = match self.recording_names {
            None => self.resolve_path(raw)?,
            Some(names) => match names.path(&raw.value) {
                Some(path) => path.to_owned(),
                None => {
                    let seen = format!("\"{}\" is no recording that this node has", shorten(&raw.value));
                    let remedy =
                        "take a name from prompts/get; put a new recording into the configuration, and send reload";
                    self.fault(&raw.location, seen, remedy);
                    return None;
                }
            },
        };
        let name = self.recording_names.map(|_| raw.value.clone());
        self.outcome.recordings.push(Recording { path: path.clone(), name, location: raw.location.clone() });
        Some(path)
    }

    /// An id as somebody wrote it.
    pub(super) fn check_id(&mut self, id: &str, location: &Location) -> Option<String> {
        if is_id(id) {
            return Some(id.to_owned());
        }
        let seen = format!("\"{}\" is not an id: 1 to {} letters, digits, `_` and `-`", shorten(id), MAX_ID);
        let remedy = id::slug(id).unwrap_or_else(|| "kitchen".into());
        self.fault(location, seen, format!("write \"{remedy}\""));
        None
    }

    pub(super) fn require_unique(&mut self, id: &str, location: &Location, seen: &mut HashMap<String, Option<usize>>) {
        if let Some(first) = seen.insert(id.to_owned(), location.line) {
            let line = first.map(|line| format!(" on line {line}")).unwrap_or_default();
            self.fault(location, format!("\"{id}\" is taken{line}"), "give each an `id` of its own");
            return;
        }
        let fold = |id: &str| id.to_ascii_lowercase().replace('-', "_");
        let similar = seen.iter().find(|(other, _)| *other != id && fold(other) == fold(id));
        if let Some((other, first)) = similar {
            let line = first.map(|line| format!(" on line {line}")).unwrap_or_default();
            let seen = format!("\"{id}\" differs from \"{other}\"{line} in no more than case, `-` and `_`");
            let remedy = "give one of them another id: Home Assistant's entity ids have lower case and `_` only, and get a mark to differ";
            self.warn(location, seen, remedy);
        }
    }

    pub(super) fn check_whole_number(&mut self, raw: Option<&Located<f64>>, max: f64, usual: f64) -> Option<f64> {
        let Some(Located { value, location }) = raw else { return Some(usual) };
        if !((1.0..=max).contains(value) && value.fract() == 0.0) {
            self.fault(location, format!("{value} is not a whole number from 1 to {max}"), format!("{usual} is usual"));
            return None;
        }
        Some(*value)
    }

    /// The password in a file that the configuration names. A file that this user may not read is root's, and `credential` is what the
    /// service gets of it. None: there is a fault.
    pub(super) fn read_password_file(
        &mut self,
        file: &Located<String>,
        credential: impl FnOnce(&mut Self) -> Option<Option<Secret>>,
        remedy: &str,
    ) -> Option<Secret> {
        let path = self.require_file(file)?;
        if File::open(&path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            && let Some(password) = credential(self)?
        {
            return Some(password);
        }
        match Secret::read(&path) {
            Ok(password) => Some(password),
            Err(seen) => {
                self.fault(&file.location, format!("{}: {seen}", path.display()), remedy);
                None
            }
        }
    }

    /// A path, relative ones from the configuration's folder: a service runs in `/`, a person anywhere.
    pub(super) fn resolve_path(&mut self, raw: &Located<String>) -> Option<PathBuf> {
        if raw.value.is_empty() {
            self.fault(&raw.location, "is empty", "write a path, or remove the key");
            return None;
        }
        Some(self.folder.join(&raw.value))
    }

    /// A path that leads to a file.
    pub(super) fn require_file(&mut self, raw: &Located<String>) -> Option<PathBuf> {
        let path = self.resolve_path(raw)?;
        let seen = match path.metadata() {
            Ok(found) if !found.is_dir() => return Some(path),
            Ok(_) => "is a folder".to_owned(),
            Err(error) => error.to_string(),
        };
        self.fault(&raw.location, format!("{}: {seen}", path.display()), "name a file that this user may read");
        None
    }
}
