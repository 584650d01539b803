//! Writing the journal, on a thread of its own.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, write_atomically};

use super::{EventQuery, JournalEntry, JournalPage, JournalReader, JournalSpec, line, older};
use crate::counter::Counter;
use crate::threads::{Heartbeat, ServiceThread};

/// Entries that may wait for the disk: a card that hangs for a minute with 16 sources, each with events as fast as windows come.
const MAX_WAITING: usize = 1_024;
/// How often the thread turns where nothing is to be written.
const TURN: Duration = Duration::from_secs(1);
/// How often entries beyond their age are removed: who reads the journal is not shown them in any case.
const TIDY_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// What somebody's home sounds like is nobody else's business.
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// What the thread is asked to do.
enum Request {
    Add(Box<JournalEntry>),
    /// Of the events with these ids nothing is to be left. The answer says how many there were.
    Remove(HashSet<String>, SyncSender<io::Result<usize>>),
    /// Nothing more comes.
    Close,
}

/// The journal of this process; a clone is another handle to it.
#[derive(Debug, Clone)]
pub struct Journal {
    spec: JournalSpec,
    requests: SyncSender<Request>,
    lost: Arc<Counter>,
    /// Until somebody takes it.
    thread: Arc<Mutex<Option<ServiceThread>>>,
}

impl Journal {
    /// Begins a journal with a thread that writes it.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(spec: JournalSpec) -> Result<Self> {
        let (requests, receiver) = sync_channel(MAX_WAITING);
        let lost = Arc::<Counter>::default();
        let writer = Writer::new(spec.clone(), Arc::clone(&lost));
        let thread = ServiceThread::spawn("journal", move |heartbeat| writer.run(&receiver, &heartbeat))
            .context("the journal's thread cannot be started; see the limits of the service (TasksMax)")?;
        Ok(Self { spec, requests, lost, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// The thread that writes, for whoever looks after it; none where it was taken before.
    pub fn take_thread(&self) -> Option<ServiceThread> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Adds an event that has ended. Waits for nothing: where the disk does not keep up, the entry is counted and left out.
    pub fn add(&self, entry: JournalEntry) {
        if self.requests.try_send(Request::Add(entry.into())).is_err() {
            count_lost(&self.lost, &self.spec, "the disk does not keep up");
        }
    }

    /// Entries that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// The events that are asked for, but those beyond their age. It reads the disk: not for a thread that must not wait.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn find(&self, query: &EventQuery) -> io::Result<JournalPage> {
        let oldest = SystemTime::now().checked_sub(self.spec.max_age).unwrap_or(SystemTime::UNIX_EPOCH);
        let query = EventQuery { from: query.from.max(oldest), ..query.clone() };
        JournalReader::in_folder(&self.spec.folder).find(&query)
    }

    /// Removes the events with these ids, also from the disk. Returns how many there were. It waits for the disk.
    ///
    /// # Errors
    /// Files that cannot be written; a journal that is closed.
    pub fn remove(&self, ids: impl IntoIterator<Item = String>) -> io::Result<usize> {
        let (answer, answered) = sync_channel(1);
        let closed = || io::Error::other("the journal is closed");
        self.requests.send(Request::Remove(ids.into_iter().collect(), answer)).map_err(|_| closed())?;
        answered.recv().map_err(|_| closed())?
    }

    /// Has the thread write what waits, and end.
    pub fn close(&self) {
        // Where it is full, the thread is behind anyway; it ends when the last handle is gone.
        let _ = self.requests.try_send(Request::Close);
    }
}

fn count_lost(lost: &Counter, spec: &JournalSpec, reason: &str) {
    if let Some(count) = lost.add(1) {
        log::warn!(
            "{}: {count} event(s) are missing in the journal ({reason}); they are published all the same",
            spec.path().display()
        );
    }
}

/// The thread's side.
struct Writer {
    spec: JournalSpec,
    file: Option<File>,
    /// Bytes in the file.
    length: u64,
    /// When entries beyond their age were removed last.
    tidied: Option<Instant>,
    lost: Arc<Counter>,
}

impl Writer {
    fn new(spec: JournalSpec, lost: Arc<Counter>) -> Self {
        Self { spec, file: None, length: 0, tidied: None, lost }
    }

