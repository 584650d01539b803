//! Embeddings kept on disk, so that the text tower is loaded once a prompt and not once a start, and a recording
//! encoded once.
//!
//! A cache cannot fail its caller: [`EmbeddingCache::get`] gives the same embedding bit for bit or nothing, and an
//! entry that cannot be written is a slower start and a warning.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::manifest::{CODE_REVISION, TextTable};
use super::text::TextEmbedding;
use crate::files::{Access, Durability, sha256_hex, write_atomically};

/// 4,096 embeddings of 512 numbers are 8 MB: no disk notices, and no stream of new prompts can fill one.
const MAX_ENTRIES: usize = 4096;
const MAGIC: &[u8; 8] = b"clapemb1";
const HASH: usize = 32;

/// A folder of embeddings, or none.
#[derive(Debug, Clone)]
pub struct EmbeddingCache {
    dir: Option<PathBuf>,
}

impl EmbeddingCache {
    /// A cache in `dir`, which is made when the first embedding is stored.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: Some(dir.into()) }
    }

    /// A cache that keeps nothing.
    pub fn none() -> Self {
        Self { dir: None }
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
        let bytes = fs::read(self.path(key)?).ok()?;
        decode(&bytes).filter(|embedding| embedding.vector.len() == width)
    }

    fn write(&self, key: &str, embedding: &TextEmbedding) {
        let Some(path) = self.path(key) else { return };
        if let Err(error) = store(&path, &encode(embedding)) {
            log::warn!("prompts will be embedded again at the next start: {error:#}");
        }
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

fn store(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a cache entry lies in a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    prune(dir)?;
    // An entry that a power cut damages has another hash, and is made again.
    write_atomically(path, bytes, Access::Private, Durability::Unsynced)
}

/// Drops the oldest entries until there is room for one more.
fn prune(dir: &Path) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.filter_map(Result::ok).collect();
    if entries.len() < MAX_ENTRIES {
        return Ok(());
    }
    entries.sort_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    for entry in &entries[..=entries.len() - MAX_ENTRIES] {
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
        let cache = EmbeddingCache::at(dir.path().join("new"));
        assert_eq!(cache.get(&tower(), "rain"), None);
        cache.put(&tower(), "rain", &embedding());
        assert_eq!(cache.get(&tower(), "rain"), Some(embedding()));
        assert_eq!(cache.get(&tower(), "Rain"), None);
        assert_eq!(cache.get(&TextTable { sha256: "c".repeat(64), ..tower() }, "rain"), None);
    }

    #[test]
    fn a_recording_is_kept_for_its_content_and_its_pipeline() {
        let dir = tempfile::tempdir().unwrap();
        let cache = EmbeddingCache::at(dir.path());
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

    #[test]
    fn the_cache_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..MAX_ENTRIES + 5 {
            fs::write(dir.path().join(format!("{i}.emb")), b"").unwrap();
        }
        EmbeddingCache::at(dir.path()).put(&tower(), "rain", &embedding());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_ENTRIES);
    }
}
