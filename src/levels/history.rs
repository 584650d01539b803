//! The levels of the last hours, of all sources, within a bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use clapd_core::sound_level::mean_level;

use super::{EventLevels, LevelReference, Levels, Microphone, MinuteLevel, SecondLevel};

/// Seconds that are held of a source: 6 hours, as long as scores are asked of the past by default. They take 1 MB.
pub const MAX_SECONDS: usize = 6 * 3_600;
/// Minutes that are held of a source: a week, in 0.5 MB. What is older is for whoever stores what is published.
pub const MAX_MINUTES: usize = 7 * 24 * 60;
/// Sources that are held, those of the past included: as many as a configuration may have, twice over.
const MAX_SOURCES: usize = 32;

/// The levels of all sources; a clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct LevelHistory(Arc<Mutex<BTreeMap<String, SourceLevels>>>);

#[derive(Debug, Default)]
struct SourceLevels {
    microphone: Microphone,
    seconds: VecDeque<SecondLevel>,
    minutes: VecDeque<MinuteLevel>,
}

impl LevelHistory {
    /// A source begins, with this microphone. What there is of a microphone of which something else was known is forgotten: nobody could
    /// tell the levels of the two apart.
    pub(super) fn begin(&self, source: &str, microphone: &Microphone) {
        let mut sources = self.lock();
        if sources.len() >= MAX_SOURCES && !sources.contains_key(source) {
            let newest = |levels: &SourceLevels| levels.seconds.back().map(|second| second.at);
            let oldest = sources.iter().min_by_key(|(_, levels)| newest(levels)).map(|(id, _)| id.clone());
            oldest.iter().for_each(|id| drop(sources.remove(id)));
        }
        let levels = sources.entry(source.to_owned()).or_default();
        if levels.microphone != *microphone {
            *levels = SourceLevels { microphone: microphone.clone(), ..SourceLevels::default() };
        }
    }

    pub(super) fn add_second(&self, source: &str, second: SecondLevel) {
        if let Some(levels) = self.lock().get_mut(source) {
            push(&mut levels.seconds, second, MAX_SECONDS);
        }
    }

    pub(super) fn add_minute(&self, source: &str, minute: MinuteLevel) {
        if let Some(levels) = self.lock().get_mut(source) {
            push(&mut levels.minutes, minute, MAX_MINUTES);
        }
    }

    /// A source is listened to no more, and nobody is to find it here.
    pub fn forget(&self, source: &str) {
        self.lock().remove(source);
    }

