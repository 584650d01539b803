//! The text tower: a prompt in, a unit embedding out, and how well the model's vocabulary of sounds covers it.
//!
//! It is large: whoever needs it loads it, embeds what the cache does not hold, and drops it.

use anyhow::{Context, Result, ensure};
use tract_nnef::internal::*;

use super::manifest::TextTable;
use super::nnef::{self, Graph};
use super::tokenizer::Tokenizer;
use crate::vector::normalize;

/// What the text tower makes of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEmbedding {
    /// Unit vector, as long as the audio's.
    pub vector: Vec<f32>,
    /// How near the prompt is to what the model can hear, at most 1; none where the model does not tell.
    pub coverage: Option<f32>,
}

/// Tokenizer and tower.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    tower: Graph,
    /// Tokens that the graph wants, or none where any number goes.
    length: Option<usize>,
    pad_id: i64,
    output: usize,
}

impl TextEncoder {
    pub(super) fn new(table: &TextTable, tower: Graph, tokenizer: &[u8]) -> Result<Self> {
        let tokenizer = Tokenizer::new(tokenizer, table.max_tokens).with_context(|| table.tokenizer.clone())?;
        let shape = nnef::input_shape(&tower, 0)?;
        ensure!(shape.len() == 2, "{}: tokens of rank {}, expected [1, tokens]", table.file, shape.len());
        let length = shape[1];
        ensure!(
            length.is_none_or(|tokens| tokens >= table.max_tokens),
            "{}: it takes {length:?} tokens, bundle.toml says {}",
            table.file,
            table.max_tokens
        );
        Ok(Self { tokenizer, tower, length, pad_id: i64::from(table.pad_id), output: table.output })
    }

    /// Embeds a prompt.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or a graph that does not fit its manifest.
    pub fn embed(&self, text: &str) -> Result<TextEmbedding> {
        let mut ids = self.tokenizer.ids(text)?;
        let mut mask = vec![1_i64; ids.len()];
        if let Some(length) = self.length {
            ids.resize(length, self.pad_id);
            mask.resize(length, 0);
        }
        let inputs = tvec!(row(&ids)?.into(), row(&mask)?.into());
        let mut outputs = nnef::run(&self.tower, inputs).with_context(|| format!("embedding {text:?}"))?.into_iter();
        let mut vector = outputs.next().context("the text graph has no output")?;
        ensure!(
            vector.len() == self.output,
            "the text graph gives {} numbers, bundle.toml says {}",
            vector.len(),
            self.output
        );
        normalize(&mut vector);
        let coverage = outputs.next().and_then(|values| values.first().copied());
        Ok(TextEmbedding { vector, coverage })
    }
}

fn row(values: &[i64]) -> Result<Tensor> {
    Tensor::from_shape(&[1, values.len()], values)
}
