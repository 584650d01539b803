//! The automatic gain of a source: slow, bounded, and a function of the samples alone.
//!
//! A microphone whose gain is too low makes everything faint, its own noise too; in a quiet room the sounds are faint, and the noise
//! is not. So what is loud among the sounds of the recent past is lifted to where the model hears well, as far as that takes the
//! noise between them no higher than a quiet room's. All of it is judged by what came, before the gain: in silence, and in noise
//! alone, nothing rises, and a source that is loud enough is left as it is, bit for bit.
//!
//! The figures behind the numbers are those of `examples/levels`, see docs/microphones.md.

use std::collections::VecDeque;

use super::seconds::Second;
use crate::level::{LevelRange, decibels};

/// The most that is given: what a microphone lacks whose 24 bits lie at the lower end of 32.
const MAX_DB: f64 = 48.0;
/// How far it rises in a second of sound: a sound's end is not heard at another level than its beginning, and a door that slams in
/// a quiet night changes next to nothing.
const RISE_DB: f64 = 1.0;
/// Seconds of sound that count as the recent past: more than one event has, and a source that was moved is followed within an
/// evening.
const SOUNDS: usize = 60;
/// Before there were as many, nothing is given: a first whisper alone says nothing of the microphone.
const MIN_SOUNDS: usize = 10;
/// Of them the one is looked at that this share is louder than: a single knock against the microphone takes no gain away.
const LOUDER: f64 = 0.1;
/// Seconds among which the noise of the room is looked for: longer than the sounds of a home go on without a pause of 50 ms. A fan
/// that is switched on is a sound until it has run for as long.
const ROOM: usize = 60;
/// A block of 50 ms that stands out from that noise by this much is a sound; those of white noise differ by some 2 dB.
const SOUND_DB: f64 = 10.0;
/// The most that the noise may have after the gain, by its quietest 50 ms: what a quiet room has whose noise is at -75 dB RMS (of brown
/// noise they are 6 dB below it). Faint sounds of such a room start an event now and then; lifted by 20 dB, seven times as many.
const MAX_ROOM_DB: f64 = -82.0;
/// Below it there is no microphone's noise, not even one's whose 24 bits lie at the lower end of 32 (-91 and -48 dB). What a sound
/// server's dither leaves of nothing at all is at -146 dB.
const NOTHING_DB: f64 = -140.0;

/// The gain of a source, second by second.
pub(super) struct AutoGain {
    range: LevelRange,
    gain_db: f64,
    /// Levels of the newest seconds that held a sound, oldest first.
    sounds: VecDeque<f64>,
    /// Levels of the quietest 50 ms of the newest seconds, oldest first.
    quietest: VecDeque<f64>,
}

impl AutoGain {
    pub(super) fn new(range: LevelRange) -> Self {
        Self { range, gain_db: 0.0, sounds: VecDeque::with_capacity(SOUNDS), quietest: VecDeque::with_capacity(ROOM) }
    }

    /// After the seconds that were taken so far.
    pub(super) fn gain_db(&self) -> f64 {
        self.gain_db
    }

    /// Takes the next second, as it came.
    pub(super) fn take(&mut self, second: &Second) {
        let [level, loudest, quietest] = [second.power, second.loudest, second.quietest].map(decibels);
        // What is no number, and what no microphone sends, says nothing of the room.
        if level.is_nan() || loudest < NOTHING_DB {
            return;
        }
        push(&mut self.quietest, ROOM, quietest);
        let room_db = self.quietest.iter().fold(f64::INFINITY, |least, level| level.min(least));
        let is_sound = loudest >= room_db + SOUND_DB;
        if is_sound {
            push(&mut self.sounds, SOUNDS, level);
        }
        // Where the noise is cut away (microphones for conferences, many cameras do), nobody knows what the microphone lacks.
        let most = if room_db < NOTHING_DB { 0.0 } else { MAX_DB.min(MAX_ROOM_DB - room_db).max(0.0) };
        let wanted = self.lacking_db().clamp(0.0, most);
        // It falls as soon as the room or its sounds count as louder, and rises with sounds only.
        let rise = if is_sound { RISE_DB } else { 0.0 };
        self.gain_db = wanted.min(self.gain_db + rise);
    }

