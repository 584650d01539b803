//! The audio tower: a log-mel patch in, features out; a window's mean features in, its embedding out.
//!
//! Encoding takes `&self` and keeps nothing between calls, so that any number of sources may share a tower.

use anyhow::{Context, Result, ensure};
use tract_nnef::internal::*;

use super::compute::Compute;
use super::manifest::{AudioTable, Manifest};
use super::nnef::{self, Graph};
use super::{Encode, Step};
use crate::vector::normalize;

/// The tower and, where the bundle has one, the pooling graph.
#[derive(Debug)]
pub struct AudioEncoder {
    tower: Graph,
    pool: Option<Graph>,
    input: Vec<usize>,
    copies: usize,
    features: usize,
    embedding: usize,
}

impl AudioEncoder {
    /// Checks that the graphs fit the manifest.
    pub(super) fn new(manifest: &Manifest, tower: Graph, pool: Option<Graph>) -> Result<Self> {
        let table = &manifest.audio;
        let encoder = Self {
            tower,
            pool,
            input: table.input.clone(),
            copies: table.copies,
            features: table.output,
            embedding: manifest.embedding_len(),
        };
        let expected: Vec<_> = table.input.iter().copied().map(Some).collect();
        let seen = nnef::input_shape(&encoder.tower, 0)?;
        ensure!(seen == expected, "{}: its input is {seen:?}, bundle.toml says {expected:?}", table.file);
        encoder.check_output(table)?;
        encoder
            .embed(&vec![0.0; table.output], &mut vec![0.0; encoder.embedding])
            .context("pooling of the features")?;
        Ok(encoder)
    }

    /// Runs the tower only if its types do not tell what it gives: a run of a large one takes as long as its loading.
    fn check_output(&self, table: &AudioTable) -> Result<()> {
        let Some(seen) = nnef::output_len(&self.tower)? else {
            let silence = vec![0.0; table.input[2] * table.input[3]];
            return self.encode(&silence, &mut vec![0.0; table.output]).with_context(|| table.file.clone());
        };
        ensure!(seen == table.output, "{}: it gives {seen} numbers, bundle.toml says {}", table.file, table.output);
        Ok(())
    }
}

impl Encode for AudioEncoder {
    fn feature_len(&self) -> usize {
        self.features
    }

    fn embedding_len(&self) -> usize {
        self.embedding
    }

    fn encode(&self, patch: &[f32], features: &mut [f32]) -> Result<()> {
        self.encode_stepwise(patch, features, &|| Ok(()))
    }

    fn encode_stepwise(&self, patch: &[f32], features: &mut [f32], step: Step<'_>) -> Result<()> {
        let mut input = Tensor::zero::<f32>(&self.input)?;
        ensure!(patch.len() * self.copies == input.len(), "a patch has {} numbers, not {}", input.len(), patch.len());
        for copy in input.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.chunks_exact_mut(patch.len()) {
            copy.copy_from_slice(patch);
        }
        copy_output(&self.tower, input, features, step)
    }

    fn compute(&self) -> Option<Compute> {
        self.tower.compute()
    }

    fn embed(&self, mean_features: &[f32], embedding: &mut [f32]) -> Result<()> {
        match &self.pool {
            None => embedding.copy_from_slice(mean_features),
            Some(pool) => {
                let features = Tensor::from_shape(&[1, mean_features.len()], mean_features)?;
                copy_output(pool, features, embedding, &|| Ok(()))?;
            }
        }
        normalize(embedding);
        Ok(())
    }
}

fn copy_output(graph: &Graph, input: Tensor, into: &mut [f32], step: Step<'_>) -> Result<()> {
    let output =
        nnef::run_stepwise(graph, tvec!(input.into()), step)?.into_iter().next().context("the graph has no output")?;
    ensure!(output.len() == into.len(), "the graph gives {} numbers, bundle.toml says {}", output.len(), into.len());
    into.copy_from_slice(&output);
    Ok(())
}
