//! Recordings of a sound, as one embedding.
//!
//! In: files. Out: the unit mean of their embeddings, each file's made from windows as long as those of live sound.
//! Never: lets a long recording count for more than a short one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::capture::example::Example;
use crate::clap::{Bundle, EmbeddingCache, normalize};
use crate::pipeline::{ClipEmbedder, Model};
use crate::samples::Samples;

/// The embedding of what `files` have in common; none where there is no file.
///
/// # Errors
/// A file that is no example, or an encoder that fails.
pub(super) fn embed(
    files: &[PathBuf],
    _bundle: &Bundle,
    model: &Model,
    _cache: &EmbeddingCache,
) -> Result<Option<Vec<f32>>> {
    let mut sum = vec![0.0; model.encoder.embedding_len()];
    for file in files {
        let own = of_example(&Example::open(file)?, model)?;
        sum.iter_mut().zip(&own).for_each(|(sum, x)| *sum += x);
    }
    normalize(&mut sum);
    Ok((!files.is_empty()).then_some(sum))
}

fn of_example(example: &Example, model: &Model) -> Result<Vec<f32>> {
    let window = Duration::from_secs_f64(model.windowing.samples() as f64 / f64::from(model.frontend.sample_rate));
    let mut sum = vec![0.0; model.encoder.embedding_len()];
    for samples in example.windows(window) {
        let mut clip = ClipEmbedder::new(model.clone(), example.rate())?;
        clip.push(Samples::whole(samples))?;
        sum.iter_mut().zip(clip.finish()?.0).for_each(|(sum, x)| *sum += x);
    }
    normalize(&mut sum);
    Ok(sum)
}
