//! Checkpoints in Hugging Face's hub, by way of its own cache.
//!
//! In: a repository's id, `owner/name`. Out: the folder of the cache that holds its files, and the commit.
//! Files that the cache has are not fetched again, a transfer that was cut off goes on where it stopped, `HF_HOME` moves the
//! cache, `HF_ENDPOINT` names another hub, and `HF_TOKEN` opens private repositories.
//! Never: runs for a name that is a folder here; fetches anything that an import does not read.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};

use super::stored::shards;

/// A transfer is tried again this often before the user has to ask again (which goes on where it stopped).
const RETRIES: usize = 3;

/// Whether a name could be a repository's: two words with one slash between them.
pub fn is_id(name: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty() && !w.starts_with('.') && w.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    name.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

/// A connection to the hub; nothing is asked of it yet.
///
/// # Errors
/// A TLS library that can't start.
pub fn connect() -> Result<Api> {
    let builder = ApiBuilder::from_env().with_retries(RETRIES);
    let builder = match std::env::var("HF_TOKEN") {
        Ok(token) if !token.trim().is_empty() => builder.with_token(Some(token.trim().into())),
        _ => builder,
    };
    builder.build().context("preparing a connection to the hub")
}

/// The folder with a repository's configuration, weights and tokenizer, and its commit.
///
/// # Errors
/// A repository that can't be reached, or has no weights of a known form.
pub fn checkpoint(api: &Api, id: &str) -> Result<(PathBuf, String)> {
    let repository = api.model(id.into());
    let config = required(&repository, id, "config.json")?;
    if !optional(&repository, id, "model.safetensors")? {
        if optional(&repository, id, "model.safetensors.index.json")? {
            for shard in shards(&config.with_file_name("model.safetensors.index.json"))? {
                required(&repository, id, &shard)?;
            }
        } else {
            required(&repository, id, "pytorch_model.bin")?;
        }
    }
    tokenizer(&repository, id)?;
    place(&config)
}

/// The folder with a repository's front end and tokenizer.
///
/// # Errors
/// A repository that can't be reached, or is no processor's.
pub fn processor(api: &Api, id: &str) -> Result<PathBuf> {
    let repository = api.model(id.into());
    if !optional(&repository, id, "preprocessor_config.json")? {
        return Ok(place(&required(&repository, id, "processor_config.json")?)?.0);
    }
    tokenizer(&repository, id)?;
    Ok(place(&required(&repository, id, "preprocessor_config.json")?)?.0)
}

fn tokenizer(repository: &ApiRepo, id: &str) -> Result<()> {
    if !optional(repository, id, "tokenizer.json")? {
        optional(repository, id, "vocab.json")?;
        optional(repository, id, "merges.txt")?;
    }
    Ok(())
}

/// The cache keeps a commit's files in a folder of the commit's name.
fn place(file: &std::path::Path) -> Result<(PathBuf, String)> {
    let folder = file.parent().context("the cache put a file in no folder")?;
    let commit = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((folder.to_path_buf(), commit))
}

fn required(repository: &ApiRepo, id: &str, file: &str) -> Result<PathBuf> {
    repository.get(file).with_context(|| {
        format!(
            "{id} is no folder here, and {file} of the repository {id} could not be fetched; check the name, the connection \
             and, for a private repository, HF_TOKEN. A folder with the same files works as well"
        )
    })
}

/// Fetches a file that may be missing; says whether it is there.
fn optional(repository: &ApiRepo, id: &str, file: &str) -> Result<bool> {
    match repository.get(file) {
        Ok(_) => Ok(true),
        // The crate keeps the status inside an error of another crate; its text has it.
        Err(error) if error.to_string().contains("status code 404") => Ok(false),
        Err(error) => bail!("fetching {file} of the repository {id}: {error}"),
    }
}
