//! The configuration: what is written in `clapd.toml`, and what the daemon makes of it.
//!
//! It goes in two steps: `raw` reads the shape (keys, types, what must be there), and the checks judge the meaning (bounds, ids,
//! what contradicts what) and make [`Settings`] of it, in the types that the rest uses; or every fault at once, each with its
//! line and its remedy. Nothing is started, no device and no broker is asked, and no recording is decoded.

mod broker;
mod broker_url;
mod check;
mod checker;
mod diagnostic;
mod history;
mod http;
mod id;
mod levels;
mod log;
mod prompt_list;
mod prompts;
mod quiet;
mod raw;
mod recording_names;
mod secret;
mod section;
mod sources;
mod streams;
mod text_file;
mod tls;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clapd_core::prompts::Prompt;

use crate::capture::SourceSpec;
use crate::history::HistorySpec;
use crate::journal::JournalSpec;
use crate::levels::LevelPublishing;
use crate::outbox::OutboxSpec;
use crate::quiet::{Coordinates, QuietRule};
use crate::score_log::LogSpec;
pub use broker::Broker;
use checker::{CheckOutcome, Checker};
pub use diagnostic::{Diagnostic, Faults, Location, Recording};
pub use http::{Access, HttpSpec};
pub use levels::with_full_scale_db;
pub use prompt_list::{PromptOrigin, parse_prompts, prompt_table, prompts_text, request_text};
pub use prompts::MAX_EMBEDDINGS;
pub use recording_names::RecordingNames;
pub use secret::Secret;
pub use sources::{MAX_GAIN_DB, MIN_GAIN_DB};
use text_file::TextFault;
pub use tls::Tls;

/// A page of prompts is a few kilobytes; a megabyte is somebody else's file, and must not fill a small computer's memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration without a fault, as the daemon uses it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This computer's part of every topic.
    pub node: String,
    /// The bundle's folder; none for the default, which the caller finds.
    pub bundle: Option<PathBuf>,
    /// Threads that the model computes with.
    pub threads: usize,
    /// What is listened to; at least one, ids unique.
    pub sources: Vec<SourceSpec>,
    /// Time between the starts of two windows, a multiple of 10 ms.
    pub hop: Duration,
    /// Level (RMS in dB below full scale) that a window has to reach to be encoded; none: every window is.
    pub gate_db: Option<f32>,
    /// What is listened for; at least one, ids unique.
    pub prompts: Vec<Prompt>,
    /// The recordings among them. Whether they are examples is for `crate::prompts` to find out.
    pub recordings: Vec<Recording>,
    /// Where it is told; none: events are logged only.
    pub broker: Option<Broker>,
    /// Where events wait for the broker.
    pub outbox: OutboxSpec,
    /// Where every score is written; none: nowhere.
    pub log: Option<LogSpec>,
    /// Where the page is served, and to whom; none: nowhere.
    pub http: Option<HttpSpec>,
    /// How much of the past is kept in memory; none: nothing.
    pub history: Option<HistorySpec>,
    /// Where the device is, for sunrise and sunset.
    pub place: Option<Coordinates>,
    /// When no events begin.
    pub quiet: Vec<QuietRule>,
    /// How often the level of each source is published.
    pub levels: LevelPublishing,
    /// Where events of the past are stored; none: nowhere.
    pub journal: Option<JournalSpec>,
    /// Where this process may keep what outlives it; none where there is no such place.
    pub state: Option<PathBuf>,
}

impl Settings {
    /// Every text that has to be embedded, see [`Prompt::texts`].
    pub fn texts(&self) -> Vec<&str> {
        self.prompts.iter().flat_map(Prompt::texts).collect()
    }
}

/// What of the world outside the file has a say in the settings.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The computer's name, for `node.id`.
    pub host_name: String,
    /// `CLAPD_MQTT_PASSWORD`.
    pub mqtt_password: Option<Secret>,
    /// Passwords of streams, `CLAPD_SOURCE_PASSWORD_<ID>`, by what stands behind the prefix.
    pub source_passwords: HashMap<String, Secret>,
    /// `CREDENTIALS_DIRECTORY`, which systemd sets for `LoadCredential=`.
    pub credentials: Option<PathBuf>,
    /// Where this process may keep what outlives it: `STATE_DIRECTORY`, which systemd sets, or the user's own.
    pub state: Option<PathBuf>,
}

impl Environment {
    /// As this process finds it.
    pub fn of_process() -> Self {
        Self {
            host_name: gethostname::gethostname().to_string_lossy().into_owned(),
            mqtt_password: std::env::var("CLAPD_MQTT_PASSWORD").ok().map(Secret::new),
            source_passwords: streams::passwords_of_environment(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            state: state_folder(),
        }
    }
}

/// As systemd.exec(5) and the XDG base directory specification say.
fn state_folder() -> Option<PathBuf> {
    let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = || path("XDG_STATE_HOME").or_else(|| Some(path("HOME")?.join(".local/state")));
    path("STATE_DIRECTORY").or_else(|| Some(user()?.join("clapd")))
}

/// Reads and checks the file at `path`: the settings with warnings, or all faults.
pub fn load(path: &Path) -> Result<(Settings, Vec<Diagnostic>), Faults> {
    let text = read(path)?;
    parse(&text, path, &Environment::of_process())
}

/// The same for a text that is at hand; `path` is named in diagnostics, and relative paths in the text start at its folder.
pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<(Settings, Vec<Diagnostic>), Faults> {
    let mut faults = Vec::new();
    let raw = raw::read(text, path, &mut faults);
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut check = Checker::new(folder, environment, faults);
    let settings = check.check_settings(&raw, path);
    let CheckOutcome { faults, warnings, recordings } = check.into_outcome();
    match settings {
        Some(settings) if faults.is_empty() => Ok((Settings { recordings, ..settings }, warnings)),
        _ => Err(Faults::new(faults, recordings)),
    }
}

fn read(path: &Path) -> Result<String, Faults> {
    let whole = Location::of_file(path);
    text_file::read(path, MAX_FILE_BYTES).map_err(|fault| {
        let (location, seen, open) = match &fault {
            TextFault::Unopened(error) => {
                let open = "name a file that exists and that this user may read";
                (whole, format!("cannot be opened: {error}"), open)
            }
            TextFault::Unread(error) => (whole, format!("cannot be read: {error}"), "name an ordinary file"),
            TextFault::TooLong(_) => {
                (whole, format!("{fault}, the most a configuration may have"), "name a configuration of clapd")
            }
            TextFault::Utf16 => (whole, fault.to_string(), ""),
            TextFault::NotUtf8(line) => (whole.at_line(*line), "is not UTF-8 here".into(), ""),
        };
        location.diagnostic(seen, fault.remedy(open).into()).into()
    })
}
