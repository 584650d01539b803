//! What a source is doing, in a word that health, logs and Home Assistant share.

/// What a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SourceState {
    /// Opened for the first time; no sample has come yet.
    Starting,
    /// Sound comes, be it the noise of a quiet room.
    Live,
    /// Samples come and hold nothing: zero, a constant, less than the noise of any microphone.
    Silent,
    /// Samples come and are cut off at full scale, again and again.
    Clipping,
    /// The device is there and delivers nothing; it is opened again and again.
    Stalled,
    /// The device is away, or can't be opened; it is waited for.
    Lost,
    /// Samples come again after they had been away, not yet for long enough to be relied on.
    Recovering,
    /// The file or standard input is over.
    Ended,
}

impl SourceState {
    /// All of them, in the order of their numbers, so that an atomic's number is turned back.
    const ALL: [Self; 8] = [
        Self::Starting,
        Self::Live,
        Self::Silent,
        Self::Clipping,
        Self::Stalled,
        Self::Lost,
        Self::Recovering,
        Self::Ended,
    ];

    /// Its name in health messages and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Silent => "silent",
            Self::Clipping => "clipping",
            Self::Stalled => "stalled",
            Self::Lost => "lost",
            Self::Recovering => "recovering",
            Self::Ended => "ended",
        }
    }

    /// Whether samples should be coming: if none do, something is wrong that nobody has noticed.
    pub fn is_flowing(self) -> bool {
        matches!(self, Self::Live | Self::Silent | Self::Clipping | Self::Recovering)
    }

    pub(super) fn number(self) -> u8 {
        self as u8
    }

    /// The state with this number; a number that is none is read as the first.
    pub(super) fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_its_number_and_has_a_name_of_its_own() {
        let mut names: Vec<_> = SourceState::ALL.iter().map(|state| state.name()).collect();
        for state in SourceState::ALL {
            assert_eq!(SourceState::from_number(state.number()), state);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SourceState::ALL.len());
    }
}
