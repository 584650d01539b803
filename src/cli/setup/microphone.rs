//! Whether a device hears anything.
//!
//! A device is listened to for some seconds, within a bound, and its state and level are reported.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clapd_core::level::{Gain, LevelRange};

use super::print_line;
use crate::capture::{
    Read, Source, SourceCounters, SourceSpec, SourceState,
    device::{self, Selection},
};
use crate::loudness::{clipping_warning, faint_warning};

/// Silence is told from a quiet room after 5 s of it, clipping after 2.5 s; and a stream's first second is often empty.
const LISTEN: Duration = Duration::from_secs(6);
/// For a device to be opened, which may take 10 s, and to deliver first samples, which may take 5 s more.
const BEGIN_WITHIN: Duration = Duration::from_secs(15);
/// How often to look.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Debug)]
pub(super) struct LevelReport {
    rate: u32,
    /// dB below full scale, whose RMS is 1, one for each second.
    levels: Vec<i32>,
    /// What is odd about it.
    pub(super) warnings: Vec<String>,
}

/// Listens for some seconds, for a model that hears in `range`.
///
/// # Errors
/// A device that cannot be opened, or delivers nothing.
pub(super) fn measure(spec: &SourceSpec, range: Option<LevelRange>) -> Result<LevelReport> {
    print_line(&format!("  listening for {} s: make some noise", LISTEN.as_secs()));
    let counters = Arc::<SourceCounters>::default();
    let mut source = Source::open(spec, Arc::clone(&counters))?;
    let began = Instant::now();
    let mut report = LevelReport { rate: 0, levels: Vec::new(), warnings: Vec::new() };
    let mut samples = 0;
    while report.levels.len() < LISTEN.as_secs() as usize {
        if let Read::Block { rate, samples: block, .. } = source.read(POLL_INTERVAL)? {
            report.rate = rate;
            samples += block.data.len() as u64;
            if samples / u64::from(rate) > report.levels.len() as u64 {
                report.levels.extend(counters.level_db());
            }
        }
        let failed = matches!(counters.state(), SourceState::Lost | SourceState::Stalled);
        if failed || began.elapsed() > BEGIN_WITHIN + LISTEN {
            return Err(explain(&counters));
        }
    }
    report.warnings = counters.warnings.texts();
    report.warnings.extend(judge(spec, counters.state(), range, &report.levels));
    Ok(report)
}

/// What is wrong with the level, of the device of which these were the levels of each second.
fn judge(spec: &SourceSpec, state: SourceState, range: Option<LevelRange>, levels: &[i32]) -> Option<String> {
    match state {
        SourceState::Live => {
            // The automatic gain has not begun.
            let gain_db = if let Gain::Fixed(gain_db) = spec.gain { gain_db } else { 0.0 };
            let (range, loudest_db) = (range?, *levels.iter().max()? as f32 + gain_db);
            (loudest_db < range.faint_db).then(|| faint_warning(&spec.kind, gain_db, loudest_db, range))
        }
        SourceState::Clipping => Some(clipping_warning(&spec.kind, spec.gain)),
        SourceState::Silent => Some(
            "digital silence: samples come, and there is nothing in them. Is the microphone muted or unplugged? See `alsamixer` \
             (F4: capture), or choose another device"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Why there is no sound, and what to do.
pub(in crate::cli) fn explain(counters: &SourceCounters) -> anyhow::Error {
    let failure = counters.failure();
    let reason = failure.as_ref().map_or("it delivers nothing", |failure| failure.reason.as_str());
    let devices = match device::list(Selection::Usual) {
        Ok(devices) => devices,
        // Without ALSA's configuration there is no device at all.
        Err(error) => return error,
    };
    let names: Vec<_> = devices.into_iter().map(|device| device.name).collect();
    let there = if names.is_empty() { "there is no other".into() } else { format!("there are {}", names.join(", ")) };
    let is_busy = failure.as_ref().is_some_and(|failure| failure.is_busy);
    let free = if is_busy { "; if clapd itself has it, `sudo systemctl stop clapd` frees it" } else { "" };
    anyhow!("the device delivers no sound ({}): {reason}; choose another ({there}){free}", counters.state().name())
}

impl fmt::Display for LevelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut levels = self.levels.clone();
        levels.sort_unstable();
        let (middle, loudest) = (levels[levels.len() / 2], levels[levels.len() - 1]);
        write!(f, "{} Hz; level {middle} dBFS, {loudest} dBFS in its loudest second", self.rate)
    }
}