    /// What the sounds lack of the level from which on the model hears well; nothing before there were some.
    fn lacking_db(&self) -> f64 {
        if self.sounds.len() < MIN_SOUNDS {
            return 0.0;
        }
        let mut sorted: Vec<f64> = self.sounds.iter().copied().collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        f64::from(self.range.clear_db) - sorted[(sorted.len() as f64 * LOUDER) as usize]
    }
}

/// Adds a level to the newest `most`.
pub(super) fn push(levels: &mut VecDeque<f64>, most: usize, level: f64) {
    if levels.len() == most {
        levels.pop_front();
    }
    levels.push_back(level);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::level::power;

    const RANGE: LevelRange = LevelRange { faint_db: -45.0, clear_db: -25.0 };

    fn second(level: f64, quietest: f64) -> Second {
        Second { power: power(level), loudest: power(level + 3.0), quietest: power(quietest) }
    }

    /// What it gives after so many seconds of one kind.
    fn after(gain: &mut AutoGain, seconds: usize, level: f64, quietest: f64) -> f64 {
        (0..seconds).for_each(|_| gain.take(&second(level, quietest)));
        gain.gain_db()
    }

    #[test]
    fn a_faint_microphone_is_lifted_slowly_and_stays_so_in_silence() {
        let mut gain = AutoGain::new(RANGE);
        assert_eq!(after(&mut gain, MIN_SOUNDS - 1, -60.0, -110.0), 0.0, "a whisper alone");
        assert_eq!(after(&mut gain, 5, -60.0, -110.0), 5.0);
        assert_eq!(after(&mut gain, 100, -60.0, -110.0), 28.0, "the noise is then at -82 dB");
        assert_eq!(after(&mut gain, 10_000, -108.0, -110.0), 28.0, "nothing was heard that could have changed it");
        assert_eq!(after(&mut gain, 2, -10.0, -110.0), 28.0, "a knock against the microphone");
        assert_eq!(after(&mut gain, 60, -10.0, -110.0), 0.0);
        let mut gain = AutoGain::new(RANGE);
        assert_eq!(after(&mut gain, 200, -50.0, -120.0), 25.0, "as much as it lacks");
        assert_eq!(after(&mut gain, 200, -90.0, -124.0), 42.0);
        assert_eq!(after(&mut gain, 60, -75.0, -76.0), 0.0, "what goes on for a minute is the room's noise");
    }

    #[test]
    fn quiet_rooms_and_what_gates_its_noise_get_none() {
        for (level, quietest) in
            [(-60.0, -80.0), (-76.0, -82.0), (-20.0, -90.0), (-25.0, -110.0), (-50.0, f64::NEG_INFINITY)]
        {
            assert_eq!(after(&mut AutoGain::new(RANGE), 300, level, quietest), 0.0, "{level} over {quietest}");
        }
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut gain = AutoGain::new(RANGE);
        after(&mut gain, 100, -60.0, -110.0);
        gain.take(&Second { power: f64::NAN, loudest: 1.0, quietest: 0.1 });
        gain.take(&Second { power: 0.0, loudest: 0.0, quietest: 0.0 });
        assert_eq!(gain.gain_db(), 28.0);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(seconds in prop::collection::vec((-144.0_f64..10.0, 0.0_f64..90.0), 1..400)) {
            let mut gain = AutoGain::new(RANGE);
            for (level, below) in seconds {
                let before = gain.gain_db();
                gain.take(&second(level, level - below));
                let room_db = gain.quietest.iter().fold(f64::INFINITY, |least, level| level.min(least));
                let now = gain.gain_db();
                prop_assert!((0.0..=MAX_DB).contains(&now) && now <= before + RISE_DB);
                prop_assert!(now == 0.0 || room_db + now <= MAX_ROOM_DB + 1e-9);
            }
        }
    }
}
