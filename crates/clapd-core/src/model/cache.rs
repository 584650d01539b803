//! Embeddings kept on disk, so that the text tower is loaded once a prompt and not once a start, and a recording
//! encoded once.
//!
//! A cache cannot fail its caller: [`EmbeddingCache::get`] gives the same embedding bit for bit or nothing, and an
//! entry that cannot be written is a slower start and a warning.
//!
//! Its bound is the caller's, who knows how many embeddings are asked for at once. Over it the entry goes that was asked
//! for the longest time ago: so what is asked for at every start stays, whatever else passes through.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::manifest::{CODE_REVISION, TextTable};
use super::text::TextEmbedding;
use crate::files::{Access, Durability, sha256_hex, write_atomically};

/// The folder is listed once for so many new entries: a list of thousands for each of thousands would take minutes. So many
/// more than its bound a cache may have.
const LIST_INTERVAL: usize = 256;
const MAGIC: &[u8; 8] = b"clapemb1";
const HASH: usize = 32;

/// A folder of embeddings, or none.
#[derive(Debug, Clone)]
pub struct EmbeddingCache {
    dir: Option<PathBuf>,
    capacity: usize,
    /// Entries that were stored since the cache was made.
    stored: Arc<AtomicUsize>,
}

impl EmbeddingCache {
    /// A cache in `dir`, which is made when the first embedding is stored. It has room for the `capacity` embeddings that
    /// were asked for last, and drops others soon.
    pub fn at(dir: impl Into<PathBuf>, capacity: usize) -> Self {
        Self { dir: Some(dir.into()), capacity, stored: Arc::default() }
    }

    /// A cache that keeps nothing.
    pub fn none() -> Self {
        Self { dir: None, capacity: 0, stored: Arc::default() }
    }

    /// The embedding of `text` by this text tower, if it is stored and whole.
    pub fn get(&self, tower: &TextTable, text: &str) -> Option<TextEmbedding> {
        self.read(&text_key(tower, text), tower.output)
    }

    /// Stores an embedding, whole or not at all.
    pub fn put(&self, tower: &TextTable, text: &str, embedding: &TextEmbedding) {
        self.write(&text_key(tower, text), embedding);
    }

    /// The embedding of `width` numbers of the recording with this content hash, by the pipeline with this id.
    pub fn get_sound(&self, pipeline_id: &str, content: &str, width: usize) -> Option<Vec<f32>> {
        self.read(&sound_key(pipeline_id, content), width).map(|embedding| embedding.vector)
    }

    /// Stores a recording's embedding, whole or not at all.
    pub fn put_sound(&self, pipeline_id: &str, content: &str, vector: &[f32]) {
        let embedding = TextEmbedding { vector: vector.to_vec(), coverage: None };
        self.write(&sound_key(pipeline_id, content), &embedding);
    }

    fn read(&self, key: &str, width: usize) -> Option<TextEmbedding> {
        let path = self.path(key)?;
        let bytes = fs::read(&path).ok()?;
        let embedding = decode(&bytes).filter(|embedding| embedding.vector.len() == width)?;
        mark_used(&path);
        Some(embedding)
    }

    fn write(&self, key: &str, embedding: &TextEmbedding) {
        let Some(path) = self.path(key) else { return };
        if let Err(error) = self.store(&path, &encode(embedding)) {
            log::warn!("prompts will be embedded again at the next start: {error:#}");
        }
    }

    fn store(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let dir = path.parent().context("a cache entry lies in a folder")?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if self.stored.fetch_add(1, Relaxed).is_multiple_of(LIST_INTERVAL) {
            prune(dir, self.capacity)?;
        }
        // An entry that a power cut damages has another hash, and is made again.
        write_atomically(path, bytes, Access::Private, Durability::Unsynced)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{}.emb", sha256_hex(key.as_bytes()))))
    }
}

/// Carries everything that decides the embedding, so that a new model never meets an old vector.
fn text_key(tower: &TextTable, text: &str) -> String {
    let TextTable { sha256, tokenizer_sha256, max_tokens, pad_id, .. } = tower;
    format!("{CODE_REVISION}\n{sha256}\n{tokenizer_sha256}\n{max_tokens}\n{pad_id}\n{text}")
}

/// No text tower's key begins like this one: a revision is a number.
fn sound_key(pipeline_id: &str, content: &str) -> String {
    format!("sound\n{pipeline_id}\n{content}")
}

