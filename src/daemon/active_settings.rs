//! The settings that are in effect: what the configuration says, and the prompts that were set over MQTT since.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clapd_core::prompts::{Prompt, PromptTable};
use clapd_core::text::SHORTENED_CHARS;

use super::prompt_store::PromptStore;
use super::source_control::ListenConfig;
use crate::command::SetPrompts;
use crate::config::{self, Diagnostic, Faults, PromptOrigin, RecordingNames, Settings};
use crate::prompts;

/// Faults in a response; the log has them all.
const MAX_FAULTS: usize = 10;

/// The settings in effect. A clone is what the worker has of them.
#[derive(Clone)]
pub(super) struct ActiveSettings {
    /// The configuration's file.
    path: PathBuf,
    /// What the file said last, but for what needs a restart.
    file: Settings,
    /// The prompts that were set over MQTT; none: those of the file.
    set: Option<Vec<Prompt>>,
    /// Where such prompts are stored.
    store: PromptStore,
    /// What recordings are called in messages.
    recordings: RecordingNames,
}

impl ActiveSettings {
    pub(super) fn new(path: PathBuf, file: Settings, set: Option<Vec<Prompt>>, store: PromptStore) -> Self {
        let mut recordings = RecordingNames::default();
        recordings.add(&file.prompts);
        recordings.add(set.as_deref().unwrap_or_default());
        Self { path, file, set, store, recordings }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the configuration's file says.
    pub(super) fn file(&self) -> &Settings {
        &self.file
    }

    /// The prompts to listen for.
    pub(super) fn prompts(&self) -> &[Prompt] {
        self.set.as_deref().unwrap_or(&self.file.prompts)
    }

    /// Where the prompts come from, in a word for responses.
    pub(super) fn prompts_origin(&self) -> &'static str {
        if self.set.is_some() { "mqtt" } else { "file" }
    }

    /// What the pipelines need of these settings, with the prompts of `table`.
    pub(super) fn listen_config(&self, table: PromptTable) -> ListenConfig {
        ListenConfig { prompts: table.into(), hop: self.file.hop, gate_db: self.file.gate_db }
    }

    /// Reads the configuration's file again, and changes nothing.
    pub(super) fn load(&self) -> Result<(Settings, Vec<Diagnostic>), Faults> {
        prompts::load_settings(&self.path)
    }

    /// The prompts that a request sets; none: those of the file. They are checked as a whole, as they are when they are
    /// read at the next start.
    pub(super) fn requested_prompts(&self, set: SetPrompts) -> Result<Option<Vec<Prompt>>, String> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let parse = |text: &str| {
            let origin = PromptOrigin::Request("prompts/set", &self.recordings);
            prompts::parse(text, origin, folder).map_err(|faults| summarize(&faults))
        };
        let prompts = match set {
            SetPrompts::Reset => return Ok(None),
            SetPrompts::Replace(text) => parse(&text)?,
            SetPrompts::Change { merge, remove } => {
                let added = merge.map_or(Ok(Vec::new()), |text| parse(&text))?;
                merged(self.prompts(), added, &remove)?
            }
        };
        let text = config::request_text(&prompts).map_err(|error| error.to_string())?;
        parse(&text).map(Some)
    }

    /// The prompts to listen for once the file says this.
    pub(super) fn prompts_with<'a>(&'a self, file: &'a Settings) -> &'a [Prompt] {
        self.set.as_deref().unwrap_or(&file.prompts)
    }

    /// Stores these prompts for the next start; none: those of the file are to be used.
    ///
    /// # Errors
    /// Prompts that could not be stored: they end with this process.
    pub(super) fn store_prompts(&self, prompts: Option<&[Prompt]>) -> Result<()> {
        match prompts {
            Some(prompts) => self.store.save(prompts),
            None => self.store.remove(),
        }
    }

    /// These prompts are in effect; none: those of the file.
    pub(super) fn set_prompts(&mut self, prompts: Option<Vec<Prompt>>) {
        self.set = prompts;
    }

    /// Warns of what [`Self::replace`] will not put into effect, and returns the keys that need a restart.
    pub(super) fn warn_of_change(&self, settings: &Settings) -> Vec<&'static str> {
        let restart = needs_restart(&self.file, settings);
        for key in &restart {
            log::warn!("{}: {key} has changed, which takes effect when clapd is restarted", self.path.display());
        }
        if self.set.is_some() && settings.prompts != self.file.prompts {
            log::warn!(
                "prompts that were set over MQTT stay; prompts/set with {{\"reset\":true}} returns to the configuration's"
            );
        }
        restart
    }

    /// Takes over what the file says now. What needs a restart stays as it is, so that the next reload says so again.
    pub(super) fn replace(&mut self, settings: Settings) {
        self.recordings.add(&settings.prompts);
        let Settings { sources, hop, gate_db, prompts, recordings, place, quiet, .. } = settings;
        self.file = Settings { sources, hop, gate_db, prompts, recordings, place, quiet, ..self.file.clone() };
    }
}

/// The keys whose change a running process does not take up.
fn needs_restart(before: &Settings, after: &Settings) -> Vec<&'static str> {
    // Named one by one, so that a new key is not forgotten here.
    let Settings {
        node,
        bundle,
        threads,
        sources: _,
        hop: _,
        gate_db: _,
        prompts: _,
        recordings: _,
        broker,
        outbox,
        state: _,
        log,
        http,
        history,
        place: _,
        quiet: _,
        levels,
        journal,
    } = before;
    let changed = [
        ("node.id", *node != after.node),
        ("model.bundle", *bundle != after.bundle),
        ("model.threads", *threads != after.threads),
        ("mqtt", *broker != after.broker),
        ("outbox", *outbox != after.outbox),
        ("log", *log != after.log),
        ("http", *http != after.http),
        ("history", *history != after.history),
        ("levels", *levels != after.levels),
        ("journal", *journal != after.journal),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

/// Those of `before` that are not removed, with those that are added in the place of their ids, or at the end.
fn merged(before: &[Prompt], added: Vec<Prompt>, remove: &[String]) -> Result<Vec<Prompt>, String> {
    if let Some(unknown) = remove.iter().find(|id| !before.iter().any(|prompt| prompt.id.as_str() == **id)) {
        let shown: String = unknown.chars().take(SHORTENED_CHARS).collect();
        return Err(format!("`remove` names {shown:?}, and there is no such prompt; prompts/get lists them"));
    }
    let stays = |prompt: &&Prompt| !remove.iter().any(|id| prompt.id.as_str() == *id);
    let mut prompts: Vec<Prompt> = before.iter().filter(stays).cloned().collect();
    for prompt in added {
        match prompts.iter_mut().find(|known| known.id == prompt.id) {
            Some(known) => *known = prompt,
            None => prompts.push(prompt),
        }
    }
    Ok(prompts)
}

/// The first faults, on one line.
pub(super) fn summarize(faults: &Faults) -> String {
    let mut some: Vec<String> = faults.iter().take(MAX_FAULTS).map(ToString::to_string).collect();
    if let Some(more) = faults.iter().len().checked_sub(MAX_FAULTS).filter(|more| *more > 0) {
        some.push(format!("and {more} more"));
    }
    some.join(" | ")
}
