//! clapd listens, scores what it hears against words on a human scale from 0 to 10, and tells the house over MQTT.
//!
//! ```text
//! microphone -> samples -> frames -> window -> embedding -> scores -> events -> outbox -> MQTT
//!   capture       dsp        dsp    pipeline     clap      detect    detect             mqtt
//! ```
//!
//! It is one straight pipe, and [`pipeline::Pipeline`] is the pipe as a value: `push` samples, get scored windows and
//! events. It does no I/O, starts no thread and reads no clock, so that a test, a command line and the daemon run
//! exactly the same thing. Around it the daemon has one thread that captures and one that runs the pipeline for each
//! source, one that writes the outbox to disk, and one that owns the connection to the broker.
//!
//! # Rooms
//!
//! | room | takes | gives | may know |
//! |---|---|---|---|
//! | [`samples`], [`time`] | | the units in which sound and moments travel | nothing |
//! | [`dsp`] | samples at any rate | log-mel patches | samples |
//! | [`clap`] | patches, prompts, a bundle of weights | unit embeddings, cosines | dsp, detect (the calibration curve) |
//! | [`detect`] | cosines, scores | scores from 0 to 10, events | time |
//! | [`pipeline`] | samples | scored windows, events | the four above |
//! | [`prompts`] | prompts in words and recordings | their embeddings and rules | capture, clap, detect, pipeline, samples |
//! | [`capture`] | devices, files, standard input | samples and where their clock meets the wall's | samples, time |
//! | [`config`] | a TOML file | settings, or every fault at once | capture, detect, outbox and score_log (their types) |
//! | [`score_log`] | scores | a file of them within a bound | detect |
//! | [`health`] | what the rooms count | a snapshot of it | time |
//! | [`outbox`] | events, acknowledgements | events that wait, also after a power cut | time |
//! | [`mqtt`] | scores, events, health | messages | config (where the broker is), detect, health, outbox, time |
//! | [`daemon`] | settings | a process that goes on | everything |
//! | [`cli`] | arguments | an exit status | everything |
//!
//! `tune` (feature `tune`, binary `claptune`) makes bundles on a host; nothing else uses it.
//!
//! # Never
//!
//! Never a queue without a bound or a drop without a counter; never a clock between capture and mqtt; never an `unwrap`
//! outside tests. tests/architecture.rs holds these and the rest of the house rules.

// Tests may; nothing that runs in a house does.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod backoff;
pub mod capture;
pub mod cli;
pub mod config;
pub mod counter;
pub mod daemon;
pub mod health;
pub mod mqtt;
pub mod outbox;
pub mod prompts;
pub mod score_log;
pub mod time;
