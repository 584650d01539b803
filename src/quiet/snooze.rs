//! Snoozes: somebody wants quiet for some minutes.
//!
//! They outlive the process, in `snoozes.toml` of the state folder: a restart in the night is not to wake anybody. Time passes for them
//! as it does for a kitchen timer, whoever sets the computer's clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use clapd_core::files::{Access, Durability, write_atomically};
use toml::{Table, Value};

use super::{ActiveQuiet, QuietScope};
use crate::time::{BootTime, Clocks};

/// A day. Who wants quiet for longer pauses the source, or removes the prompt: a snooze is forgotten.
pub const MAX_SNOOZE_MINUTES: u32 = 1_440;
/// Each prompt at each source may have one; more than this nobody has by hand.
const MAX_SNOOZES: usize = 1_000;
const FILE: &str = "snoozes.toml";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Snooze {
    source: Option<String>,
    prompt: Option<String>,
    ends: BootTime,
    /// The same on the wall, as it is shown.
    until: SystemTime,
}

/// What is snoozed.
#[derive(Debug)]
pub struct Snoozes {
    snoozes: Vec<Snooze>,
    /// When they were last looked at.
    seen: Clocks,
    store: Option<Arc<Store>>,
}

/// Where they are stored. A disk that hangs keeps nobody but the thread that writes.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    /// What is to be in the file.
    newest: Mutex<String>,
    /// Held by the thread that writes.
    writing: Mutex<()>,
}

impl Snoozes {
    /// Those that were stored in this folder, if there is one, and last still.
    pub fn load(folder: Option<&Path>, now: Clocks) -> Self {
        let path = folder.map(|folder| folder.join(FILE));
        let text = path.as_deref().and_then(|path| fs::read_to_string(path).ok());
        let snoozes = text.as_deref().map(|text| parse(text, now)).unwrap_or_default();
        let store = path.map(|path| Arc::new(Store { path, newest: Mutex::default(), writing: Mutex::default() }));
        Self { snoozes, seen: now, store }
    }

    /// Wants quiet for so many minutes from now on; 0 ends what was wanted for the same source and prompt, and where neither is named
    /// all of it.
    ///
    /// # Errors
    /// Too many snoozes.
    pub fn set(&mut self, minutes: u32, source: Option<&str>, prompt: Option<&str>, now: Clocks) -> Result<(), String> {
        let has_scope = source.is_some() || prompt.is_some();
        let is_same = |it: &Snooze| it.source.as_deref() == source && it.prompt.as_deref() == prompt;
        self.snoozes.retain(|it| it.ends > now.boot && !is_same(it) && (has_scope || minutes > 0));
        if minutes > 0 {
            if self.snoozes.len() >= MAX_SNOOZES {
                return Err(format!("there are {MAX_SNOOZES} snoozes; end some, or snooze all at once"));
            }
            let lasts = Duration::from_secs(60 * u64::from(minutes.min(MAX_SNOOZE_MINUTES)));
            let (source, prompt) = (source.map(str::to_owned), prompt.map(str::to_owned));
            self.snoozes.push(Snooze { source, prompt, ends: now.boot + lasts, until: now.wall + lasts });
        }
        self.save();
        Ok(())
    }

    /// What is snoozed now. To be called often: it notices when the time of day was set.
    pub fn active(&mut self, now: Clocks) -> Vec<ActiveQuiet> {
        if let Some(step) = now.step_since(&self.seen) {
            self.snoozes.iter_mut().for_each(|snooze| snooze.until = step.correct(snooze.until));
            self.save();
        }
        self.seen = now;
        self.snoozes.retain(|snooze| snooze.ends > now.boot);
        let active = |snooze: &Snooze| ActiveQuiet {
            scope: QuietScope {
                sources: snooze.source.iter().cloned().collect(),
                prompts: snooze.prompt.iter().cloned().collect(),
            },
            until: snooze.until,
            is_snooze: true,
        };
        self.snoozes.iter().map(active).collect()
    }

    /// On a thread of its own. What it writes is the newest, whichever thread comes first.
    fn save(&self) {
        let Some(store) = &self.store else { return };
        *store.newest.lock().unwrap_or_else(PoisonError::into_inner) = text(&self.snoozes);
        let store = Arc::clone(store);
        let started = thread::Builder::new().name("snoozes".into()).spawn(move || store.write());
        if let Err(error) = started {
            log::warn!("snoozes end with this process: a thread cannot be started: {error}");
        }
    }
}

impl Store {
    fn write(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let written = fs::create_dir_all(folder)
            .map_err(anyhow::Error::new)
            .and_then(|()| write_atomically(&self.path, text.as_bytes(), Access::Private, Durability::Synced));
        if let Err(error) = written {
            log::warn!("{}: {error:#}; snoozes end with this process", self.path.display());
        }
    }
}

