//! How long to wait before something that failed is tried again.
//!
//! After a power cut every device of a home comes back in the same second, and all sources lose a sound server that dies at the same
//! moment. So whoever waits takes a bound from [`Backoff`] and waits for a [`random_time`] below or around it.

use std::time::Duration;

/// A wait that doubles with each failure in a row.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits for `first` after the first failure, and for `longest` at the most.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure, and returns the wait after it.
    pub fn fail(&mut self) -> Duration {
        let wait = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Failures in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Begins again with the first wait: all is well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random time between the two, all of which are as likely.
pub fn random_time(shortest: Duration, longest: Duration) -> Duration {
    shortest + (longest - shortest).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
        for _ in 0..2 {
            let waits: Vec<u64> = (0..40).map(|_| backoff.fail().as_secs()).collect();
            assert_eq!((&waits[..6], waits[39], backoff.failures()), (&[2, 4, 8, 16, 32, 60][..], 60, 40));
            backoff.reset();
        }
    }

    #[test]
    fn random_times_differ_within_their_bounds() {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        let times: Vec<Duration> = (0..200).map(|_| random_time(shortest, longest)).collect();
        assert!(times.iter().all(|time| (shortest..=longest).contains(time)), "{times:?}");
        assert!(times.iter().max() > Some(&(longest / 2)) && times.iter().min() < Some(&(longest / 2)), "{times:?}");
    }
}
