//! The rate at which a device really delivers, against the rate that it claims.
//!
//! Some cards say 48 kHz and run at 44.1 (a clock that the driver could not set), which makes everything 8% too high and
//! lets the sample clock lag behind the time of day. A crystal is off by some 100 ppm; standard rates lie 8% apart.

use std::time::{Duration, Instant};

use super::input_stream::STANDARD_RATES;

/// What is left out at the start of a stream: a sound server delivers its first second or two ahead of time and then stalls.
const SETTLING: Duration = Duration::from_secs(5);
/// A stretch that is measured: jitter of 25 ms at its ends is 1% of it.
const STRETCH: Duration = Duration::from_secs(5);
/// Stretches in a row that must agree. A busy machine delays one, lost sound shortens another; neither does so by the same share
/// thrice.
const STRETCHES: usize = 3;
/// How far stretches may differ from each other, and from a standard rate that they are taken for: see [`STRETCH`].
const AGREEMENT: f64 = 0.01;
/// What is not the rate that was claimed: an eighth of it is the distance of two standard rates, and more than this is no jitter.
const DEVIATION: f64 = 0.02;
/// Faster than any card: ALSA's `null` and `file` deliver as fast as they are read, and have no rate.
const MAX_RATE: f64 = 400_000.0;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MeasuredRate {
    /// Frames a second.
    pub measured: f64,
    /// The standard rate that it is, within 1%.
    pub standard: Option<u32>,
}

/// Measures one stream.
#[derive(Debug)]
pub(super) struct RateMeter {
    claimed: u32,
    /// Frames so far.
    frames: u64,
    began: Option<Instant>,
    /// Where the stretch under way began.
    from: Option<(Instant, u64)>,
    measured: Vec<f64>,
}

impl RateMeter {
    pub fn new(claimed: u32) -> Self {
        Self { claimed, frames: 0, began: None, from: None, measured: Vec::new() }
    }

    /// Takes in that `frames` came, of which the first was captured at `captured`. Returns the true rate where the claimed one is
    /// not it, each time that this is certain.
    pub fn observe(&mut self, captured: Instant, frames: u64) -> Option<MeasuredRate> {
        let before = self.frames;
        self.frames += frames;
        let began = *self.began.get_or_insert(captured);
        if captured.saturating_duration_since(began) < SETTLING {
            return None;
        }
        let (from, first) = *self.from.get_or_insert((captured, before));
        let elapsed = captured.saturating_duration_since(from);
        if elapsed < STRETCH {
            return None;
        }
        self.from = Some((captured, before));
        self.measured.push((before - first) as f64 / elapsed.as_secs_f64());
        if self.measured.len() < STRETCHES {
            return None;
        }
        let result = self.judge();
        self.measured.remove(0);
        result
    }

    /// Sound was lost: what was measured across the loss means nothing.
    pub fn interrupt(&mut self) {
        self.from = None;
        self.measured.clear();
    }

    fn judge(&self) -> Option<MeasuredRate> {
        let mean = self.measured.iter().sum::<f64>() / self.measured.len() as f64;
        let claimed = f64::from(self.claimed);
        let near = |rate: f64, other: f64| (rate / other - 1.0).abs() <= AGREEMENT;
        let agree = self.measured.iter().all(|rate| near(*rate, mean));
        if !agree || (mean / claimed - 1.0).abs() <= DEVIATION || mean > MAX_RATE {
            return None;
        }
        Some(MeasuredRate {
            measured: mean,
            standard: STANDARD_RATES.into_iter().find(|rate| near(mean, f64::from(*rate))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a tenth of a second by the claimed rate, at a true rate, with jitter; what is found within a minute.
    fn measure(claimed: u32, truth: f64, jitter_s: impl Fn(u64) -> f64) -> Option<MeasuredRate> {
        let (start, block) = (Instant::now(), u64::from(claimed) / 10);
        let mut meter = RateMeter::new(claimed);
        let blocks = (60.0 * truth / block as f64) as u64;
        (0..blocks).find_map(|at| {
            let captured = (at * block) as f64 / truth + jitter_s(at);
            meter.observe(start + Duration::from_secs_f64(captured), block)
        })
    }

    fn jitter(at: u64) -> f64 {
        ((at * 7919) % 20) as f64 / 1000.0
    }

    #[test]
    fn a_rate_that_is_not_the_claimed_one_is_found_and_named() {
        for (claimed, truth) in
            [(48_000, 44_100), (44_100, 48_000), (48_000, 32_000), (16_000, 8_000), (48_000, 96_000)]
        {
            let found = measure(claimed, f64::from(truth), jitter);
            assert_eq!(found.and_then(|found| found.standard), Some(truth), "{claimed}: {found:?}");
        }
        let odd = measure(48_000, 46_000.0, jitter).unwrap();
        assert!(odd.standard.is_none() && (odd.measured - 46_000.0).abs() < 300.0, "{odd:?}");
    }

    #[test]
    fn crystals_jitter_and_starts_of_sound_servers_are_no_other_rate() {
        assert_eq!(measure(48_000, 48_000.0 * 1.000_5, jitter), None);
        // A second ahead of time, then a stall.
        assert_eq!(measure(48_000, 48_000.0, |at| if at < 20 { 0.7 } else { 0.0 }), None);
        // Late by half a second now and then.
        assert_eq!(measure(48_000, 48_000.0, |at| if at % 97 < 3 { 0.5 } else { 0.0 }), None);
        // As fast as it is read.
        assert_eq!(measure(48_000, 40_000_000.0, |_| 0.0), None);
    }
}