fn text(snoozes: &[Snooze]) -> String {
    let tables = snoozes.iter().map(|Snooze { source, prompt, until, .. }| {
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let until = Value::Integer(i64::try_from(until).unwrap_or(i64::MAX));
        let ids = [("source", source), ("prompt", prompt)];
        let ids = ids.into_iter().filter_map(|(key, id)| Some((key.to_owned(), Value::String(id.clone()?))));
        Value::Table(Table::from_iter(ids.chain([("until_ms".to_owned(), until)])))
    });
    Table::from_iter([("snooze".to_owned(), Value::Array(tables.collect()))]).to_string()
}

/// What does not look like a snooze is left out. One that would last longer than any was asked for a clock that was not set right, then
/// or now, and lasts for as long as any may.
fn parse(text: &str, now: Clocks) -> Vec<Snooze> {
    let table = text.parse::<Table>().unwrap_or_default();
    let items = table.get("snooze").and_then(Value::as_array).cloned().unwrap_or_default();
    let longest = Duration::from_secs(60 * u64::from(MAX_SNOOZE_MINUTES));
    let snooze = |item: Value| {
        let id = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
        let until = u64::try_from(item.get("until_ms")?.as_integer()?).ok()?;
        let left = (UNIX_EPOCH + Duration::from_millis(until)).duration_since(now.wall).ok()?.min(longest);
        (!left.is_zero()).then(|| Snooze {
            source: id("source"),
            prompt: id("prompt"),
            ends: now.boot + left,
            until: now.wall + left,
        })
    };
    items.into_iter().filter_map(snooze).take(MAX_SNOOZES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(boot_s: u64, wall_s: u64) -> Clocks {
        Clocks {
            boot: BootTime::from_start(Duration::from_secs(boot_s)),
            suspended: Duration::ZERO,
            wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000 + wall_s),
        }
    }

    fn shown(snoozes: &mut Snoozes, now: Clocks) -> Vec<(String, u64)> {
        let line = |quiet: ActiveQuiet| {
            let QuietScope { sources, prompts } = quiet.scope;
            let until = quiet.until.duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_800_000_000;
            (format!("{}/{}", sources.join(","), prompts.join(",")), until)
        };
        snoozes.active(now).into_iter().map(line).collect()
    }

    #[test]
    fn a_snooze_ends_by_itself_and_by_hand() {
        let mut snoozes = Snoozes::load(None, clocks(100, 0));
        snoozes.set(10, Some("mic"), None, clocks(100, 0)).unwrap();
        snoozes.set(20, None, Some("dog"), clocks(100, 0)).unwrap();
        snoozes.set(30, Some("mic"), None, clocks(100, 0)).unwrap();
        let dog = ("/dog".to_owned(), 1_200);
        assert_eq!(shown(&mut snoozes, clocks(160, 60)), [dog, ("mic/".into(), 1_800)]);
        // An hour forwards, and time goes on as before.
        assert_eq!(shown(&mut snoozes, clocks(700, 4_200))[0], ("/dog".to_owned(), 4_800));
        assert_eq!(shown(&mut snoozes, clocks(1_300, 4_800)), [("mic/".to_owned(), 5_400)]);
        snoozes.set(0, None, Some("dog"), clocks(1_300, 4_800)).unwrap();
        assert_eq!(shown(&mut snoozes, clocks(1_300, 4_800)).len(), 1);
        snoozes.set(0, None, None, clocks(1_300, 4_800)).unwrap();
        assert!(shown(&mut snoozes, clocks(1_300, 4_800)).is_empty());
    }

    #[test]
    fn snoozes_outlive_the_process_and_a_damaged_file_is_none() {
        let snooze = |source: Option<&str>, minutes: u64| Snooze {
            source: source.map(str::to_owned),
            prompt: Some("a dog".into()),
            ends: clocks(60 * minutes, 0).boot,
            until: clocks(0, 60 * minutes).wall,
        };
        let both = [snooze(Some("mic"), 5), snooze(None, 9)];
        assert_eq!(parse(&text(&both), clocks(0, 0)), both);
        assert_eq!(parse(&text(&both), clocks(10, 6 * 60)).len(), 1, "the first is over");
        // The computer has no clock of its own, and stands at the time of its last shutdown or long before.
        let early = Clocks { wall: UNIX_EPOCH, ..clocks(0, 0) };
        assert_eq!(parse(&text(&both), early)[0].ends.since_start(), Duration::from_secs(86_400));
        for damaged in ["", "snooze = 5", "[[snooze]]\nuntil_ms = -1", "[[snooze]]\nuntil_ms = \"x\"", "\0"] {
            assert!(parse(damaged, clocks(0, 0)).is_empty(), "{damaged:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut snoozes = Snoozes::load(Some(&state), clocks(0, 0));
        snoozes.set(5, None, None, clocks(0, 0)).unwrap();
        // The thread that writes is gone when nobody else has the store.
        let store = Arc::clone(snoozes.store.as_ref().unwrap());
        drop(snoozes);
        while Arc::strong_count(&store) > 1 {
            thread::yield_now();
        }
        assert_eq!(shown(&mut Snoozes::load(Some(&state), clocks(0, 60)), clocks(0, 60)), [("/".to_owned(), 300)]);
    }
}
