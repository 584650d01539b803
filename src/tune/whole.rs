//! Files that are there whole or not at all.
//!
//! In: a path, bytes. Out: the file, under another name until it is on disk.
//! Never: changes a file in place.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// As readable as files are that other programs write; temporary ones are their maker's alone.
const READABLE: u32 = 0o644;

/// Writes a file, in a folder that is there.
///
/// # Errors
/// A disk that is full or read-only.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let place = || format!("can't write {}", path.display());
    let folder = folder(path);
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(READABLE))
        .tempfile_in(folder)
        .with_context(place)?;
    file.write_all(bytes).with_context(place)?;
    file.as_file().sync_all().with_context(place)?;
    file.persist(path).with_context(place)?;
    sync(folder)
}

/// The folder of a file, which may be named without one.
pub fn folder(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has the disk take the names in a folder.
///
/// # Errors
/// A disk that fails.
pub fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("writing {}", folder.display()))
}
