//! Where things are when nobody says: the configuration, the default bundle, the cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clapd_core::model::{Bundle, Compute, EmbeddingCache};

use super::exit::{AtStage, Failure, Stage};
use crate::config::MAX_EMBEDDINGS;

/// The daemon's configuration.
pub(super) const CONFIG: &str = "/etc/clapd/clapd.toml";
const DEFAULT_BUNDLE: &str = "models/mini";

/// Forces a kernel, by its name: the one place that reads it.
const KERNEL: &str = "CLAPD_KERNEL";

/// What a command that computes with a model takes.
#[derive(Debug, clap::Args)]
pub(super) struct ModelArguments {
    /// Model bundle
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Threads that the model computes with, where its kernels are clapd's own
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
}

impl ModelArguments {
    /// Opens the bundle that they name.
    pub(super) fn open_bundle(&self) -> Result<Bundle, Failure> {
        open_bundle(self.bundle.as_deref(), self.threads)
    }
}

/// Opens the bundle asked for, or the default one, to be loaded for `threads` threads and the kernel that the environment asks for.
pub(super) fn open_bundle(asked: Option<&Path>, threads: usize) -> Result<Bundle, Failure> {
    let kernel = env::var_os(KERNEL).filter(|name| !name.is_empty());
    let kernel = kernel.as_ref().map(|name| name.to_string_lossy());
    let compute = Compute::new(kernel.as_deref(), threads).at(Stage::Usage)?;
    Ok(Bundle::open(find_bundle(asked).at(Stage::Bundle)?).at(Stage::Bundle)?.with_compute(compute))
}

/// The bundle to use: the one asked for, or the default beside the installation or in the repository.
fn find_bundle(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(asked) = asked {
        return Ok(asked.to_path_buf());
    }
    let places = default_places();
    places.iter().find(|place| place.join("bundle.toml").is_file()).cloned().ok_or_else(|| {
        let tried: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        anyhow!("no model bundle is installed; looked in {}; name one with --bundle DIR", tried.join(", "))
    })
}

fn default_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Ok(binary) = env::current_exe() {
        // `PREFIX/bin/clapd` has PREFIX/share; an unpacked archive has models/ beside it, `target/release/clapd` two above.
        // No further up: somebody else's /models is not ours.
        for dir in binary.ancestors().skip(1).take(3) {
            places.push(dir.join("share/clapd").join(DEFAULT_BUNDLE));
            places.push(dir.join(DEFAULT_BUNDLE));
        }
    }
    // A build directory elsewhere (CARGO_TARGET_DIR) has no repository above it; the source it was built from has. What is
    // released knows nothing of that: on another machine, that path may be anybody's.
    #[cfg(debug_assertions)]
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFAULT_BUNDLE));
    places
}

/// Where text embeddings are kept: systemd's cache directory for the daemon, the user's for a person.
pub(super) fn embedding_cache() -> EmbeddingCache {
    let user =
        || env::var_os("XDG_CACHE_HOME").or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache").into()));
    env::var_os("CACHE_DIRECTORY")
        .map(PathBuf::from)
        .or_else(|| user().map(|dir| Path::new(&dir).join("clapd")))
        .filter(|dir| dir.is_absolute())
        .map_or_else(EmbeddingCache::none, |dir| EmbeddingCache::at(dir, MAX_EMBEDDINGS))
}
