//! Sound and words in, scores from 0 to 10 and events out.

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
pub mod pipeline;
pub mod prompts;
pub mod samples;
pub mod score;
pub mod text;
pub mod time;
pub mod vector;
