//! clapd: the daemon that listens on a device, scores what it hears against descriptions in words, from 0 to 10, and
//! publishes scores and events over MQTT; and its commands.
//!
//! ```text
//! source -> samples -> frames -> window -> embedding -> scores -> events -> outbox -> MQTT
//!  capture             `---------- clapd_core::pipeline ----------'         outbox    mqtt
//! ```
//!
//! It is one straight pipe. [`clapd_core::pipeline::Pipeline`] is its middle as a value: it does no I/O, starts no
//! thread and reads no clock, so that a test, a command and the daemon run exactly the same thing. Wall-clock time
//! enters in [`capture`] and leaves in [`mqtt`]; between them there is only [`clapd_core::time::SampleTime`].
//!
//! # Threads
//!
//! | thread | does | when overloaded |
//! |---|---|---|
//! | `stream-` (a device each) | reads a card, judges its channels, and copies to each of its sources the channel that it takes, through a lock-free ring of 30 s | the card's buffer holds 0.5 s, a ring that is full gets no new samples; `samples_lost` counts them |
//! | `watch-` (a device each) | opens a stream, and again where it fails or stalls | a stream that hangs in the sound system is left behind; nine of them end the source |
//! | `read-` (a file each) | decodes ahead of the reader | waits: no sound of a file is lost |
//! | `source-` (a source each) | reads sound, runs the pipeline, reports scores and events | scores only the newest due window; `windows_skipped` counts the others |
//! | `outbox` | writes events to the disk, drops those over a bound | the oldest start and end go together; `events_dropped` counts them |
//! | `mqtt`, `mqtt-pause` | own the connection; publish what has waited for Home Assistant | back off with jitter; the outbox has an event until it is acknowledged, and of scores the newest waits |
//! | `prepare` | embeds the prompts of a change, new texts by a process of its own | one change at a time; another is refused |
//! | main | the supervisor: signals, health, watchdog, requests | more than eight requests are dropped; `commands_dropped` counts them |
//!
//! A source's thread that panics ends the process, with a message and an error status; systemd starts another.
//!
//! # Modules
//!
//! | module | is | may use |
//! |---|---|---|
//! | [`counter`], [`backoff`] | a count and when it deserves a log line; waits that double | |
//! | [`time`] | the computer's clocks, and where they meet a source's | |
//! | [`capture`] | devices, files and standard input as samples | counter, backoff, time |
//! | [`score_log`] | a file of scores within a bound | |
//! | [`health`] | what all threads have counted, at a moment | counter |
//! | [`outbox`] | events that wait, also after a power cut | counter, time |
//! | [`config`] | the TOML file as settings, or every fault at once | the types of capture, outbox, score_log |
//! | [`prompts`] | prompts with their recordings and embeddings | config |
//! | [`mqtt`] | topics, messages, discovery, commands and the connection | config, health, outbox, backoff |
//! | [`daemon`] | the process that goes on | all of these but backoff |
//! | [`cli`] | a file a command | capture, config, daemon, mqtt, prompts, score_log, time |
//!
//! # Rules
//!
//! | rule | held by |
//! |---|---|
//! | modules use only what the table says; each library is named in one place | `tests/program/architecture.rs` |
//! | no `unsafe` | `forbid(unsafe_code)` below |
//! | no `unwrap`, `expect` or `panic` outside tests | the lints below |
//! | functions have at most 80 lines | `clippy::too_many_lines` |
//! | a queue has a bound, a drop has a counter, a log line (the first, then each doubling: [`counter::Counter`]) and a place in [`health`] | review; tests of each bound |
//! | an event leaves the outbox when the broker has acknowledged it, or over a bound | `tests/program/outbox.rs`, `tests/system/chaos.rs` |
//! | the watchdog is fed by progress of the sources, never by a timer | `daemon::source_progress` and its tests |
//! | what a message or a file looks like is frozen | tests of `mqtt::message`, `mqtt::discovery`, `outbox::log_entry` |

#![forbid(unsafe_code)]
// Tests may, see clippy.toml.
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
