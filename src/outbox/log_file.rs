//! The log on disk: one file that is appended to, and rewritten now and then.
//!
//! An append is one write; a rewrite is a new file that takes the old one's name, so that there is a whole log at any
//! moment. This is not `clapd_core::files::write_atomically`: the log stays open and locked between writes, a rewrite
//! that fails must leave it as it was, and syncs are the writer thread's decision, since each wears a memory card.
//!
//! This was chosen over an embedded store, all of which write pages: an event is 170 bytes here, where a commit is at
//! least two pages of 4 kB and two syncs in SQLite (WAL, synchronous=FULL) and in redb. Nothing is looked up, so there
//! is nothing to index.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::log_entry::LogEntry;
use super::state::Job;

/// Names the format: a later one has another line here.
pub(super) const HEADER: &[u8] = b"clapd outbox 1\n";
const FILE: &str = "events.log";
const NEW: &str = "events.new";
const LOCK: &str = "lock";
/// What is heard in a home is nobody else's business.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// What a log does to its folder, a step at a time. Tests have one that fails or crashes at any step.
pub(super) trait LogDisk {
    /// Writes at the end of the log. Where that fails, a part may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the log to this many bytes.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Has the disk take the log.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes a file with these bytes beside the log, and has the disk take it.
    fn create_new(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Removes that file.
    fn remove_new(&mut self);
    /// That file becomes the log.
    fn replace(&mut self) -> io::Result<()>;
    /// Has the disk take which file is the log.
    fn sync_folder(&mut self) -> io::Result<()>;
}

/// A folder of the file system. Other processes are locked out as long as it lives.
#[derive(Debug)]
pub(super) struct LogFolder {
    dir: PathBuf,
    file: File,
    /// The file beside the log, once it is whole.
    new: Option<File>,
    _lock: File,
}

impl LogDisk for LogFolder {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn create_new(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Not `truncate`, which the standard library refuses beside `append`.
        let mut file = private_options().append(true).open(self.dir.join(NEW))?;
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.new = Some(file);
        Ok(())
    }

    fn remove_new(&mut self) {
        self.new = None;
        let _ = fs::remove_file(self.dir.join(NEW));
    }

    fn replace(&mut self) -> io::Result<()> {
        fs::rename(self.dir.join(NEW), self.dir.join(FILE))?;
        // It was opened before, so that nothing can fail any more between its new name and the first append.
        if let Some(new) = self.new.take() {
            self.file = new;
        }
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// An open log.
#[derive(Debug)]
pub(super) struct LogFile<D = LogFolder> {
    disk: D,
    /// Bytes that are whole; what a failed append left behind lies after them.
    len: u64,
}

/// What was in a log when it was opened.
#[derive(Debug, Default)]
pub(super) struct LogContents {
    pub(super) entries: Vec<LogEntry>,
    /// Bytes that belong to no entry.
    pub(super) damaged: usize,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Why the disk took no header: it is full, and the log can't be appended to before a [`Job::Rewrite`].
    pub(super) full: Option<io::Error>,
}

impl LogFile {
    /// Opens the log in this folder, and makes both where there is none.
    ///
    /// # Errors
    /// A folder that cannot be made or written, one that another process uses, and a file that is no log of this version.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, LogContents)> {
        DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(dir)?;
        let lock = private_options().open(dir.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(ErrorKind::ResourceBusy, "another clapd uses it"));
            }
            Err(TryLockError::Error(error)) => log::debug!("outbox: this file system has no locks: {error}"),
        }
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let found = read(&bytes)?;
        let file = private_options().append(true).open(&path)?;
        Self::begin(LogFolder { dir: dir.into(), file, new: None, _lock: lock }, &bytes, found)
    }
}

impl<D: LogDisk> LogFile<D> {
    /// A log on a disk that has these bytes of it, in which this was found.
    pub(super) fn begin(disk: D, bytes: &[u8], mut found: LogContents) -> io::Result<(Self, LogContents)> {
        let mut log = Self { disk, len: bytes.len() as u64 };
        if !bytes.starts_with(HEADER) {
            let mut whole = Vec::new();
            found.entries.iter().for_each(|entry| entry.write(&mut whole));
            match log.rewrite(&whole) {
                Err(error) if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&error.kind()) => {
                    found.full = Some(error);
                }
                written => written?,
            }
        }
        found.len = log.len;
        Ok((log, found))
    }

    /// Does what the outbox wants next of the disk.
    pub(super) fn perform(&mut self, job: &Job) -> io::Result<()> {
        match job {
            Job::Append(entries) => self.append(entries),
            Job::Sync(entries) => self.append(entries).and_then(|()| self.disk.sync()),
            Job::Rewrite(entries) => self.rewrite(entries),
            Job::Clear => self.clear(),
        }
    }

    /// Writes entries at the end, to the system's cache: they outlive this process, and the computer once they are synced.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.disk.append(bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                if let Err(error) = self.disk.set_len(self.len) {
                    log::debug!("outbox: half an entry stays: {error}");
                }
                Err(error)
            }
        }
    }

    /// Removes all entries. Not synced: what a power cut brings back was published before, and is published twice.
    fn clear(&mut self) -> io::Result<()> {
        let empty = HEADER.len() as u64;
        if self.len > empty {
            self.disk.set_len(empty)?;
            self.len = empty;
        }
        Ok(())
    }

    /// Replaces all entries with these, synced.
    fn rewrite(&mut self, entries: &[u8]) -> io::Result<()> {
        let bytes = [HEADER, entries].concat();
        if let Err(error) = self.disk.create_new(&bytes) {
            // A full disk is not made fuller by what is of no use.
            self.disk.remove_new();
            return Err(error);
        }
        self.disk.replace()?;
        self.len = bytes.len() as u64;
        self.disk.sync_folder()
    }
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(PRIVATE_FILE);
    options
}

