//! Checkpoints in Hugging Face's hub, by way of the cache that its own tools share.
//!
//! A repository is named `owner/name`, a file in it `owner/name/file.pt`. All files are of one commit, and only those
//! are fetched that an import reads. A file that the cache has is not fetched again, a transfer that was cut off goes
//! on where it stopped, and without a connection the newest commit of the cache is taken. A file whose length or hash
//! is not what the hub said is refused. `HF_HOME` moves the cache, `HF_ENDPOINT` names another hub, `HF_TOKEN` opens
//! private repositories, `HF_HUB_OFFLINE` asks nobody.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clapd_core::files::HashingReader;
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::ProgressBar;

use super::stored_tensor::{self, shards};
use crate::progress::bar;

/// A transfer is tried this often before the user has to ask again; each try goes on where the one before stopped.
const TRIES: u32 = 4;
/// The wait before the second try; it doubles.
const WAIT: Duration = Duration::from_millis(500);

/// Whether a name could be a repository's, or that of a file in one: words with slashes between them.
pub fn is_id(name: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty() && !w.starts_with('.') && w.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let words: Vec<&str> = name.split('/').collect();
    let file = words.len() > 2 && name.ends_with(".pt");
    (words.len() == 2 || file) && words.iter().all(|w| word(w))
}

/// The hub and its cache, as the environment describes them.
pub struct Hub {
    cache: Cache,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

/// A repository at one commit.
struct Repository<'a> {
    hub: &'a Hub,
    id: &'a str,
    /// Where the cache puts this commit's files.
    snapshot: PathBuf,
    commit: String,
    /// What the hub has, and how to get it; none if the cache has to do.
    remote: Option<(BTreeSet<String>, ApiRepo)>,
}

impl Hub {
    /// Reads the environment; asks nobody.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let cache = Cache::from_env();
        Self {
            token: set("HF_TOKEN").or_else(|| cache.token()),
            endpoint: set("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_string()),
            offline: set("HF_HUB_OFFLINE").is_some_and(|v| v != "0"),
            cache,
        }
    }

    /// The folder with a repository's configuration, weights and tokenizer, or LAION's file; and its commit.
    ///
    /// # Errors
    /// A repository that can't be reached or read, or has no weights of a known form.
    pub fn checkpoint(&self, name: &str) -> Result<(PathBuf, String)> {
        let (id, file) = split(name);
        let repository = self.open(id)?;
        if let Some(file) = file {
            let path = repository.fetch(file)?;
            return Ok((path, repository.keep()?.1));
        }
        if !repository.has("config.json") {
            bail!("{}", repository.without_config());
        }
        repository.fetch("config.json")?;
        let index = "model.safetensors.index.json";
        if repository.has("model.safetensors") {
            repository.fetch("model.safetensors")?;
        } else if repository.has(index) {
            for shard in shards(&repository.fetch(index)?)? {
                repository.fetch(&shard)?;
            }
        } else {
            repository.fetch("pytorch_model.bin")?;
        }
        repository.fetch_tokenizer()?;
        repository.keep()
    }

    /// The folder with a repository's front end and tokenizer.
    ///
    /// # Errors
    /// A repository that can't be reached or read, or is no processor's.
    pub fn processor(&self, id: &str) -> Result<PathBuf> {
        let repository = self.open(id)?;
        let combined = repository.has("processor_config.json") && !repository.has("preprocessor_config.json");
        repository.fetch(if combined { "processor_config.json" } else { "preprocessor_config.json" })?;
        repository.fetch_tokenizer()?;
        Ok(repository.keep()?.0)
    }

