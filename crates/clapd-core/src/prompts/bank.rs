//! Embeddings as one matrix, so that their cosines with a window's embedding come in one pass.

use anyhow::{Result, ensure};

use crate::vector::dot;

/// Text embeddings, a row each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptBank {
    rows: Vec<f32>,
    width: usize,
}

impl PromptBank {
    /// A bank of embeddings of `width` numbers.
    ///
    /// # Errors
    /// An embedding of another width: it is from another model.
    pub fn new<'a>(width: usize, embeddings: impl IntoIterator<Item = &'a [f32]>) -> Result<Self> {
        let mut rows = Vec::new();
        for embedding in embeddings {
            ensure!(
                embedding.len() == width,
                "a prompt's embedding has {} numbers, the model's {width}",
                embedding.len()
            );
            rows.extend_from_slice(embedding);
        }
        Ok(Self { rows, width })
    }

    /// The bank of these rows, in this order. A row that is not there is left out.
    pub(super) fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let row = |row: usize| self.rows.get(row * self.width..(row + 1) * self.width).unwrap_or_default();
        Self { rows: rows.into_iter().flat_map(row).copied().collect(), width: self.width }
    }

    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.rows.len() / self.width.max(1)
    }

    /// True where nothing is listened for.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Cosine of `embedding` with each prompt, into `out` (one a prompt). Linear in prompts: 1,000 of 512 numbers are
    /// half a million multiply-adds, less than a thousandth of an audio tower.
    pub fn cosines(&self, embedding: &[f32], out: &mut [f32]) {
        for (row, cosine) in self.rows.chunks_exact(self.width.max(1)).zip(out) {
            *cosine = dot(row, embedding).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_dot_products_of_unit_rows() {
        let width = 19;
        let unit = |axis: usize| (0..width).map(|i| if i == axis { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
        let (first, last) = (unit(0), unit(width - 1));
        let bank = PromptBank::new(width, [first.as_slice(), &last]).unwrap();
        let mut embedding = vec![0.0; width];
        embedding[0] = 0.6;
        embedding[width - 1] = 0.8;
        let mut out = [0.0; 2];
        bank.cosines(&embedding, &mut out);
        assert_eq!(out, [0.6, 0.8]);
        assert_eq!(bank.len(), 2);
    }

    #[test]
    fn a_row_of_another_model_is_refused() {
        assert!(PromptBank::new(4, [[0.0; 3].as_slice()]).unwrap_err().to_string().contains("3 numbers"));
    }
}
