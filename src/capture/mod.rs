//! Capture: where sound and the time of day enter.
//!
//! A [`Source`] is a channel of a microphone (`device_source`, out of what `shared_device` keeps open), a file or standard
//! input (`reader`), or what others send (`live_source`): a stream in the network (`rtsp`, `http`) or raw samples of a program
//! (`listen`). The pipeline's thread reads it: mono samples at the source's own rate, what was lost before them, and the
//! anchor between the sample clock and the time of day.
//!
//! A microphone's sound goes through these: a device that is open (`input_stream`, by way of `cpal_stream` or `alsa_pcm`) gives
//! frames to its thread (`stream`), which judges them (`channels`, `rate_meter`), and hands each source its channel (`ring`).

#[cfg(target_os = "linux")]
mod alsa_format;
#[cfg(target_os = "linux")]
mod alsa_list;
#[cfg(target_os = "linux")]
mod alsa_log;
#[cfg(target_os = "linux")]
mod alsa_pcm;
mod arrival_clock;
mod card_name;
mod channels;
mod clock;
mod counters;
mod cpal_stream;
pub mod device;
mod device_source;
mod http;
mod input_stream;
mod level;
mod listen;
mod live_source;
mod live_writer;
mod playlist;
mod rate_meter;
mod reader;
mod ring;
mod rtsp;
mod shared_device;
#[cfg(target_os = "linux")]
mod sound_server;
mod source_state;
mod stream;
mod stream_url;
mod warnings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clapd_core::channel::Channel;
use clapd_core::decode::RawFormat;
use clapd_core::level::Gain;
use clapd_core::samples::Samples;

use crate::levels::Microphone;
use crate::time::WallAnchor;
pub use counters::{DeviceFailure, SourceCounters};
use device_source::DeviceSource;
use level::LevelMeter;
pub use listen::{ListenPlace, ListenSpec};
pub use live_source::{Credentials, StreamSpec, Transport};
use live_source::{LiveOrigin, LiveSource};
use reader::{BlockReader, InputSpec};
pub use source_state::SourceState;
pub use stream_url::{Scheme, StreamUrl, UserInfo};
pub use warnings::{WarningKind, Warnings};

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
    /// A stream in the network.
    Stream(StreamSpec),
    /// Raw samples that a program on this computer sends.
    Listen(ListenSpec),
}

impl SourceKind {
    /// What it is, in the word that the configuration has for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Device { .. } => "device",
            Self::File { .. } => "file",
            Self::Stdin { .. } => "stdin",
            Self::Stream(_) => "url",
            Self::Listen(_) => "listen",
        }
    }

    /// Whether it is waited for while it is away, and opened again: a microphone and what others send.
    pub fn is_reopened(&self) -> bool {
        matches!(self, Self::Device { .. } | Self::Stream(_) | Self::Listen(_))
    }

    /// The gain that it has where none is asked for. A device's sound has its microphone's own noise in it, which the automatic gain
    /// goes by. Of a stream, a recording or a program's samples that may have been taken out on the way, and then nobody knows a faint
    /// microphone from a quiet room.
    pub fn default_gain(&self) -> Gain {
        match self {
            Self::Device { .. } => Gain::Auto,
            Self::File { .. } | Self::Stdin { .. } | Self::Stream(_) | Self::Listen(_) => Gain::NONE,
        }
    }

    /// Whether it comes at the pace of the world, which can't wait for us; a file and a pipe can.
    pub fn is_live(&self) -> bool {
        self.is_reopened() || matches!(self, Self::File { realtime: true, .. })
    }
}

/// A source as it is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    /// Its name in topics and logs.
    pub id: String,
    /// What it is made of.
    pub kind: SourceKind,
    /// The channel that is taken of it.
    pub channel: Channel,
    /// How much louder the model hears it.
    pub gain: Gain,
    /// What is known of its microphone, for levels.
    pub microphone: Microphone,
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
    Live(LiveSource),
}

impl Source {
    /// Starts a source. A device that is not there is no error: it is waited for, and the counters' state says so.
    ///
    /// # Errors
    /// A file that is missing, is not sound, or has no such channel; a thread that can't be started.
    pub fn open(spec: &SourceSpec, counters: Arc<SourceCounters>) -> Result<Self> {
        let live = |origin| LiveSource::start(&spec.id, origin, spec.channel, &counters).map(Input::Live);
        let reader = |input| BlockReader::start(&spec.id, input, spec.channel, &counters).map(Input::Reader);
        let input = match &spec.kind {
            SourceKind::Device { name } => Input::Device(DeviceSource::start(&spec.id, name, spec.channel, &counters)?),
            SourceKind::File { path, looped, realtime } => {
                reader(InputSpec { path: Some(path.clone()), raw: None, looped: *looped, realtime: *realtime })?
            }
            SourceKind::Stdin { raw } => reader(InputSpec { path: None, raw: *raw, looped: false, realtime: false })?,
            SourceKind::Stream(stream) => live(LiveOrigin::Stream(stream.clone()))?,
            SourceKind::Listen(listen) => live(LiveOrigin::Program(listen.clone()))?,
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
            Input::Live(live) => live.read(timeout)?,
        };
        if let Read::Block { rate, samples, .. } = &read {
            self.meter.push(*rate, samples.data);
            self.counters.record_block(samples.data.len() as u64, &self.meter);
        }
        Ok(read)
    }
}
