//! Reading the journal: what there was from when to when, at which source, for which prompt.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::line::MAX_LINE;
use super::{FILE, JournalEntry, line, older};

/// Events that are handed out at once, unless fewer are asked for: half a year of a dog that barks 50 times a day, in 4 MB.
const MAX_EVENTS: usize = 10_000;

/// Which events of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Those that had not ended by then.
    pub from: SystemTime,
    /// Those that began before.
    pub to: SystemTime,
    /// Of this source alone.
    pub source: Option<String>,
    /// Of the prompt with this id alone.
    pub prompt: Option<String>,
    /// The newest of them, at most so many.
    pub limit: usize,
}

impl EventQuery {
    /// All from then to then, as many as are handed out at once.
    pub fn between(from: SystemTime, to: SystemTime) -> Self {
        Self { from, to, source: None, prompt: None, limit: MAX_EVENTS }
    }

    fn asks_for(&self, entry: &JournalEntry) -> bool {
        let is = |asked: &Option<String>, id: &str| asked.as_deref().is_none_or(|asked| asked == id);
        entry.ended_at() >= self.from
            && entry.started_at < self.to
            && is(&self.source, &entry.source)
            && is(&self.prompt, &entry.prompt_id)
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JournalPage {
    /// In the order in which they began.
    pub events: Vec<JournalEntry>,
    /// Events that were asked for and are older than these: there were more than the limit.
    pub left_out: u64,
    /// Lines that are none: a power cut tears one.
    pub damaged: u64,
}

/// Reads a journal, also while another process writes it.
#[derive(Debug, Clone)]
pub struct JournalReader {
    path: PathBuf,
}

impl JournalReader {
    /// Of the journal in this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// The newer of its files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The events that are asked for. Where there is no journal there are none.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn find(&self, query: &EventQuery) -> io::Result<JournalPage> {
        let mut page = JournalPage::default();
        let limit = query.limit.min(MAX_EVENTS);
        self.each(&mut |entry| {
            match entry {
                Some(entry) if query.asks_for(&entry) => page.events.push(entry),
                Some(_) => {}
                None => page.damaged += 1,
            }
            // Twice the limit is memory enough, and sorting is then rare.
            if page.events.len() > 2 * limit {
                keep_newest(&mut page, limit);
            }
        })?;
        keep_newest(&mut page, limit);
        Ok(page)
    }

    /// Hands every line to `take`, oldest first; none for one that is no entry.
    pub(super) fn each(&self, take: &mut dyn FnMut(Option<JournalEntry>)) -> io::Result<()> {
        for path in [older(&self.path), self.path.clone()] {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // What comes meanwhile was not asked for; and what is no plain file may have no end.
            let length = file.metadata()?.len();
            let mut file = BufReader::new(file.take(length));
            let mut line = Vec::new();
            loop {
                line.clear();
                (&mut file).take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
                match line.strip_suffix(b"\n") {
                    Some(whole) => take(line::read(whole)),
                    None if line.is_empty() => break,
                    // The end of the file: a line that is being written, or one that a power cut has torn.
                    None if line.len() < MAX_LINE => break,
                    // Too long to be ours; its rest is the next line.
                    None => take(None),
                }
            }
        }
        Ok(())
    }
}

fn keep_newest(page: &mut JournalPage, limit: usize) {
    page.events.sort_by_key(|entry| entry.started_at);
    let more = page.events.len().saturating_sub(limit);
    page.events.drain(..more);
    page.left_out += more as u64;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::line::tests::entry;
    use super::*;

    fn journal(text: &str) -> (tempfile::TempDir, JournalReader) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        let reader = JournalReader::in_folder(dir.path());
        (dir, reader)
    }

    fn ids(page: &JournalPage) -> Vec<&str> {
        page.events.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn events_are_found_by_time_source_and_prompt() {
        let other = JournalEntry { source: "yard".into(), prompt_id: "cat".into(), ..entry(20) };
        let text: String = [entry(30), entry(0), other].iter().map(line::write).collect();
        let (dir, reader) = journal(&text);
        fs::write(older(reader.path()), line::write(&entry(10))).unwrap();
        let at = |seconds| entry(seconds).started_at;
        let all = EventQuery::between(at(0), at(1_000));
        assert_eq!(ids(&reader.find(&all).unwrap()), ["9f-mic-0", "9f-mic-10", "9f-mic-20", "9f-mic-30"]);
        let find = |query: EventQuery| ids(&reader.find(&query).unwrap()).join(" ");
        assert_eq!(find(EventQuery::between(at(3), at(10))), "9f-mic-0", "it went on then");
        assert_eq!(find(EventQuery::between(at(4), at(11))), "9f-mic-10");
        assert_eq!(find(EventQuery { source: Some("yard".into()), ..all.clone() }), "9f-mic-20");
        assert_eq!(find(EventQuery { prompt: Some("dog".into()), limit: 2, ..all.clone() }), "9f-mic-10 9f-mic-30");
        assert_eq!(reader.find(&EventQuery { limit: 1, ..all.clone() }).unwrap().left_out, 3);
        assert_eq!(JournalReader::in_folder(&dir.path().join("none")).find(&all).unwrap(), JournalPage::default());
        fs::remove_file(reader.path()).unwrap();
        fs::create_dir(reader.path()).unwrap();
        assert!(reader.find(&all).is_err());
    }

    #[test]
    fn what_is_torn_or_damaged_costs_its_line_alone() {
        let (whole, long) = (line::write(&entry(0)), "x".repeat(3 * MAX_LINE));
        let text = format!("{whole}{}\n{}{long}\n{whole}{}", &whole[..20], &whole, &whole[..30]);
        let (_dir, reader) = journal(&text);
        let page = reader.find(&EventQuery::between(SystemTime::UNIX_EPOCH, entry(9).started_at)).unwrap();
        assert_eq!(page.events.len(), 3);
        assert!((2..=6).contains(&page.damaged), "{}", page.damaged);
        assert!(page.events.iter().all(|found| found.duration == Duration::from_millis(3_250)));
    }
}
