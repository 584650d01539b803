//! How loud samples are: their power around their mean, and powers in decibels below full scale.
//!
//! Full scale is an RMS of 1, as of a square wave between -1 and 1. The mean is left out, since cheap sound cards add a
//! constant that nobody hears.

/// A power (mean square) in decibels below full scale; minus infinity for none.
pub fn decibels(power: f64) -> f64 {
    10.0 * power.log10()
}

/// The power (mean square) of so many decibels below full scale.
pub fn power(decibels: f64) -> f64 {
    10_f64.powf(decibels / 10.0)
}

/// The sums of samples that their power is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PowerSums {
    sum: f64,
    squares: f64,
    count: f64,
}

impl PowerSums {
    /// Takes a sample.
    pub fn push(&mut self, sample: f32) {
        let sample = f64::from(sample);
        self.sum += sample;
        self.squares += sample * sample;
        self.count += 1.0;
    }

    /// Takes so many samples of silence.
    pub fn push_silence(&mut self, count: u64) {
        self.count += count as f64;
    }

    /// Takes what others were taken of.
    pub fn merge(&mut self, other: Self) {
        self.sum += other.sum;
        self.squares += other.squares;
        self.count += other.count;
    }

    /// How many samples were taken.
    pub fn count(self) -> f64 {
        self.count
    }

    /// Mean of the samples: a sound card's constant. NaN where none were taken.
    pub fn mean(self) -> f64 {
        self.sum / self.count
    }

    /// Mean square around the mean. NaN where no samples were taken, or one of them is.
    pub fn power(self) -> f64 {
        let mean = self.mean();
        let power = self.squares / self.count - mean * mean;
        // Rounding takes the power of a constant a little below zero.
        if power < 0.0 { 0.0 } else { power }
    }
}

/// The levels at which a model hears: RMS of a sound's loudest second, in decibels below full scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelRange {
    /// Below it, a sound that the model knows is rarely recognised.
    pub faint_db: f32,
    /// From here on up, louder does not help.
    pub clear_db: f32,
}

/// How much louder a source is made before the model hears it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gain {
    /// Always by so many decibels; negative ones make it quieter.
    Fixed(f32),
    /// By as much as its sounds of the recent past lack of [`LevelRange::clear_db`], within bounds; by nothing where no
    /// [`LevelRange`] is known.
    Auto,
}

impl Gain {
    /// The source as it comes.
    pub const NONE: Self = Self::Fixed(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: impl IntoIterator<Item = f32>) -> PowerSums {
        let mut sums = PowerSums::default();
        samples.into_iter().for_each(|sample| sums.push(sample));
        sums
    }

    #[test]
    fn a_full_square_wave_has_no_decibels_and_a_constant_no_power() {
        let square = of((0..100).map(|n| if n % 2 == 0 { 1.25 } else { -0.75 }));
        assert!(decibels(square.power()).abs() < 1e-9 && (square.mean() - 0.25).abs() < 1e-12);
        assert_eq!(of([0.25; 64]).power(), 0.0);
        assert!((power(-20.0) - 0.01).abs() < 1e-12 && (decibels(power(-33.0)) + 33.0).abs() < 1e-9);
        assert!(of([f32::NAN]).power().is_nan() && decibels(0.0) == f64::NEG_INFINITY);
    }

    #[test]
    fn parts_and_silence_count_as_one_run() {
        let mut parts = of([0.5, -0.5]);
        parts.merge(of([1.0]));
        parts.push_silence(2);
        assert_eq!(parts, of([0.5, -0.5, 1.0, 0.0, 0.0]));
    }
}
