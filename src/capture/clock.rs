//! Where a stream's sample clock meets the clocks of the machine.
//!
//! A stream's sample clock drifts against the machine's, and callbacks come with jitter. [`StreamClock`] makes a smooth
//! estimate of the moment of any sample from the moments at which samples were captured, and finds gaps: samples that
//! vanished before they reached us. Only `wall_time` asks for the time of day.

use std::time::{Duration, Instant, SystemTime};

/// Observations over which the estimate is averaged. They come every 0.1 s: 10 s smooth out the jitter of callbacks
/// (milliseconds) and still follow a sound card that is off by 200 ppm to within 2 ms.
const AVERAGED_OVER: u32 = 100;
/// A deviation that is no jitter but missing sound. Callbacks on a busy machine are late by less, latencies of a sound
/// server wander by less; what is missed below it is taken up by the average.
const GAP_S: f64 = 0.25;
/// Observations in a row that must agree on a gap: a thread that was merely scheduled late is late once.
const GAP_CONFIRMATIONS: u32 = 3;
/// Observations before gaps are believed: a sound server delivers its first second or two ahead of time, then stalls
/// (PulseAudio 16: by 0.7 s), and nothing of it is missing.
const SETTLED_AFTER: u32 = 50;

/// The estimate for one stream.
#[derive(Debug)]
pub(super) struct StreamClock {
    rate: u32,
    /// Estimated moment of sample 0.
    origin: Instant,
    /// How many observations `origin` is the average of.
    observations: u32,
    /// Observations in a row that deviated from it.
    deviations: u32,
}

impl StreamClock {
    /// A clock on which sample `position` was captured at `captured`.
    pub fn new(rate: u32, position: u64, captured: Instant) -> Self {
        Self { rate, origin: shift(captured, -seconds(position, rate)), observations: 1, deviations: 0 }
    }

    /// The same for a stream that goes on after an outage: it is late from the start what is late, so that the time line
    /// ends up where the wall clock is.
    pub fn resumed(rate: u32, position: u64, captured: Instant) -> Self {
        Self { observations: SETTLED_AFTER, ..Self::new(rate, position, captured) }
    }

    /// Takes an observation in. Returns the samples that vanished before `position` where a gap is certain; the caller
    /// puts them into the time line, so that `position` grows by as much.
    pub fn observe(&mut self, position: u64, captured: Instant) -> u64 {
        let deviation = signed_since(captured, self.instant(position));
        if deviation.abs() < GAP_S {
            self.deviations = 0;
            self.observations = (self.observations + 1).min(AVERAGED_OVER);
            self.origin = shift(self.origin, deviation / f64::from(self.observations));
            return 0;
        }
        self.deviations += 1;
        if self.deviations < GAP_CONFIRMATIONS {
            return 0;
        }
        self.deviations = 0;
        if deviation > 0.0 && self.observations >= SETTLED_AFTER {
            return (deviation * f64::from(self.rate)).round() as u64;
        }
        self.origin = shift(self.origin, deviation);
        0
    }

    /// Estimated moment at which the sample at `position` was captured.
    pub fn instant(&self, position: u64) -> Instant {
        shift(self.origin, seconds(position, self.rate))
    }

    /// The time of day at `position`, by the system's clock as it is set now.
    pub fn wall_time(&self, position: u64) -> SystemTime {
        let ago = signed_since(Instant::now(), self.instant(position));
        let now = SystemTime::now();
        let distance = Duration::try_from_secs_f64(ago.abs()).unwrap_or_default();
        let then = if ago >= 0.0 { now.checked_sub(distance) } else { now.checked_add(distance) };
        then.unwrap_or(now)
    }
}

/// Samples in `duration`.
pub(super) fn samples_in(duration: Duration, rate: u32) -> u64 {
    (duration.as_secs_f64() * f64::from(rate)).round() as u64
}

fn seconds(position: u64, rate: u32) -> f64 {
    position as f64 / f64::from(rate.max(1))
}

/// Seconds from `earlier` to `later`; below 0 where it is the other way round.
pub(super) fn signed_since(later: Instant, earlier: Instant) -> f64 {
    match later.checked_duration_since(earlier) {
        Some(after) => after.as_secs_f64(),
        None => -earlier.saturating_duration_since(later).as_secs_f64(),
    }
}

/// `instant` moved by `by_s` seconds; left alone where the result can't be expressed.
pub(super) fn shift(instant: Instant, by_s: f64) -> Instant {
    let distance = Duration::try_from_secs_f64(by_s.abs()).unwrap_or_default();
    let shifted = if by_s >= 0.0 { instant.checked_add(distance) } else { instant.checked_sub(distance) };
    shifted.unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;
    const STEP: u64 = 4_800;

    /// Observations every 0.1 s with jitter below 20 ms, as callbacks have.
    fn jitter(step: u64) -> f64 {
        ((step * 7919) % 20) as f64 / 1000.0
    }

    #[test]
    fn jitter_is_smoothed_and_makes_no_gap() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut clock = StreamClock::new(RATE, 0, start);
        let mut last = clock.instant(0);
        for step in 1..2_000 {
            let captured = shift(start, step as f64 * 0.1 + jitter(step));
            assert_eq!(clock.observe(step * STEP, captured), 0);
            let now = clock.instant(step * STEP);
            let advanced = signed_since(now, last);
            assert!((advanced - 0.1).abs() < 0.011, "{advanced} s at step {step}");
            last = now;
        }
        let error = signed_since(last, shift(start, 199.9));
        assert!((0.0..0.02).contains(&error), "{error}");
    }

    #[test]
    fn a_gap_is_found_once_and_only_when_it_lasts() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut clock = StreamClock::new(RATE, 0, start);
        let mut inserted = 0;
        for step in 1..300_u64 {
            let late = if step == 50 { 0.4 } else { 0.0 };
            let missing = if step > 100 { 0.75 } else { 0.0 };
            let captured = shift(start, step as f64 * 0.1 + jitter(step) + late + missing);
            inserted += clock.observe(step * STEP + inserted, captured);
        }
        let expected = 0.75 * f64::from(RATE);
        assert!((inserted as f64 - expected).abs() < 0.03 * f64::from(RATE), "{inserted} of {expected}");
    }

    #[test]
    fn wall_time_of_now_is_now() {
        let clock = StreamClock::new(RATE, 96_000, Instant::now());
        let difference = match SystemTime::now().duration_since(clock.wall_time(96_000)) {
            Ok(late) => late,
            Err(early) => early.duration(),
        };
        assert!(difference < Duration::from_secs(5));
        let apart = clock.wall_time(96_000).duration_since(clock.wall_time(48_000)).unwrap();
        assert!((apart.as_secs_f64() - 1.0).abs() < 0.2);
    }
}