/// What is in a log of these bytes.
pub(super) fn read(bytes: &[u8]) -> io::Result<LogContents> {
    if let Some(entries) = bytes.strip_prefix(HEADER) {
        let (entries, damaged) = LogEntry::read_all(entries);
        return Ok(LogContents { entries, damaged, ..LogContents::default() });
    }
    // A power cut may leave a new file torn or zeroed from anywhere in its first page on; another format has another header.
    let page = &bytes[..bytes.len().min(HEADER.len())];
    let written = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let torn = HEADER.starts_with(&page[..written]);
    if torn {
        let (entries, damaged) = LogEntry::read_all(bytes);
        return Ok(LogContents { entries, damaged, ..LogContents::default() });
    }
    Err(io::Error::new(ErrorKind::InvalidData, format!("{FILE} is no outbox of this version; move it away")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry_bytes(event: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        LogEntry::StartAcked { event }.write(&mut bytes);
        bytes
    }

    fn found(dir: &Path) -> (Vec<LogEntry>, usize) {
        let (_, LogContents { entries, damaged, .. }) = LogFile::open(dir).unwrap();
        (entries, damaged)
    }

    #[test]
    fn what_was_appended_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/b");
        let (mut log, LogContents { entries, damaged, .. }) = LogFile::open(&dir).unwrap();
        assert_eq!((entries.len(), damaged), (0, 0));
        log.perform(&Job::Append(entry_bytes(1))).unwrap();
        log.perform(&Job::Sync(entry_bytes(2))).unwrap();
        assert!(LogFile::open(&dir).is_err(), "it is locked");
        drop(log);
        assert_eq!(found(&dir), (vec![LogEntry::StartAcked { event: 1 }, LogEntry::StartAcked { event: 2 }], 0));
        let (mut log, _) = LogFile::open(&dir).unwrap();
        log.perform(&Job::Rewrite(entry_bytes(3))).unwrap();
        log.perform(&Job::Append(entry_bytes(4))).unwrap();
        assert_eq!(log.len, fs::metadata(dir.join(FILE)).unwrap().len());
        drop(log);
        assert_eq!(found(&dir), (vec![LogEntry::StartAcked { event: 3 }, LogEntry::StartAcked { event: 4 }], 0));
        let (mut log, _) = LogFile::open(&dir).unwrap();
        log.perform(&Job::Clear).unwrap();
        log.perform(&Job::Append(entry_bytes(5))).unwrap();
        drop(log);
        assert_eq!(found(&dir), (vec![LogEntry::StartAcked { event: 5 }], 0));
    }

    #[test]
    fn a_file_cut_anywhere_is_read_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let whole = [HEADER, &entry_bytes(1), &entry_bytes(2)].concat();
        for cut in 0..whole.len() {
            fs::write(dir.join(FILE), &whole[..cut]).unwrap();
            let (mut log, before) = LogFile::open(dir).unwrap();
            let touched = LogEntry::Touched { event: 7, lasted: Duration::ZERO, score: 1.0, peak: 2.0 };
            let mut bytes = Vec::new();
            touched.write(&mut bytes);
            log.perform(&Job::Append(bytes)).unwrap();
            drop(log);
            let expected = [before.entries, vec![touched]].concat();
            assert_eq!(found(dir).0, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_header_zeroed_from_anywhere_on_is_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        for cut in 0..=HEADER.len() {
            let bytes = [&HEADER[..cut], &vec![0; HEADER.len() - cut + 20]].concat();
            fs::write(dir.join(FILE), bytes).unwrap();
            let (mut log, before) = LogFile::open(dir).unwrap();
            assert_eq!(before.entries, [], "zeros from {cut}");
            log.perform(&Job::Append(entry_bytes(1))).unwrap();
            drop(log);
            assert_eq!(found(dir).0, [LogEntry::StartAcked { event: 1 }], "zeros from {cut}");
        }
    }

    #[test]
    fn another_format_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "clapd outbox 2\n...").unwrap();
        let error = LogFile::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("move it away"), "{error}");
        assert!(fs::read(folder.path().join(FILE)).unwrap().starts_with(b"clapd outbox 2"));
    }
}
