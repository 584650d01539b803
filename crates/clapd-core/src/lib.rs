#![doc = include_str!("../README.md")]
//!
//! # The pipe
//!
//! ```text
//! decode -> samples -> dsp  -> model    -> embed      -> prompts -> score   -> detect
//! files,    mono,      log-    features    windows'      a cosine   0 to 10    starts
//! streams   any rate   mel     a patch     embeddings    a prompt   a prompt   and ends
//! ```
//!
//! [`pipeline::Pipeline`] is all of it behind `push(samples)`, for one source; [`embed::ClipEmbedder`] is the part up to the
//! embedding, for one recording.
//!
//! | module | is for |
//! |---|---|
//! | [`samples`], [`channel`], [`time`] | what sound is measured in: mono samples, what was lost before them, moments on a source's own clock |
//! | [`decode`] | recordings of many formats as a stream of samples |
//! | [`dsp`] | samples at any rate from 8 to 192 kHz into the log-mel patches that a model was trained on |
//! | [`model`] | bundles of weights: patches and texts into unit embeddings of one space |
//! | [`embed`] | which windows a stream has, and their embeddings; the embedding of a recording |
//! | [`prompts`] | sentences and recordings as what windows are compared with |
//! | [`score`] | cosines on the human scale, from 0 (not there) to 10 (exactly that) |
//! | [`detect`] | scores into events |
//! | [`pipeline`] | one source's way through all of them |
//! | [`sound_level`] | a sound level meter: A-weighted levels of seconds and minutes, a calibrator's tone, a microphone's correction |
//! | [`files`], [`level`], [`text`], [`vector`] | what the above and the programs on top share: atomic writes, decibels, shortening, cosines |
//!
//! # What it leaves to its caller
//!
//! Devices, the network, threads, queues, configuration and the time of day. `clippy.toml` beside this crate's manifest refuses
//! their types and functions; files are opened in [`files`], [`decode`] and [`model`] alone. A layer of a network may be shared
//! out among the threads of [`model::Compute`], which `clapd-kernels` keeps.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "clippy.toml is for the library; its tests write files"
    )
)]

pub mod channel;
#[expect(clippy::disallowed_methods, reason = "it opens the sound file that it is asked to decode, or standard input")]
pub mod decode;
pub mod detect;
pub mod dsp;
pub mod embed;
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the one place where files are written")]
pub mod files;
pub mod level;
pub mod model;
mod panics;
pub mod pipeline;
pub mod prompts;
pub mod samples;
pub mod score;
pub mod sound_level;
pub mod text;
pub mod time;
pub mod vector;
