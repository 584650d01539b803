//! Which of the newest samples were lost: one bit a sample.
//!
//! Losses are counted exactly, whatever their pattern, in memory that is allocated once; a loss of years costs one turn
//! of the ring.

/// A ring of bits; sample `p` has bit `p % bits`.
pub(super) struct LossMask {
    words: Vec<u64>,
    end: u64,
}

impl LossMask {
    /// A mask that remembers the newest `samples` samples, rounded up to a multiple of 64.
    pub(super) fn new(samples: usize) -> Self {
        Self { words: vec![0; samples.div_ceil(64).max(1)], end: 0 }
    }

    /// Says of all samples up to position `end` that are not yet in the mask whether they were lost.
    pub(super) fn extend_to(&mut self, end: u64, lost: bool) {
        let begin = self.end.max(end.saturating_sub(self.bits()));
        for (word, mask) in words(begin, end, self.words.len()) {
            if lost {
                self.words[word] |= mask;
            } else {
                self.words[word] &= !mask;
            }
        }
        self.end = self.end.max(end);
    }

    /// How many samples of `begin..end` were lost; samples that are not remembered count as not lost.
    pub(super) fn lost(&self, begin: u64, end: u64) -> u64 {
        let oldest = self.end.saturating_sub(self.bits());
        words(begin.max(oldest), end.min(self.end), self.words.len())
            .map(|(word, mask)| u64::from((self.words[word] & mask).count_ones()))
            .sum()
    }

    fn bits(&self) -> u64 {
        self.words.len() as u64 * 64
    }
}

/// The words of a ring of `count` words that hold positions `begin..end` (at most one turn), with the bits concerned.
fn words(begin: u64, end: u64, count: usize) -> impl Iterator<Item = (usize, u64)> {
    let mut at = begin;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let first = at % 64;
        let length = (64 - first).min(end - at);
        let mask = (u64::MAX >> (64 - length)) << first;
        let word = ((at / 64) % count as u64) as usize;
        at += length;
        Some((word, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_like_a_list(
            runs in prop::collection::vec((0_u64..300, any::<bool>()), 1..40),
            a in 0_u64..4000, b in 0_u64..4000,
        ) {
            let mut mask = LossMask::new(500);
            let mut list = Vec::new();
            for (length, lost) in runs {
                list.extend(std::iter::repeat_n(lost, length as usize));
                mask.extend_to(list.len() as u64, lost);
            }
            let oldest = list.len().saturating_sub(512);
            let asked = list.iter().enumerate().skip(oldest).filter(|&(i, _)| (a..b).contains(&(i as u64)));
            let expected = asked.filter(|&(_, &lost)| lost).count();
            prop_assert_eq!(mask.lost(a, b), expected as u64);
        }
    }

    #[test]
    fn an_endless_loss_is_one_turn_of_the_ring() {
        let mut mask = LossMask::new(100);
        mask.extend_to(u64::MAX / 2, true);
        mask.extend_to(u64::MAX / 2 + 28, false);
        assert_eq!(mask.lost(0, u64::MAX), 100);
    }
}
