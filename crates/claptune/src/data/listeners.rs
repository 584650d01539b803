//! Every listener's own use of the scale: SPO's z-scores.
//!
//! In: the training split's ratings. Out: a listener's mean and spread, and ratings in units of them.
//! Never: learns from another split; a listener who is new there is taken for the average one.

use std::collections::HashMap;

use super::pairs::{Opinion, Pair};

/// Mean and standard deviation of ratings.
type Scale = (f64, f64);

/// Scales of listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    listeners: HashMap<String, Scale>,
    everybody: Scale,
}

impl Scales {
    /// From the ratings of these pairs: give the training split's. The spread is the sample's (n - 1), 1 for a listener whose
    /// ratings are all the same; the average listener has the mean of the means and the root mean square of the spreads.
    /// A listener with one rating has no scale of their own and counts as the average one.
    pub fn of(pairs: &[Pair]) -> Self {
        let mut scores: HashMap<&str, Vec<f64>> = HashMap::new();
        for Opinion { listener, score } in pairs.iter().flat_map(|pair| &pair.opinions) {
            if let Some(listener) = listener {
                scores.entry(listener).or_default().push(*score);
            }
        }
        let mut listeners: Vec<(String, Scale)> =
            scores.iter().filter(|(_, s)| s.len() > 1).map(|(name, s)| ((*name).to_owned(), scale(s))).collect();
        // Sums in one order, so that a run can be repeated bit for bit.
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        let count = listeners.len() as f64;
        let everybody = if listeners.is_empty() {
            let all: Vec<f64> = pairs.iter().flat_map(|pair| &pair.opinions).map(|opinion| opinion.score).collect();
            if all.len() > 1 { scale(&all) } else { (5.0, 1.0) }
        } else {
            let mean = listeners.iter().map(|(_, (mean, _))| mean).sum::<f64>() / count;
            (mean, (listeners.iter().map(|(_, (_, spread))| spread * spread).sum::<f64>() / count).sqrt())
        };
        Self { listeners: listeners.into_iter().collect(), everybody }
    }

    /// A rating in units of the listener's spread around the listener's mean.
    pub fn standard(&self, opinion: &Opinion) -> f64 {
        let own = opinion.listener.as_ref().and_then(|listener| self.listeners.get(listener));
        let (mean, spread) = own.unwrap_or(&self.everybody);
        (opinion.score - mean) / spread
    }

    /// Mean of a pair's standardised ratings.
    pub fn mean(&self, pair: &Pair) -> f64 {
        pair.opinions.iter().map(|opinion| self.standard(opinion)).sum::<f64>() / pair.opinions.len() as f64
    }

    /// Mean and spread of the average listener, which bring a standardised rating back to 0 to 10.
    pub fn everybody(&self) -> (f64, f64) {
        self.everybody
    }
}

fn scale(scores: &[f64]) -> Scale {
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let variance = scores.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (scores.len() as f64 - 1.0);
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}
