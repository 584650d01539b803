//! `clapd calibrate mic`: what sound pressure a microphone's levels stand for, from a sound calibrator on it.
//!
//! What comes of it is one number, the sound pressure level of digital full scale, and it lives in one place, the configuration:
//! there it outlives every restart and update, somebody sees it beside the source that it belongs to, and a copy of the configuration
//! takes it along.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::files::{Access, Durability, write_atomically};
use clapd_core::sound_level::{Tone, measure_tone};

use super::exit::{AtStage, Failure, Stage, printed};
use super::{paths, recording, setup};
use crate::capture::{Read, Source, SourceCounters, SourceKind, SourceSpec, SourceState};
use crate::config;
use crate::levels::{FULL_SCALE_DB, Microphone};
use crate::prompts;

/// What is recorded: calibrators need a second to settle, and the tone is judged over 6 s or so.
const RECORD: Duration = Duration::from_secs(8);
/// For a source to be opened, which may take 10 s, and to deliver first samples, which may take 5 s more.
const BEGIN_WITHIN: Duration = Duration::from_secs(15);
/// How often to look.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What is read of a recording: who kept the calibrator on for longer has nothing to gain by it.
const LONGEST_RECORDING: Duration = Duration::from_secs(60);
/// Levels of calibrators, in dB: theirs are 94, 104, 114 and 124.
const LEVELS: std::ops::RangeInclusive<f64> = 60.0..=140.0;

/// What is calibrated.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CalibrateCommand {
    /// A source's microphone, with a sound calibrator on it
    Mic(MicArguments),
}

#[derive(Debug, clap::Args)]
pub(super) struct MicArguments {
    /// The calibrator's sound pressure level, in dB: 94 or 114, it stands on it
    #[arg(long, value_name = "DB", value_parser = level)]
    level: f64,
    /// The calibrator's tone, in Hz
    #[arg(long, value_name = "HZ", default_value_t = 1_000.0)]
    hz: f64,
    /// The source of the configuration (default: its first)
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// Configuration that has the source
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
    /// A recording of the calibrator by that source, instead of the source itself
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write what was found into the configuration
    #[arg(long)]
    write: bool,
}

fn level(text: &str) -> Result<f64, String> {
    let level: f64 = text.parse().map_err(|_| format!("{text:?} is no level in dB"))?;
    LEVELS.contains(&level).then_some(level).ok_or_else(|| {
        format!("{level} dB; calibrators have {} to {} dB, and theirs stands on them", LEVELS.start(), LEVELS.end())
    })
}

pub(super) fn run(arguments: &MicArguments) -> Result<(), Failure> {
    let (settings, warnings) = prompts::load_settings(&arguments.config).at(Stage::Usage)?;
    warnings.iter().for_each(|warning| log::debug!("{warning}"));
    let is_meant = |spec: &&SourceSpec| arguments.source.as_ref().is_none_or(|id| *id == spec.id);
    let spec = settings.sources.iter().find(is_meant).ok_or_else(|| {
        let ids: Vec<_> = settings.sources.iter().map(|spec| spec.id.as_str()).collect();
        Failure::message(Stage::Usage, format!("--source: the configuration has {} only", ids.join(", ")))
    })?;
    let mut out = std::io::stdout().lock();
    let (samples, rate) = match &arguments.file {
        Some(file) => read_recording(file, spec.channel).at(Stage::Input)?,
        None => {
            let seconds = RECORD.as_secs();
            printed(writeln!(out, "{}: recording {seconds} s: leave the calibrator on and hold still", spec.id))
                .at(Stage::Output)?;
            record(spec).at(Stage::Input)?
        }
    };
    let correction = spec.microphone.correction.as_deref();
    let tone = measure_tone(&samples, rate, arguments.hz, correction).at(Stage::Input)?;
    let full_scale_db = full_scale(arguments.level, &tone).at(Stage::Input)?;
    printed(report(&mut out, arguments, &spec.microphone, &tone, full_scale_db)).at(Stage::Output)?;
    let config = arguments.config.display();
    if !arguments.write {
        let text = format!(
            "put this below [[source]] {:?} of {config}, or run this again with --write; then restart clapd:",
            spec.id
        );
        return printed(writeln!(out, "{text}\n\nfull_scale_db = {full_scale_db:.1}")).at(Stage::Output);
    }
    write(&arguments.config, &spec.id, full_scale_db).at(Stage::Usage)?;
    let text = format!(
        "{config}: full_scale_db = {full_scale_db:.1} at {:?}; `sudo systemctl reload clapd` takes it up",
        spec.id
    );
    printed(writeln!(out, "{text}")).at(Stage::Output)
}

