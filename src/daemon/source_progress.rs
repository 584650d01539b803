//! Whether a source makes progress: what the watchdog is fed by.
//!
//! The count grows as long as sound becomes scores, or there is a good reason why there is no sound. It does not grow
//! by the passing of time alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Sound without a scored window after which something is wrong: a window and a hop are at most 10 s each, and so is a start.
const MAX_UNSCORED: Duration = Duration::from_secs(60);

/// Written by a source's thread, read by the main thread.
#[derive(Debug, Default)]
pub(super) struct SourceProgress {
    rounds: AtomicU64,
    /// Sound since the last scored window, in milliseconds.
    unscored_ms: AtomicU64,
}

impl SourceProgress {
    /// So much sound came, and whether a window of it was scored.
    pub(super) fn record_sound(&self, length: Duration, scored: bool) {
        if scored {
            self.unscored_ms.store(0, Relaxed);
        }
        let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let unscored = self.unscored_ms.fetch_add(length, Relaxed).saturating_add(length);
        if scored || Duration::from_millis(unscored) < MAX_UNSCORED {
            self.rounds.fetch_add(1, Relaxed);
        }
    }

    /// A part of a window was computed. A window may take longer than the watchdog waits; where no window gets a score
    /// in the end, its parts are no progress either.
    pub(super) fn record_part(&self) {
        if Duration::from_millis(self.unscored_ms.load(Relaxed)) < MAX_UNSCORED {
            self.rounds.fetch_add(1, Relaxed);
        }
    }

    /// No sound came, and that is in order: the device is away and is waited for, or nobody speaks into standard input.
    pub(super) fn record_excused_silence(&self) {
        self.rounds.fetch_add(1, Relaxed);
    }

    /// Grows with progress.
    pub(super) fn count(&self) -> u64 {
        self.rounds.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_that_is_never_scored_is_no_progress() {
        let progress = SourceProgress::default();
        let second = Duration::from_secs(1);
        (0..100).for_each(|_| progress.record_sound(second, false));
        let stuck = progress.count();
        assert_eq!(stuck, 59);
        progress.record_sound(second, false);
        assert_eq!(progress.count(), stuck);
        progress.record_part();
        assert_eq!(progress.count(), stuck, "parts of windows that come to nothing");
        progress.record_sound(second, true);
        progress.record_sound(second, false);
        assert_eq!(progress.count(), stuck + 2, "a score sets it right");
        progress.record_part();
        assert_eq!(progress.count(), stuck + 3, "slow is not stuck");
    }
}
