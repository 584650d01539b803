//! What makes prompts ready for the pipelines: the model, the cache of embeddings, and the process that fills it.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache, TextEmbedding};
use clapd_core::prompts::{Prompt, PromptTable};

use super::embed_process::EmbedProcess;
use crate::prompts;

/// Turns prompts into a table of their embeddings.
pub(super) struct PromptPreparer {
    bundle: Bundle,
    model: Model,
    cache: EmbeddingCache,
    embed_process: EmbedProcess,
    /// Held while texts are embedded: a computer that has room for one text model has none for two.
    embedding: Mutex<()>,
}

impl PromptPreparer {
    pub(super) fn new(bundle: Bundle, model: Model, cache: EmbeddingCache, embed_process: EmbedProcess) -> Self {
        Self { bundle, model, cache, embed_process, embedding: Mutex::default() }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Makes prompts ready; new texts are embedded by a process of their own.
    ///
    /// # Errors
    /// A process that fails; a recording that is no example; a bundle with a file that is missing, altered, or does not fit.
    pub(super) fn prepare(&self, prompts: &[Prompt]) -> Result<PromptTable> {
        let texts: Vec<&str> = prompts.iter().flat_map(Prompt::texts).collect();
        self.embed_new(&texts)?;
        self.prepare_here(prompts)
    }

    /// The embeddings of texts, in order; new ones are embedded by a process of their own.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub(super) fn embed(&self, texts: &[&str]) -> Result<Vec<TextEmbedding>> {
        self.embed_new(texts)?;
        self.bundle.embed_texts(texts, &self.cache)
    }

    /// Has the cache hold the embeddings of these texts, as far as it holds any.
    fn embed_new(&self, texts: &[&str]) -> Result<()> {
        let _embedding = self.embedding.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.bundle.has_embedded(texts, &self.cache) {
            self.embed_process.embed(texts)?;
            if !self.bundle.has_embedded(texts, &self.cache) {
                log::warn!("the cache keeps no embeddings: this process loads the text model, and keeps its memory");
            }
        }
        Ok(())
    }

    /// Makes prompts ready in this process, new texts too.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub(super) fn prepare_here(&self, prompts: &[Prompt]) -> Result<PromptTable> {
        prompts::prepare(prompts, &self.bundle, &self.model, &self.cache)
    }
}
