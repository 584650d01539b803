//! How loud it is at each source: levels of seconds and minutes of the last hours, and of events.
//!
//! A [`SourceMeter`] belongs to a source's thread and gets its sound; it writes into the [`LevelHistory`], which all threads share and
//! which has a bound. Levels are in dB(A) of sound pressure where the source is calibrated, and else in dB below digital full scale,
//! and each carries which of the two: an uncalibrated level is never taken for a sound pressure level.

mod history;
mod meter;

use std::sync::Arc;
use std::time::SystemTime;

use clapd_core::sound_level::MicrophoneCorrection;

pub use history::{LevelHistory, MAX_MINUTES, MAX_SECONDS};
pub use meter::{LevelSink, NewLevel, SourceMeter};

/// Digital full scale as a sound pressure level, in dB: from a microphone that is loud at a whisper to one for aircraft.
pub const FULL_SCALE_DB: std::ops::RangeInclusive<f64> = 40.0..=200.0;

/// What is known of a source's microphone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Microphone {
    /// The sound pressure level in dB of digital full scale (an RMS of 1), before any gain of the source; none: it is not calibrated.
    pub full_scale_db: Option<f32>,
    /// What it adds at each frequency.
    pub correction: Option<Arc<MicrophoneCorrection>>,
}

impl Microphone {
    /// What its levels are measured against.
    pub fn reference(&self) -> LevelReference {
        if self.full_scale_db.is_some() { LevelReference::SoundPressure } else { LevelReference::FullScale }
    }
}

/// How often the levels of each source are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LevelPublishing {
    /// Nobody asked for it: they are not, and Home Assistant is told nothing of levels.
    #[default]
    Unasked,
    /// They are not, and Home Assistant's sensor of them is removed.
    Off,
    /// Each minute's.
    Minute,
    /// Each minute's, and each second's on a topic of their own.
    Second,
}

/// What a level of 0 dB is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LevelReference {
    /// Digital full scale: the source is not calibrated, and the level says nothing of the sound pressure.
    #[default]
    FullScale,
    /// 20 µPa: a sound pressure level.
    SoundPressure,
}

impl LevelReference {
    /// The unit of an A-weighted level, as messages and files have it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::FullScale => "dBFS(A)",
            Self::SoundPressure => "dB(A)",
        }
    }

    /// Whether it takes a microphone that is calibrated.
    pub fn is_calibrated(self) -> bool {
        self == Self::SoundPressure
    }

    /// The one with this unit.
    pub fn of_unit(unit: &str) -> Option<Self> {
        [Self::FullScale, Self::SoundPressure].into_iter().find(|reference| reference.unit() == unit)
    }
}

/// The levels of a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SecondLevel {
    /// When it ended.
    pub at: SystemTime,
    /// LAeq, in dB.
    pub laeq: f32,
    /// LAFmax, in dB.
    pub lafmax: f32,
    /// LZeq, in dB: without weighting.
    pub lzeq: f32,
    /// The largest sample, in dB.
    pub peak: f32,
}

/// The levels of a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MinuteLevel {
    /// When it ended.
    pub at: SystemTime,
    /// LAeq, in dB.
    pub laeq: f32,
    /// LAFmax, in dB.
    pub lafmax: f32,
    /// LA10, in dB: exceeded in a tenth of the time.
    pub la10: f32,
    /// LA50, in dB.
    pub la50: f32,
    /// LA90, in dB: the background.
    pub la90: f32,
}

/// The levels of an event, from its start to its end, as whole seconds cover it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventLevels {
    /// LAeq, in dB.
    pub laeq: f32,
    /// LAFmax, in dB.
    pub lafmax: f32,
    /// What they are measured against.
    pub reference: LevelReference,
}

/// The levels of a stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels<T> {
    /// What they are measured against.
    pub reference: LevelReference,
    /// Oldest first.
    pub levels: Vec<T>,
}
