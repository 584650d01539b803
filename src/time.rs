//! The computer's two clocks, and where they meet a source's own.
//!
//! A [`WallAnchor`] turns a source's [`SampleTime`] into the time of day; [`Clocks`] and [`ClockStep`] find out when
//! somebody has set the time of day. Here only [`Clocks::now`] asks the operating system what time it is, and only `capture`
//! and `outbox` call it.

use std::time::{Duration, Instant, SystemTime};

use clapd_core::time::SampleTime;

/// Where a source's sample clock meets the wall clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallAnchor {
    /// A moment on the sample clock.
    pub at: SampleTime,
    /// The time of day at that moment.
    pub wall: SystemTime,
}

impl WallAnchor {
    /// The time of day at `time`.
    pub fn wall_time(&self, time: SampleTime) -> SystemTime {
        if time >= self.at { self.wall + time.since(self.at) } else { self.wall - self.at.since(time) }
    }
}

/// Read one after the other, the clocks are microseconds apart. A thread that was made to wait in between reads them again:
/// times are published to the millisecond.
const MAX_DISTANCE: Duration = Duration::from_millis(1);
/// Tries to read them together. To be interrupted each time takes a machine on which a millisecond is no matter.
const TRIES: usize = 10;
/// Less than this is no step. Network time moves a clock that is off by less gently (0.128 s in ntpd, 0.4 s in timesyncd, 1 s in
/// chrony as distributions set it up), and the steady clock with it.
const SMALLEST_STEP: Duration = Duration::from_secs(1);

/// The steady clock, which nobody sets, and the time of day at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The steady clock: it ends with the computer.
    pub steady: Instant,
    /// The time of day, which may be wrong and may be set: a small computer has no clock of its own.
    pub wall: SystemTime,
}

impl Clocks {
    /// Now.
    pub fn now() -> Self {
        let mut read = Self { steady: Instant::now(), wall: SystemTime::now() };
        for _ in 1..TRIES {
            if read.steady.elapsed() < MAX_DISTANCE {
                break;
            }
            read = Self { steady: Instant::now(), wall: SystemTime::now() };
        }
        read
    }

    /// How the time of day was set since `earlier`, if it was.
    pub fn step_since(&self, earlier: &Self) -> Option<ClockStep> {
        let expected = earlier.wall.checked_add(self.steady.saturating_duration_since(earlier.steady))?;
        let step = match self.wall.duration_since(expected) {
            Ok(by) => ClockStep { forwards: true, by },
            Err(error) => ClockStep { forwards: false, by: error.duration() },
        };
        (step.by >= SMALLEST_STEP).then_some(step)
    }
}

/// By how much the time of day was set, and in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// Towards the future.
    pub forwards: bool,
    /// How far, at least a second.
    pub by: Duration,
}

impl ClockStep {
    /// What a time that was read before the step should have been; the time itself where there is no such time.
    pub fn correct(&self, read: SystemTime) -> SystemTime {
        let corrected = if self.forwards { read.checked_add(self.by) } else { read.checked_sub(self.by) };
        corrected.unwrap_or(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let began = Clocks::now();
        let later = |steady_s: f64, wall_s: f64| Clocks {
            steady: began.steady + Duration::from_secs_f64(steady_s),
            wall: began.wall + Duration::from_secs_f64(wall_s),
        };
        assert_eq!(later(1e6, 1e6).step_since(&began), None);
        assert_eq!(later(10.0, 10.9).step_since(&began), None, "moved gently");
        let forwards = later(10.0, 3_610.0).step_since(&began).unwrap();
        assert_eq!(forwards, ClockStep { forwards: true, by: Duration::from_secs(3_600) });
        assert_eq!(forwards.correct(began.wall), began.wall + Duration::from_secs(3_600));
        let back = later(100.0, 40.0).step_since(&began).unwrap();
        assert_eq!(back, ClockStep { forwards: false, by: Duration::from_secs(60) });
        assert_eq!(back.correct(began.wall), began.wall - Duration::from_secs(60));
    }

    #[test]
    fn an_anchor_reaches_both_ways() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let anchor = WallAnchor { at: SampleTime::from_samples(10, 1), wall };
        assert_eq!(anchor.wall_time(SampleTime::from_samples(12, 1)), wall + Duration::from_secs(2));
        assert_eq!(anchor.wall_time(SampleTime::from_samples(7, 1)), wall - Duration::from_secs(3));
    }
}