    fn run(mut self, requests: &Receiver<Request>, heartbeat: &Heartbeat) {
        loop {
            // Late for nothing: a card that hangs is to cost lines, which are counted, and not the process that listens.
            heartbeat.beat(Duration::MAX);
            match requests.recv_timeout(TURN) {
                Ok(Request::Add(entry)) => self.add(&entry),
                Ok(Request::Remove(ids, answer)) => {
                    let removed = self.rewrite(&|entry| !ids.contains(&entry.id));
                    // Whoever asked may be gone.
                    let _ = answer.send(removed);
                }
                Err(RecvTimeoutError::Timeout) => self.tidy_if_due(),
                Ok(Request::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn add(&mut self, entry: &JournalEntry) {
        match self.append(&line::write(entry)) {
            Ok(()) => {}
            Err(error) => {
                self.file = None;
                count_lost(&self.lost, &self.spec, &error.to_string());
            }
        }
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let path = self.spec.path();
        let half = self.spec.max_bytes / 2;
        if self.file.is_none() || !path.exists() {
            let (file, length) = open(&self.spec.folder, &path)?;
            (self.file, self.length) = (Some(file), length);
        }
        if self.length > 0 && self.length + line.len() as u64 > half {
            self.file = None;
            fs::rename(&path, older(&path))?;
            let (file, length) = open(&self.spec.folder, &path)?;
            (self.file, self.length) = (Some(file), length);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(error) = file.write_all(line.as_bytes()) {
            // No half line stays.
            let _ = file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn tidy_if_due(&mut self) {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY_INTERVAL) {
            return;
        }
        self.tidied = Some(Instant::now());
        let Some(oldest) = SystemTime::now().checked_sub(self.spec.max_age) else { return };
        match self.rewrite(&|entry| entry.ended_at() >= oldest) {
            Ok(0) => {}
            Ok(removed) => {
                log::info!("{}: {removed} event(s) beyond their age are forgotten", self.spec.path().display());
            }
            Err(error) => {
                log::warn!("{}: events beyond their age cannot be removed: {error}", self.spec.path().display());
            }
        }
    }

    /// Writes the journal anew, in one file, with the entries that `stays` is true of, where any of them goes. Returns how many went.
    fn rewrite(&mut self, stays: &dyn Fn(&JournalEntry) -> bool) -> io::Result<usize> {
        let path = self.spec.path();
        let (mut lines, mut removed) = (Vec::new(), 0);
        JournalReader::in_folder(&self.spec.folder).each(&mut |entry| match entry {
            Some(entry) if stays(&entry) => lines.push(line::write(&entry)),
            Some(_) => removed += 1,
            None => {}
        })?;
        if removed == 0 {
            return Ok(0);
        }
        self.file = None;
        // As large as half of the bound, so that both files together stay within it; the newest stay.
        let mut room = self.spec.max_bytes / 2;
        let fits = lines.iter().rev().take_while(|line| {
            let length = line.len() as u64;
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        });
        let first = lines.len() - fits.count();
        let text = lines[first..].concat();
        // The new file first: where the computer dies in between, events are there twice rather than not at all.
        write_atomically(&path, text.as_bytes(), Access::Private, Durability::Unsynced).map_err(io::Error::other)?;
        match fs::remove_file(older(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(removed),
        }
    }
}

/// Opens the file at its end, behind a whole line, and says how long it is.
fn open(folder: &Path, path: &Path) -> io::Result<(File, u64)> {
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder)?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(PRIVATE_FILE).open(path)?;
    let mut length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != *b"\n" {
        // A power cut left half a line.
        file.write_all(b"\n")?;
        length += 1;
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::entry;
    use super::super::{FILE, line};
    use super::*;

    const YEARS: Duration = Duration::from_secs(100 * 366 * 86_400);

    fn spec(folder: &Path, max_bytes: u64, max_age: Duration) -> JournalSpec {
        JournalSpec { folder: folder.into(), max_bytes, max_age }
    }

    fn closed(journal: &Journal) {
        let thread = journal.take_thread().unwrap();
        journal.close();
        assert_eq!(thread.join_until(Instant::now() + Duration::from_secs(60)), Ok(true));
    }

    fn ids(journal: &Journal) -> Vec<u64> {
        let page = journal.find(&EventQuery::between(SystemTime::UNIX_EPOCH, entry(1 << 20).started_at)).unwrap();
        page.events.iter().map(|entry| entry.id.rsplit('-').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn events_outlive_the_process_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/state");
        let begin = || Journal::start(spec(&folder, 1 << 20, YEARS)).unwrap();
        let journal = begin();
        (0..3).for_each(|n| journal.add(entry(n)));
        closed(&journal);
        let path = folder.join(FILE);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let journal = begin();
        journal.add(entry(7));
        closed(&journal);
        assert_eq!((ids(&journal), journal.lost()), (vec![0, 1, 7], 0));
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
    }

    #[test]
    fn two_files_stay_within_the_bound_and_hold_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(spec(dir.path(), 4_000, YEARS), Arc::default());
        for n in 0..200 {
            writer.add(&entry(n));
            let bytes: u64 =
                fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
            assert!(bytes <= 4_000, "{bytes}");
        }
        let journal = Journal::start(writer.spec.clone()).unwrap();
        let found = ids(&journal);
        assert!(found.len() >= 10 && found.last() == Some(&199), "{found:?}");
        assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 1), "{found:?}");
    }

    #[test]
    fn what_is_removed_or_too_old_is_off_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::start(spec(dir.path(), 1 << 20, YEARS)).unwrap();
        (0..5).for_each(|n| journal.add(entry(n)));
        assert_eq!(journal.remove(["9f-mic-2".to_owned(), "none".into()]).unwrap(), 1);
        journal.add(entry(9));
        closed(&journal);
        assert_eq!(ids(&journal), [0, 1, 3, 4, 9]);
        assert!(!fs::read_to_string(dir.path().join(FILE)).unwrap().contains("9f-mic-2"));
        assert!(journal.remove(["9f-mic-3".to_owned()]).is_err(), "it is closed");
        let recent = JournalEntry { started_at: SystemTime::now(), ..entry(8) };
        fs::write(dir.path().join("events.1.jsonl"), line::write(&recent)).unwrap();
        let mut writer = Writer::new(spec(dir.path(), 1 << 20, Duration::from_secs(3_600)), Arc::default());
        // Events of a time to come are not too old, whatever the clock says now.
        let old = SystemTime::now() - Duration::from_secs(7_200);
        writer.add(&JournalEntry { started_at: old, ..entry(5) });
        writer.tidy_if_due();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains("9f-mic-8") && !text.contains("9f-mic-5"), "{text}");
        assert!(!dir.path().join("events.1.jsonl").exists());
    }

    #[test]
    fn a_full_disk_costs_lines_which_are_counted_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let journal = Journal::start(spec(dir.path(), 1 << 20, YEARS)).unwrap();
        (0..10).for_each(|n| journal.add(entry(n)));
        // It is answered behind all that was added.
        assert_eq!(journal.remove([]).unwrap(), 0);
        assert_eq!(journal.lost(), 10);
        fs::remove_file(&path).unwrap();
        journal.add(entry(11));
        closed(&journal);
        assert_eq!((ids(&journal), journal.lost()), (vec![11], 10));
        // Nobody writes any more: what is added is counted, and nobody waits.
        journal.add(entry(12));
        assert_eq!(journal.lost(), 11);
    }
}
