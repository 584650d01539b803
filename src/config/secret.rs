//! A password or a key, which no log and no diagnostic shows.

use std::fmt;
use std::path::Path;

use super::text_file;

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
        let text = text_file::read(path, MAX_PASSWORD_BYTES).map_err(|fault| fault.to_string())?;
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
