//! A password or a key, which no log and no diagnostic shows.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A password is a line, not a file that somebody named by mistake.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// A file's only line.
    ///
    /// # Errors
    /// What is wrong with the file; none of what it holds.
    pub fn read(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        Self::of_file(file)
    }

    pub(super) fn of_file(file: File) -> Result<Self, String> {
        let mut text = String::new();
        file.take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_PASSWORD_BYTES {
            return Err(format!("is longer than {MAX_PASSWORD_BYTES} bytes"));
        }
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err("is empty".into()),
            line if line.contains('\n') => Err("has several lines".into()),
            line => Ok(Self(line.to_owned())),
        }
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
