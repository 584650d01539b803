//! How loud the last minute of a source was, second by second, as it came.
//!
//! Seconds are counted in samples, so the same samples give the same levels however they are cut.

use std::collections::VecDeque;

use crate::level::{PowerSums, decibels};

/// Seconds that count as the recent past of a source: in a minute somebody who tries a microphone out has made a noise.
const SECONDS: usize = 60;

/// The levels of the newest seconds.
pub(super) struct LastMinute {
    /// Samples in a second.
    rate: u64,
    received: u64,
    sums: PowerSums,
    /// The second that is under way holds lost samples: it counts for nothing.
    has_losses: bool,
    /// RMS in dB around the mean, oldest first.
    levels: VecDeque<f64>,
}

impl LastMinute {
    pub(super) fn new(input_rate: u32) -> Self {
        Self {
            rate: u64::from(input_rate).max(1),
            received: 0,
            sums: PowerSums::default(),
            has_losses: false,
            levels: VecDeque::with_capacity(SECONDS),
        }
    }

    /// Takes the next samples.
    pub(super) fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let left = self.rate - self.received % self.rate;
            let (now, later) = samples.split_at(samples.len().min(left as usize));
            now.iter().for_each(|sample| self.sums.push(*sample));
            self.received += now.len() as u64;
            samples = later;
            if self.received.is_multiple_of(self.rate) {
                self.end_second();
            }
        }
    }

    /// So many samples were lost.
    pub(super) fn push_lost(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        self.received += count;
        self.sums = PowerSums::default();
        // Where the loss ends with a second, the next one is whole.
        self.has_losses = !self.received.is_multiple_of(self.rate);
    }

    fn end_second(&mut self) {
        let power = std::mem::take(&mut self.sums).power();
        if std::mem::take(&mut self.has_losses) {
            return;
        }
        if self.levels.len() == SECONDS {
            self.levels.pop_front();
        }
        self.levels.push_back(decibels(power));
    }

    /// The loudest of them, not below -144 dB, which is what 24 bits resolve; none before there were 60.
    pub(super) fn loudest_db(&self) -> Option<f32> {
        let is_full = self.levels.len() == SECONDS;
        is_full.then(|| self.levels.iter().fold(-144.0_f64, |most, level| level.max(most)) as f32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: usize = 100;

    /// Seconds of a square wave, each of an amplitude of its own.
    fn seconds(amplitudes: &[f32]) -> Vec<f32> {
        let of_second = |amplitude: &f32| (0..RATE).map(|n| if n % 2 == 0 { *amplitude } else { -amplitude }).collect();
        amplitudes.iter().flat_map(|amplitude| -> Vec<f32> { of_second(amplitude) }).collect()
    }

    #[test]
    fn it_is_the_loudest_of_sixty_whole_seconds() {
        let mut minute = LastMinute::new(RATE as u32);
        minute.push(&seconds(&[0.1; 59]));
        assert_eq!(minute.loudest_db(), None);
        // What a loss spoils does not count, however loud.
        minute.push(&seconds(&[1.0])[..RATE / 2]);
        minute.push_lost(RATE as u64 / 2 + 7 * RATE as u64);
        assert_eq!(minute.loudest_db(), None);
        minute.push(&seconds(&[0.01]));
        assert_eq!(minute.loudest_db(), Some(-20.0));
        minute.push(&seconds(&[0.01; 60]));
        assert_eq!(minute.loudest_db(), Some(-40.0), "the louder ones are past");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(1_usize..250, 1..20), lost in 0_u64..400) {
            let samples = seconds(&(0..70).map(|n| 0.9 - 0.01 * n as f32).collect::<Vec<_>>());
            let (mut once, mut pieces) = (LastMinute::new(RATE as u32), LastMinute::new(RATE as u32));
            for minute in [&mut once, &mut pieces] {
                minute.push(&samples[..30]);
            }
            once.push_lost(lost);
            pieces.push_lost(lost / 2);
            pieces.push_lost(lost - lost / 2);
            once.push(&samples);
            let (mut rest, mut cuts) = (&samples[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(cuts.next().unwrap_or(1)));
                pieces.push(now);
                rest = later;
            }
            prop_assert_eq!(once.loudest_db(), pieces.loudest_db());
        }
    }
}
