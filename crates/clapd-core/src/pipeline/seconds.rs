//! The levels of a source's seconds, as it came.
//!
//! Seconds are counted in samples, so the same samples give the same levels however they are cut. One that holds lost samples
//! counts for nothing.

use crate::level::PowerSums;

/// Blocks of 50 ms, as in the gate: as long as the shortest sounds that people name.
const BLOCKS: u64 = 20;

/// A whole second of a source. Powers are mean squares around the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Second {
    /// Of all of it.
    pub(super) power: f64,
    /// Of its loudest 50 ms.
    pub(super) loudest: f64,
    /// Of its quietest 50 ms.
    pub(super) quietest: f64,
}

/// Cuts samples into seconds.
pub(super) struct SecondMeter {
    /// Samples in a second.
    rate: u64,
    received: u64,
    of_block: PowerSums,
    of_second: PowerSums,
    loudest: f64,
    quietest: f64,
    /// The second that is under way holds lost samples.
    has_losses: bool,
}

impl SecondMeter {
    pub(super) fn new(input_rate: u32) -> Self {
        Self {
            // A block has a sample at least.
            rate: u64::from(input_rate).max(BLOCKS),
            received: 0,
            of_block: PowerSums::default(),
            of_second: PowerSums::default(),
            loudest: 0.0,
            quietest: f64::INFINITY,
            has_losses: false,
        }
    }

    /// Samples in a second.
    pub(super) fn length(&self) -> u64 {
        self.rate
    }

    /// Takes the next samples; every second that is over goes to `sink`, none for one that counts for nothing.
    pub(super) fn push(&mut self, mut samples: &[f32], sink: &mut impl FnMut(Option<Second>)) {
        while !samples.is_empty() {
            let at = self.received % self.rate;
            // Of the block that holds sample `at`: where a second has no whole number of 50 ms, blocks differ by a sample.
            let end = ((at * BLOCKS / self.rate + 1) * self.rate).div_ceil(BLOCKS);
            let (now, later) = samples.split_at(samples.len().min((end - at) as usize));
            now.iter().for_each(|sample| self.of_block.push(*sample));
            self.received += now.len() as u64;
            samples = later;
            if at + now.len() as u64 == end {
                self.end_block();
            }
            if self.received.is_multiple_of(self.rate) {
                self.end_second(sink);
            }
        }
    }

    /// Passes over so many lost samples. The second that they end goes to `sink`; how many more they fill is given back, since a
    /// loss may be of years.
    pub(super) fn skip(&mut self, lost: u64, sink: &mut impl FnMut(Option<Second>)) -> u64 {
        if lost == 0 {
            return 0;
        }
        self.has_losses = true;
        self.of_block = PowerSums::default();
        let left = self.rate - self.received % self.rate;
        self.received += lost;
        if lost < left {
            return 0;
        }
        self.end_second(sink);
        self.has_losses = !self.received.is_multiple_of(self.rate);
        (lost - left) / self.rate
    }

    fn end_block(&mut self) {
        let block = std::mem::take(&mut self.of_block);
        // What is no number is neither the loudest nor the quietest; the second's own power shows it.
        self.loudest = self.loudest.max(block.power());
        self.quietest = self.quietest.min(block.power());
        self.of_second.merge(block);
    }

    fn end_second(&mut self, sink: &mut impl FnMut(Option<Second>)) {
        let (loudest, quietest) = (std::mem::take(&mut self.loudest), self.quietest);
        self.quietest = f64::INFINITY;
        let power = std::mem::take(&mut self.of_second).power();
        let is_whole = !std::mem::take(&mut self.has_losses);
        sink(is_whole.then_some(Second { power, loudest, quietest }));
    }
}
