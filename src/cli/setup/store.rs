//! Where the configuration is written, and the files beside it.
//!
//! Files are written whole or not at all, secrets for their owner alone, and a configuration that is replaced is kept.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clapd_core::files::{Access, AtomicFile, Durability, write_atomically};

use super::draft::EXAMPLE;
use crate::config::Secret;

/// The service runs as a user of its own and has to read what is in it.
const PUBLIC_FOLDER: u32 = 0o755;

/// A configuration to be.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    folder: PathBuf,
    has_configuration: bool,
}

impl Target {
    /// Looks whether it can be written, before anybody is asked anything.
    ///
    /// # Errors
    /// A folder that cannot be made, or written to.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let folder = path.parent().context("a configuration is a file in a folder")?.to_owned();
        let remedy =
            || format!("cannot write to {}; use sudo, or name a file of yours with --config", folder.display());
        DirBuilder::new().recursive(true).mode(PUBLIC_FOLDER).create(&folder).with_context(remedy)?;
        AtomicFile::create(&path).with_context(remedy)?;
        // What a package has put there is nobody's work.
        let has_configuration = path.exists() && fs::read_to_string(&path).map_or(true, |text| text != EXAMPLE);
        Ok(Self { path, folder, has_configuration })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody's configuration is there.
    pub(super) fn has_configuration(&self) -> bool {
        self.has_configuration
    }

    /// Where that one is kept.
    pub(super) fn old(&self) -> String {
        format!("{}.old", self.path.display())
    }

    /// Writes the configuration; the one before is kept.
    pub(super) fn write_configuration(&self, text: &str) -> Result<()> {
        if self.has_configuration {
            let old = self.old();
            fs::copy(&self.path, &old).with_context(|| format!("cannot keep the old one as {old}"))?;
        }
        write_atomically(&self.path, text.as_bytes(), Access::Public, Durability::Synced)
    }

    /// Copies a file to a place beside it, if there is one: the service sees nobody's home.
    pub(super) fn copy(&self, name: &str, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        write_atomically(&self.folder.join(name), &bytes, Access::Public, Durability::Synced)
    }

    /// Writes a file beside it for the owner's eyes only, if there is something to write.
    pub(super) fn write_secret(&self, name: &str, secret: Option<&Secret>) -> Result<()> {
        let Some(secret) = secret else { return Ok(()) };
        let text = format!("{}\n", secret.reveal());
        write_atomically(&self.folder.join(name), text.as_bytes(), Access::Private, Durability::Synced)
    }
}
