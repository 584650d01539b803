//! Every listener's own use of the scale, from the training split: SPO's z-scores. A listener who is new in another
//! split is taken for the average one.

use std::collections::HashMap;

use super::pairs::{ListenerRating, Pair};

/// Mean and standard deviation of ratings.
type MeanAndSpread = (f64, f64);

/// Scales of listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerNorms {
    listeners: HashMap<String, MeanAndSpread>,
    average: MeanAndSpread,
}

impl ListenerNorms {
    /// From the ratings of these pairs: give the training split's. The spread is the sample's (n - 1), 1 for a listener whose
    /// ratings are all the same; the average listener has the mean of the means and the root mean square of the spreads.
    /// A listener with one rating has no scale of their own and counts as the average one.
    pub fn of(pairs: &[Pair]) -> Self {
        let mut scores: HashMap<&str, Vec<f64>> = HashMap::new();
        for ListenerRating { listener, score } in pairs.iter().flat_map(|pair| &pair.listener_ratings) {
            if let Some(listener) = listener {
                scores.entry(listener).or_default().push(*score);
            }
        }
        let mut listeners: Vec<(String, MeanAndSpread)> = scores
            .iter()
            .filter(|(_, s)| s.len() > 1)
            .map(|(name, s)| ((*name).to_owned(), mean_and_spread(s)))
            .collect();
        // Sums in one order, so that a run can be repeated bit for bit.
        listeners.sort_by(|a, b| a.0.cmp(&b.0));
        let count = listeners.len() as f64;
        let average = if listeners.is_empty() {
            let all: Vec<f64> =
                pairs.iter().flat_map(|pair| &pair.listener_ratings).map(|rating| rating.score).collect();
            if all.len() > 1 { mean_and_spread(&all) } else { (5.0, 1.0) }
        } else {
            let mean = listeners.iter().map(|(_, (mean, _))| mean).sum::<f64>() / count;
            (mean, (listeners.iter().map(|(_, (_, spread))| spread * spread).sum::<f64>() / count).sqrt())
        };
        Self { listeners: listeners.into_iter().collect(), average }
    }

    /// A rating in units of the listener's spread around the listener's mean.
    pub fn z_score(&self, rating: &ListenerRating) -> f64 {
        let own = rating.listener.as_ref().and_then(|listener| self.listeners.get(listener));
        let (mean, spread) = own.unwrap_or(&self.average);
        (rating.score - mean) / spread
    }

    /// Mean of a pair's standardised ratings.
    pub fn mean(&self, pair: &Pair) -> f64 {
        pair.listener_ratings.iter().map(|rating| self.z_score(rating)).sum::<f64>()
            / pair.listener_ratings.len() as f64
    }

    /// Mean and spread of the average listener, which bring a standardised rating back to 0 to 10.
    pub fn average(&self) -> (f64, f64) {
        self.average
    }
}

fn mean_and_spread(scores: &[f64]) -> MeanAndSpread {
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let variance = scores.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (scores.len() as f64 - 1.0);
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}
