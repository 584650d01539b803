//! Recordings as patches, through the cache. [`Clips::prepare`] reads each file once before training, so that a broken
//! one is found then and not in the tenth epoch.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clapd_core::dsp::FrontendSpec;
use clapd_core::files::{HashingReader, sha256_hex};

use super::audio;
use super::cache::{CacheCounts, MelCache};
use super::pairs::Pair;
use super::skips::{Skipped, Skips};

/// Raised whenever the front end gives other numbers for the same description.
const REVISION: u32 = 1;

/// Patches of files, for one front end.
#[derive(Debug)]
pub struct Clips {
    spec: FrontendSpec,
    patch_hop: u64,
    cache: Option<MelCache>,
    /// Cache keys of files that were hashed in this run.
    keys: HashMap<PathBuf, String>,
}

/// Pairs that can be used.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// In their order.
    pub pairs: Vec<Pair>,
    /// The files that can't be used.
    pub skipped: Vec<Skipped>,
}

impl Clips {
    /// For a front end and, of a bundle, its `windowing().patch_hop`: 0 takes the first patch of each file, as `clap`
    /// bundles do.
    pub fn new(spec: FrontendSpec, patch_hop: u64, cache: Option<MelCache>) -> Self {
        Self { spec, patch_hop, cache, keys: HashMap::new() }
    }

    /// Values in a patch: `patch_frames * mel_bins`, row = frame.
    pub fn patch_len(&self) -> usize {
        self.spec.patch_len()
    }

    /// What became of requests to the cache; none without one.
    pub fn cache_counts(&self) -> Option<CacheCounts> {
        self.cache.as_ref().map(MelCache::counts)
    }

    /// A file's patches, one after the other, [`patch_len`](Self::patch_len) values each; see [`audio::patches`].
    ///
    /// # Errors
    /// A file that is missing, broken, or holds no sound.
    pub fn load(&mut self, file: &Path) -> Result<Vec<f32>> {
        if self.cache.is_none() {
            return audio::patches(file, &self.spec, self.patch_hop);
        }
        let key = self.key(file)?;
        if let Some(found) = self.cache.as_mut().and_then(|cache| cache.get(&key))
            && found.len().is_multiple_of(self.patch_len())
            && !found.is_empty()
        {
            return Ok(found);
        }
        let patches = audio::patches(file, &self.spec, self.patch_hop)?;
        if let Some(cache) = &mut self.cache {
            cache.put(&key, &patches);
        }
        Ok(patches)
    }

    /// Loads the audio of all pairs once, which fills the cache, and leaves out the pairs whose file can't be used.
    /// `progress` gets how many files of how many are done.
    ///
    /// # Errors
    /// More than the share `most` (0 to 1) of the files can't be used, or no pair is left.
    pub fn prepare(&mut self, pairs: Vec<Pair>, most: f64, mut progress: impl FnMut(usize, usize)) -> Result<Prepared> {
        let files: BTreeSet<&PathBuf> = pairs.iter().map(|pair| &pair.audio).collect();
        let (total, mut skips) = (files.len(), Skips::new(files.len(), most)?);
        for (done, file) in files.into_iter().enumerate() {
            if let Err(error) = self.load(file) {
                skips.add(file, &error)?;
            }
            progress(done + 1, total);
        }
        let skipped = skips.into_list();
        let bad: HashSet<PathBuf> = skipped.iter().map(|skipped| skipped.audio.clone()).collect();
        let pairs: Vec<Pair> = pairs.into_iter().filter(|pair| !bad.contains(&pair.audio)).collect();
        ensure!(!pairs.is_empty(), "no pair is left: none has audio that can be used");
        Ok(Prepared { pairs, skipped })
    }

    /// What decides the patches: the file's content, whatever its name, and the front end.
    fn key(&mut self, file: &Path) -> Result<String> {
        if let Some(key) = self.keys.get(file) {
            return Ok(key.clone());
        }
        let content = HashingReader::open(file, u64::MAX)?.finish().with_context(|| file.display().to_string())?;
        let key = sha256_hex(format!("{REVISION}\n{content}\n{:?}\n{}", self.spec, self.patch_hop).as_bytes());
        self.keys.insert(file.to_path_buf(), key.clone());
        Ok(key)
    }
}
