//! Scores in a file, for whoever wants to look at a day of them.
//!
//! The file is JSONL or CSV, as its name ends, with one older file beside it; both together never have more bytes than
//! allowed, which a test holds. Listening goes on whatever happens to the disk or to the file: where somebody moves or
//! removes it (logrotate does), it is begun anew and no line is lost; what cannot be written waits, and what finds no room
//! to wait is counted and left out. The first of it is logged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clapd_core::score::Score;
use clapd_core::text::csv_field;
use serde_json::json;

/// Lines wait in memory for so long: an SD card writes a block of some 100 KB for a line as for a thousand, and whoever
/// follows the file with `tail -f` still sees the sound of a moment ago. A crash costs at most these lines.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// Bytes of lines that wait, be it for that or for a disk with room; 64 KB are 600 of them.
const BUFFER: usize = 64 << 10;
/// After a failure: a full disk is not emptied in a second, and each try is a system call that delays a source's thread.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const HEADER: &str = "at,source,prompt,score,cosine\n";

/// Where scores are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpec {
    /// A file; its folder is there.
    pub path: PathBuf,
    /// JSONL or CSV.
    pub form: Form,
    /// Of the file and its predecessor together.
    pub max_bytes: u64,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An object a line.
    Jsonl,
    /// With a header.
    Csv,
}

impl Form {
    /// As the name ends; none where it ends in neither `.jsonl` nor `.csv`.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "jsonl" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// When a window ended.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// Of the day.
    Time(SystemTime),
    /// Seconds since a recording began.
    Position(f64),
}

/// A file that grows and begins anew.
#[derive(Debug)]
pub struct ScoreLog {
    spec: LogSpec,
    file: Option<File>,
    /// Bytes in the file.
    length: u64,
    /// Lines that wait.
    pending: String,
    flushed: Instant,
    failed: Option<WriteFailure>,
    lost: u64,
}

/// The last try failed.
#[derive(Debug)]
struct WriteFailure {
    at: Instant,
    error: io::Error,
}

impl ScoreLog {
    /// A log that opens its file with the first line.
    pub fn new(spec: LogSpec) -> Self {
        let pending = String::new();
        Self { spec, file: None, length: 0, pending, flushed: Instant::now(), failed: None, lost: 0 }
    }

    /// Lines that could not be written so far: those that were left out, and after a failure those that wait.
    pub fn lost(&self) -> u64 {
        let waiting = if self.failed.is_some() { self.pending.lines().count() } else { 0 };
        self.lost + waiting as u64
    }

    /// Adds a line.
    pub fn add(&mut self, at: Moment, source: &str, prompt: &str, score: Score) {
        let line = line(self.spec.form, at, source, prompt, score);
        if self.pending.len() + line.len() > BUFFER {
            self.flush_unless_failed();
        }
        if self.pending.len() + line.len() > BUFFER {
            self.lost += 1;
            return;
        }
        self.pending.push_str(&line);
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush_unless_failed();
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self) {
        self.flushed = Instant::now();
        match self.write_pending() {
            Ok(()) => {
                if self.failed.take().is_some() {
                    let path = self.spec.path.display();
                    log::info!("{path}: scores are written again; {} lines are missing", self.lost);
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Writes what waits, for the last time.
    ///
    /// # Errors
    /// Lines that could not be written, now or before.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush();
        let (lost, path) = (self.lost(), self.spec.path.display());
        match &self.failed {
            Some(WriteFailure { error, .. }) => {
                Err(io::Error::new(error.kind(), format!("{path}: {lost} scores could not be written: {error}")))
            }
            None if lost > 0 => Err(io::Error::other(format!("{path}: {lost} scores could not be written meanwhile"))),
            None => Ok(()),
        }
    }

    /// Soon after a failure nothing is tried.
    fn flush_unless_failed(&mut self) {
        if self.failed.as_ref().is_none_or(|failed| failed.at.elapsed() >= RETRY_AFTER) {
            self.flush();
        }
    }

    /// Writes whole lines, as many to a file as it has room for.
    fn write_pending(&mut self) -> io::Result<()> {
        while let Some(first) = self.pending.find('\n') {
            self.follow()?;
            let Some(file) = &mut self.file else { return Ok(()) };
            let room = (self.spec.max_bytes / 2).saturating_sub(self.length);
            let room = self.pending.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            // A byte of a line's end is no part of another letter.
            let fits = self.pending.as_bytes()[..room].iter().rposition(|byte| *byte == b'\n');
            let Some(last) = fits.or((self.length <= HEADER.len() as u64).then_some(first)) else {
                self.rotate()?;
                continue;
            };
            if let Err(error) = file.write_all(&self.pending.as_bytes()[..=last]) {
                // No half line stays. What is no plain file cannot be cut, and needs not be.
                let _ = file.set_len(self.length);
                return Err(error);
            }
            if file.metadata()?.nlink() == 0 && !is_at(file, &self.spec.path, self.length)? {
                // It was removed that very moment: these lines go into the new one.
                continue;
            }
            self.length += last as u64 + 1;
            self.pending.drain(..=last);
        }
        Ok(())
    }

    /// Opens the file where it is not open, and anew where another is in its place, or none, or it was emptied.
    fn follow(&mut self) -> io::Result<()> {
        let gone = match &self.file {
            Some(file) => !is_at(file, &self.spec.path, self.length)?,
            None => false,
        };
        if gone || self.file.is_none() {
            // Where this fails, no file is open, and the next try says nothing of the old one.
            self.file = None;
            self.file = Some(open(&self.spec, &mut self.length)?);
        }
        if gone {
            log::info!("{}: was moved, removed or emptied, and is begun anew", self.spec.path.display());
        }
        Ok(())
    }

    /// Makes the file the older one.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        fs::rename(&self.spec.path, older(&self.spec.path))
    }

    fn fail(&mut self, error: io::Error) {
        self.file = None;
        if self.failed.is_none() {
            log::warn!(
                "{}: scores cannot be written ({error}); clapd listens on, keeps some hundred of them, and tries again every \
                 {} s without a word",
                self.spec.path.display(),
                RETRY_AFTER.as_secs()
            );
        }
        self.failed = Some(WriteFailure { at: Instant::now(), error });
    }
}

impl Drop for ScoreLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether `path` still leads to the open `file`, which had `length` bytes.
fn is_at(file: &File, path: &Path, length: u64) -> io::Result<bool> {
    let ours = file.metadata()?;
    let theirs = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let emptied = ours.is_file() && ours.len() < length;
    Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) && !emptied)
}

