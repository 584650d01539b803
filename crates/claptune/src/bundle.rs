//! Writing a bundle's folder.
//!
//! The folder is staged under a hidden name and put in place by one rename once all of it is on disk and clapd's own
//! reader has opened it, so that there is never half a bundle. Of the folder of an older bundle, files that the new one
//! does not have are taken over.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clapd_core::files::hexadecimal;
use clapd_core::model::Bundle;
use clapd_core::model::manifest::Manifest;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A file that is hashed as it is written.
struct HashingWriter<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A bundle in the making, in a hidden folder beside its destination.
pub struct BundleWriter {
    staging: TempDir,
    out: PathBuf,
}

impl BundleWriter {
    /// Prepares to write `out`, which may be the folder of an older bundle.
    ///
    /// # Errors
    /// A destination that exists and is no bundle, or a parent that can't be written.
    pub fn new(out: &Path) -> Result<Self> {
        let old = out.exists();
        ensure!(
            !old || out.join("bundle.toml").is_file(),
            "{} exists and is no bundle (it has no bundle.toml); give another --out or remove it",
            out.display()
        );
        let parent = match out.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        let staging = tempfile::Builder::new().prefix(".bundle-").tempdir_in(parent);
        let staging = staging.with_context(|| format!("creating a folder in {}", parent.display()))?;
        Ok(Self { staging, out: out.to_path_buf() })
    }

    /// Writes one file and returns its hash.
    ///
    /// # Errors
    /// A disk that is full or read-only.
    pub fn add(&self, name: &str, bytes: &[u8]) -> Result<String> {
        self.add_with(name, |to| Ok(to.write_all(bytes)?))
    }

    /// Writes one file piece by piece and returns its hash.
    ///
    /// # Errors
    /// What `write` says, or a disk that is full or read-only.
    pub fn add_with(&self, name: &str, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<String> {
        let place = || format!("writing {name}");
        let file = File::create(self.staging.path().join(name)).with_context(place)?;
        let mut file = HashingWriter { to: BufWriter::new(file), hash: Sha256::new() };
        write(&mut file).with_context(place)?;
        file.flush().with_context(place)?;
        Ok(hexadecimal(&file.hash.finalize()))
    }

    /// Writes the manifest, with the pipeline id filled in, and puts the folder in its place.
    ///
    /// # Errors
    /// A manifest that the device would refuse, or a destination that can't be replaced.
    pub fn finish(self, mut manifest: Manifest) -> Result<()> {
        manifest.pipeline_id = manifest.computed_pipeline_id();
        let text = toml::to_string(&manifest).context("writing the manifest")?;
        self.add("bundle.toml", text.as_bytes())?;
        // Nothing is left behind that a device then refuses: a size beyond its kernels' bounds shows here, with the reason.
        let made = Bundle::open(self.staging.path()).context("the manifest would be refused by clapd")?;
        made.audio_encoder()
            .map(drop)
            .and_then(|()| made.text_encoder().map(drop))
            .context("clapd could not load it")?;
        // Temporary folders are private to their maker; a bundle is for everybody.
        make_readable(self.staging.path())?;
        let fresh = self.staging.keep();
        let replaced = replace(&fresh, &self.out);
        if replaced.is_err() {
            fs::remove_dir_all(&fresh).ok();
        }
        replaced.with_context(|| format!("putting the bundle at {}", self.out.display()))
    }
}

/// Renames `fresh` to `out`; an older bundle there is moved aside first and comes back if that fails. Files of its folder
/// that the new bundle does not have (notes, scripts) move over.
fn replace(fresh: &Path, out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(fs::rename(fresh, out)?);
    }
    let aside = fresh.with_extension("old");
    fs::rename(out, &aside)?;
    if let Err(e) = fs::rename(fresh, out) {
        fs::rename(&aside, out).context("and the older bundle could not be put back")?;
        return Err(e.into());
    }
    for entry in fs::read_dir(&aside)? {
        let entry = entry?;
        let target = out.join(entry.file_name());
        if !target.exists() {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(fs::remove_dir_all(&aside)?)
}

#[cfg(unix)]
fn make_readable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).context("making the bundle readable")
}

#[cfg(not(unix))]
fn make_readable(_: &Path) -> Result<()> {
    Ok(())
}
