//! How long to wait before the broker is tried again.
//!
//! In: a failure. Out: a wait. After a power cut every device of a house comes back in the same second; chance spreads them.
//! Never: waits longer than a minute, or less than a second.

use std::time::Duration;

/// A broker that restarts is back within seconds.
const FIRST: Duration = Duration::from_secs(1);
/// Nobody waits for longer than this for the house to know its sensors again.
const LAST: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// The wait after one more failure: anything between the shortest and a bound that doubles from twice the shortest on.
    pub(super) fn fail(&mut self) -> Duration {
        self.0 = self.0.saturating_add(1);
        let bound = LAST.min(FIRST * (1 << self.0.min(6)));
        FIRST + (bound - FIRST).mul_f64(fastrand::f64())
    }

    /// The wait after a failure that only a person mends.
    pub(super) fn fail_for_long(&mut self) -> Duration {
        self.fail();
        LAST.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Failures in a row so far.
    pub(super) fn failures(&self) -> u32 {
        self.0
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_bounds_and_differ() {
        let mut backoff = Backoff::default();
        let first: Vec<Duration> = (0..50)
            .map(|_| {
                backoff.reset();
                backoff.fail()
            })
            .collect();
        assert!(first.iter().all(|wait| (FIRST..=FIRST * 2).contains(wait)), "{first:?}");
        let later: Vec<Duration> = (0..200).map(|_| backoff.fail()).skip(6).collect();
        assert!(later.iter().all(|wait| (FIRST..=LAST).contains(wait)));
        let long = backoff.fail_for_long();
        assert!((LAST / 2..=LAST).contains(&long), "{long:?}");
        assert!(later.iter().max() > Some(&(LAST / 2)) && later.iter().min() < Some(&(LAST / 2)), "{later:?}");
    }
}
