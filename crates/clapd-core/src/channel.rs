//! From interleaved frames to one channel.
//!
//! This runs in the audio callback: it takes an iterator and gives a value, and so has nothing to allocate or to lock.

/// What to hear of a source with several channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Channel {
    /// The mean of all channels.
    #[default]
    Mix,
    /// One channel, counted from 0.
    Index(usize),
    /// The channel that sounds best, which only somebody who listens for a while can tell; until then, and in a file, the first.
    Auto,
}

impl Channel {
    /// One sample out of a frame of f32 values. Values that are NaN or infinite count as 0 and set `bad`.
    /// A channel that the frame does not have is silence; whoever opens a source refuses it before.
    pub fn pick(self, mut frame: impl ExactSizeIterator<Item = f32>, bad: &mut bool) -> f32 {
        let mut finite = |value: f32| {
            *bad |= !value.is_finite();
            if value.is_finite() { value } else { 0.0 }
        };
        match self {
            Self::Mix => {
                let channels = frame.len().max(1);
                // In f64: two channels near the largest f32 must not become infinite.
                (frame.map(|value| f64::from(finite(value))).sum::<f64>() / channels as f64) as f32
            }
            Self::Index(index) => frame.nth(index).map_or(0.0, finite),
            Self::Auto => frame.next().map_or(0.0, finite),
        }
    }

    /// Channels that a source needs to have for this choice.
    pub fn min_channels(self) -> usize {
        match self {
            Self::Mix | Self::Auto => 1,
            Self::Index(index) => index.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(channel: Channel, frame: &[f32]) -> (f32, bool) {
        let mut bad = false;
        let sample = channel.pick(frame.iter().copied(), &mut bad);
        (sample, bad)
    }

    #[test]
    fn mixes_and_picks() {
        assert_eq!(pick(Channel::Mix, &[0.5, -0.25, 0.5]), (0.25, false));
        assert_eq!(pick(Channel::Index(1), &[0.5, -0.25, 0.5]), (-0.25, false));
        assert_eq!(pick(Channel::Index(3), &[0.5]), (0.0, false));
        assert_eq!(pick(Channel::Auto, &[0.5, -0.25]), (0.5, false));
    }

    #[test]
    fn bad_values_become_silence_and_are_seen() {
        assert_eq!(pick(Channel::Mix, &[f32::NAN, 0.5]), (0.25, true));
        assert_eq!(pick(Channel::Index(0), &[f32::INFINITY]), (0.0, true));
        assert_eq!(pick(Channel::Index(1), &[f32::NAN, 0.5]), (0.5, false));
    }
}
