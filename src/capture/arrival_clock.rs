//! When the samples of a stream were captured, by when they arrived.
//!
//! Sound comes over a network late and in bursts, but not before it was made: the earliest arrival is nearest to the truth.
//! [`ArrivalClock`] follows the earliest arrivals, and with them a sender whose clock drifts against ours. What is late
//! and catches up was only late; what stays late for seconds is a stretch of time of which the sender had no sound.

use std::time::{Duration, Instant};

use super::clock::{shift, signed_since};

/// Arrivals are judged by the earliest of so many: a page of ogg holds up to a second, and two of them come in that time.
const JUDGED_OVER: Duration = Duration::from_secs(3);
/// Sound that stays late by so much is a gap. Queues of servers and radio links vary by less over seconds.
const GAP_S: f64 = 0.5;
/// How much of the remaining lateness is taken up each time: of a clock that is off by 200 ppm 6 ms remain.
const FOLLOWED: f64 = 0.1;

/// The clock of one connection.
#[derive(Debug)]
pub(super) struct ArrivalClock {
    rate: u32,
    /// When sample 0 was captured; none before anything came.
    origin: Option<Instant>,
    judged_since: Instant,
    /// The least lateness since then, in seconds.
    least_late: f64,
}

impl ArrivalClock {
    /// A clock for `rate` samples a second.
    pub fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), origin: None, judged_since: Instant::now(), least_late: f64::INFINITY }
    }

    /// All samples before `end` had come at `arrived`. Returns how many samples there were no sound for before `end`; they
    /// belong into the time line, and count in `end` from then on.
    pub fn observe(&mut self, end: u64, arrived: Instant) -> u64 {
        let Some(origin) = self.origin else {
            self.restart(shift(arrived, -self.seconds(end)), arrived);
            return 0;
        };
        let late = signed_since(arrived, shift(origin, self.seconds(end)));
        if late < 0.0 {
            self.restart(shift(origin, late), arrived);
            return 0;
        }
        self.least_late = self.least_late.min(late);
        if arrived.saturating_duration_since(self.judged_since) < JUDGED_OVER {
            return 0;
        }
        let late = self.least_late;
        if late >= GAP_S {
            self.restart(origin, arrived);
            return (late * f64::from(self.rate)).round() as u64;
        }
        self.restart(shift(origin, late * FOLLOWED), arrived);
        0
    }

    /// When the sample at `position` was captured.
    pub fn captured(&self, position: u64) -> Instant {
        self.origin.map_or_else(Instant::now, |origin| shift(origin, self.seconds(position)))
    }

    fn restart(&mut self, origin: Instant, arrived: Instant) {
        (self.origin, self.judged_since, self.least_late) = (Some(origin), arrived, f64::INFINITY);
    }

    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    /// Feeds arrivals of a second each (`arrivals` says when each second had come), and returns the samples that were
    /// inserted, and by how much the last second's end differs from `truth`.
    fn run(arrivals: impl IntoIterator<Item = f64>, truth: impl Fn(usize) -> f64) -> (u64, f64) {
        let began = Instant::now() + Duration::from_secs(100);
        let mut clock = ArrivalClock::new(RATE);
        let (mut position, mut inserted, mut error) = (0, 0, 0.0);
        for (second, at) in arrivals.into_iter().enumerate() {
            position += u64::from(RATE);
            let gap = clock.observe(position, shift(began, at));
            (position, inserted) = (position + gap, inserted + gap);
            error = signed_since(clock.captured(position), shift(began, truth(second)));
        }
        (inserted, error)
    }

    #[test]
    fn jitter_and_a_drifting_sender_make_no_gap() {
        let jitter = |second: usize| ((second * 7919) % 900) as f64 / 1000.0;
        let (inserted, error) = run((0..1_000).map(|n| n as f64 * 1.0002 + jitter(n)), |n| n as f64 * 1.0002);
        assert!(inserted == 0 && (0.0..0.2).contains(&error), "{inserted} {error}");
        let (inserted, error) = run((0..1_000).map(|n| n as f64 * 0.9998), |n| n as f64 * 0.9998);
        assert!(inserted == 0 && error.abs() < 0.01, "{inserted} {error}");
    }

    #[test]
    fn a_burst_is_of_the_past() {
        // Eight seconds at once, then one a second.
        let (inserted, error) = run((0..30).map(|n: u32| f64::from(n.saturating_sub(8))), |n| n as f64 - 8.0);
        assert!(inserted == 0 && error.abs() < 0.01, "{inserted} {error}");
    }

    #[test]
    fn what_catches_up_was_late_and_what_stays_late_is_a_gap() {
        let stall = |n: u32, catches_up: bool| match n {
            0..20 => f64::from(n),
            20..25 if catches_up => 25.0,
            _ if catches_up => f64::from(n),
            _ => f64::from(n) + 5.0,
        };
        assert_eq!(run((0..60).map(|n| stall(n, true)), |n| n as f64).0, 0);
        let (inserted, error) = run((0..60).map(|n| stall(n, false)), |n| n as f64 + 5.0);
        assert!((inserted as f64 / f64::from(RATE) - 5.0).abs() < 0.1 && error.abs() < 0.1, "{inserted} {error}");
    }
}
