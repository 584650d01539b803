//! The sound of one source into the history, with the time of day.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use clapd_core::samples::Samples;
use clapd_core::sound_level::{Measured, SoundLevelMeter};
use clapd_core::time::SampleTime;

use super::{EventLevels, LevelHistory, LevelReference, Microphone, MinuteLevel, SecondLevel};

/// Takes a level that is news, with what it is measured against.
pub type LevelSink = Box<dyn FnMut(LevelReference, &NewLevel) + Send>;

/// A level as it comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NewLevel {
    /// Of a second.
    Second(SecondLevel),
    /// Of a minute.
    Minute(MinuteLevel),
}

/// Meters one source.
pub struct SourceMeter {
    source: String,
    microphone: Microphone,
    history: LevelHistory,
    sink: LevelSink,
    meter: Option<SoundLevelMeter>,
    /// Samples that the meter has had, lost ones included.
    position: u64,
}

impl SourceMeter {
    /// For the source with this id. Levels go to `history`, and each as it comes to `sink`.
    pub fn new(source: &str, microphone: Microphone, history: LevelHistory, sink: LevelSink) -> Self {
        history.begin(source, &microphone);
        Self { source: source.into(), microphone, history, sink, meter: None, position: 0 }
    }

    /// Takes the next samples of the source, which has `rate` of them a second; `at` is the time of day of the first one behind those
    /// that were lost.
    ///
    /// # Errors
    /// A rate that cannot be metered.
    pub fn push(&mut self, rate: u32, samples: Samples<'_>, at: SystemTime) -> Result<()> {
        if self.meter.as_ref().is_some_and(|meter| meter.rate() != rate) {
            self.interrupt();
        }
        let meter = match &mut self.meter {
            Some(meter) => meter,
            None => self.meter.insert(SoundLevelMeter::new(rate, self.microphone.correction.as_deref())?),
        };
        let first = SampleTime::from_samples(self.position + samples.lost, rate);
        self.position += samples.lost + samples.data.len() as u64;
        let (offset, reference) = (self.microphone.full_scale_db.unwrap_or_default(), self.microphone.reference());
        let (history, source, sink) = (&self.history, &self.source, &mut self.sink);
        meter.push(samples, &mut |measured| {
            let level = timed(&measured, offset, |end| at + end.since(first) - first.since(end));
            match &level {
                NewLevel::Second(second) => history.add_second(source, *second),
                NewLevel::Minute(minute) => history.add_minute(source, *minute),
            }
            sink(reference, &level);
        });
        Ok(())
    }

    /// What comes next does not continue what came before: a second or a minute that is not complete has no levels.
    pub fn interrupt(&mut self) {
        self.meter = None;
        self.position = 0;
    }

    /// The levels of `duration` from `start` on; see [`LevelHistory::event`].
    pub fn event(&self, start: SystemTime, duration: Duration) -> Option<EventLevels> {
        self.history.event(&self.source, start, duration)
    }
}

/// A level in dB of its reference, and with the time of day.
fn timed(measured: &Measured, offset: f32, wall: impl Fn(SampleTime) -> SystemTime) -> NewLevel {
    match measured {
        Measured::Second(second) => NewLevel::Second(SecondLevel {
            at: wall(second.end),
            laeq: second.laeq + offset,
            lafmax: second.lafmax + offset,
            lzeq: second.lzeq + offset,
            peak: second.peak + offset,
        }),
        Measured::Minute(minute) => NewLevel::Minute(MinuteLevel {
            at: wall(minute.end),
            laeq: minute.laeq + offset,
            lafmax: minute.lafmax + offset,
            la10: minute.la10 + offset,
            la50: minute.la50 + offset,
            la90: minute.la90 + offset,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const RATE: u32 = 8_000;

    fn tone(seconds: u32) -> Vec<f32> {
        (0..seconds * RATE).map(|n| 0.1 * (f64::from(n) * std::f64::consts::TAU / 8.0).sin() as f32).collect()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + seconds)
    }

    fn seconds(history: &LevelHistory) -> Vec<u64> {
        let seconds = history.seconds("mic", at(0), at(1_000)).unwrap().levels;
        seconds.iter().map(|second| second.at.duration_since(at(0)).unwrap().as_secs()).collect()
    }

    #[test]
    fn levels_have_the_time_of_day_and_what_a_calibration_says() {
        for (full_scale_db, expected, unit) in [(None, -23.0, "dBFS(A)"), (Some(120.0), 97.0, "dB(A)")] {
            let history = LevelHistory::default();
            let news = Arc::<Mutex<Vec<NewLevel>>>::default();
            let taken = Arc::clone(&news);
            let sink: LevelSink = Box::new(move |reference, level| {
                assert_eq!(reference.unit(), unit);
                taken.lock().unwrap().push(*level);
            });
            let microphone = Microphone { full_scale_db, correction: None };
            let mut meter = SourceMeter::new("mic", microphone, history.clone(), sink);
            meter.push(RATE, Samples::whole(&tone(3)), at(0)).unwrap();
            // Half a second was lost, and none of the second that it is in is whole enough.
            let half = RATE as usize / 2;
            meter.push(RATE, Samples { lost: half as u64, data: &tone(1)[..half] }, at(3)).unwrap();
            meter.push(RATE, Samples::whole(&tone(1)), at(4)).unwrap();
            assert_eq!(seconds(&history), [1, 2, 3, 5]);
            let levels = history.seconds("mic", at(0), at(9)).unwrap();
            assert!(levels.levels.iter().all(|second| (second.laeq - expected).abs() < 0.2), "{levels:?}");
            assert_eq!((levels.reference.unit(), LevelReference::of_unit(unit)), (unit, Some(levels.reference)));
            assert_eq!(news.lock().unwrap().len(), 4);
            let event = meter.event(at(0), Duration::from_secs(2)).unwrap();
            assert!((event.laeq - expected).abs() < 0.2 && event.reference.unit() == unit, "{event:?}");
        }
    }

    #[test]
    fn another_rate_and_an_interruption_begin_anew() {
        let history = LevelHistory::default();
        let mut meter = SourceMeter::new("mic", Microphone::default(), history.clone(), Box::new(|_, _| ()));
        meter.push(RATE, Samples::whole(&tone(2)[..12_000]), at(0)).unwrap();
        meter.push(2 * RATE, Samples::whole(&tone(2)), at(10)).unwrap();
        meter.push(2 * RATE, Samples::whole(&tone(1)), at(11)).unwrap();
        meter.interrupt();
        meter.push(2 * RATE, Samples::whole(&tone(2)), at(20)).unwrap();
        assert_eq!(seconds(&history), [1, 11, 21]);
        assert!(meter.push(1_000, Samples::whole(&tone(1)), at(30)).is_err());
    }
}