    /// Asks for the newest commit.
    fn open<'a>(&'a self, id: &'a str) -> Result<Repository<'a>> {
        if self.offline {
            return self.cached(id).with_context(|| {
                format!(
                    "{id} is no folder here and not in the cache {}, and HF_HUB_OFFLINE is set",
                    self.cache.path().display()
                )
            });
        }
        let mut builder = ApiBuilder::from_cache(self.cache.clone()).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().context("preparing a connection to the hub")?;
        let info = match api.model(id.into()).info() {
            Ok(info) => info,
            Err(error) => {
                let Failure { status, text, .. } = Failure::of(error);
                // An answer is an answer; only silence lets the cache speak.
                if let (None, Some(cached)) = (status, self.cached(id)) {
                    eprintln!("{id}: the hub can't be reached ({text}); using commit {} of the cache", cached.commit);
                    return Ok(cached);
                }
                bail!("{id} is no folder here, and the hub {}", self.explain(status, &text));
            }
        };
        let commit = info.sha;
        ensure!(
            !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric()),
            "the hub says that {id} is at commit {commit:?}, which is none"
        );
        let files = info.siblings.into_iter().map(|s| s.rfilename).collect();
        let repository = api.repo(Repo::with_revision(id.into(), RepoType::Model, commit.clone()));
        Ok(Repository {
            hub: self,
            id,
            snapshot: self.snapshot(id, &commit),
            commit,
            remote: Some((files, repository)),
        })
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.cache.path().join(Repo::model(id.into()).folder_name())
    }

    fn snapshot(&self, id: &str, commit: &str) -> PathBuf {
        self.folder(id).join("snapshots").join(commit)
    }

    /// The newest commit that the cache knows.
    fn cached<'a>(&'a self, id: &'a str) -> Option<Repository<'a>> {
        let commit = stored_tensor::read_text(&self.folder(id).join("refs/main"), 256).ok()?.trim().to_string();
        let snapshot = self.snapshot(id, &commit);
        snapshot.is_dir().then_some(Repository { hub: self, id, snapshot, commit, remote: None })
    }

    /// What a refusal means for the user.
    fn explain(&self, status: Option<u16>, text: &str) -> String {
        let token = if self.token.is_some() { "the token in HF_TOKEN" } else { "no token: HF_TOKEN is not set" };
        match status {
            Some(status @ (401 | 403)) => format!(
                "refuses it (status {status}): the repository is private, wants its terms accepted on its page, or does \
                 not exist. This request had {token}; set HF_TOKEN to a token that may read it"
            ),
            Some(404) => "has nothing of that name (status 404); check the spelling".into(),
            Some(429) => "has had too many requests (status 429); wait a while".into(),
            Some(status) => format!("answers with status {status}; try again later"),
            None => format!(
                "did not give it: {text}. Check the connection and try again, which goes on where this stopped; or download \
                 the repository elsewhere and name its folder"
            ),
        }
    }
}

/// The repository's id, and the file in it if one is named.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.match_indices('/').nth(1) {
        Some((at, _)) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

