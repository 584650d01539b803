//! How loud a source is, second by second, and how much louder the model hears it.
//!
//! What is made louder is a patch, by the gain that held when its last sample came. So the same samples give the same gains, however
//! they are cut and whichever windows are scored.

use std::collections::VecDeque;

use super::auto_gain::{AutoGain, push};
use super::seconds::{Second, SecondMeter};
use crate::level::{Gain, LevelRange, decibels};

/// Seconds that count as the recent past of a source: in a minute somebody who tries a microphone out has made a noise.
const MINUTE: usize = 60;

/// The levels of a source's newest seconds and its gain at their ends.
pub(super) struct LevelTrack {
    meter: SecondMeter,
    gain: CurrentGain,
    history: History,
}

enum CurrentGain {
    Fixed(f32),
    Auto(AutoGain),
}

struct History {
    /// The gain in dB after n seconds at `n % len`.
    gains: Vec<f32>,
    /// Seconds so far, lost ones too.
    seconds: u64,
    /// RMS in dB around the mean, as the model heard them, oldest first. Seconds of which something was lost are left out.
    minute: VecDeque<f64>,
}

impl LevelTrack {
    /// For samples at `input_rate` and a model that hears in `range`; gains of the last `keep` seconds are remembered.
    pub(super) fn new(gain: Gain, range: Option<LevelRange>, input_rate: u32, keep: f64) -> Self {
        let gain = match (gain, range) {
            (Gain::Fixed(gain_db), _) => CurrentGain::Fixed(gain_db),
            (Gain::Auto, Some(range)) => CurrentGain::Auto(AutoGain::new(range)),
            // Nobody measured what the model needs.
            (Gain::Auto, None) => CurrentGain::Fixed(0.0),
        };
        // One second is under way, and a patch may have ended in one of which only the end is kept.
        let gains = vec![gain.now(); keep.ceil() as usize + 2];
        let history = History { gains, seconds: 0, minute: VecDeque::with_capacity(MINUTE) };
        Self { meter: SecondMeter::new(input_rate), gain, history }
    }

    /// Takes the next samples, as they came.
    pub(super) fn push(&mut self, samples: &[f32]) {
        let Self { meter, gain, history } = self;
        meter.push(samples, &mut |second| history.take(second, gain));
    }

    /// So many samples were lost. The gain stays.
    pub(super) fn push_lost(&mut self, count: u64) {
        let Self { meter, gain, history } = self;
        let more = meter.skip(count, &mut |second| history.take(second, gain));
        // Of a long loss only as many seconds are written as are remembered.
        let written = more.min(history.gains.len() as u64);
        history.seconds += more - written;
        (0..written).for_each(|_| history.take(None, gain));
    }

    /// The gain in dB of a patch whose last sample came before sample `end`, at the source's rate.
    pub(super) fn gain_at(&self, end: u64) -> f32 {
        self.history.gain_after(end / self.meter.length())
    }

    /// The newest gain, in dB.
    pub(super) fn gain_db(&self) -> f32 {
        self.gain.now()
    }

    /// The loudest of the last 60 whole seconds as the model heard it, RMS in dB; none before there were 60.
    pub(super) fn loudest_db(&self) -> Option<f32> {
        let minute = &self.history.minute;
        (minute.len() == MINUTE).then(|| minute.iter().fold(f64::NEG_INFINITY, |most, level| level.max(most)) as f32)
    }
}

impl CurrentGain {
    fn now(&self) -> f32 {
        match self {
            Self::Fixed(gain_db) => *gain_db,
            Self::Auto(auto) => auto.gain_db() as f32,
        }
    }
}

impl History {
    /// A second is over; none where something of it was lost.
    fn take(&mut self, second: Option<Second>, gain: &mut CurrentGain) {
        if let Some(second) = second {
            if let CurrentGain::Auto(auto) = gain {
                auto.take(&second);
            }
            // 24 bits resolve -144 dB, and digital silence has no level at all.
            let level = decibels(second.power).max(-144.0) + f64::from(gain.now());
            push(&mut self.minute, MINUTE, level);
        }
        self.seconds += 1;
        let slot = self.slot(self.seconds);
        self.gains[slot] = gain.now();
    }

    fn gain_after(&self, seconds: u64) -> f32 {
        let oldest = (self.seconds + 1).saturating_sub(self.gains.len() as u64);
        self.gains[self.slot(seconds.clamp(oldest, self.seconds))]
    }