    /// The sources of which there are levels.
    pub fn sources(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// The seconds of a source that ended from `from` to `to`, as far back as they are held; none where there is no such source.
    pub fn seconds(&self, source: &str, from: SystemTime, to: SystemTime) -> Option<Levels<SecondLevel>> {
        let sources = self.lock();
        let SourceLevels { microphone, seconds, .. } = sources.get(source)?;
        let levels = seconds.iter().copied().filter(|second| (from..=to).contains(&second.at));
        Some(Levels { reference: microphone.reference(), levels: levels.collect() })
    }

    /// The minutes of a source that ended from `from` to `to`, as far back as they are held; none where there is no such source.
    pub fn minutes(&self, source: &str, from: SystemTime, to: SystemTime) -> Option<Levels<MinuteLevel>> {
        let sources = self.lock();
        let SourceLevels { microphone, minutes, .. } = sources.get(source)?;
        let levels = minutes.iter().copied().filter(|minute| (from..=to).contains(&minute.at));
        Some(Levels { reference: microphone.reference(), levels: levels.collect() })
    }

    /// The newest second of a source, with its reference.
    pub fn newest(&self, source: &str) -> Option<(LevelReference, SecondLevel)> {
        let sources = self.lock();
        let levels = sources.get(source)?;
        levels.seconds.back().map(|second| (levels.microphone.reference(), *second))
    }

    /// The levels of what went on at a source for `duration` from `start` on; none where no second of it has levels. Where the time of
    /// day was set meanwhile, it is those of the seconds that have such times.
    pub fn event(&self, source: &str, start: SystemTime, duration: Duration) -> Option<EventLevels> {
        let sources = self.lock();
        let SourceLevels { microphone, seconds, .. } = sources.get(source)?;
        // The seconds that it has a part of.
        let (from, to) = (start, start.checked_add(duration + Duration::from_secs(1))?);
        let during: Vec<_> = seconds.iter().filter(|second| second.at > from && second.at < to).collect();
        let laeq = mean_level(during.iter().map(|second| second.laeq))?;
        let lafmax = during.iter().map(|second| second.lafmax).reduce(f32::max)?;
        Some(EventLevels { laeq, lafmax, reference: microphone.reference() })
    }

    /// Also after a source's thread has panicked: a level may be missing then, and no more.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SourceLevels>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(levels: &mut VecDeque<T>, level: T, most: usize) {
    if levels.len() == most {
        levels.pop_front();
    }
    levels.push_back(level);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn second(seconds: u64, laeq: f32) -> SecondLevel {
        SecondLevel { at: at(seconds), laeq, lafmax: laeq + 3.0, lzeq: laeq, peak: laeq }
    }

    #[test]
    fn it_holds_the_newest_within_a_bound() {
        let history = LevelHistory::default();
        history.begin("mic", &Microphone::default());
        for n in 0..MAX_SECONDS as u64 + 5 {
            history.add_second("mic", second(n, -50.0));
        }
        let all = history.seconds("mic", SystemTime::UNIX_EPOCH, at(u64::from(u32::MAX))).unwrap();
        assert_eq!((all.levels.len(), all.levels[0].at), (MAX_SECONDS, at(5)));
        let some = history.seconds("mic", at(10), at(12)).unwrap().levels;
        assert_eq!(some.iter().map(|second| second.at).collect::<Vec<_>>(), [at(10), at(11), at(12)]);
        assert_eq!(history.seconds("other", at(0), at(1)), None);
        assert_eq!(history.newest("mic").unwrap().1.at, at(MAX_SECONDS as u64 + 4));
        for n in 0..100 {
            history.begin(&format!("mic{n}"), &Microphone::default());
        }
        assert_eq!(history.sources().len(), MAX_SOURCES);
    }

    #[test]
    fn what_is_calibrated_anew_does_not_stand_beside_what_was_not() {
        let history = LevelHistory::default();
        history.begin("mic", &Microphone::default());
        history.add_second("mic", second(1, -50.0));
        history.begin("mic", &Microphone::default());
        assert!(history.newest("mic").is_some(), "the same source again");
        for full_scale_db in [Some(117.0), Some(117.5)] {
            history.begin("mic", &Microphone { full_scale_db, correction: None });
            assert_eq!(history.newest("mic"), None);
            history.add_second("mic", second(2, 50.0));
            assert_eq!(history.newest("mic").unwrap().0, LevelReference::SoundPressure);
        }
        history.forget("mic");
        assert_eq!(history.minutes("mic", at(0), at(9)), None);
    }

    #[test]
    fn an_event_has_the_levels_of_its_seconds() {
        let history = LevelHistory::default();
        history.begin("mic", &Microphone::default());
        for n in 1..=10 {
            history.add_second("mic", second(n, if n == 5 { -20.0 } else { -40.0 }));
        }
        let event = |from_ms: u64, lasted_ms: u64| {
            history.event("mic", at(0) + Duration::from_millis(from_ms), Duration::from_millis(lasted_ms))
        };
        let loud = event(4_000, 1_000).unwrap();
        assert_eq!((loud.laeq, loud.lafmax, loud.reference), (-20.0, -17.0, LevelReference::FullScale));
        assert!((event(4_200, 1_100).unwrap().laeq + 22.97).abs() < 0.01, "two seconds");
        assert_eq!(event(6_000, 60_000).unwrap().lafmax, -37.0, "as far as there are any");
        assert_eq!(event(20_000, 1_000), None);
    }
}
