//! Capture: where sound and the time of day enter.
//!
//! A [`Source`] is a microphone (`device`, kept open by `device_source`), a file or standard input (`reader`). The
//! pipeline's thread reads it: mono samples at the source's own rate, what was lost before them, and the anchor between
//! the sample clock and the time of day.

mod alsa_log;
mod clock;
mod counters;
pub mod device;
mod device_source;
mod level;
mod reader;
mod ring;
mod source_state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clapd_core::channel::Channel;
use clapd_core::decode::RawFormat;
use clapd_core::samples::Samples;

use crate::time::WallAnchor;
pub use counters::SourceCounters;
use device_source::DeviceSource;
use level::LevelMeter;
use reader::{BlockReader, InputSpec};
pub use source_state::SourceState;

/// What a source is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// An input device of the sound system.
    Device {
        /// Its stable name, as [`device::list`] gives it: `default`, `hw:CARD=USB,DEV=0`, `alsa:mic`.
        name: String,
    },
    /// A recording in any format that [`clapd_core::decode`] reads.
    File {
        /// Where it is.
        path: PathBuf,
        /// Begin again at its end; the time line goes on.
        looped: bool,
        /// Deliver one second a second, as a microphone would; otherwise as fast as the reader asks.
        realtime: bool,
    },
    /// Standard input, as fast as it comes.
    Stdin {
        /// What it carries, where it doesn't say so itself as wav does.
        raw: Option<RawFormat>,
    },
}

/// A source as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its name in topics and logs.
    pub id: String,
    /// What it is made of.
    pub kind: SourceKind,
    /// The channel that is taken of it.
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
    input: Input,
    counters: Arc<SourceCounters>,
    meter: LevelMeter,
}

enum Input {
    Device(DeviceSource),
    Reader(BlockReader),
}

impl Source {
    /// Starts a source. A device that is not there is no error: it is waited for, and the counters' state says so.
    ///
    /// # Errors
    /// A file that is missing, is not sound, or has no such channel; a thread that can't be started.
    pub fn open(spec: &SourceSpec, counters: Arc<SourceCounters>) -> Result<Self> {
        let reader = |input| BlockReader::start(&spec.id, input, spec.channel, &counters).map(Input::Reader);
        let input = match &spec.kind {
            SourceKind::Device { name } => Input::Device(DeviceSource::start(&spec.id, name, spec.channel, &counters)?),
            SourceKind::File { path, looped, realtime } => {
                reader(InputSpec { path: Some(path.clone()), raw: None, looped: *looped, realtime: *realtime })?
            }
            SourceKind::Stdin { raw } => reader(InputSpec { path: None, raw: *raw, looped: false, realtime: false })?,
        };
        Ok(Self { input, counters, meter: LevelMeter::default() })
    }

    /// Waits up to `timeout` for sound.
    ///
    /// # Errors
    /// A file or standard input that can't be read on (the source has then ended); a device behind which so many streams
    /// hang in the sound system that only a new process helps.
    pub fn read(&mut self, timeout: Duration) -> Result<Read<'_>> {
        let read = match &mut self.input {
            Input::Device(device) => device.read(timeout)?,
            Input::Reader(reader) => reader.read(timeout)?,
        };
        if let Read::Block { rate, samples, .. } = &read {
            self.meter.push(*rate, samples.data);
            self.counters.record_block(samples.data.len() as u64, &self.meter);
        }
        Ok(read)
    }
}
