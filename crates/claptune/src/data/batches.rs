//! The order in which training sees pairs: batches of their indices, by the seed and the number of the epoch alone, so
//! that epoch 7 is the same after a resume as without one.

use std::collections::HashSet;
use std::path::Path;

use fastrand::Rng;

use super::pairs::Pair;

/// The batches of an epoch: every pair once, shuffled by `seed` and `epoch`. No batch has a file or a text twice: a
/// contrastive objective takes whatever is not a row's own pair for a mismatch. A batch that finds no such pair stays
/// smaller; those come at the end, but for the last they are rare unless a few texts make up the data.
pub fn batches(pairs: &[Pair], size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    // Seeds of neighbouring epochs lie far apart (the golden ratio in 64 bits).
    let mut random = Rng::with_seed(seed.wrapping_add(epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    random.shuffle(&mut order);
    let (mut full, mut open): (Vec<Vec<usize>>, Vec<OpenBatch<'_>>) = (vec![], vec![]);
    for row in order {
        let Pair { audio, text, .. } = &pairs[row];
        let place = open
            .iter()
            .position(|batch| !batch.audio.contains(audio.as_path()) && !batch.texts.contains(text.as_str()));
        let place = place.unwrap_or_else(|| {
            open.push(OpenBatch::default());
            open.len() - 1
        });
        let batch = &mut open[place];
        batch.rows.push(row);
        batch.audio.insert(audio);
        batch.texts.insert(text);
        if batch.rows.len() >= size.max(1) {
            full.push(open.remove(place).rows);
        }
    }
    full.extend(open.into_iter().map(|batch| batch.rows));
    full
}

#[derive(Default)]
struct OpenBatch<'a> {
    rows: Vec<usize>,
    audio: HashSet<&'a Path>,
    texts: HashSet<&'a str>,
}
