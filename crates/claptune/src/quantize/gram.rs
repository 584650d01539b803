//! Gram matrices of what goes into linears: for each group of linears that share an input, the sum of x x' over all
//! tokens, in f32.
//!
//! They take the square of each input's width, 180 MB for HTSAT-tiny and 540 MB for RoBERTa-base, and the tokens that
//! are not summed yet, at most `TOKENS_AT_ONCE` and one clip's or text's.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use burn::module::ParamId;
use burn::nn::Linear;
use burn::prelude::*;

/// Tokens that are summed at once. A text has a dozen, and adding their product to a matrix of 37 MB takes as long as that of
/// hundreds.
const TOKENS_AT_ONCE: usize = 512;

/// Sums by linear.
#[derive(Default)]
pub struct Grams {
    sums: Vec<Sum>,
    of: HashMap<ParamId, usize>,
}

#[derive(Default)]
struct Sum {
    gram: Option<Tensor<2>>,
    /// Of `gram`.
    tokens: usize,
    waiting: Vec<Tensor<2>>,
}

impl Sum {
    fn waiting(&self) -> usize {
        self.waiting.iter().map(|rows| rows.dims()[0]).sum()
    }

    fn add_waiting(&mut self) {
        self.tokens += self.waiting();
        let rows = Tensor::cat(std::mem::take(&mut self.waiting), 0);
        let gram = rows.clone().transpose().matmul(rows);
        self.gram = Some(self.gram.take().map_or(gram.clone(), |sum| sum + gram));
    }
}

impl Grams {
    /// Adds the tokens of `x` [N, S, k] to the sum of the linears that it goes into; the first names the group.
    pub fn add(&mut self, linears: &[&Linear], x: &Tensor<3>) {
        let [n, s, width] = x.dims();
        let Some(first) = linears.first() else { return };
        let group = self.group(first.weight.id).unwrap_or_else(|| {
            self.of.extend(linears.iter().map(|linear| (linear.weight.id, self.sums.len())));
            self.sums.push(Sum::default());
            self.sums.len() - 1
        });
        let sum = &mut self.sums[group];
        sum.waiting.push(x.clone().reshape([n * s, width]));
        if sum.waiting() >= TOKENS_AT_ONCE {
            sum.add_waiting();
        }
    }

    /// Sums what waits.
    pub fn finish(&mut self) {
        self.sums.iter_mut().filter(|sum| !sum.waiting.is_empty()).for_each(Sum::add_waiting);
    }

    /// The group of a linear by its weight; none for one that nobody watched.
    pub fn group(&self, weight: ParamId) -> Option<usize> {
        self.of.get(&weight).copied()
    }

    /// A group's mean over the tokens that are summed, row by row.
    ///
    /// # Errors
    /// A sum that is not finite: the network overflowed on the calibration. No sum.
    pub fn mean(&self, group: usize) -> Result<Vec<f32>> {
        let Sum { gram, tokens, .. } = &self.sums[group];
        let gram = gram.as_ref().context("no token of the calibration was summed")?;
        let gram: Vec<f32> = gram.clone().div_scalar(*tokens as f64).into_data().iter::<f32>().collect();
        ensure!(
            gram.iter().all(|x| x.is_finite()),
            "activations of the calibration overflow f32 (squared and summed); int8 can't be made of this checkpoint, \
             import it with --precision f16 or f32"
        );
        Ok(gram)
    }
}