    fn slot(&self, second: u64) -> usize {
        (second % self.gains.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: usize = 100;
    const RANGE: LevelRange = LevelRange { faint_db: -45.0, clear_db: -25.0 };

    fn track(gain: Gain) -> LevelTrack {
        LevelTrack::new(gain, Some(RANGE), RATE as u32, 10.0)
    }

    /// Seconds of a square wave, each of an amplitude of its own.
    fn seconds(amplitudes: &[f32]) -> Vec<f32> {
        let of_second = |amplitude: &f32| (0..RATE).map(|n| if n % 2 == 0 { *amplitude } else { -amplitude }).collect();
        amplitudes.iter().flat_map(|amplitude| -> Vec<f32> { of_second(amplitude) }).collect()
    }

    /// Seconds at -63 dB, whose second half is at -120 dB.
    fn faint_sounds(count: usize) -> Vec<f32> {
        let of_second = |n: usize| if n % RATE < RATE / 2 { 1e-3 } else { 1e-6 };
        (0..count * RATE).map(|n| if n % 2 == 0 { of_second(n) } else { -of_second(n) }).collect()
    }

    #[test]
    fn it_is_the_loudest_of_sixty_whole_seconds() {
        let mut minute = track(Gain::NONE);
        minute.push(&seconds(&[0.1; 59]));
        assert_eq!(minute.loudest_db(), None);
        // What a loss spoils does not count, however loud.
        minute.push(&seconds(&[1.0])[..RATE / 2]);
        minute.push_lost(RATE as u64 / 2 + 7 * RATE as u64);
        assert_eq!(minute.loudest_db(), None);
        minute.push(&seconds(&[0.01]));
        assert_eq!(minute.loudest_db(), Some(-20.0));
        minute.push(&seconds(&[0.01; 60]));
        assert_eq!(minute.loudest_db(), Some(-40.0), "the louder ones are past");
    }

    #[test]
    fn a_gain_counts_and_one_that_nobody_can_choose_is_none() {
        let loudest_db = |gain, range| {
            let mut track = LevelTrack::new(gain, range, RATE as u32, 10.0);
            track.push(&seconds(&[0.001; 60]));
            (track.gain_db(), track.gain_at(3_000), track.loudest_db())
        };
        assert_eq!(loudest_db(Gain::Fixed(20.0), None), (20.0, 20.0, Some(-40.0)));
        assert_eq!(loudest_db(Gain::Auto, None), (0.0, 0.0, Some(-60.0)));
        assert_eq!(loudest_db(Gain::Auto, Some(RANGE)), (0.0, 0.0, Some(-60.0)), "nothing stands out");
    }

    #[test]
    fn a_patch_has_the_gain_of_its_own_end() {
        let mut track = track(Gain::Auto);
        track.push(&faint_sounds(20));
        let gains: Vec<f32> = (10..=20).map(|second| track.gain_at(second * RATE as u64 + 99)).collect();
        assert_eq!(gains, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!(track.gain_at(0), track.gain_at(9 * RATE as u64), "of what is forgotten, the oldest that is not");
        track.push_lost(1 << 50);
        assert_eq!((track.gain_db(), track.gain_at((1 << 50) + 20 * RATE as u64)), (11.0, 11.0));
    }

    proptest! {
        #[test]
        fn gains_do_not_depend_on_pieces(cuts in prop::collection::vec(1_usize..250, 1..20), lost in 0_u64..400, end in 0_u64..4_000) {
            let samples = faint_sounds(30);
            let (mut once, mut pieces) = (track(Gain::Auto), track(Gain::Auto));
            once.push(&samples);
            once.push_lost(lost);
            once.push(&samples);
            pieces.push(&samples);
            pieces.push_lost(lost / 2);
            pieces.push_lost(lost - lost / 2);
            let (mut rest, mut cuts) = (&samples[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(cuts.next().unwrap_or(1)));
                pieces.push(now);
                rest = later;
            }
            prop_assert!(once.gain_db() > 20.0);
            prop_assert_eq!((once.gain_db(), once.gain_at(end)), (pieces.gain_db(), pieces.gain_at(end)));
            prop_assert_eq!(once.loudest_db(), pieces.loudest_db());
        }

        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(1_usize..250, 1..20), lost in 0_u64..400) {
            let samples = seconds(&(0..70).map(|n| 0.9 - 0.01 * n as f32).collect::<Vec<_>>());
            let (mut once, mut pieces) = (track(Gain::NONE), track(Gain::NONE));
            for minute in [&mut once, &mut pieces] {
                minute.push(&samples[..30]);
            }
            once.push_lost(lost);
            pieces.push_lost(lost / 2);
            pieces.push_lost(lost - lost / 2);
            once.push(&samples);
            let (mut rest, mut cuts) = (&samples[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(cuts.next().unwrap_or(1)));
                pieces.push(now);
                rest = later;
            }
            prop_assert_eq!(once.loudest_db(), pieces.loudest_db());
        }
    }
}
