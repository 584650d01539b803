//! clapd: a small computer listens, scores what it hears against words on a human scale, and tells the house.
pub mod capture;
pub mod clap;
pub mod cli;
pub mod config;
pub mod detect;
pub mod dsp;
pub mod mqtt;
pub mod pipeline;
pub mod samples;
pub mod time;
#[cfg(feature = "tune")]
pub mod tune;
