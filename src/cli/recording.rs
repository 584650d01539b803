//! Recordings as the commands read them, with progress for a person who waits.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::capture::decode::Decoder;
use crate::samples::Samples;

/// Text or file names at most this often: a person reads no faster.
const REDRAW: Duration = Duration::from_millis(200);

/// Hands every block to `take` until the recording or `take` says that it is enough.
pub(super) fn read(mut decoder: Decoder, name: &Path, mut take: impl FnMut(Samples<'_>) -> Result<bool>) -> Result<()> {
    let mut progress = Progress::new(name, decoder.duration_hint());
    let (rate, mut read) = (f64::from(decoder.rate()), 0_u64);
    while let Some(samples) = decoder.next_block()? {
        read += samples.lost + samples.data.len() as u64;
        if !take(samples)? {
            break;
        }
        progress.show(read as f64 / rate);
    }
    ensure!(read > 0, "{}: the recording holds no sound: 0 samples", name.display());
    Ok(())
}

/// A line on a terminal's standard error; nothing anywhere else.
struct Progress {
    name: PathBuf,
    total: Option<Duration>,
    shown: Option<Instant>,
    begun: Instant,
}

impl Progress {
    fn new(name: &Path, total: Option<Duration>) -> Self {
        Self { name: name.to_path_buf(), total, shown: None, begun: Instant::now() }
    }

    fn show(&mut self, seconds: f64) {
        let last = self.shown.unwrap_or(self.begun);
        if last.elapsed() < REDRAW || !std::io::stderr().is_terminal() {
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
