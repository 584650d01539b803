//! A bundle that scores clips, as clapd does: a cosine and a score for each pair of a file and a text.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::embed::{ClipEmbedder, Model};
use clapd_core::model::{Bundle, EmbeddingCache, TextEmbedding};
use clapd_core::prompts::PromptBank;

use super::records::ModelName;
use crate::data::{Pair, Skipped, Skips};
use crate::progress;

/// The cosine and the score of each pair, and the files that were skipped.
pub type Scored = (Vec<(f32, f32)>, Vec<Skipped>);

/// A model that scores files.
pub struct BundleScorer {
    bundle: Bundle,
    /// Its audio side.
    pub model: Model,
}

impl BundleScorer {
    /// Opens a bundle, or the bundle in a folder that `claptune tune` wrote (`DIR/bundle`).
    ///
    /// # Errors
    /// No bundle there, or one that can't be loaded.
    pub fn open(folder: &Path) -> Result<Self> {
        let inner = folder.join("bundle");
        let place = if !folder.join("bundle.toml").is_file() && inner.is_dir() { &inner } else { folder };
        let bundle = Bundle::open(place)?;
        Ok(Self { model: Model::load(&bundle)?, bundle })
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// How it is named in a report.
    pub fn name(&self) -> ModelName {
        ModelName {
            folder: self.bundle.dir().display().to_string(),
            name: self.bundle.manifest().name.clone(),
            pipeline_id: self.bundle.pipeline_id(),
        }
    }

    /// Embeddings of texts, in order; the text tower is loaded for it and dropped.
    ///
    /// # Errors
    /// A tower that can't be loaded.
    pub fn texts(&self, texts: &[&str]) -> Result<Vec<TextEmbedding>> {
        self.bundle.embed_texts(texts, &EmbeddingCache::none())
    }

    /// A file's embedding, as the model was trained to see a clip.
    ///
    /// # Errors
    /// A file that is missing, broken, or holds no sound.
    pub fn clip(&self, file: &Path) -> Result<Vec<f32>> {
        let mut decoder = Decoder::open(file, Channel::Mix)?;
        let mut clip = ClipEmbedder::new(self.model.clone(), decoder.rate())?;
        while let Some(samples) = decoder.next_block()? {
            if !clip.push(samples)? {
                break;
            }
        }
        let (embedding, _) = clip.finish().map_err(|error| error.context(file.display().to_string()))?;
        Ok(embedding)
    }

    /// The cosine and the score of every pair, in order; those of skipped files are NaN.
    ///
    /// # Errors
    /// More than the share `skip` of the files can't be used.
    pub fn score(&self, pairs: &[Pair], skip: f64) -> Result<Scored> {
        let texts: BTreeSet<&str> = pairs.iter().map(|pair| pair.text.as_str()).collect();
        let texts: Vec<&str> = texts.into_iter().collect();
        let embeddings = self.texts(&texts)?;
        let places: HashMap<&str, usize> = texts.iter().enumerate().map(|(n, text)| (*text, n)).collect();
        let bank = PromptBank::new(self.model.encoder.embedding_len(), embeddings.iter().map(|e| e.vector.as_slice()))?;
        let mut rows: HashMap<&PathBuf, Vec<usize>> = HashMap::new();
        for (row, pair) in pairs.iter().enumerate() {
            rows.entry(&pair.audio).or_default().push(row);
        }
        let files: BTreeSet<&PathBuf> = rows.keys().copied().collect();
        let (mut skips, mut cosines) = (Skips::new(files.len(), skip)?, vec![0.0; bank.len()]);
        let mut out = vec![(f32::NAN, f32::NAN); pairs.len()];
        let bar = progress::count(files.len() as u64, "recordings");
        for file in files {
            bar.inc(1);
            match self.clip(file) {
                Ok(embedding) => bank.cosines(&embedding, &mut cosines),
                Err(error) => {
                    skips.add(file, &error)?;
                    continue;
                }
            }
            for &row in &rows[file] {
                let score = self.model.calibration.score(cosines[places[pairs[row].text.as_str()]]);
                ensure!(score.cosine.is_finite(), "{}: the model gives no number for it", file.display());
                out[row] = (score.cosine, score.score);
            }
        }
        bar.finish_and_clear();
        Ok((out, skips.into_list()))
    }
}
