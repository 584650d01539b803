//! What recordings are called in messages: a name that tells no folder of this computer, and leads back to the file.
//!
//! Only recordings that the configuration names have one, so that whoever may send requests can have no other file read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf, absolute};

use clapd_core::files::sha256_hex;
use clapd_core::prompts::Prompt;

/// Digits that tell files of one name in different folders apart: of a thousand such, two would share theirs once in 10^4
/// computers.
const DIGITS: usize = 10;

/// Recordings by their names.
#[derive(Debug, Clone, Default)]
pub struct RecordingNames(BTreeMap<String, PathBuf>);

impl RecordingNames {
    /// The name of a recording: its file's, and some digits. It is the same after a restart.
    pub fn name(path: &Path) -> String {
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        let digits = &sha256_hex(path.as_os_str().as_encoded_bytes())[..DIGITS];
        format!("{}#{digits}", path.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Knows the recordings of these prompts from now on. Those of earlier ones stay known: who wrote down what was listened
    /// for may want it back.
    pub fn add(&mut self, prompts: &[Prompt]) {
        let recordings = prompts.iter().flat_map(|prompt| &prompt.audio);
        self.0.extend(recordings.map(|path| (Self::name(path), path.clone())));
    }

    /// The recording of this name.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
    }
}
