//! Which ratings to trust: those of listeners who listen, that another listener does not contradict. The rest is
//! counted.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::rating::Rating;

/// What a rating must pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Screening {
    /// A listener's mean rating of anchors, which don't fit by design, has to lie below this (0 to 10); a listener without
    /// anchors passes. RELATE's own screening is the same rule with 2.
    pub anchors_below: Option<f64>,
    /// Some other listener of the pair has to lie within this many points. 5, half the scale, is SPO's (the second place of
    /// XACLE 2026): further apart, one of the two misheard. A pair with one listener passes: nobody contradicts.
    pub agree_within: Option<f64>,
}

impl Default for Screening {
    fn default() -> Self {
        Self { anchors_below: Some(2.0), agree_within: Some(5.0) }
    }
}

impl Screening {
    /// Lets everything pass.
    pub const NONE: Self = Self { anchors_below: None, agree_within: None };

    /// The usual one where screening is asked for.
    pub fn when(asked: bool) -> Self {
        if asked { Self::default() } else { Self::NONE }
    }
}

/// What was screened out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screened {
    /// Listeners who rated anchors too high.
    pub listeners: usize,
    /// Their ratings, anchors not counted.
    pub by_anchors: usize,
    /// Ratings of others that nobody came near.
    pub by_disagreement: usize,
}

/// Drops ratings that don't pass; anchors stay, marked as such.
pub fn screen(ratings: Vec<Rating>, rules: &Screening) -> (Vec<Rating>, Screened) {
    let distrusted = rules.anchors_below.map_or_else(HashSet::new, |below| distrusted(&ratings, below));
    let before = ratings.len();
    let trusted: Vec<Rating> = ratings
        .into_iter()
        .filter(|r| r.anchor || r.listener.as_ref().is_none_or(|listener| !distrusted.contains(listener)))
        .collect();
    let by_anchors = before - trusted.len();
    let Some(within) = rules.agree_within else {
        return (trusted, Screened { listeners: distrusted.len(), by_anchors, by_disagreement: 0 });
    };
    let keep = agreeing(&trusted, within);
    let after_anchors = trusted.len();
    let kept: Vec<Rating> = trusted.into_iter().zip(keep).filter_map(|(rating, keep)| keep.then_some(rating)).collect();
    let by_disagreement = after_anchors - kept.len();
    (kept, Screened { listeners: distrusted.len(), by_anchors, by_disagreement })
}

fn distrusted(ratings: &[Rating], below: f64) -> HashSet<String> {
    let mut anchors: HashMap<&String, (f64, f64)> = HashMap::new();
    for rating in ratings.iter().filter(|rating| rating.anchor) {
        if let Some(listener) = &rating.listener {
            let (sum, count) = anchors.entry(listener).or_default();
            (*sum, *count) = (*sum + rating.score, *count + 1.0);
        }
    }
    anchors.into_iter().filter(|(_, (sum, count))| sum / count >= below).map(|(name, _)| name.clone()).collect()
}

fn agreeing(ratings: &[Rating], within: f64) -> Vec<bool> {
    let mut pairs: HashMap<(&PathBuf, &str), Vec<usize>> = HashMap::new();
    for (row, rating) in ratings.iter().enumerate().filter(|(_, rating)| !rating.anchor) {
        pairs.entry((&rating.audio, &rating.text)).or_default().push(row);
    }
    let mut keep = vec![true; ratings.len()];
    for rows in pairs.into_values() {
        let is_other = |a: usize, b: usize| {
            a != b && (ratings[a].listener != ratings[b].listener || ratings[a].listener.is_none())
        };
        for &row in &rows {
            let mut others = rows.iter().filter(|&&other| is_other(row, other)).peekable();
            let alone = others.peek().is_none();
            keep[row] = alone || others.any(|&other| (ratings[other].score - ratings[row].score).abs() <= within);
        }
    }
    keep
}
