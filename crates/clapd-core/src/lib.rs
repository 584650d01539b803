//! Sound and words in, scores from 0 to 10 and events out.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod channel;
pub mod decode;
pub mod detect;
pub mod dsp;
pub mod embed;
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
