//! What samples say of the microphone that they come from: sound, nothing at all, or too much.
//!
//! All times are counts of samples, so that the same samples give the same [`Signal`] however they are cut and however
//! fast they come.
//!
//! A quiet room is sound. Digital MEMS microphones have noise of some -90 dB, the best converters there are of -125 dB,
//! and the lowest bit of 16 is at -90 dB: if it flips once in a tenth of a second, something is alive. A muted or
//! unplugged input, a driver that is stuck, and a converter without a supply give one value for ever; a sound server's
//! dither adds a bit or two of 24. A microphone that gates its own noise (those for conferences do) sends real zeros
//! and is called silent: that is what comes.

use clapd_core::level::{PowerSums, decibels};

/// What the samples say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Signal {
    /// A room, be it a quiet one.
    #[default]
    Sound,
    /// Nothing that a microphone could have sent.
    Silent,
    /// Cut off at full scale, again and again.
    Clipping,
}

/// Samples are judged in blocks of a tenth of a second: short enough that a burst is told from a hum, long enough for two
/// periods of 20 Hz, so that a slow wave is no constant.
const BLOCKS_PER_SECOND: u32 = 10;
/// From its lowest to its highest sample, a block that moves less is silent. 24-bit dither moves by 4e-7 (three steps), the noise
/// of a converter of 125 dB by 4e-6, the lowest bit of 16 by 3e-5, half of that where two channels are mixed.
pub(super) const MIN_SWING: f32 = 1e-6;
/// Silent blocks after which the source is silent: 5 s. A stream that starts or a player between two pieces is still for a second
/// or two; and it leaves as much again to be shown within the 10 s that are promised.
const SILENT_AFTER: u32 = 50;
/// What a block that moves takes off the count of silent ones: a second of sound ends silence, a click in a dead input
/// now and then does not, and neither does an input that moves in fewer than one block of six ever count as sound.
const MOVING_SUBTRACTS: u32 = 5;
/// Full scale, less what 8 bits can't express (127/128).
pub(super) const FULL_SCALE: f32 = 0.99;
/// Share of full-scale samples that makes a block clipped: half a millisecond of its tenth of a second. A recording that was
/// normalised touches full scale in single samples; a tone that is 1 dB too loud stays there for 30% of the time.
pub(super) const CLIPPED_SHARE: f64 = 0.005;
/// What a clipped block adds, and one that is not takes off again: only a source that clips in more than a fifth of its blocks
/// gets anywhere, and a slammed door or one bark does not.
const CLIPPED_ADDS: u32 = 4;
/// The count at which it is clipping: after 2.5 s without a pause; and 10 s without clipping end it.
const CLIPPING_AT: u32 = 100;
/// The lowest level that is shown, in dB: what 24 bits resolve.
const LOWEST_DB: f64 = -144.0;

/// Judges the samples of one source.
#[derive(Debug, Default)]
pub(super) struct LevelMeter {
    rate: u32,
    block: LevelBlock,
    silent_blocks: u32,
    clipped: u32,
    signal: Signal,
    /// The blocks of the second that is under way.
    second: PowerSums,
    blocks: u32,
    level_db: Option<i32>,
}

/// A block that is being filled.
#[derive(Debug)]
struct LevelBlock {
    lowest: f32,
    highest: f32,
    full: u32,
    count: u32,
    power: PowerSums,
}

impl Default for LevelBlock {
    fn default() -> Self {
        Self { lowest: f32::INFINITY, highest: f32::NEG_INFINITY, full: 0, count: 0, power: PowerSums::default() }
    }
}

impl LevelBlock {
    fn push(&mut self, samples: &[f32]) {
        for &sample in samples {
            self.lowest = self.lowest.min(sample);
            self.highest = self.highest.max(sample);
            self.full += u32::from(sample.abs() >= FULL_SCALE);
            self.power.push(sample);
        }
        self.count += samples.len() as u32;
    }

    fn is_constant(&self) -> bool {
        self.highest - self.lowest < MIN_SWING
    }

    /// A block that is stuck at full scale is not loud, it is constant.
    fn is_clipped(&self) -> bool {
        !self.is_constant() && f64::from(self.full) >= CLIPPED_SHARE * f64::from(self.count)
    }
}

impl LevelMeter {
    /// Takes the next samples, at `rate` a second.
    pub(super) fn push(&mut self, rate: u32, mut samples: &[f32]) {
        if rate != self.rate {
            (self.rate, self.block) = (rate, LevelBlock::default());
        }
        let length = (rate / BLOCKS_PER_SECOND).max(1);
        while !samples.is_empty() {
            let free = (length - self.block.count) as usize;
            let (now, later) = samples.split_at(samples.len().min(free));
            self.block.push(now);
            if self.block.count == length {
                let block = std::mem::take(&mut self.block);
                self.judge(&block);
            }
            samples = later;
        }
    }

    /// What the samples say.
    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    /// The level of the last whole second, in dB below full scale, whose RMS is 1; none before there was one.
    pub(super) fn level_db(&self) -> Option<i32> {
        self.level_db
    }

    fn judge(&mut self, block: &LevelBlock) {
        self.silent_blocks = if block.is_constant() {
            (self.silent_blocks + 1).min(SILENT_AFTER)
        } else {
            self.silent_blocks.saturating_sub(MOVING_SUBTRACTS)
        };
        self.clipped = if block.is_clipped() {
            (self.clipped + CLIPPED_ADDS).min(CLIPPING_AT)
        } else {
            self.clipped.saturating_sub(1)
        };
        // Each is entered at the top of its count and left at its bottom.
        self.signal = match self.signal {
            Signal::Silent if self.silent_blocks > 0 => Signal::Silent,
            _ if self.silent_blocks == SILENT_AFTER => Signal::Silent,
            Signal::Clipping if self.clipped > 0 => Signal::Clipping,
            _ if self.clipped == CLIPPING_AT => Signal::Clipping,
            _ => Signal::Sound,
        };
        self.second.merge(block.power);
        self.blocks += 1;
        if self.blocks == BLOCKS_PER_SECOND {
            // Between -144 and, for floats beyond full scale, some hundreds.
            let level = decibels(std::mem::take(&mut self.second).power()).max(LOWEST_DB);
            self.level_db = Some(level.round() as i32);
            self.blocks = 0;
        }
    }
}

#[cfg(test)]
mod tests;
