//! Time on a source's own clock, which counts samples. The time of day enters and leaves outside this crate.

use std::ops::Add;
use std::time::Duration;

/// A moment on one source's sample clock, in nanoseconds since that source began.
///
/// Nanoseconds in 64 bits last for 584 years and hold every sample index at 192 kHz apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SampleTime(u64);

impl SampleTime {
    /// The first sample of a source.
    pub const ZERO: Self = Self(0);

    /// The moment at which sample `index` begins, at `rate` samples a second (a rate of 0 is read as 1).
    pub fn from_samples(index: u64, rate: u32) -> Self {
        // 128 bits: index * 1e9 overflows 64 bits after 26 hours at 192 kHz.
        let nanos = u128::from(index) * 1_000_000_000 / u128::from(rate.max(1));
        Self(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Seconds since the source began.
    pub fn as_secs_f64(self) -> f64 {
        Duration::from_nanos(self.0).as_secs_f64()
    }

    /// Time since `earlier`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment halfway between two.
    pub fn midpoint(self, other: Self) -> Self {
        Self(self.0.midpoint(other.0))
    }
}

impl Add<Duration> for SampleTime {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_time_is_exact_for_years() {
        let year = 365 * 24 * 3600 * 48_000_u64;
        assert_eq!(
            SampleTime::from_samples(year + 48, 48_000).since(SampleTime::from_samples(year, 48_000)),
            Duration::from_millis(1)
        );
    }
}
