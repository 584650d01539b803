//! Whether a source is as loud as the model needs, and what to do where it is not.
//!
//! Too loud is what is cut off at full scale; too faint is what stays below the level at which the bundle's model was measured to
//! hear, for a whole minute. A quiet night is faint as well: the words say what was measured, and leave the rest to a person.

use clapd_core::level::{Gain, LevelRange};
use clapd_core::pipeline::Pipeline;

use crate::capture::{SourceKind, SourceState, WarningKind, Warnings};
use crate::config::MAX_GAIN_DB;
use crate::counter::Counter;

/// How loud a source is for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loudness {
    /// Nothing of the last minute reached the level from which on the model hears.
    Faint,
    /// Something did.
    Usable,
    /// It is cut off at full scale, again and again.
    Clipping,
}

impl Loudness {
    /// What the loudest second says, `loudest_db` as the model hears it. None where that is not known, where nothing comes, and
    /// where nobody measured the model's range.
    pub fn of(state: SourceState, loudest_db: Option<f32>, range: Option<LevelRange>) -> Option<Self> {
        match state {
            SourceState::Clipping => Some(Self::Clipping),
            SourceState::Live if loudest_db? < range?.faint_db => Some(Self::Faint),
            SourceState::Live => Some(Self::Usable),
            // What holds nothing at all has a state of its own.
            _ => None,
        }
    }
}

/// Judges the loudness of one source, block by block: a warning beside its others, and a line in the log where it becomes faint.
pub struct LoudnessJudge {
    kind: SourceKind,
    gain: Gain,
    range: Option<LevelRange>,
    /// What it was last. The warning stays as it was put while this does: it is news once, and not at each decibel.
    loudness: Option<Loudness>,
    /// How often it became faint: each quiet night is one, so few of them are logged.
    faints: Counter,
}

impl LoudnessJudge {
    /// For a source of this kind with this gain, and a model that hears in `range`.
    pub fn new(kind: SourceKind, gain: Gain, range: Option<LevelRange>) -> Self {
        Self { kind, gain, range, loudness: None, faints: Counter::default() }
    }

    /// Brings the warnings of source `id` up to what its pipeline has heard; none where it has none at the moment.
    pub fn judge(&mut self, id: &str, state: SourceState, warnings: &Warnings, pipeline: Option<&Pipeline>) {
        let loudest_db = pipeline.and_then(Pipeline::loudest_db);
        let loudness = pipeline.and_then(|_| Loudness::of(state, loudest_db, self.range));
        if loudness == self.loudness {
            return;
        }
        self.loudness = loudness;
        let gain_db = pipeline.map_or(0.0, Pipeline::gain_db);
        let warning = match (loudness, loudest_db, self.range) {
            (Some(Loudness::Faint), Some(loudest_db), Some(range)) => {
                Some(faint_warning(&self.kind, gain_db, loudest_db, range))
            }
            // The log has a line of the state already.
            (Some(Loudness::Clipping), _, _) => Some(clipping_warning(&self.kind, self.gain)),
            _ => None,
        };
        if loudness == Some(Loudness::Faint)
            && let (Some(times), Some(warning)) = (self.faints.add(1), &warning)
        {
            log::warn!("{id}: {warning} ({times} times so far)");
        }
        warnings.set(WarningKind::Level, warning.as_deref());
    }
}

/// What is said of a faint source, whose loudest second was `loudest_db` with the gain that it has, and what a person may do.
pub fn faint_warning(kind: &SourceKind, gain_db: f32, loudest_db: f32, range: LevelRange) -> String {
    let seen = format!(
        "faint: nothing was louder than {loudest_db:.0} dB, and the model hears well from {:.0} dB on",
        range.faint_db
    );
    let more = (range.clear_db - loudest_db).round().min(MAX_GAIN_DB as f32 - gain_db);
    let own = if more >= 1.0 { format!(", or set gain_db = {:.1}", gain_db + more) } else { String::new() };
    format!("{seen}; if it was not quiet there, {}{own}", louder(kind))
}

/// Where a source of this kind is made louder before clapd hears it.
fn louder(kind: &SourceKind) -> &'static str {
    match kind {
        SourceKind::Device { .. } => "raise its capture volume (alsamixer, F4) where it has one",
        SourceKind::Stream(_) => "raise the microphone's volume in the camera's or the server's settings",
        SourceKind::Listen(_) | SourceKind::Stdin { .. } => "have the program that sends it send it louder",
        SourceKind::File { .. } => "record it louder",
    }
}

/// What a person may do about a source that clips.
pub fn clipping_warning(kind: &SourceKind, gain: Gain) -> String {
    let quieter = match kind {
        SourceKind::Device { .. } => "lower its capture volume (alsamixer, F4; pavucontrol)",
        SourceKind::Stream(_) => "lower the microphone's volume in the camera's or the server's settings",
        SourceKind::Listen(_) | SourceKind::Stdin { .. } => "have the program that sends it send it more quietly",
        SourceKind::File { .. } => "record it more quietly",
    };
    let gain = if gain == Gain::NONE { "" } else { "; gain_db comes behind it and changes nothing of that" };
    format!("it is cut off at full scale in more than a fifth of the time: {quieter}{gain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: LevelRange = LevelRange { faint_db: -40.0, clear_db: -25.0 };

    #[test]
    fn a_minute_below_the_range_is_faint_and_what_is_not_known_is_not_said() {
        let of = |state, level| Loudness::of(state, level, Some(RANGE));
        assert_eq!(of(SourceState::Live, Some(-40.1)), Some(Loudness::Faint));
        assert_eq!(of(SourceState::Live, Some(-40.0)), Some(Loudness::Usable));
        assert_eq!(of(SourceState::Clipping, None), Some(Loudness::Clipping));
        for state in [SourceState::Silent, SourceState::Lost, SourceState::Starting, SourceState::Recovering] {
            assert_eq!(of(state, Some(-80.0)), None, "{state:?}");
        }
        assert_eq!(of(SourceState::Live, None), None, "not a minute yet");
        assert_eq!(Loudness::of(SourceState::Live, Some(-80.0), None), None, "a model that nobody measured");
    }

    #[test]
    fn the_remedy_fits_the_source_and_stays_within_what_the_configuration_takes() {
        let device = SourceKind::Device { name: "hw:CARD=I2S,DEV=0".into() };
        let text = faint_warning(&device, 0.0, -65.0, RANGE);
        assert!(text.contains("-65 dB") && text.contains("from -40 dB") && text.contains("gain_db = 40.0"), "{text}");
        let text = faint_warning(&device, 50.0, -65.0, RANGE);
        assert!(text.contains("gain_db = 60.0"), "{text}");
        assert!(!faint_warning(&device, 60.0, -65.0, RANGE).contains("set gain_db"));
        assert!(faint_warning(&SourceKind::Stdin { raw: None }, 0.0, -65.0, RANGE).contains("program that sends"));
        assert!(clipping_warning(&device, Gain::Fixed(6.0)).contains("changes nothing"));
    }
}
