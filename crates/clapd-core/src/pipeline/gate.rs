//! Whether a window holds any sound at all, so that silence need not be encoded.
//!
//! A gate takes the samples of a source at its own rate, in order, and says whether a stretch of the recent past was silent. It
//! allocates nothing after construction, and a loss costs no more than its ring, however long.
//!
//! What is asked is the loudest 50 ms of the whole window. Its mean would hide a bark of 0.2 s in 10 s of CLAP's window
//! by 17 dB, and its newest hop alone would cut that bark's score off a second later, while the ungated score stays up
//! as long as the window holds the bark: one window instead of ten, too few to be confirmed. So a gate changes no
//! score but that of a window in which nothing was loud.

use std::time::Duration;

use crate::level::{self, PowerSums};

/// Blocks as long as the shortest sounds that people name (a knock, a click of a lock); a second has 20 of them.
const BLOCK: Duration = Duration::from_millis(50);

/// The levels of the newest blocks of a source.
pub(super) struct Gate {
    /// Mean square below which a block is silent; full scale is 1.
    threshold: f64,
    /// Samples in a block.
    block: u64,
    /// Those of block `b` at `b % len`.
    sums: Vec<PowerSums>,
    /// Samples so far, at the source's rate.
    received: u64,
}

impl Gate {
    /// A gate at `gate_db` (RMS in dB below full scale, whose RMS is 1) that remembers `keep`.
    pub(super) fn new(gate_db: f32, input_rate: u32, keep: Duration) -> Self {
        let block = (BLOCK.as_secs_f64() * f64::from(input_rate)) as u64;
        // One block is being filled, and one reaches over the beginning.
        let blocks = (keep.as_secs_f64() / BLOCK.as_secs_f64()).ceil() as usize + 2;
        Self {
            threshold: level::power(gate_db.into()),
            block: block.max(1),
            sums: vec![PowerSums::default(); blocks],
            received: 0,
        }
    }

    /// Takes the next samples.
    pub(super) fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            let free = self.block - self.received % self.block;
            let (now, later) = samples.split_at(samples.len().min(free as usize));
            let begun = self.received.is_multiple_of(self.block);
            let slot = self.slot(self.received / self.block);
            if begun {
                self.sums[slot] = PowerSums::default();
            }
            now.iter().for_each(|sample| self.sums[slot].push(*sample));
            self.received += now.len() as u64;
            samples = later;
        }
    }

    /// Takes so many samples of silence.
    pub(super) fn push_silence(&mut self, count: u64) {
        let begun = self.received % self.block;
        if begun > 0 {
            let slot = self.slot(self.received / self.block);
            self.sums[slot].push_silence(count.min(self.block - begun));
        }
        let first = self.received.div_ceil(self.block);
        self.received += count;
        let end = self.received.div_ceil(self.block);
        for block in first.max(end.saturating_sub(self.sums.len() as u64))..end {
            let mut silence = PowerSums::default();
            silence.push_silence((self.received - block * self.block).min(self.block));
            let slot = self.slot(block);
            self.sums[slot] = silence;
        }
    }

    /// Whether no block that touches samples `start..end` (at the source's rate) was loud.
    pub(super) fn is_silent(&self, start: u64, end: u64) -> bool {
        let oldest = self.received.div_ceil(self.block).saturating_sub(self.sums.len() as u64);
        let blocks = (start / self.block).max(oldest)..end.min(self.received).div_ceil(self.block);
        blocks.into_iter().all(|block| self.sums[self.slot(block)].power() < self.threshold)
    }

    fn slot(&self, block: u64) -> usize {
        (block % self.sums.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// At -60 dB, 1,000 samples a second and so 50 a block, remembering 10 s.
    fn gate() -> Gate {
        Gate::new(-60.0, 1_000, Duration::from_secs(10))
    }

    /// A square wave, whose RMS is its amplitude.
    fn wave(amplitude: f32, length: usize) -> Vec<f32> {
        (0..length).map(|n| if n % 2 == 0 { amplitude } else { -amplitude }).collect()
    }

    #[test]
    fn a_knock_opens_the_whole_window_and_no_other() {
        let mut gate = gate();
        gate.push(&wave(0.0009, 3_000));
        gate.push(&wave(0.0011, 50));
        gate.push(&wave(0.0009, 3_000));
        assert!(gate.is_silent(0, 3_000) && gate.is_silent(3_050, 6_050));
        assert!(!gate.is_silent(0, 6_050) && !gate.is_silent(3_049, 6_050) && !gate.is_silent(0, 3_001));
    }

    #[test]
    fn a_constant_is_no_sound() {
        let mut gate = gate();
        gate.push(&[0.25; 5_000]);
        assert!(gate.is_silent(0, 5_000));
        gate.push(&wave(0.1, 20));
        assert!(!gate.is_silent(0, 5_020), "a block that has just begun counts by what has come of it");
    }

    #[test]
    fn what_is_no_number_is_not_silence() {
        let mut gate = gate();
        gate.push(&[f32::NAN; 10]);
        assert!(!gate.is_silent(0, 10));
    }

    #[test]
    fn years_of_loss_are_silent_and_cheap() {
        let mut gate = gate();
        gate.push(&wave(0.5, 1_234));
        gate.push_silence(1 << 50);
        let end = (1 << 50) + 1_234;
        assert!(gate.is_silent(end - 5_000, end));
        gate.push(&wave(0.5, 30));
        assert!(!gate.is_silent(end - 5_000, end + 30));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in prop::collection::vec((0_u64..400, 0_usize..400, 0.0_f32..0.002), 1..12), a in 0_u64..4_000, b in 0_u64..4_000,
        ) {
            let (mut pieces, mut whole) = (gate(), Vec::new());
            for (lost, length, amplitude) in parts {
                pieces.push_silence(lost);
                whole.resize(whole.len() + lost as usize, 0.0);
                pieces.push(&wave(amplitude, length));
                whole.extend(wave(amplitude, length));
            }
            let mut once = gate();
            once.push(&whole);
            prop_assert_eq!(pieces.is_silent(a, b), once.is_silent(a, b));
            let end = whole.len().min((b as usize).div_ceil(50) * 50);
            let begin = (a as usize / 50 * 50).min(end);
            let loud = whole[begin..end].chunks(50).any(|block| {
                let mean = block.iter().map(|x| f64::from(*x)).sum::<f64>() / block.len() as f64;
                block.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / block.len() as f64 >= 1e-6
            });
            prop_assert_eq!(once.is_silent(a, b), !loud || a >= b.div_ceil(50) * 50);
        }
    }
}
