//! Recordings of a sound, as one embedding.
//!
//! In: files. Out: the unit mean of their embeddings. Each file's is the mean over windows as long as those of live sound,
//! without what silence has in common with everything.
//! Never: lets a long recording count for more than a short one, or encodes again what the cache holds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::embed::{ClipEmbedder, Model};
use crate::model::{Bundle, EmbeddingCache};
use crate::prompts::recording::Example;
use crate::samples::Samples;
use crate::vector::normalize;

/// The embedding of what `files` have in common; none where there is no file.
///
/// # Errors
/// A file that is no example, or an encoder that fails.
pub(super) fn embed(
    files: &[PathBuf],
    bundle: &Bundle,
    model: &Model,
    cache: &EmbeddingCache,
) -> Result<Option<Vec<f32>>> {
    let (pipeline, width) = (bundle.pipeline_id(), model.encoder.embedding_len());
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
