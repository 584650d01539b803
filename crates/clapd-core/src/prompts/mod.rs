//! Prompts made ready: words and recordings become the embeddings that windows are compared with.
//!
//! In: [`Prompt`]s as configured, a bundle, its loaded model, and the cache. Out: a [`PromptSet`].
//! Never: keeps the text tower, or encodes again what the cache holds.

mod bank;
mod example;
pub mod recording;
mod scale;
mod set;

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::detect::Prompt;
use crate::embed::Model;
use crate::model::{Bundle, EmbeddingCache, TextEmbedding};
use crate::vector::normalize;
pub use bank::PromptBank;
pub use scale::is_measured;
pub use set::{PromptScorer, PromptSet};

/// The embeddings of `prompts`, with their rules, in order.
///
/// # Errors
/// A bundle with a file that is missing, altered, or does not fit; a recording that is no [`Example`](crate::prompts::recording::Example).
pub fn prepare(prompts: &[Prompt], bundle: &Bundle, model: &Model, cache: &EmbeddingCache) -> Result<PromptSet> {
    let texts: Vec<&str> = prompts.iter().flat_map(Prompt::texts).collect();
    let mut texts = embed_apart(&texts, bundle, cache)?.into_iter();
    let mut sets = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let words = prompt.text.as_ref().and_then(|_| texts.next());
        let contrast: Vec<TextEmbedding> = texts.by_ref().take(prompt.contrast.len()).collect();
        let sound = example::embed(&prompt.audio, bundle, model, cache)?;
        let own =
            joined(words, sound).with_context(|| format!("prompt {} has neither text nor recordings", prompt.id))?;
        sets.push((own, prompt.rule, contrast));
    }
    let width = model.encoder.embedding_len();
    let mut set = PromptSet::new(width, sets.iter().map(|(own, rule, contrast)| (own, *rule, contrast.as_slice())))?;
    for (index, prompt) in prompts.iter().enumerate().filter(|(_, prompt)| !prompt.audio.is_empty()) {
        set = set.with_curve(index, scale::curve(prompt.text.is_some())?);
    }
    Ok(set)
}

/// Of words and recordings, the direction between the two.
fn joined(words: Option<TextEmbedding>, sound: Option<Vec<f32>>) -> Option<TextEmbedding> {
    let (Some(words), Some(sound)) = (&words, &sound) else {
        return words.or_else(|| sound.map(|vector| TextEmbedding { vector, coverage: None }));
    };
    let share = scale::TEXT_SHARE;
    let mixed = words.vector.iter().zip(sound).map(|(word, sound)| share * word + (1.0 - share) * sound);
    let mut vector: Vec<f32> = mixed.collect();
    normalize(&mut vector);
    Some(TextEmbedding { vector, coverage: words.coverage })
}

/// On a thread of its own, if the cache does not hold them: what the text tower allocates lies in that thread's heap, from where the allocator can give it
/// back. Among the daemon's own data it would stay resident for good (measured: 136 MB instead of 61).
fn embed_apart(texts: &[&str], bundle: &Bundle, cache: &EmbeddingCache) -> Result<Vec<TextEmbedding>> {
    let embedded = thread::scope(|scope| scope.spawn(|| bundle.embed_texts(texts, cache)).join());
    let embedded = embedded.map_err(|_| anyhow!("the text tower panicked, which is a fault in clapd"))??;
    // Copied into this thread's heap: one vector left behind would hold the other.
    Ok(embedded.iter().map(TextEmbedding::clone).collect())
}
