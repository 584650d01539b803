//! Prompts that were set while the daemon ran, stored for its next start.
//!
//! `prompts.toml` in the state folder has `[[prompt]]` tables that stand in for those of the configuration, until they
//! are reset, or somebody removes the file. A file at fault does not keep the daemon from starting.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, write_atomically};
use clapd_core::prompts::Prompt;

use crate::config::{self, PromptOrigin};
use crate::prompts;

const FILE: &str = "prompts.toml";
const HEADER: &str = "# Set over MQTT. These stand in for every [[prompt]] of the configuration, until a request prompts/set\n\
                      # with {\"reset\":true}, or until this file is removed and clapd restarted.\n\n";
/// What somebody listens for is nobody else's business.
const PRIVATE_FOLDER: u32 = 0o700;
/// More than `config` takes, so that it says what is wrong with it.
const MAX_BYTES: u64 = 2 << 20;

/// Where such prompts are stored; nowhere, where there is no state folder.
#[derive(Debug, Clone)]
pub struct PromptStore(Option<PathBuf>);

impl PromptStore {
    /// In this folder, which is made when there is something to store.
    pub fn in_folder(state: Option<&Path>) -> Self {
        Self(state.map(|state| state.join(FILE)))
    }

    /// The file, if there is one: what it holds stands in for the prompts of the configuration.
    pub fn file(&self) -> Option<&Path> {
        self.0.as_deref().filter(|path| path.exists())
    }

    /// The stored prompts. Where the file is at fault a log line says so: then it is those of the configuration.
    pub fn load(&self) -> Option<Vec<Prompt>> {
        let path = self.0.as_deref()?;
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                log::warn!("{}: {error}; the prompts of the configuration are used", path.display());
                return None;
            }
        };
        match prompts::parse(&text, PromptOrigin::File(path), Path::new("/")) {
            Ok(prompts) => {
                log::info!("{}: {} prompt(s) that were set over MQTT", path.display(), prompts.len());
                Some(prompts)
            }
            Err(faults) => {
                faults.iter().for_each(|fault| log::warn!("{fault}"));
                log::warn!("{}: is at fault, and the prompts of the configuration are used", path.display());
                None
            }
        }
    }

    /// Stores these; synced.
    ///
    /// # Errors
    /// No state folder, or one that cannot be written.
    pub(super) fn save(&self, prompts: &[Prompt]) -> Result<()> {
        let path = self.0.as_deref().context("there is no state folder; set STATE_DIRECTORY or HOME")?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let text = config::prompts_text(prompts)?;
        let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        write_atomically(path, (HEADER.to_owned() + &text).as_bytes(), Access::Private, Durability::Synced)
    }

    /// Stores none.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub(super) fn remove(&self) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use clapd_core::prompts::{PromptId, Rule};

    #[test]
    fn prompts_are_stored_until_they_are_removed_and_a_broken_file_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = PromptStore::in_folder(Some(&folder.path().join("new")));
        assert_eq!(store.load(), None);
        let rule = Rule { start: 4.2, stop: 2.1, confirm: (1, 2), cooldown: Duration::from_millis(1500) };
        let prompt = Prompt {
            id: PromptId::new("dog").unwrap(),
            text: Some("a dog".into()),
            audio: Vec::new(),
            rule,
            contrast: vec!["a cat".into()],
        };
        store.save(std::slice::from_ref(&prompt)).unwrap();
        assert_eq!(store.load(), Some(vec![prompt]));
        fs::write(store.0.as_ref().unwrap(), "[[prompt]]\ntext = 5\n").unwrap();
        assert_eq!(store.load(), None);
        store.remove().unwrap();
        store.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
        assert!(PromptStore::in_folder(None).save(&[]).is_err());
    }
}
