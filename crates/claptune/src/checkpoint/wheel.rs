//! Files inside a Python wheel, which is a zip archive.
//!
//! In: a path. Out: the bytes of single files, none larger than the caller allows.
//! Never: unpacks to disk, or more than asked.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clapd_core::files::hexadecimal;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// An open wheel.
pub struct Wheel {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    sha256: String,
}

impl Wheel {
    /// Opens a wheel and hashes it.
    ///
    /// # Errors
    /// A file that is missing, can't be read or is no zip archive.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path).with_context(|| format!("opening {}", path.display()))?);
        let sha256 = hash(&mut file).with_context(|| format!("reading {}", path.display()))?;
        file.rewind()?;
        let archive = ZipArchive::new(file)
            .with_context(|| format!("{} is no wheel (a zip archive); download it again", path.display()))?;
        Ok(Self { path: path.to_path_buf(), archive, sha256 })
    }

    /// Hash of the whole wheel, in hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Name and version, out of the file's name (`name-version-...`).
    ///
    /// # Errors
    /// A file name of another form.
    pub fn name_and_version(&self) -> Result<(String, String)> {
        let stem = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut parts = stem.split('-');
        match (parts.next(), parts.next()) {
            (Some(name), Some(version)) if stem.ends_with(".whl") => Ok((name.replace('_', "-"), version.to_string())),
            _ => bail!("`{stem}` is not named like a wheel (name-version-...whl); keep the name that pip gave it"),
        }
    }

    /// Reads one file of at most `limit` bytes.
    ///
    /// # Errors
    /// A file that is missing, larger than `limit` (whatever the archive says of it) or damaged.
    pub fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let place = format!("{name} in {}", self.path.display());
        let file = self.archive.by_name(name).with_context(|| format!("no {place}; is it the right wheel?"))?;
        let stated = file.size();
        ensure!(stated <= limit, "{place} is {stated} bytes long; at most {limit} are read");
        let mut bytes = vec![];
        file.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("{place} is damaged"))?;
        ensure!(bytes.len() as u64 <= limit, "{place} unpacks to more than {limit} bytes; nothing of it is used");
        Ok(bytes)
    }
}

/// SHA-256 of a file, in hex.
fn hash(file: &mut impl Read) -> Result<String> {
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut block)?;
        if length == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(&block[..length]);
    }
}
