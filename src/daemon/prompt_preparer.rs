//! What makes prompts ready for the pipelines: the model, the cache of embeddings, and the process that fills it.

use anyhow::Result;
use clapd_core::embed::Model;
use clapd_core::model::{Bundle, EmbeddingCache};
use clapd_core::prompts::{Prompt, PromptTable};

use super::embed_process::EmbedProcess;
use crate::prompts;

/// Turns prompts into a table of their embeddings.
pub(super) struct PromptPreparer {
    bundle: Bundle,
    model: Model,
    cache: EmbeddingCache,
    embed_process: EmbedProcess,
}

impl PromptPreparer {
    pub(super) fn new(bundle: Bundle, model: Model, cache: EmbeddingCache, embed_process: EmbedProcess) -> Self {
        Self { bundle, model, cache, embed_process }
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
        if !self.bundle.has_embedded(&texts, &self.cache) {
            self.embed_process.embed(&texts)?;
            if !self.bundle.has_embedded(&texts, &self.cache) {
                log::warn!("the cache keeps no embeddings: this process loads the text model, and keeps its memory");
            }
        }
        self.prepare_here(prompts)
    }

    /// Makes prompts ready in this process, new texts too.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub(super) fn prepare_here(&self, prompts: &[Prompt]) -> Result<PromptTable> {
        prompts::prepare(prompts, &self.bundle, &self.model, &self.cache)
    }
}
