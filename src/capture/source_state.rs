//! What a source is doing, in a word that health, logs and Home Assistant share.

use std::time::Duration;

/// Samples without a break after which a source that was away is relied on again: longer than a stream takes to die in which a sound
/// server only promised to deliver, shorter than anybody waits.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);

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
    pub const ALL: [Self; 8] = [
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

/// The state of a source in `before` whose samples have been coming for so long.
pub(super) fn state_of_flow(before: SourceState, since: Duration) -> SourceState {
    let troubled = matches!(before, SourceState::Lost | SourceState::Stalled | SourceState::Recovering);
    if troubled && since < RECOVERED_AFTER { SourceState::Recovering } else { SourceState::Live }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_away_is_recovering_before_it_is_live() {
        let (soon, later) = (Duration::from_millis(100), RECOVERED_AFTER);
        for before in [SourceState::Lost, SourceState::Stalled, SourceState::Recovering] {
            assert_eq!(
                (state_of_flow(before, soon), state_of_flow(before, later)),
                (SourceState::Recovering, SourceState::Live)
            );
        }
        for before in [SourceState::Starting, SourceState::Live, SourceState::Silent, SourceState::Clipping] {
            assert_eq!(state_of_flow(before, soon), SourceState::Live, "{before:?}");
        }
    }

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
