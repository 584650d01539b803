//! Splits that neither a recording nor a listener crosses.
//!
//! A model that has seen a recording knows its answer; one that has seen a listener knows that listener's habits. To
//! keep both out of the test, a rating is kept only if its recording and its listener are in the same split. How many
//! that are depends on who rated what: where groups of listeners rated groups of recordings, nearly all; where
//! everybody rated a bit of everything, two in three at 80/10/10, and a tenth of the test's. So the small splits are
//! grown from one recording each by those that share most listeners with what is already there; then listeners and
//! recordings are assigned in turns, each to where most of the other are, until no more is gained. What is dropped is
//! counted; where it is too much, splits by recording alone ([`SplitRules::listeners`] off) are the lesser evil, and
//! have to be reported as such. The same ratings in any order and the same seed give the same splits.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::rating::{Rating, Split};

/// Turns after which nothing is gained any more: studies settle in three to six.
const MAX_TURNS: usize = 20;

/// How to split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitRules {
    /// Shares of the recordings: train, validation, test.
    pub shares: [f64; 3],
    /// Keep listeners apart, too.
    pub listeners: bool,
    /// The same seed gives the same splits.
    pub seed: u64,
}

impl Default for SplitRules {
    fn default() -> Self {
        Self { shares: [0.8, 0.1, 0.1], listeners: true, seed: 1 }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitResult {
    /// Ratings with their splits, in their order. Anchors have none and are all there.
    pub ratings: Vec<Rating>,
    /// Ratings whose recording and listener came to be in different splits.
    pub dropped: usize,
    /// Recordings all of whose ratings were dropped.
    pub recordings_lost: usize,
}

/// What is in two splits or more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossing {
    /// Recordings.
    pub recordings: Vec<String>,
    /// Listeners.
    pub listeners: Vec<String>,
}

/// What crosses the splits that the ratings have.
pub fn crossing(ratings: &[Rating]) -> Crossing {
    fn crosses<'a>(named: impl Iterator<Item = (&'a String, Split)>) -> Vec<String> {
        let mut splits: BTreeMap<&String, BTreeSet<Split>> = BTreeMap::new();
        for (name, split) in named {
            splits.entry(name).or_default().insert(split);
        }
        splits.into_iter().filter(|(_, splits)| splits.len() > 1).map(|(name, _)| name.clone()).collect()
    }
    let placed = || ratings.iter().filter(|r| !r.anchor).filter_map(|r| Some((r, r.split?)));
    Crossing {
        recordings: crosses(placed().map(|(r, split)| (&r.recording, split))),
        listeners: crosses(placed().filter_map(|(r, split)| Some((r.listener.as_ref()?, split)))),
    }
}

/// Who rated what, by number.
struct RatingGraph {
    /// Recording, and listener if known, of each rating that is no anchor.
    ratings: Vec<(usize, Option<usize>)>,
    recordings: usize,
    listeners: usize,
}

/// Makes splits; see the head of this file.
///
/// # Errors
/// Shares that are negative or don't add up to 1, fewer recordings than splits, or a split left without a rating.
pub fn split(ratings: Vec<Rating>, rules: &SplitRules) -> Result<SplitResult> {
    let sum: f64 = rules.shares.iter().sum();
    ensure!(
        rules.shares.iter().all(|share| *share >= 0.0) && (sum - 1.0).abs() < 1e-6,
        "the shares are {:?}; three that are not negative and add up to 1 are needed",
        rules.shares
    );
    let graph = RatingGraph::of(&ratings);
    let quotas = quotas(graph.recordings, rules.shares)?;
    let (recordings, listeners) = graph.assign(rules, quotas);
    let mut numbered = graph.ratings.iter();
    let (mut kept, mut dropped, mut surviving) = (Vec::new(), 0, BTreeSet::new());
    for mut rating in ratings {
        if rating.anchor {
            kept.push(Rating { split: None, ..rating });
            continue;
        }
        let Some(&(recording, listener)) = numbered.next() else { break };
        let place = recordings[recording];
        if rules.listeners && listener.is_some_and(|listener| listeners[listener] != place) {
            dropped += 1;
            continue;
        }
        surviving.insert(recording);
        rating.split = Some(Split::ALL[place]);
        kept.push(rating);
    }
    for (split, share) in Split::ALL.into_iter().zip(rules.shares) {
        ensure!(
            share == 0.0 || kept.iter().any(|rating| rating.split == Some(split)),
            "{split} is left without a rating: too few listeners rated its recordings; another --seed, larger shares or \
             --listeners shared may do"
        );
    }
    Ok(SplitResult { ratings: kept, dropped, recordings_lost: graph.recordings - surviving.len() })
}

/// Whole recordings a split; a share that is not 0 gets one at least.
fn quotas(recordings: usize, shares: [f64; 3]) -> Result<[usize; 3]> {
    let wanted = shares.iter().filter(|share| **share > 0.0).count();
    ensure!(recordings >= wanted, "{recordings} recordings for {wanted} splits; one each is needed");
    let own = |share: f64| if share > 0.0 { ((share * recordings as f64).round() as usize).max(1) } else { 0 };
    let mut quotas = shares.map(own);
    // What rounding left over or lacks goes to the largest.
    while quotas.iter().sum::<usize>() != recordings {
        let largest = (0..3).max_by_key(|&s| quotas[s]).unwrap_or(0);
        quotas[largest] =
            if quotas.iter().sum::<usize>() < recordings { quotas[largest] + 1 } else { quotas[largest] - 1 };
    }
    Ok(quotas)
}

