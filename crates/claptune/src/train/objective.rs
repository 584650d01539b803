//! The loss that a model is trained with.
//!
//! The loss `[1]` is a weighted sum of terms over the unit embeddings of N pairs and what listeners said of them; `data` has the means.
//!
//! | term | says |
//! |---|---|
//! | `sce` | each clip's own text is the likeliest of the batch, and each text's clip (CLAP, arXiv 2211.06687) |
//! | `wsce` | the same, where a pair counts in proportion to its rating (Human-CLAP, arXiv 2506.23553) |
//! | `mse`, `mae` | the cosine is the rating divided by 10 (the same paper) |
//! | `spo` | ten cosines, standardised like a listener, are the mean of listeners' z-scores, and so are their differences (arXiv 2601.02900) |

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use crate::net::clap::PairEmbeddings;

/// Differences of z-scores below this do not count: listeners do not agree more closely (arXiv 2601.02900).
const MARGIN: f32 = 0.1;
/// The weight of differences beside the values themselves (the same).
const DIFFERENCES: f32 = 0.5;
/// A weight beyond this is a slip of the pen: terms are of one order of magnitude.
const MAX_WEIGHT: f32 = 1e3;

/// A term of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Symmetric cross-entropy.
    Sce,
    /// The same, weighted by ratings.
    Wsce,
    /// Mean squared error of the cosine.
    Mse,
    /// Mean absolute error of the cosine.
    Mae,
    /// Standardised preference optimisation.
    Spo,
}

const TERMS: [(&str, Term); 5] =
    [("sce", Term::Sce), ("wsce", Term::Wsce), ("mse", Term::Mse), ("mae", Term::Mae), ("spo", Term::Spo)];

/// A weighted sum of terms, written `wsce+0.5*mae`.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    terms: Vec<(f32, Term)>,
}

/// What listeners said of N pairs.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Mean rating divided by 10, so 0 to 1, `[N]`.
    pub rating: Tensor<1>,
    /// Mean of the listeners' z-scores, `[N]`.
    pub z_score: Tensor<1>,
    /// Mean and standard deviation of all ratings of the training split, 0 to 10.
    pub spread: Spread,
}

/// How ratings are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Mean, 0 to 10.
    pub mean: f32,
    /// Standard deviation, above 0.
    pub deviation: f32,
}

impl Objective {
    /// The loss of a batch, `[1]`. `scales` are the logarithms of the temperatures' inverses, of audio and of text, `[1]` each.
    pub fn loss(&self, pairs: &PairEmbeddings, scales: &[Tensor<1>; 2], targets: &Targets) -> Tensor<1> {
        let cosine = (pairs.audio.clone() * pairs.text.clone()).sum_dim(1).squeeze_dim::<1>(1);
        let term = |term: Term| match term {
            Term::Sce => contrast(pairs, scales).mean(),
            Term::Wsce => (contrast(pairs, scales) * targets.rating.clone()).mean(),
            Term::Mse => (cosine.clone() - targets.rating.clone()).square().mean(),
            Term::Mae => (cosine.clone() - targets.rating.clone()).abs().mean(),
            Term::Spo => preference(cosine.clone(), targets),
        };
        let sum =
            self.terms.iter().map(|(weight, kind)| term(*kind).mul_scalar(*weight)).reduce(|sum, more| sum + more);
        sum.unwrap_or_else(|| cosine.sum() * 0.0)
    }

    /// Whether it looks at how each listener rates.
    pub fn needs_listeners(&self) -> bool {
        self.terms.iter().any(|(_, term)| *term == Term::Spo)
    }
}

/// The symmetric cross-entropy of each pair, `[N]`.
fn contrast(pairs: &PairEmbeddings, [audio, text]: &[Tensor<1>; 2]) -> Tensor<1> {
    let cosines = pairs.audio.clone().matmul(pairs.text.clone().transpose());
    let own = |logits: Tensor<2>| {
        let own = Tensor::<2>::eye(logits.dims()[0], &logits.device());
        (log_softmax(logits, 1) * own).sum_dim(1).squeeze_dim::<1>(1)
    };
    let of_clips = own(cosines.clone() * audio.clone().exp().unsqueeze::<2>());
    let of_texts = own(cosines.transpose() * text.clone().exp().unsqueeze::<2>());
    (of_clips + of_texts).mul_scalar(-0.5)
}

/// Values and differences of standardised cosines against listeners' z-scores.
fn preference(cosine: Tensor<1>, targets: &Targets) -> Tensor<1> {
    let Spread { mean, deviation } = targets.spread;
    let standard = (cosine.mul_scalar(10.0) - mean).div_scalar(deviation);
    let wrong = standard - targets.z_score.clone();
    // (a_i - a_j) - (b_i - b_j) is (a_i - b_i) - (a_j - b_j).
    let apart = (wrong.clone().unsqueeze_dim::<2>(1) - wrong.clone().unsqueeze_dim::<2>(0)).abs();
    let differences = (apart - MARGIN).clamp_min(0.0).mean();
    // Every difference is there twice.
    wrong.square().mean() + differences.mul_scalar(DIFFERENCES / 2.0)
}

impl FromStr for Objective {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut terms: Vec<(f32, Term)> = vec![];
        for part in text.split('+').map(str::trim) {
            let (weight, name) = part.split_once('*').unwrap_or(("1", part));
            let Some((_, term)) = TERMS.iter().find(|(known, _)| *known == name.trim()) else {
                bail!("{part:?} in the loss {text:?} is no term: sce, wsce, mse, mae and spo are, as in wsce+0.5*mae");
            };
            let weight: f32 = weight.trim().parse().ok().filter(|w| *w > 0.0 && *w <= MAX_WEIGHT).ok_or_else(|| {
                anyhow::anyhow!("{weight:?} in the loss {text:?} is no weight: above 0 to {MAX_WEIGHT} are")
            })?;
            ensure!(
                terms.iter().all(|(_, other)| other != term),
                "{name:?} is twice in the loss {text:?}; write it once, with a weight"
            );
            terms.push((weight, *term));
        }
        Ok(Self { terms })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (weight, term)) in self.terms.iter().enumerate() {
            let name = TERMS.iter().find(|(_, known)| known == term).map_or("", |(name, _)| name);
            let plus = if i == 0 { "" } else { "+" };
            if *weight == 1.0 { write!(f, "{plus}{name}")? } else { write!(f, "{plus}{weight}*{name}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_is_read_as_it_is_written() {
        for text in ["wsce+mae", "sce", "0.5*wsce+2*mse+mae", "spo"] {
            assert_eq!(text.parse::<Objective>().unwrap().to_string(), text);
        }
        assert!("spo+mae".parse::<Objective>().unwrap().needs_listeners());
        for (text, says) in [
            ("", "is no term"),
            ("wsce+", "is no term"),
            ("wsce+wsce", "twice"),
            ("-1*mae", "no weight"),
            ("nan*mae", "no weight"),
        ] {
            let error = text.parse::<Objective>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
