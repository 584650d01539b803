//! Capture: where sound and the time of day enter.
//!
//! In: a microphone (`device`, kept alive by `supervise`), a file or standard input (`decode`, `wav`, read by `reader`).
//! Out: a [`Source`] that the pipeline's thread reads: mono samples at the source's own rate, what was lost before them,
//! and the anchor between the sample clock and the time of day.
//! Never: no resampling, no scores, no configuration. cpal stands in `device`, symphonia in `decode`, nowhere else.

mod alsa_log;
mod clock;
mod counters;
pub mod device;
mod level;
mod rarely;
mod reader;
mod ring;
mod state;
mod supervise;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clapd_core::channel::Channel;
use clapd_core::samples::Samples;

use crate::time::WallAnchor;
pub use counters::SourceCounters;
pub use rarely::Rarely;
pub use state::State;

/// What a source is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// An input device of the sound system.
    Device {
        /// Its stable name, as [`device::list`] gives it: `default`, `hw:CARD=USB,DEV=0`, `alsa:mic`.
        name: String,
    },
    /// A wav, flac, ogg or mp3 file.
    File {
        /// Where it is.
        path: PathBuf,
        /// Begin again at its end; the time line goes on.
        looped: bool,
        /// Deliver one second a second, as a microphone would; otherwise as fast as the reader asks.
        realtime: bool,
    },
    /// Wav on standard input, as fast as it comes.
    Stdin,
}

/// Which source, and what to hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its name in topics and logs.
    pub id: String,
    /// What it is made of.
    pub kind: SourceKind,
    /// The channel to listen to.
    pub channel: Channel,
}

/// What [`Source::read`] found.
#[derive(Debug)]
pub enum Read<'a> {
    /// Sound. At most 0.5 s of a file or of standard input, all that has gathered of a device.
    Block {
        /// Samples a second. Where it differs from the block before, the sample clock has begun again at zero with this
        /// block: finish the old pipeline and begin a new one.
        rate: u32,
        /// The samples. `lost` may be hours where a device was away for hours.
        samples: Samples<'a>,
        /// The time of day at the block's first sample; `at` counts what was lost, too.
        anchor: WallAnchor,
    },
    /// Nothing came in time.
    Idle,
    /// The file or standard input is over; every later read says so again.
    End,
}

/// A running source. Dropping it returns at once: what may hang is left to threads of its own.
pub struct Source {
    inner: Inner,
    counters: Arc<SourceCounters>,
    meter: level::LevelMeter,
}

enum Inner {
    Device(supervise::Supervised),
    Reader(reader::Reader),
}

impl Source {
    /// Starts a source. A device that is not there is no error: it is waited for, and the counters' state says so.
    ///
    /// # Errors
    /// A file that is missing, is not sound, or has no such channel; a thread that can't be started.
    pub fn open(spec: &SourceSpec, counters: Arc<SourceCounters>) -> Result<Self> {
        let inner = match &spec.kind {
            SourceKind::Device { name } => {
                Inner::Device(supervise::Supervised::start(&spec.id, name, spec.channel, &counters)?)
            }
            SourceKind::File { path, looped, realtime } => {
                let plan =
                    reader::Plan { origin: reader::Origin::File(path.clone()), looped: *looped, realtime: *realtime };
                Inner::Reader(reader::Reader::start(&spec.id, plan, spec.channel, &counters)?)
            }
            SourceKind::Stdin => {
                let plan = reader::Plan { origin: reader::Origin::Stdin, looped: false, realtime: false };
                Inner::Reader(reader::Reader::start(&spec.id, plan, spec.channel, &counters)?)
            }
        };
        Ok(Self { inner, counters, meter: level::LevelMeter::default() })
    }

    /// Waits up to `timeout` for sound.
    ///
    /// # Errors
    /// A file or standard input that can't be read on (the source has then ended); a device behind which so many streams
    /// hang in the sound system that only a new process helps.
    pub fn read(&mut self, timeout: Duration) -> Result<Read<'_>> {
        let read = match &mut self.inner {
            Inner::Device(device) => device.read(timeout)?,
            Inner::Reader(reader) => reader.read(timeout)?,
        };
        if let Read::Block { rate, samples, .. } = &read {
            self.meter.take(*rate, samples.data);
            self.counters.heard(samples.data.len() as u64, &self.meter);
        }
        Ok(read)
    }
}
