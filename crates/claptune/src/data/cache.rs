//! Patches kept on disk, so that a recording is decoded once and not once an epoch. Without the cache a run is slower,
//! and no more: its failures end none.
//!
//! Training reads every recording once an epoch, in another order each time. Dropping the least recently used would
//! then drop each entry shortly before it is needed. What this run has used stays; only what an earlier run left is
//! dropped, oldest first, and what finds no room is computed each time.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clapd_core::files::{Access, Durability, write_atomically};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"clapmel1";
const HASH: usize = 32;

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Found.
    pub hits: u64,
    /// Not found, or damaged.
    pub misses: u64,
    /// Old entries that were dropped for new ones.
    pub dropped: u64,
    /// Patches that found no room.
    pub refused: u64,
}

/// A folder of patches of at most so many bytes.
#[derive(Debug)]
pub struct MelCache {
    folder: PathBuf,
    most: u64,
    /// Entries of earlier runs that this one has not used: when written, name, bytes.
    old: BTreeMap<(SystemTime, String), u64>,
    used: HashSet<String>,
    bytes: u64,
    counts: CacheCounts,
}

impl MelCache {
    /// A cache in `folder`, which is made if it is not there. Only files that look like its own are counted or dropped.
    ///
    /// # Errors
    /// A folder that can't be made or read.
    pub fn open(folder: impl Into<PathBuf>, most: u64) -> Result<Self> {
        let folder = folder.into();
        let place = || format!("the cache {}", folder.display());
        fs::create_dir_all(&folder).with_context(place)?;
        let mut old = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(place)? {
            let entry = entry.with_context(place)?;
            let (name, meta) =
                (entry.file_name().to_string_lossy().into_owned(), entry.metadata().with_context(place)?);
            if meta.is_file() && name.len() == 68 && name.ends_with(".mel") {
                old.insert((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), name), meta.len());
            }
        }
        let bytes = old.values().sum();
        Ok(Self { folder, most, old, used: HashSet::new(), bytes, counts: CacheCounts::default() })
    }

    /// What became of requests so far.
    pub fn counts(&self) -> CacheCounts {
        self.counts
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The patches under a key (64 hexadecimal digits), if they are there and whole.
    pub fn get(&mut self, key: &str) -> Option<Vec<f32>> {
        let name = format!("{key}.mel");
        let found = fs::read(self.folder.join(&name)).ok().and_then(|bytes| decode(&bytes));
        *if found.is_some() { &mut self.counts.hits } else { &mut self.counts.misses } += 1;
        if found.is_some() && self.used.insert(name.clone()) {
            self.old.retain(|(_, old), _| *old != name);
        }
        found
    }

    /// Keeps patches under a key, whole or not at all. The first failure is in the log.
    pub fn put(&mut self, key: &str, patches: &[f32]) {
        let name = format!("{key}.mel");
        let bytes = encode(patches);
        // A damaged entry of the same name is replaced.
        self.remove_entry(&name);
        while self.bytes + bytes.len() as u64 > self.most
            && let Some((_, oldest)) = self.old.keys().next().cloned()
        {
            self.remove_entry(&oldest);
            let _ = fs::remove_file(self.folder.join(&oldest));
            self.counts.dropped += 1;
        }
        if self.bytes + bytes.len() as u64 > self.most {
            self.refuse("it is full; a larger one saves time");
            return;
        }
        match self.store(&name, &bytes) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                self.used.insert(name);
            }
            Err(error) => self.refuse(&format!("{error:#}")),
        }
    }

    fn remove_entry(&mut self, name: &str) {
        let found = self.old.keys().find(|(_, old)| old == name).cloned();
        if let Some(bytes) = found.and_then(|key| self.old.remove(&key)) {
            self.bytes -= bytes;
        }
    }

    fn refuse(&mut self, why: &str) {
        if self.counts.refused == 0 {
            log::warn!("the cache {}: recordings are decoded again each time: {why}", self.folder.display());
        }
        self.counts.refused += 1;
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // What a power cut damages is made again.
        write_atomically(&self.folder.join(name), bytes, Access::Private, Durability::Unsynced)
    }
}

fn encode(patches: &[f32]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(patches.iter().flat_map(|value| value.to_le_bytes()));
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<f32>> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if Sha256::digest(content).as_slice() != hash {
        return None;
    }
    let (values, rest) = content.strip_prefix(MAGIC)?.as_chunks::<4>();
    rest.is_empty().then(|| values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}
