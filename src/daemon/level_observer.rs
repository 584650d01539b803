//! How loud it is at each source: into the history, to the broker, and beside every event.

use std::time::SystemTime;

use clapd_core::prompts::PromptId;
use clapd_core::samples::Samples;

use super::source_taps::{Observer, Tap};
use crate::capture::SourceSpec;
use crate::levels::{LevelHistory, LevelPublishing, LevelSink, NewLevel, SourceMeter};
use crate::mqtt::Publisher;
use crate::outbox::EventRecord;

/// Meters all sources.
pub(super) struct LevelObserver {
    pub(super) history: LevelHistory,
    pub(super) publisher: Option<Publisher>,
    pub(super) publishing: LevelPublishing,
}

impl LevelObserver {
    /// What becomes of each level of a source beside the history.
    fn sink(&self, source: &str) -> LevelSink {
        let with_seconds = self.publishing == LevelPublishing::Second;
        let is_published = with_seconds || self.publishing == LevelPublishing::Minute;
        let Some(publisher) = self.publisher.clone().filter(|_| is_published) else { return Box::new(|_, _| ()) };
        let source = source.to_owned();
        Box::new(move |reference, level| {
            if with_seconds || matches!(level, NewLevel::Minute(_)) {
                publisher.publish_level(&source, reference, level);
            }
        })
    }
}

impl Observer for LevelObserver {
    fn observe(&self, source: &SourceSpec) -> Box<dyn Tap> {
        let sink = self.sink(&source.id);
        let meter = SourceMeter::new(&source.id, source.microphone.clone(), self.history.clone(), sink);
        Box::new(LevelTap { source: source.id.clone(), meter, unmetered: None })
    }
}

/// Meters one source.
struct LevelTap {
    source: String,
    meter: SourceMeter,
    /// The rate that cannot be metered, as was logged.
    unmetered: Option<u32>,
}

impl Tap for LevelTap {
    fn samples(&mut self, rate: u32, samples: Samples<'_>, at: SystemTime) {
        if let Err(error) = self.meter.push(rate, samples, at)
            && self.unmetered.replace(rate) != Some(rate)
        {
            log::warn!("{}: its level is not metered: {error:#}", self.source);
        }
    }

    fn annotate(&mut self, _: &PromptId, record: &mut EventRecord) {
        record.levels = record.duration.and_then(|duration| self.meter.event(record.started_at, duration));
    }

    fn interrupt(&mut self) {
        self.meter.interrupt();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clapd_core::channel::Channel;

    use super::*;
    use crate::capture::SourceKind;
    use crate::levels::{LevelReference, Microphone};

    #[test]
    fn an_end_carries_how_loud_it_was_and_a_start_does_not() {
        let history = LevelHistory::default();
        let observer = LevelObserver { history: history.clone(), publisher: None, publishing: LevelPublishing::Minute };
        let microphone = Microphone { full_scale_db: Some(120.0), correction: None };
        let kind = SourceKind::Stdin { raw: None };
        let spec = SourceSpec {
            id: "mic".into(),
            kind,
            channel: Channel::Mix,
            gain: clapd_core::level::Gain::NONE,
            microphone,
        };
        let mut tap = observer.observe(&spec);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let sine = |n: u32| 0.1 * (f64::from(n) * std::f64::consts::TAU / 8.0).sin() as f32;
        let tone: Vec<f32> = (0..24_000).map(sine).collect();
        tap.samples(8_000, Samples::whole(&tone), began);
        let prompt = PromptId::new("dog").unwrap();
        let mut record = EventRecord {
            id: "i".into(),
            prompt: "a dog".into(),
            score: 7.0,
            peak: 7.0,
            started_at: began + Duration::from_secs(1),
            duration: None,
            levels: None,
        };
        tap.annotate(&prompt, &mut record);
        assert_eq!(record.levels, None);
        record.duration = Some(Duration::from_secs(1));
        tap.annotate(&prompt, &mut record);
        let levels = record.levels.unwrap();
        assert!((levels.laeq - 97.0).abs() < 0.2 && levels.reference == LevelReference::SoundPressure, "{levels:?}");
        tap.interrupt();
        tap.samples(1_000, Samples::whole(&tone), began);
        assert!(history.newest("mic").is_some());
    }
}
