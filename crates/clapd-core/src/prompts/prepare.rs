//! Words and recordings become the embeddings that windows are compared with.
//!
//! The embedding of recordings is the unit mean of their own, so that a long one counts no more than a short one. Each file's
//! is the mean over windows as long as those of live sound, without what silence has in common with everything.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Example, PreparedPrompt, Prompt, PromptTable};
use crate::embed::{ClipEmbedder, Model};
use crate::model::manifest::RecordingsTable;
use crate::model::{Bundle, EmbeddingCache, TextEmbedding};
use crate::samples::Samples;
use crate::score::Calibration;
use crate::vector::normalize;

/// The share of the text where a prompt has both, with a bundle that does not say: the best with `mini`.
const DEFAULT_TEXT_SHARE: f32 = 0.6;

/// The table of `prompts`, in order. The text tower is loaded for it if the cache does not hold all texts, and dropped; what
/// the cache holds is not encoded again.
///
/// # Errors
/// A bundle with a file that is missing, altered, or does not fit; a recording that is no [`Example`]; two prompts of one id.
pub fn prepare(prompts: &[Prompt], bundle: &Bundle, model: &Model, cache: &EmbeddingCache) -> Result<PromptTable> {
    let texts: Vec<&str> = prompts.iter().flat_map(Prompt::texts).collect();
    let mut texts = bundle.embed_texts(&texts, cache)?.into_iter();
    let scale = bundle.manifest().recordings_scale()?;
    let scale = scale.as_deref();
    let mut prepared = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let words = prompt.text.as_ref().and_then(|_| texts.next());
        let contrast: Vec<TextEmbedding> = texts.by_ref().take(prompt.contrast.len()).collect();
        let sound = embed(&prompt.audio, bundle, model, cache)?;
        let curve = scale.filter(|_| sound.is_some()).map(|scale| curve(scale, words.is_some())).transpose()?;
        let share = scale.map_or(DEFAULT_TEXT_SHARE, |scale| scale.text_share);
        let embedding = joined(words, sound, share)
            .with_context(|| format!("prompt {} has neither text nor recordings", prompt.id))?;
        prepared.push(PreparedPrompt { prompt: prompt.clone(), embedding, contrast, curve });
    }
    PromptTable::new(model.encoder.embedding_len(), prepared)
}

/// The curve of recordings, alone or beside a text.
fn curve(scale: &RecordingsTable, with_text: bool) -> Result<Calibration> {
    Calibration::new(if with_text { &scale.points_with_text } else { &scale.points }.clone())
}

/// Of words and recordings, the direction between the two.
fn joined(words: Option<TextEmbedding>, sound: Option<Vec<f32>>, text_share: f32) -> Option<TextEmbedding> {
    let (Some(words), Some(sound)) = (&words, &sound) else {
        return words.or_else(|| sound.map(|vector| TextEmbedding { vector, coverage: None }));
    };
    let mixed = words.vector.iter().zip(sound).map(|(word, sound)| text_share * word + (1.0 - text_share) * sound);
    let mut vector: Vec<f32> = mixed.collect();
    normalize(&mut vector);
    Some(TextEmbedding { vector, coverage: words.coverage })
}

/// The embedding of what `files` have in common; none where there is no file.
///
/// # Errors
/// A file that is no example, or an encoder that fails.
fn embed(files: &[PathBuf], bundle: &Bundle, model: &Model, cache: &EmbeddingCache) -> Result<Option<Vec<f32>>> {
    let (pipeline, width) = (bundle.embedding_id(), model.encoder.embedding_len());
    let mut sum = vec![0.0; width];
    for file in files {
        let example = Example::open(file)?;
        let content = example.content();
        let vector = if let Some(cached) = cache.get_sound(&pipeline, &content, width) {
            cached
        } else {
            let vector = of_example(&example, model)?;
            cache.put_sound(&pipeline, &content, &vector);
            vector
        };
        sum.iter_mut().zip(&vector).for_each(|(sum, x)| *sum += x);
    }
    normalize(&mut sum);
    Ok((!files.is_empty()).then_some(sum))
}

fn of_example(example: &Example, model: &Model) -> Result<Vec<f32>> {
    let window = window(model);
    let mut sum = vec![0.0; model.encoder.embedding_len()];
    for samples in example.windows(window) {
        sum.iter_mut().zip(of_window(samples, example.rate(), model)?).for_each(|(sum, x)| *sum += x);
    }
    let rate = model.frontend.sample_rate;
    let silence = vec![0.0; (window.as_secs_f64() * f64::from(rate)) as usize];
    take_off(&mut sum, &of_window(&silence, rate, model)?);
    normalize(&mut sum);
    Ok(sum)
}

fn window(model: &Model) -> Duration {
    Duration::from_secs_f64(model.windowing.samples() as f64 / f64::from(model.frontend.sample_rate))
}

fn of_window(samples: &[f32], rate: u32, model: &Model) -> Result<Vec<f32>> {
    let mut clip = ClipEmbedder::new(model.clone(), rate)?;
    clip.push(Samples::whole(samples))?;
    Ok(clip.finish()?.0)
}

/// Takes off the part of `vector` that points along `silence`. What a recording shares with silence ("nothing heard
/// clearly" in `mini`, the offset that all sounds of a CLAP have) says nothing of its sound, and every quiet moment has it.
fn take_off(vector: &mut [f32], silence: &[f32]) {
    let along: f32 = vector.iter().zip(silence).map(|(x, s)| x * s).sum();
    vector.iter_mut().zip(silence).for_each(|(x, s)| *x -= along * s);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_has_nothing_of_silence() {
        let mut vector = vec![3.0, 4.0, 5.0];
        take_off(&mut vector, &[0.6, 0.0, 0.8]);
        assert!((vector[0] * 0.6 + vector[2] * 0.8).abs() < 1e-6 && vector[1] == 4.0, "{vector:?}");
    }
}
