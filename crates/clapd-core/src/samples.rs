//! The unit in which sound moves from a device or a file to the front end.

use std::ops::RangeInclusive;

/// Sample rates that are accepted, in Hz. Below 8 kHz (telephone) no bundle's filter bank is filled; above 192 kHz there
/// are measuring instruments but no microphones, and a header with such a rate is a broken header.
pub const RATES: RangeInclusive<u32> = 8_000..=192_000;

/// A run of mono samples at its source's rate, full scale at -1 and 1, every value finite.
///
/// Float input may exceed full scale; that is the sound, and it is left alone.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// Samples that were lost immediately before `data`. The receiver keeps the time line by putting silence in their
    /// place, and remembers that it was lost.
    pub lost: u64,
    /// The samples, in order.
    pub data: &'a [f32],
}

impl<'a> Samples<'a> {
    /// Samples with nothing lost before them.
    pub fn whole(data: &'a [f32]) -> Self {
        Self { lost: 0, data }
    }
}
