//! A number that grows, and the log line that it deserves now and then.
//!
//! Whatever may happen thousands of times a second (an error of a sound server, a score that was replaced) is logged for the first time
//! and then at each doubling: a flood writes few lines, and none of it is hidden.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. Any thread may add to it and read it without waiting, the audio callback too.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Returns the count where a log line is due: at the first, and where it has reached a new power of two.
    pub fn add(&self, n: u64) -> Option<u64> {
        // Counters order nothing, so relaxed is enough.
        let before = self.0.fetch_add(n, Relaxed);
        let count = before + n;
        (count.checked_ilog2() > before.checked_ilog2()).then_some(count)
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_at_the_first_and_at_each_doubling() {
        let counter = Counter::default();
        let lines: Vec<u64> = (0..1000).filter_map(|_| counter.add(1)).collect();
        assert_eq!(lines, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!((counter.add(0), counter.add(5000), counter.get()), (None, Some(6000), 6000));
    }
}
