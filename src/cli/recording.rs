//! Recordings as the commands read them, with progress for a person who waits.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::{Decoder, Faults, RawFormat};
use clapd_core::samples::Samples;

use super::display::can_redraw;

/// Time between two looks of the progress line: a person reads no faster.
const REDRAW: Duration = Duration::from_millis(200);

/// Raw PCM on standard input, for commands that read recordings.
#[derive(Debug, clap::Args)]
pub(super) struct RawArguments {
    /// What `-` (standard input) carries where it is raw PCM: rate, format (s16, s24, s32, f32, u8, alaw, mulaw; little-endian)
    /// and channels, such as 16000:s16:1
    #[arg(long, value_name = "RATE:FORMAT:CHANNELS")]
    raw: Option<RawFormat>,
}

impl RawArguments {
    /// Refuses `--raw` where no file is `-`: it would be of no effect.
    pub(super) fn check(&self, files: &[PathBuf]) -> Result<()> {
        let unused = self.raw.is_some() && !files.iter().any(|file| file == Path::new("-"));
        ensure!(!unused, "--raw says what standard input carries, and no FILE is `-`; name it, or leave out --raw");
        Ok(())
    }

    /// Opens a file, or standard input where it is `-`.
    pub(super) fn open(&self, file: &Path) -> Result<Decoder> {
        match self.raw {
            Some(format) if file == Path::new("-") => {
                Decoder::from_raw(Box::new(std::io::stdin()), format, "standard input", Channel::Mix)
            }
            _ => Decoder::open(file, Channel::Mix),
        }
    }
}

/// Hands every block to `consume` until the recording or `consume` says that it is enough.
pub(super) fn read(
    mut decoder: Decoder,
    name: &Path,
    progress: bool,
    mut consume: impl FnMut(Samples<'_>) -> Result<bool>,
) -> Result<()> {
    let mut progress = Progress::new(name, decoder.duration_hint(), progress);
    let (rate, mut read) = (f64::from(decoder.rate()), 0_u64);
    while let Some(samples) = decoder.next_block()? {
        read += samples.lost + samples.data.len() as u64;
        if !consume(samples)? {
            break;
        }
        progress.show(read as f64 / rate);
    }
    warn_of_faults(name, decoder.faults());
    ensure!(read > 0, "{}: the recording holds no sound: 0 samples", name.display());
    Ok(())
}

/// A score of a damaged recording is a score of what is left of it; whoever reads it should know.
fn warn_of_faults(name: &Path, faults: Faults) {
    let Faults { samples_bad, packets_bad, truncated, divided_by } = faults;
    for (count, what) in
        [(samples_bad, "samples were no numbers and count as 0"), (packets_bad, "packets were broken and left out")]
    {
        if count > 0 {
            log::warn!("{}: {count} {what}", name.display());
        }
    }
    if divided_by > 0.0 {
        log::warn!("{}: its floats lie beyond full scale; they were divided by {divided_by}", name.display());
    }
    if truncated {
        log::warn!("{}: it ends before its header says so", name.display());
    }
}

/// A line on a terminal's standard error; nothing anywhere else.
struct Progress {
    name: PathBuf,
    total: Option<Duration>,
    enabled: bool,
    shown: Option<Instant>,
    begun: Instant,
}

impl Progress {
    fn new(name: &Path, total: Option<Duration>, enabled: bool) -> Self {
        let enabled = enabled && can_redraw(&std::io::stderr());
        Self { name: name.to_path_buf(), total, enabled, shown: None, begun: Instant::now() }
    }

    fn show(&mut self, seconds: f64) {
        let last = self.shown.unwrap_or(self.begun);
        if !self.enabled || last.elapsed() < REDRAW {
            return;
        }
        self.shown = Some(Instant::now());
        let total = self.total.map_or(String::new(), |total| format!(" of {:.0} s", total.as_secs_f64()));
        eprint!("\r\x1b[K{}: {seconds:.0} s{total}", self.name.display());
        let _ = std::io::stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
