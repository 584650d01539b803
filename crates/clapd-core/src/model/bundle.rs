//! A folder of weights that says what it is: `bundle.toml`, graphs and a tokenizer (models/README.md).
//!
//! A bundle may come from anyone: no file is read before its size is known to be sane, and nothing of it is used before
//! its hash was found to be the manifest's.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::audio::AudioEncoder;
use super::cache::EmbeddingCache;
use super::compute::Compute;
use super::manifest::{CODE_REVISION, Manifest};
use super::nnef::{self, Graph};
use super::text::{TextEmbedding, TextEncoder};
use crate::dsp::FrontendSpec;
use crate::files::HashingReader;
use crate::score::Calibration;

/// Ours has 4 KB; the quality table of a large evaluation may have some more.
const MAX_MANIFEST: u64 = 1 << 20;
/// RoBERTa in f32 has 500 MB; four times that is no model for this daemon.
const MAX_GRAPH: u64 = 2 << 30;
/// The largest tokenizer.json of the supported families has 2.2 MB.
const MAX_TOKENIZER: u64 = 32 << 20;

/// An opened bundle: its manifest is sound, its files are read when they are needed.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    compute: Compute,
}

/// How patches make windows, in samples at the model's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windowing {
    /// Samples in a patch.
    pub patch: u64,
    /// Samples from one patch to the next; 0 where a window is one patch, taken anywhere.
    pub patch_hop: u64,
    /// Patches in a full window.
    pub patches: usize,
}

impl Windowing {
    /// Samples in a full window.
    pub fn samples(&self) -> u64 {
        self.patch + self.patch_hop * (self.patches as u64).saturating_sub(1)
    }
}

impl Bundle {
    /// Opens a bundle's folder.
    ///
    /// # Errors
    /// No such folder, or a manifest that is missing, newer than this version, or at fault.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let path = dir.join("bundle.toml");
        let text = read_bounded(&path, MAX_MANIFEST).with_context(|| {
            format!("{} is not a model bundle; give the folder that holds bundle.toml", dir.display())
        })?;
        let text = String::from_utf8(text).with_context(|| format!("{} is not UTF-8", path.display()))?;
        let manifest = Manifest::parse(&text).with_context(|| path.display().to_string())?;
        Ok(Self { dir, manifest, compute: Compute::default() })
    }

    /// The same bundle, its towers to be loaded for these kernels and threads instead of the default's.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes whenever a score could: by the bundle's content, or by our own code.
    pub fn pipeline_id(&self) -> String {
        format!("{}.{CODE_REVISION}", self.manifest.pipeline_id)
    }

    /// Changes whenever the embedding of a sound could.
    pub(crate) fn embedding_id(&self) -> String {
        format!("{}.{CODE_REVISION}", self.manifest.id_without_recordings())
    }

    /// From samples to patches.
    pub fn frontend(&self) -> FrontendSpec {
        FrontendSpec::from(&self.manifest.frontend)
    }

    /// From patches to windows.
    pub fn windowing(&self) -> Windowing {
        let window = &self.manifest.window;
        Windowing {
            patch: self.frontend().patch_samples() as u64,
            patch_hop: window.patch_hop as u64,
            patches: window.patches,
        }
    }

    /// From cosine to score.
    ///
    /// # Errors
    /// None for an opened bundle: its curve was checked.
    pub fn calibration(&self) -> Result<Calibration> {
        Calibration::new(self.manifest.calibration.points.clone())
    }

    /// Loads the audio tower.
    ///
    /// # Errors
    /// A file that is missing, altered, or does not fit the manifest.
    pub fn audio_encoder(&self) -> Result<AudioEncoder> {
        let table = &self.manifest.audio;
        let tower = self.load_graph(&table.file, &table.sha256)?;
        let pool = self.manifest.pool.as_ref().map(|pool| self.load_graph(&pool.file, &pool.sha256)).transpose()?;
        AudioEncoder::new(&self.manifest, tower, pool).with_context(|| self.label())
    }

    /// Loads the text tower. It is large; drop it when the prompts are embedded.
    ///
    /// # Errors
    /// As [`audio_encoder`](Self::audio_encoder).
    pub fn text_encoder(&self) -> Result<TextEncoder> {
        let table = &self.manifest.text;
        let tower = self.load_graph(&table.file, &table.sha256)?;
        let tokenizer =
            self.read_verified(&table.tokenizer, &table.tokenizer_sha256, MAX_TOKENIZER, |reader, length| {
                let mut bytes = Vec::with_capacity(usize::try_from(length)?);
                reader.take(MAX_TOKENIZER).read_to_end(&mut bytes)?;
                anyhow::Ok(bytes)
            })?;
        let tokenizer = tokenizer.with_context(|| format!("cannot read {}", table.tokenizer))?;
        TextEncoder::new(table, tower, &tokenizer).with_context(|| self.label())
    }

    /// Embeddings of `texts`, in order; the text tower is loaded only for those that the cache does not hold.
    ///
    /// # Errors
    /// As [`text_encoder`](Self::text_encoder).
    pub fn embed_texts(&self, texts: &[&str], cache: &EmbeddingCache) -> Result<Vec<TextEmbedding>> {
        let mut tower = None;
        let mut embeddings = Vec::with_capacity(texts.len());
        for text in texts {
            if let Some(cached) = cache.get(&self.manifest.text, text) {
                embeddings.push(cached);
                continue;
            }
            let encoder: &TextEncoder = match &tower {
                Some(encoder) => encoder,
                None => tower.insert(self.text_encoder()?),
            };
            let embedding = encoder.embed(text)?;
            cache.put(&self.manifest.text, text, &embedding);
            embeddings.push(embedding);
        }
        Ok(embeddings)
    }

    /// A graph of the bundle, read and hashed in one pass. An altered file is called that, whatever else it is.
    fn load_graph(&self, file: &str, sha256: &str) -> Result<Graph> {
        let archive = self.read_verified(file, sha256, MAX_GRAPH, |reader, length| nnef::read(reader, length))?;
        let archive = archive.with_context(|| format!("{file} is not a graph archive that clapd can trust"));
        archive.and_then(|archive| nnef::plan(file, archive, self.compute)).with_context(|| self.label())
    }

    /// Gives what `parse` makes of a file of the bundle of at most `limit` bytes, once its hash was found right.
    fn read_verified<T>(
        &self,
        file: &str,
        sha256: &str,
        limit: u64,
        parse: impl FnOnce(&mut HashingReader, u64) -> T,
    ) -> Result<T> {
        let path = self.dir.join(file);
        let mut reader = HashingReader::open(&path, limit)?;
        let length = reader.length();
        let content = parse(&mut reader, length);
        let seen = reader.finish().with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            seen == sha256,
            "{}: its SHA-256 is {seen}, bundle.toml says {sha256}; the file is damaged or of another version: copy the bundle again",
            path.display()
        );
        Ok(content)
    }

    /// Whether the cache holds the embeddings of all `texts`, so that [`embed_texts`](Self::embed_texts) needs no tower.
    pub fn has_embedded(&self, texts: &[&str], cache: &EmbeddingCache) -> bool {
        texts.iter().all(|text| cache.get(&self.manifest.text, text).is_some())
    }

    fn label(&self) -> String {
        format!("bundle {} in {}", self.manifest.name, self.dir.display())
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    HashingReader::open(path, limit)?
        .take(limit)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}
