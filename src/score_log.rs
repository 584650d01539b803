//! Scores in a file, for whoever wants to look at a day of them.
//!
//! The file is JSONL or CSV, as its name ends, with one older file beside it; both together never have more bytes than
//! allowed, which a test holds. Listening goes on whatever happens to the disk: what cannot be written is counted and
//! left out, and the first of it is logged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clapd_core::score::Score;
use clapd_core::text::csv_field;
use serde_json::json;

/// Lines wait in memory for so long: an SD card writes a block of some 100 KB for a line as for a thousand, and whoever
/// follows the file with `tail -f` still sees the sound of a moment ago. A crash costs at most these lines.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// Lines that wait; 64 KB are 600 of them.
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
    file: Option<BufWriter<File>>,
    /// Bytes in the file, those that wait included.
    length: u64,
    /// Lines that wait.
    pending: u64,
    flushed: Instant,
    failed: Option<Instant>,
    lost: u64,
}

impl ScoreLog {
    /// A log that opens its file with the first line.
    pub fn new(spec: LogSpec) -> Self {
        Self { spec, file: None, length: 0, pending: 0, flushed: Instant::now(), failed: None, lost: 0 }
    }

    /// Lines that could not be written so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Adds a line.
    pub fn add(&mut self, at: Moment, source: &str, prompt: &str, score: Score) {
        if self.failed.is_some_and(|failed| failed.elapsed() < RETRY_AFTER) {
            self.lost += 1;
            return;
        }
        let line = line(self.spec.form, at, source, prompt, score);
        self.pending += 1;
        if let Err(error) = self.write(&line) {
            self.fail(&error);
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.flush()
        {
            self.fail(&error);
        }
        self.pending = 0;
        self.flushed = Instant::now();
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.file.is_some() && self.length + line.len() as u64 > self.spec.max_bytes / 2 {
            self.rotate()?;
        }
        let length = &mut self.length;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.spec, length)?),
        };
        file.write_all(line.as_bytes())?;
        *length += line.len() as u64;
        if self.flushed.elapsed() >= FLUSH_EVERY {
            file.flush()?;
            self.pending = 0;
            self.flushed = Instant::now();
            if self.failed.take().is_some() {
                log::info!("{}: scores are written again; {} lines are missing", self.spec.path.display(), self.lost);
            }
        }
        Ok(())
    }

    /// Makes the file the older one.
    fn rotate(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
            self.pending = 0;
            fs::rename(&self.spec.path, older(&self.spec.path))?;
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        self.lost += std::mem::take(&mut self.pending);
        // Without another try for what waits in it.
        self.file.take().map(BufWriter::into_parts);
        if self.failed.replace(Instant::now()).is_none() {
            log::warn!(
                "{}: scores cannot be written ({error}); clapd listens on, and tries again every {} s without a word",
                self.spec.path.display(),
                RETRY_AFTER.as_secs()
            );
        }
    }
}

impl Drop for ScoreLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// `scores.jsonl.1` beside `scores.jsonl`.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Opens the file at its end, behind a whole line.
fn open(spec: &LogSpec, length: &mut u64) -> io::Result<BufWriter<File>> {
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
    let mut file = BufWriter::with_capacity(BUFFER, file);
    file.write_all(first.as_bytes())?;
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