/// `scores.jsonl.1` beside `scores.jsonl`.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Opens the file at its end, behind a whole line.
fn open(spec: &LogSpec, length: &mut u64) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&spec.path)?;
    *length = file.metadata()?.len();
    let mut last = [b'\n'];
    if *length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let first = match spec.form {
        // A power cut left half a line.
        _ if last != *b"\n" => "\n",
        Form::Csv if *length == 0 => HEADER,
        _ => "",
    };
    if let Err(error) = file.write_all(first.as_bytes()) {
        let _ = file.set_len(*length);
        return Err(error);
    }
    *length += first.len() as u64;
    Ok(file)
}

fn line(form: Form, at: Moment, source: &str, prompt: &str, score: Score) -> String {
    let Score { score, cosine } = score;
    let (score, cosine) = (format!("{score:.2}"), format!("{cosine:.4}"));
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    match form {
        Form::Jsonl => {
            let (key, at) = match at {
                Moment::Time(at) => ("at", json!(time(at))),
                Moment::Position(seconds) => ("at_s", json!((seconds * 1e3).round() / 1e3)),
            };
            let (source, prompt) = (json!(source), json!(prompt));
            format!(
                "{{\"{key}\":{at},\"source\":{source},\"prompt\":{prompt},\"score\":{score},\"cosine\":{cosine}}}\n"
            )
        }
        Form::Csv => {
            let at = match at {
                Moment::Time(at) => time(at),
                Moment::Position(seconds) => format!("{seconds:.3}"),
            };
            format!("{at},{},{},{score},{cosine}\n", csv_field(source), csv_field(prompt))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORE: Score = Score { cosine: 0.41239, score: 7.256 };

    fn log(path: &Path, max_bytes: u64) -> ScoreLog {
        ScoreLog::new(LogSpec { path: path.into(), form: Form::of(path).unwrap(), max_bytes })
    }

    #[test]
    fn lines_are_json_or_csv_with_times_or_positions() {
        let dir = tempfile::tempdir().unwrap();
        let at = Moment::Time(SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        for (name, expected) in [
            (
                "a.jsonl",
                "{\"at\":\"1970-01-01T00:00:01.500Z\",\"source\":\"mic\",\"prompt\":\"a \\\"dog\\\", loud\",\"score\":7.26,\"cosine\":0.4124}\n\
                 {\"at_s\":1.25,\"source\":\"mic\",\"prompt\":\"rain\",\"score\":7.26,\"cosine\":0.4124}\n",
            ),
            (
                "a.csv",
                "at,source,prompt,score,cosine\n1970-01-01T00:00:01.500Z,mic,\"a \"\"dog\"\", loud\",7.26,0.4124\n\
                 1.250,mic,rain,7.26,0.4124\n",
            ),
        ] {
            let path = dir.path().join(name);
            let mut log = log(&path, 1 << 20);
            log.add(at, "mic", "a \"dog\", loud", SCORE);
            log.add(Moment::Position(1.25), "mic", "rain", SCORE);
            drop(log);
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[test]
    fn two_files_never_hold_more_than_allowed_and_keep_whole_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        let mut log = log(&path, 4_000);
        for n in 0..500 {
            log.add(Moment::Position(f64::from(n)), "mic", "rain", SCORE);
            log.flush();
            let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
            assert!(size(&path) + size(&older(&path)) <= 4_000);
        }
        let text = fs::read_to_string(older(&path)).unwrap() + &fs::read_to_string(&path).unwrap();
        let seconds: Vec<f64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["at_s"].as_f64().unwrap())
            .collect();
        assert!(seconds.len() > 28 && seconds.last() == Some(&499.0), "{seconds:?}");
        assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "{seconds:?}");
        assert_eq!((fs::read_dir(dir.path()).unwrap().count(), log.lost()), (2, 0));
    }

    #[test]
    fn it_goes_on_behind_half_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        fs::write(&path, format!("{HEADER}1.0,mic,ra")).unwrap();
        log(&path, 1 << 20).add(Moment::Position(2.0), "mic", "rain", SCORE);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}1.0,mic,ra\n2.000,mic,rain,7.26,0.4124\n"));
    }

    fn seconds(path: &Path) -> Vec<f64> {
        let text = fs::read_to_string(path).unwrap();
        let at = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["at_s"].as_f64().unwrap();
        text.lines().map(at).collect()
    }

    #[test]
    fn a_file_that_is_moved_or_removed_is_begun_anew_and_no_line_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("scores.jsonl"), dir.path().join("yesterday.jsonl"));
        let mut log = log(&path, 1 << 20);
        let add = |log: &mut ScoreLog, second: f64| log.add(Moment::Position(second), "mic", "rain", SCORE);
        add(&mut log, 0.0);
        log.flush();
        // While a line waits: moved away, as logrotate does, then with another file in its place, then removed.
        add(&mut log, 1.0);
        fs::rename(&path, &moved).unwrap();
        add(&mut log, 2.0);
        log.flush();
        assert_eq!((seconds(&moved), seconds(&path)), (vec![0.0], vec![1.0, 2.0]));
        add(&mut log, 3.0);
        fs::rename(&path, &moved).unwrap();
        fs::write(&path, "").unwrap();
        log.flush();
        assert_eq!((seconds(&moved), seconds(&path)), (vec![1.0, 2.0], vec![3.0]));
        add(&mut log, 4.0);
        fs::remove_file(&path).unwrap();
        log.flush();
        assert_eq!(seconds(&path), [4.0]);
        // Its folder is away for a while.
        add(&mut log, 5.0);
        let (folder, away) = (dir.path().join("logs"), dir.path().join("away"));
        log.spec.path = folder.join("scores.jsonl");
        log.flush();
        assert_eq!(log.lost(), 1);
        fs::create_dir(&folder).unwrap();
        log.flush();
        fs::rename(&folder, &away).unwrap();
        add(&mut log, 6.0);
        log.flush();
        assert_eq!((seconds(&away.join("scores.jsonl")), log.lost()), (vec![5.0], 1));
        fs::create_dir(&folder).unwrap();
        log.flush();
        assert_eq!((seconds(&folder.join("scores.jsonl")), log.lost()), (vec![6.0], 0));
        log.finish().unwrap();
    }

    #[test]
    fn a_table_that_is_emptied_in_its_place_gets_its_header_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        let mut log = log(&path, 1 << 20);
        for second in 0..3 {
            log.add(Moment::Position(f64::from(second)), "mic", "rain", SCORE);
            log.flush();
            // As logrotate's copytruncate does.
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{HEADER}{second}.000,mic,rain,7.26,0.4124\n"));
            File::create(&path).unwrap();
        }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_written_when_it_has_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = log(&path, 1 << 20);
        for second in 0..3 {
            log.add(Moment::Position(f64::from(second)), "mic", "rain", SCORE);
            log.flush();
        }
        assert_eq!(log.lost(), 3);
        fs::remove_file(&path).unwrap();
        log.flush();
        assert_eq!((seconds(&path), log.lost()), (vec![0.0, 1.0, 2.0], 0));
        // A whole log cannot be told from one with a gap by its last lines alone.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        for second in 0..2_000 {
            log.add(Moment::Position(f64::from(second)), "mic", "rain", SCORE);
        }
        fs::remove_file(&path).unwrap();
        let error = log.finish().unwrap_err().to_string();
        assert!(error.contains("scores.jsonl") && error.contains("scores could not be written"), "{error}");
        assert!(seconds(&path).len() > 500);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = log(&path, 1 << 20);
        // More than waits in memory.
        for _ in 0..2_000 {
            log.add(Moment::Position(0.0), "mic", "rain", SCORE);
        }
        log.flush();
        assert_eq!(log.lost(), 2_000);
    }
}
