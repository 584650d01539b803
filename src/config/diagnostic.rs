//! What is wrong, or odd, in a configuration, and where.
//!
//! A [`Diagnostic`] prints as one line: its [`Location`], what was seen, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where in a file something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    path: Arc<Path>,
    /// Counted from 1; none where the file as a whole is meant.
    pub line: Option<usize>,
    /// The key's path, `prompt[0].start`; empty where no key is meant.
    pub key: String,
}

impl Location {
    /// The file as a whole.
    pub(super) fn of_file(path: &Path) -> Self {
        Self { path: path.into(), line: None, key: String::new() }
    }

    /// A line of the same file.
    pub(super) fn at_line(&self, line: usize) -> Self {
        Self { line: Some(line), ..self.clone() }
    }

    /// A key below this one, at a line of its own.
    pub(super) fn child(&self, line: Option<usize>, key: &str) -> Self {
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Self { path: Arc::clone(&self.path), line, key }
    }

    /// The `index`th element of this array.
    pub(super) fn element(&self, line: Option<usize>, index: usize) -> Self {
        Self { path: Arc::clone(&self.path), line, key: format!("{}[{index}]", self.key) }
    }

    /// A diagnostic of this location: what was seen and what is allowed, then what to do.
    pub fn diagnostic(&self, message: String, remedy: String) -> Diagnostic {
        Diagnostic { location: self.clone(), message, remedy }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if self.key.is_empty() { Ok(()) } else { write!(f, ": {}", self.key) }
    }
}

/// One fault or one warning; prints as `path:line: key: message; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub location: Location,
    /// The value seen and the values allowed.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.location, self.message, self.remedy)
    }
}

/// A recording that a text names as an example of a sound. Nobody has opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// What a request calls it; none where it is named by its path.
    pub name: Option<String>,
    /// Where it is named.
    pub location: Location,
}

/// Every fault of a configuration, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    faults: Vec<Diagnostic>,
    recordings: Vec<Recording>,
}

impl Faults {
    /// The faults of a text that names these recordings.
    pub(crate) fn new(mut faults: Vec<Diagnostic>, recordings: Vec<Recording>) -> Self {
        faults.sort_by_key(|fault| fault.location.line);
        Self { faults, recordings }
    }

    /// One by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Diagnostic> {
        self.faults.iter()
    }

    /// The recordings that the text names, each of which may be another fault.
    pub fn recordings(&self) -> &[Recording] {
        &self.recordings
    }

    /// These and `more`.
    pub(crate) fn with(self, more: Vec<Diagnostic>) -> Self {
        Self::new([self.faults, more].concat(), self.recordings)
    }
}

impl From<Diagnostic> for Faults {
    fn from(fault: Diagnostic) -> Self {
        Self::new(vec![fault], Vec::new())
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