/// Digital full scale in dB of sound pressure, to the tenth that is written.
fn full_scale(level: f64, tone: &Tone) -> Result<f32> {
    let found = ((level - tone.level_db) * 10.0).round() / 10.0;
    let (low, high) = (FULL_SCALE_DB.start(), FULL_SCALE_DB.end());
    ensure!(
        FULL_SCALE_DB.contains(&found),
        "digital full scale would be {found:.1} dB, and microphones have {low} to {high} dB: is it this microphone that the \
         calibrator is on?"
    );
    Ok(found as f32)
}

fn report(
    out: &mut impl Write,
    arguments: &MicArguments,
    microphone: &Microphone,
    tone: &Tone,
    full_scale_db: f32,
) -> std::io::Result<()> {
    let MicArguments { hz, level, .. } = arguments;
    let Tone { level_db, clearance_db, spread_db } = tone;
    writeln!(
        out,
        "{hz} Hz at {level_db:.1} dB below full scale, steady within {spread_db:.1} dB, {clearance_db:.0} dB above all else"
    )?;
    writeln!(out, "this is {level} dB of sound pressure, so digital full scale is {full_scale_db:.1} dB")?;
    if let Some(before) = microphone.full_scale_db {
        writeln!(out, "before, it was {before:.1} dB: {:+.1} dB", full_scale_db - before)?;
    }
    Ok(())
}

/// The sound of the source, as the daemon would hear it.
fn record(spec: &SourceSpec) -> Result<(Vec<f32>, u32)> {
    let counters = Arc::<SourceCounters>::default();
    let mut source = Source::open(spec, Arc::clone(&counters))?;
    let (began, mut sound, mut rate) = (Instant::now(), Vec::new(), 0);
    while rate == 0 || (sound.len() as u64) < RECORD.as_secs() * u64::from(rate) {
        match source.read(POLL_INTERVAL)? {
            Read::Block { rate: now, samples, .. } => {
                ensure!(
                    rate == 0 || rate == now,
                    "the sample rate changed from {rate} to {now} Hz meanwhile; try again"
                );
                ensure!(
                    samples.lost == 0 || sound.is_empty(),
                    "sound was lost meanwhile: this computer is busy; try again"
                );
                rate = now;
                sound.extend_from_slice(samples.data);
            }
            Read::Idle => {}
            Read::End => break,
        }
        let failed = matches!(counters.state(), SourceState::Lost | SourceState::Stalled);
        if failed || began.elapsed() > BEGIN_WITHIN + RECORD {
            if matches!(spec.kind, SourceKind::Device { .. }) {
                return Err(setup::explain(&counters));
            }
            let failure = counters.failure();
            let reason = failure.map_or_else(|| "it delivers too little".into(), |failure| failure.reason);
            bail!("source {:?} ({}): {reason}", spec.id, counters.state().name());
        }
    }
    Ok((sound, rate))
}

fn read_recording(file: &Path, channel: Channel) -> Result<(Vec<f32>, u32)> {
    // Of a recording it is not known which of its channels is best: that is for devices.
    let channel = if channel == Channel::Auto { Channel::Mix } else { channel };
    let decoder = Decoder::open(file, channel)?;
    let rate = decoder.rate();
    let longest = LONGEST_RECORDING.as_secs() * u64::from(rate);
    let mut sound = Vec::new();
    recording::read(decoder, file, false, |samples| {
        ensure!(samples.lost == 0, "{}: parts of it are damaged; record it again", file.display());
        sound.extend_from_slice(samples.data);
        Ok((sound.len() as u64) < longest)
    })?;
    Ok((sound, rate))
}

/// Puts the number into the configuration, whose other lines stay.
fn write(path: &Path, source: &str, full_scale_db: f32) -> Result<()> {
    // The file itself, where a link leads to it.
    let path = path.canonicalize().with_context(|| path.display().to_string())?;
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let by_hand = || {
        anyhow!(
            "{}: there is no line for it; put `full_scale_db = {full_scale_db:.1}` to source {source:?} by hand",
            path.display()
        )
    };
    let new = config::with_full_scale_db(&text, &path, source, full_scale_db).ok_or_else(by_hand)?;
    let (settings, _) = config::parse(&new, &path, &config::Environment::of_process()).map_err(|_| by_hand())?;
    let written = settings.sources.iter().find(|spec| spec.id == source).and_then(|spec| spec.microphone.full_scale_db);
    ensure!(written.is_some_and(|written| (written - full_scale_db).abs() < 0.06), by_hand());
    write_atomically(&path, new.as_bytes(), Access::Unchanged, Durability::Synced)
        .context("the configuration is not changed; use sudo")
}
