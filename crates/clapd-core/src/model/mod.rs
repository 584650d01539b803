//! Sound and words into one space: a bundle's weights make unit embeddings of log-mel patches and of prompts.
//!
//! `tract` and `tokenizers` are libraries of this module alone.

mod audio;
mod bundle;
#[expect(clippy::disallowed_methods, reason = "the cache is a folder, of which it drops the oldest files")]
mod cache;
mod compute;

pub mod manifest;
mod nnef;
pub mod ops;

mod text;
mod tokenizer;

use anyhow::Result;

pub use audio::AudioEncoder;
pub use bundle::{Bundle, Windowing};
pub use cache::EmbeddingCache;
pub use compute::Compute;
pub use text::{TextEmbedding, TextEncoder};
pub use tokenizer::Tokenizer;

/// Called between two parts of a long computation, so that the caller sees that it gets on. An error of it ends the
/// computation, which then fails with that error.
pub type Step<'a> = &'a dyn Fn() -> Result<()>;

/// The one seam at which a test may put a fake: what turns a patch of sound into numbers.
pub trait Encode: Send + Sync {
    /// Numbers that [`encode`](Self::encode) gives for a patch.
    fn feature_len(&self) -> usize;
    /// Numbers in an embedding.
    fn embedding_len(&self) -> usize;
    /// Features of one log-mel patch, `[frames][mels]` row by row.
    ///
    /// # Errors
    /// A patch or a buffer of the wrong length.
    fn encode(&self, patch: &[f32], features: &mut [f32]) -> Result<()>;
    /// The same, with `step` called between its parts, be they as small as an operator of a graph: a large tower on a small
    /// computer takes many seconds for a patch, and who waits cannot tell slow from hung otherwise.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and those of `step`.
    fn encode_stepwise(&self, patch: &[f32], features: &mut [f32], step: Step<'_>) -> Result<()> {
        step()?;
        self.encode(patch, features)
    }
    /// Unit embedding of a window from the mean of its patches' features.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn embed(&self, mean_features: &[f32], embedding: &mut [f32]) -> Result<()>;
    /// The kernels of our own that it runs on; none where tract's do all.
    fn compute(&self) -> Option<Compute> {
        None
    }
}
