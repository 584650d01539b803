//! Gram matrices of what goes into linears.
//!
//! In: a network's forward passes over calibration, watched. Out: for each group of linears that share an input, the sum of
//! x x' over all tokens, in f32.
//! Memory: the square of each input's width; 180 MB for HTSAT-tiny, 540 MB for RoBERTa-base.
//! Never: keeps tokens.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use burn::module::ParamId;
use burn::nn::Linear;
use burn::prelude::*;

/// Sums by linear.
#[derive(Default)]
pub struct Grams {
    sums: Vec<Sum>,
    of: HashMap<ParamId, usize>,
}

struct Sum {
    gram: Tensor<2>,
    tokens: usize,
}

impl Grams {
    /// Adds the tokens of `x` [N, S, k] to the sum of the linears that it goes into; the first names the group.
    pub fn add(&mut self, linears: &[&Linear], x: &Tensor<3>) {
        let [n, s, width] = x.dims();
        let rows = x.clone().reshape([n * s, width]);
        let gram = rows.clone().transpose().matmul(rows);
        let group = linears.first().and_then(|first| self.of.get(&first.weight.id)).copied();
        if let Some(sum) = group.and_then(|group| self.sums.get_mut(group)) {
            sum.gram = sum.gram.clone() + gram;
            sum.tokens += n * s;
        } else {
            self.of.extend(linears.iter().map(|linear| (linear.weight.id, self.sums.len())));
            self.sums.push(Sum { gram, tokens: n * s });
        }
    }

    /// The group of a linear by its weight; none for one that nobody watched.
    pub fn group(&self, weight: ParamId) -> Option<usize> {
        self.of.get(&weight).copied()
    }

    /// A group's mean over tokens, row by row.
    ///
    /// # Errors
    /// A sum that is not finite: the network overflowed on the calibration.
    pub fn mean(&self, group: usize) -> Result<Vec<f32>> {
        let Sum { gram, tokens } = &self.sums[group];
        let gram: Vec<f32> = gram.clone().div_scalar(*tokens as f64).into_data().iter::<f32>().collect();
        ensure!(
            gram.iter().all(|x| x.is_finite()),
            "activations of the calibration overflow f32 (squared and summed); int8 can't be made of this checkpoint, \
             import it with --precision f16 or f32"
        );
        Ok(gram)
    }
}
