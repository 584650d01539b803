//! Ratings of one recording and one text, together, in the order in which they first come. Anchors are left out.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::rating::{NATURAL, Rating, Split};

/// What one listener said.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerRating {
    /// Who, if that is known.
    pub listener: Option<String>,
    /// 0 to 10.
    pub score: f64,
}

/// A recording, a text, and what people said of the two.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The audio file.
    pub audio: PathBuf,
    /// What the file is a take of, see [`Rating::recording`].
    pub recording: String,
    /// The text.
    pub text: String,
    /// What the pair is for.
    pub split: Option<Split>,
    /// [`NATURAL`] or the generator's name.
    pub kind: Option<String>,
    /// Kind of sound.
    pub category: Option<String>,
    /// At least one.
    pub listener_ratings: Vec<ListenerRating>,
}

impl Pair {
    /// Mean of the listeners' ratings, 0 to 10: a listener who rated twice counts once.
    pub fn mean(&self) -> f64 {
        let scores = self.by_listener();
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    /// A score for each listener, in the order in which they first come; unknown listeners are all different ones.
    pub fn by_listener(&self) -> Vec<f64> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut sums: Vec<(f64, f64)> = Vec::new();
        for ListenerRating { listener, score } in &self.listener_ratings {
            let fresh = sums.len();
            let place = listener.as_deref().map_or(fresh, |name| *places.entry(name).or_insert(fresh));
            if place == fresh {
                sums.push((0.0, 0.0));
            }
            sums[place] = (sums[place].0 + score, sums[place].1 + 1.0);
        }
        sums.into_iter().map(|(sum, count)| sum / count).collect()
    }

    /// Whether no generator made the sound; `None` where the manifest does not say.
    pub fn is_natural(&self) -> Option<bool> {
        self.kind.as_deref().map(|kind| kind == NATURAL)
    }
}

/// Brings ratings of the same file and text together; anchors are left out.
///
/// # Errors
/// Ratings of one pair that have it in two splits, or differ in its recording or kind.
pub fn pairs(ratings: &[Rating]) -> Result<Vec<Pair>> {
    let mut places: HashMap<(&PathBuf, &str), usize> = HashMap::new();
    let mut pairs: Vec<Pair> = Vec::new();
    for rating in ratings.iter().filter(|rating| !rating.anchor) {
        let place = *places.entry((&rating.audio, &rating.text)).or_insert(pairs.len());
        if place == pairs.len() {
            let Rating { audio, recording, text, split, kind, category, .. } = rating.clone();
            pairs.push(Pair { audio, recording, text, split, kind, category, listener_ratings: vec![] });
        }
        let pair = &mut pairs[place];
        ensure!(
            (pair.split, &pair.recording, &pair.kind) == (rating.split, &rating.recording, &rating.kind),
            "{} with {:?}: one rating has split {:?}, recording {:?}, kind {:?}, another {:?}, {:?}, {:?}; a pair has one of each \
             (claptune split makes splits anew)",
            rating.audio.display(),
            rating.text,
            pair.split,
            pair.recording,
            pair.kind,
            rating.split,
            rating.recording,
            rating.kind
        );
        pair.listener_ratings.push(ListenerRating { listener: rating.listener.clone(), score: rating.score });
    }
    Ok(pairs)
}
