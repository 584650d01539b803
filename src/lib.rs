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
//! enters in [`capture`] and leaves in [`mqtt`] and [`http`]; between them there is only [`clapd_core::time::SampleTime`].
//!
//! # Threads
//!
//! | thread | does | when overloaded |
//! |---|---|---|
//! | audio callback (cpal's, a device each) | copies frames into a lock-free ring of 2 s; allocates, locks and logs nothing | writes no new frames; `samples_lost` counts them |
//! | `stream-` (a device each) | reads frames, judges their channels and their rate, and copies to each of its sources the channel that it takes, through a lock-free ring of 30 s | writes no new samples into a ring that is full; `samples_lost` counts them |
//! | `watch-` (a device each) | opens a stream, and again where it fails or stalls | a stream that hangs in the sound system is left behind; nine of them end the source |
//! | `live-` (a stream or a listening place each) | connects, decodes, and connects again | makes the sender wait, or loses what the ring of 30 s does not hold |
//! | `read-` (a file each) | decodes ahead of the reader | waits: no sound of a file is lost |
//! | `source-` (a source each) | reads sound, runs the pipeline, reports scores and events | scores only the newest due window; `windows_skipped` counts the others |
//! | `outbox` | writes events to the disk, drops those over a bound | the oldest start and end go together; `events_dropped` counts them |
//! | `mqtt` | owns the connection; publishes also what has waited for Home Assistant | back off with jitter; the outbox has an event until it is acknowledged, and of scores the newest waits |
//! | `http` | serves the page, REST, the stream of what happens and metrics; all async code there is | a viewer's oldest messages are dropped, `clapd_viewer_drops_total` counts them; more connections or viewers than there is room for are told to come later |
//! | `questions` | embeds and scores what is asked of the past, and captions, new texts by a process of its own | one at a time; a fifth that waits is refused |
//! | `identity` | writes the names that the broker knows this node by, and ends | one at a time; the newest content waits |
//! | `journal` | writes events of the past | leaves out what does not fit into its queue; `journal_lost` counts it |
//! | `worker` | reads, decodes, embeds and opens what a reload or a request asks for, new texts by a process of its own | one change at a time; another is refused |
//! | main | the supervisor: owns the handles of the others, signals, health, watchdog, requests; never waits but to stop | more than eight requests are dropped; `commands_dropped` counts them |
//!
//! A thread that ends or panics unasked is named in the log and ends the process, with its events, its outbox and an error
//! status; systemd starts another. `watch-` and `read-` are their sources', which fail with them; what decoders and bundles
//! panic about is an error of the file or the window.
//!
//! # Modules
//!
//! | module | is | may use |
//! |---|---|---|
//! | [`counter`], [`backoff`] | a count and when it deserves a log line; waits that double | |
//! | [`threads`] | names, heartbeats and ends of threads | |
//! | [`time`] | the computer's clocks, and where they meet a source's | |
//! | [`local_time`] | the time of day where the computer stands | |
//! | [`levels`] | how loud it is at each source: of the last hours, and of events | |
//! | [`capture`] | devices, streams, files and standard input as samples | counter, backoff, levels, threads, time |
//! | [`score_log`] | a file of scores within a bound | |
//! | [`journal`] | events of the past, on disk within a bound | counter, levels, threads |
//! | [`health`] | what all threads have counted, at a moment | counter |
//! | [`outbox`] | events that wait, also after a power cut | counter, levels, threads, time |
//! | [`history`] | the past in memory, for any question and any rule | time |
//! | [`quiet`] | when no events begin | local_time, time |
//! | [`config`] | the TOML file as settings, or every fault at once | the types of capture, history, journal, levels, outbox, quiet, score_log |
//! | [`prompts`] | prompts with their recordings and embeddings | config |
//! | [`command`] | what others may ask, over MQTT or HTTP, and the requests that wait | quiet |
//! | [`http`] | the page, REST, the stream of what happens, metrics | capture, command, config, counter, health, history, journal, levels, mqtt (its payloads), outbox, threads |
//! | [`mqtt`] | topics, messages, discovery and the connection | backoff, command, config, health, levels, outbox, threads |
//! | [`daemon`] | the process that goes on | all of these but backoff |
//! | [`cli`] | a file a command | capture, config, daemon, journal, levels, local_time, mqtt, prompts, score_log, time |
//!
//! # Rules
//!
//! | rule | held by |
//! |---|---|
//! | modules use only what the table says; each library is named in one place | `tests/program/architecture.rs` |
//! | async code is in `http` alone, on one thread | `tests/program/architecture.rs` |
//! | no `unsafe` | `forbid(unsafe_code)` below |
//! | no `unwrap`, `expect` or `panic` outside tests | the lints below |
//! | functions have at most 80 lines | `clippy::too_many_lines` |
//! | a queue has a bound, a drop has a counter, a log line (the first, then each doubling: [`counter::Counter`]) and a place in [`health`] | review; tests of each bound |
//! | an event leaves the outbox when the broker has acknowledged it, or over a bound | `tests/program/outbox.rs`, `tests/system/chaos.rs` |
//! | the disk has what the outbox says it has, whatever fails or dies at any step | `outbox::state`, tested against a model of it |
//! | the watchdog is fed by progress of the sources and turns of the loops, never by a timer | tests of `daemon::source_progress`, `daemon::watchdog` |
//! | no thread dies unseen, and nothing that hangs delays the supervisor | `tests/system/supervision.rs` |
//! | what a message or a file looks like is frozen | tests of `mqtt::message`, `mqtt::discovery`, `outbox::log_entry` |

#![forbid(unsafe_code)]
// Tests may, see clippy.toml.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod backoff;
pub mod capture;
pub mod cli;
pub mod command;
pub mod config;
pub mod counter;
pub mod daemon;
pub mod health;
pub mod history;
pub mod http;
pub mod journal;
pub mod levels;
pub mod local_time;
pub mod loudness;
pub mod mqtt;
pub mod outbox;
pub mod prompts;
pub mod quiet;
pub mod score_log;
pub mod threads;
pub mod time;