impl RatingGraph {
    fn of(ratings: &[Rating]) -> Self {
        // Sorted names, so that the order of the rows does not matter.
        let number = |names: BTreeSet<&'_ String>| -> BTreeMap<String, usize> {
            names.into_iter().enumerate().map(|(n, name)| (name.clone(), n)).collect()
        };
        let real = || ratings.iter().filter(|rating| !rating.anchor);
        let recordings = number(real().map(|rating| &rating.recording).collect());
        let listeners = number(real().filter_map(|rating| rating.listener.as_ref()).collect());
        let row = |r: &Rating| (recordings[&r.recording], r.listener.as_ref().map(|name| listeners[name]));
        Self { ratings: real().map(row).collect(), recordings: recordings.len(), listeners: listeners.len() }
    }

    /// The split, 0 to 2, of every recording and of every listener.
    fn assign(&self, rules: &SplitRules, quotas: [usize; 3]) -> (Vec<usize>, Vec<usize>) {
        let mut random = Rng::with_seed(rules.seed);
        let mut order: Vec<usize> = (0..self.recordings).collect();
        random.shuffle(&mut order);
        let mut recordings = vec![0; self.recordings];
        if rules.listeners {
            self.grow(&mut recordings, quotas, &order);
        } else {
            let places = (0..3).flat_map(|split| std::iter::repeat_n(split, quotas[split]));
            order.iter().zip(places).for_each(|(&recording, split)| recordings[recording] = split);
        }
        let mut listeners = self.assign_listeners(&recordings, rules.shares);
        let mut kept = self.count_kept(&recordings, &listeners);
        for _ in 0..if rules.listeners { MAX_TURNS } else { 0 } {
            let reassigned = self.assign_recordings(&listeners, quotas, &order);
            let followers = self.assign_listeners(&reassigned, rules.shares);
            let count = self.count_kept(&reassigned, &followers);
            if count <= kept {
                break;
            }
            (recordings, listeners, kept) = (reassigned, followers, count);
        }
        (recordings, listeners)
    }

    /// Fills test and validation; what is left trains. `order` decides between equals.
    fn grow(&self, recordings: &mut [usize], quotas: [usize; 3], order: &[usize]) {
        let (mut by_recording, mut by_listener) = (vec![vec![]; self.recordings], vec![vec![]; self.listeners]);
        for &(recording, listener) in &self.ratings {
            if let Some(listener) = listener {
                by_recording[recording].push(listener);
                by_listener[listener].push(recording);
            }
        }
        let mut free = vec![true; self.recordings];
        for split in [2, 1] {
            let (mut known, mut shared) = (vec![false; self.listeners], vec![0.0; self.recordings]);
            for _ in 0..quotas[split] {
                // The share of a recording's ratings whose listeners are here already; the first of the best.
                let share = |r: usize| shared[r] / by_recording[r].len().max(1) as f64;
                let best =
                    order.iter().copied().filter(|&r| free[r]).reduce(|a, b| if share(b) > share(a) { b } else { a });
                let Some(best) = best else { break };
                (free[best], recordings[best]) = (false, split);
                for &listener in by_recording[best].iter().filter(|&&l| !std::mem::replace(&mut known[l], true)) {
                    by_listener[listener].iter().for_each(|&recording| shared[recording] += 1.0);
                }
            }
        }
    }

    fn count_kept(&self, recordings: &[usize], listeners: &[usize]) -> usize {
        let same = |(recording, listener): &&(usize, Option<usize>)| {
            listener.is_none_or(|l| listeners[l] == recordings[*recording])
        };
        self.ratings.iter().filter(same).count()
    }

    /// Every listener to the split in which most of their ratings lie, in proportion to the splits: without that, nobody
    /// would be left for the small ones.
    fn assign_listeners(&self, recordings: &[usize], shares: [f64; 3]) -> Vec<usize> {
        let mut counts = vec![[0.0; 3]; self.listeners];
        for &(recording, listener) in &self.ratings {
            let split = recordings[recording];
            if let Some(listener) = listener {
                counts[listener][split] += 1.0 / shares[split];
            }
        }
        counts
            .into_iter()
            .map(|counts| (0..3).fold(0, |best, s| if counts[s] > counts[best] { s } else { best }))
            .collect()
    }

    /// Recordings to where their listeners are, those first that gain most by it, as far as the quotas go.
    fn assign_recordings(&self, listeners: &[usize], mut quotas: [usize; 3], order: &[usize]) -> Vec<usize> {
        let mut counts = vec![[0_i64; 3]; self.recordings];
        for &(recording, listener) in &self.ratings {
            if let Some(listener) = listener {
                counts[recording][listeners[listener]] += 1;
            }
        }
        let mut preferences: Vec<(i64, usize, usize, usize)> = Vec::new();
        for (rank, &recording) in order.iter().enumerate() {
            let mean: i64 = counts[recording].iter().sum();
            preferences.extend((0..3).map(|split| (mean - 3 * counts[recording][split], rank, recording, split)));
        }
        preferences.sort_unstable();
        let mut places = vec![None; self.recordings];
        for (_, _, recording, split) in preferences {
            if places[recording].is_none() && quotas[split] > 0 {
                places[recording] = Some(split);
                quotas[split] -= 1;
            }
        }
        places.into_iter().map(|place| place.unwrap_or(0)).collect()
    }
}