impl Repository<'_> {
    fn has(&self, file: &str) -> bool {
        self.snapshot.join(file).exists() || self.remote.as_ref().is_some_and(|(files, _)| files.contains(file))
    }

    /// The place of a file in the cache, where it is put if it is not there.
    fn fetch(&self, file: &str) -> Result<PathBuf> {
        let path = self.snapshot.join(file);
        if path.exists() {
            return Ok(path);
        }
        let Some((_, remote)) = self.remote.as_ref().filter(|(files, _)| files.contains(file)) else {
            bail!("the repository {} at commit {} has no {file}", self.id, self.commit);
        };
        let progress = bar(0);
        let mut wait = WAIT;
        for tries in 1.. {
            let error = match self.transfer(remote, file, &progress) {
                Ok(path) => return Ok(path),
                Err(error) => error,
            };
            let Failure { status, text, again } = error;
            if !again || tries == TRIES {
                bail!("fetching {file} of {}: the hub {}", self.id, self.hub.explain(status, &text));
            }
            std::thread::sleep(wait);
            wait *= 2;
        }
        Err(anyhow!("{file} was not fetched"))
    }

    /// One try. hf-hub itself checks neither length nor hash.
    fn transfer(&self, remote: &ApiRepo, file: &str, progress: &ProgressBar) -> Result<PathBuf, Failure> {
        let size = Cell::new(0);
        let path = remote.download_with_progress(file, Meter { bar: progress, size: &size }).map_err(Failure::of)?;
        progress.finish_and_clear();
        let damage = damage(&path, size.get()).unwrap_or_else(|e| Some(format!("{e:#}")));
        let Some(damage) = damage else { return Ok(path) };
        // The cache must not keep it: the name of what it holds says it is whole.
        if let Ok(blob) = fs::canonicalize(&path) {
            fs::remove_file(blob).ok();
        }
        fs::remove_file(&path).ok();
        Err(Failure { status: None, text: format!("{file} arrived damaged, {damage}"), again: false })
    }

    fn fetch_tokenizer(&self) -> Result<()> {
        if self.has("tokenizer.json") {
            self.fetch("tokenizer.json")?;
        } else if self.has("vocab.json") && self.has("merges.txt") {
            self.fetch("vocab.json")?;
            self.fetch("merges.txt")?;
        }
        Ok(())
    }

    /// All of it is here: from now on this commit is the cache's newest.
    fn keep(self) -> Result<(PathBuf, String)> {
        if self.remote.is_some() {
            let cache = self.hub.cache.model(self.id.into());
            cache.create_ref(&self.commit).with_context(|| format!("noting the commit of {} in the cache", self.id))?;
        }
        Ok((self.snapshot, self.commit))
    }

    /// What to do about a repository that is no `ClapModel`'s.
    fn without_config(&self) -> String {
        let id = self.id;
        let files = self.remote.iter().flat_map(|(files, _)| files);
        let laion: Vec<String> = files.filter(|f| f.ends_with(".pt")).map(|f| format!("{id}/{f}")).collect();
        if laion.is_empty() {
            return format!("the repository {id} has no config.json: it is no ClapModel's");
        }
        format!(
            "the repository {id} has no config.json, but files of LAION's form; name one of them as SRC, with a processor \
             (--processor laion/clap-htsat-fused or laion/clap-htsat-unfused):\n  {}",
            laion.join("\n  ")
        )
    }
}

/// What is wrong with a file that was to have `size` bytes; of large files the hub's name in the cache is their SHA-256.
fn damage(path: &Path, size: usize) -> Result<Option<String>> {
    let blob = fs::canonicalize(path)?;
    let length = blob.metadata()?.len();
    if length != size as u64 {
        return Ok(Some(format!("with {length} of {size} bytes")));
    }
    let named = blob.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if named.len() != 64 || !named.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let hash = HashingReader::open(&blob, u64::MAX)?.finish()?;
    Ok((hash != named).then(|| format!("with the SHA-256 {hash} instead of {named}")))
}

/// Why a request failed.
struct Failure {
    /// None if there was no answer.
    status: Option<u16>,
    text: String,
    /// Whether another try may end otherwise.
    again: bool,
}

impl Failure {
    fn of(error: ApiError) -> Self {
        let text = error.to_string();
        let status = match error {
            ApiError::RequestError(error) => error.into_response().map(|response| response.status()),
            _ => None,
        };
        Self { status, text, again: status.is_none_or(|s| s >= 500) }
    }
}

/// Shows a transfer, and keeps the length that the hub announced.
struct Meter<'a> {
    bar: &'a ProgressBar,
    size: &'a Cell<usize>,
}

impl Progress for Meter<'_> {
    fn init(&mut self, size: usize, file: &str) {
        self.size.set(size);
        self.bar.set_length(size as u64);
        self.bar.set_position(0);
        self.bar.set_message(file.to_string());
    }

    fn update(&mut self, size: usize) {
        self.bar.inc(size as u64);
    }

    fn finish(&mut self) {}
}