fn encode(embedding: &TextEmbedding) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&embedding.coverage.unwrap_or(f32::NAN).to_le_bytes());
    bytes.extend(embedding.vector.iter().flat_map(|x| x.to_le_bytes()));
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn decode(bytes: &[u8]) -> Option<TextEmbedding> {
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if Sha256::digest(content).as_slice() != hash {
        return None;
    }
    let numbers = content.strip_prefix(MAGIC)?;
    let mut numbers = numbers.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let coverage = numbers.next().filter(|c| !c.is_nan());
    Some(TextEmbedding { vector: numbers.collect(), coverage })
}

/// An entry that was asked for now is the last to be dropped.
#[expect(clippy::disallowed_types, reason = "the age of an entry decides what is dropped, and no score")]
fn mark_used(path: &Path) {
    // Where the cache belongs to somebody else it is only read, and nothing is dropped from it.
    let _ = File::open(path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
}

/// Drops the entries over `capacity` that were stored, or asked for, the longest time ago.
fn prune(dir: &Path, capacity: usize) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.filter_map(Result::ok).collect();
    let Some(over) = entries.len().checked_sub(capacity).filter(|over| *over > 0) else { return Ok(()) };
    entries.sort_by_cached_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    for entry in &entries[..over] {
        // Another process may have removed it first; what counts is that it is gone.
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tower() -> TextTable {
        TextTable {
            file: "text.nnef.tar".into(),
            sha256: "a".repeat(64),
            precision: "f32".into(),
            output: 3,
            tokenizer: "tokenizer.json".into(),
            tokenizer_sha256: "b".repeat(64),
            max_tokens: 8,
            pad_id: 0,
            coverage_min: None,
        }
    }

    fn embedding() -> TextEmbedding {
        TextEmbedding { vector: vec![0.6, -0.8, f32::MIN_POSITIVE], coverage: Some(0.7) }
    }

    #[test]
    fn what_was_stored_comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::at(dir.path().join("new"), 10);
        assert_eq!(cache.get(&tower(), "rain"), None);
        cache.put(&tower(), "rain", &embedding());
        assert_eq!(cache.get(&tower(), "rain"), Some(embedding()));
        assert_eq!(cache.get(&tower(), "Rain"), None);
        assert_eq!(cache.get(&TextTable { sha256: "c".repeat(64), ..tower() }, "rain"), None);
    }

    #[test]
    fn a_recording_is_kept_for_its_content_and_its_pipeline() {
        let dir = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::at(dir.path(), 10);
        cache.put_sound("pipe.1", "abc", &[0.6, 0.8]);
        assert_eq!(cache.get_sound("pipe.1", "abc", 2), Some(vec![0.6, 0.8]));
        assert_eq!(cache.get_sound("pipe.2", "abc", 2), None);
        assert_eq!(cache.get_sound("pipe.1", "abd", 2), None);
        assert_eq!(cache.get_sound("pipe.1", "abc", 3), None);
    }

    #[test]
    fn a_damaged_entry_is_not_an_embedding() {
        let whole = encode(&embedding());
        assert_eq!(decode(&whole), Some(embedding()));
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None, "cut at {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            assert_eq!(decode(&flipped), None, "flipped at {cut}");
        }
    }

    /// Makes all entries look as if nobody had asked for them for a minute more.
    fn age(dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let then = fs::metadata(&path).unwrap().modified().unwrap() - std::time::Duration::from_secs(60);
            File::open(path).unwrap().set_modified(then).unwrap();
        }
    }

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn the_cache_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::at(dir.path(), 100);
        for n in 0..3 * LIST_INTERVAL {
            cache.put(&tower(), &format!("text {n}"), &embedding());
            assert!(count(dir.path()) <= 100 + LIST_INTERVAL);
        }
        EmbeddingCache::at(dir.path(), 100).put(&tower(), "rain", &embedding());
        assert_eq!(count(dir.path()), 100 + 1);
    }

    #[test]
    fn what_is_asked_for_at_every_start_stays_whatever_passes_through() {
        let dir = tempfile::tempdir().unwrap();
        let capacity = 50;
        let texts: Vec<String> = (0..capacity).map(|n| format!("text {n}")).collect();
        for start in 0..20 {
            // Each start is a process, and so a cache, of its own; each asks for all, and somebody tries out another text.
            let cache = EmbeddingCache::at(dir.path(), capacity);
            let missing: Vec<&String> = texts.iter().filter(|text| cache.get(&tower(), text).is_none()).collect();
            assert!(start == 0 || missing.is_empty(), "start {start}: {missing:?} are embedded again");
            missing.iter().for_each(|text| cache.put(&tower(), text, &embedding()));
            EmbeddingCache::at(dir.path(), capacity).put(&tower(), &format!("tried {start}"), &embedding());
            age(dir.path());
        }
    }
}
