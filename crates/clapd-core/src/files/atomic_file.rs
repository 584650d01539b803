//! A file that is there whole or not at all: it has another name until all of it is written.
//!
//! There is one policy for all of clapd and claptune:
//! * A reader meets the old content or the new, never a part of either: the new file takes the old one's name by a
//!   rename.
//! * What the program has acknowledged as stored is [`Durability::Synced`]: the file before it has its name, then the
//!   folder that holds the name, so that a power cut after the call loses nothing. What can be made again (a cache) is
//!   [`Durability::Unsynced`]: an fsync for each entry would wear a memory card.
//! * A new file is its owner's alone until it is whole; it then gets the mode that [`Access`] names.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone, mode 0600: secrets, and what a home listens for.
    Private,
    /// Everybody, mode 0644: a service reads it as another user.
    Public,
    /// As the file that it replaces; everybody where there is none.
    Unchanged,
}

impl Access {
    fn mode(self, path: &Path) -> io::Result<Permissions> {
        let mode = match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
            Self::Unchanged => match fs::metadata(path) {
                Ok(old) => return Ok(old.permissions()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0o644,
                Err(error) => return Err(error),
            },
        };
        Ok(Permissions::from_mode(mode))
    }
}

/// What of a finished write a power cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing.
    Synced,
    /// The whole file, or its content: the reader checks it.
    Unsynced,
}

/// A file that is being written under another name, beside its place. Dropped before [`finish`](Self::finish), it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins a file that will be at `path`, in a folder that is there.
    ///
    /// # Errors
    /// A folder that is missing or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: NamedTempFile::new_in(folder_of(path))?, path: path.to_path_buf() })
    }

    /// Gives the file its name, in the place of the one that has it.
    ///
    /// # Errors
    /// A disk that is full, read-only or failing; what was at the path before is still there.
    pub fn finish(self, access: Access, durability: Durability) -> io::Result<()> {
        self.file.as_file().set_permissions(access.mode(&self.path)?)?;
        if durability == Durability::Synced {
            self.file.as_file().sync_all()?;
        }
        self.file.persist(&self.path)?;
        if durability == Durability::Synced { sync_folder(folder_of(&self.path)) } else { Ok(()) }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes `bytes` as the file at `path`, in a folder that is there.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::finish`], with the path.
pub fn write_atomically(path: &Path, bytes: &[u8], access: Access, durability: Durability) -> Result<()> {
    let write = || {
        let mut file = AtomicFile::create(path)?;
        file.write_all(bytes)?;
        file.finish(access, durability)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The folder of a file, which may be named without one.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has the disk take the names in a folder.
///
/// # Errors
/// A disk that fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_gets_its_mode_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_atomically(&path, b"one", Access::Private, Durability::Synced).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"one".to_vec(), 0o600));
        write_atomically(&path, b"two", Access::Unchanged, Durability::Unsynced).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o600));
        write_atomically(&path, b"three", Access::Public, Durability::Synced).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"three".to_vec(), 0o644));
        write_atomically(&folder.path().join("new"), b"", Access::Unchanged, Durability::Unsynced).unwrap();
        assert_eq!(mode(&folder.path().join("new")), 0o644);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_behind_and_the_old_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(AtomicFile::create(&folder.path().join("no/such")).is_err());
    }
}
