//! Where a checkpoint is: what the user typed (a folder, a file, or a repository's id in Hugging Face's hub) as paths
//! on this machine. The hub is not asked for what is here.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::hub::{self, Hub};

/// Where a checkpoint's parts are.
#[derive(Clone, Debug)]
pub struct CheckpointSource {
    /// What the user named: for people and for the bundle's record.
    pub name: String,
    /// The commit of a repository; empty for what was here.
    pub version: String,
    /// The folder with config.json and weights, or LAION's `.pt`.
    pub weights: PathBuf,
    /// The folder with preprocessor_config.json, and perhaps a tokenizer.
    pub processor: PathBuf,
}

/// Where a run of `claptune tune` keeps its best model, in the run's folder.
pub const BEST: &str = "best";

/// Finds a checkpoint, and its processor if that is another place; fetches what the hub has and this machine has not. The folder
/// of a run of `claptune tune` stands for its best model.
///
/// # Errors
/// A name that is no place here and no repository's id, or says why the hub did not give it.
pub fn locate(name: &str, processor: Option<&str>) -> Result<CheckpointSource> {
    let hub = Hub::from_env();
    let best = Path::new(name).join(BEST);
    let path = if best.join("config.json").is_file() { &best } else { Path::new(name) };
    let (weights, version) = if path.exists() {
        (path.to_path_buf(), String::new())
    } else if hub::is_id(name) {
        hub.checkpoint(name)?
    } else {
        bail!(
            "{name} is no folder and no file here, and no repository's id, which is owner/name or, of one file, \
             owner/name/file.pt"
        )
    };
    let processor = match processor {
        Some(name) if Path::new(name).exists() => {
            ensure!(
                Path::new(name).is_dir(),
                "--processor {name} is a file; name the folder of preprocessor_config.json"
            );
            PathBuf::from(name)
        }
        Some(id) if hub::is_id(id) => hub.processor(id)?,
        Some(name) => bail!("--processor {name} is no folder here, and no repository's id, which is owner/name"),
        None if weights.is_dir() => weights.clone(),
        None => match weights.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        },
    };
    Ok(CheckpointSource { name: name.into(), version, weights, processor })
}
