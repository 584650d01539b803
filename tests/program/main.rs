//! clapd alone: its commands, configuration, files, documentation and structure.

mod architecture;
mod book;
mod calibrate;
mod cli;
mod config;
mod examples;
mod files;
mod manual;
mod outbox;
mod recordings;
mod watch;
#[path = "../common/wav.rs"]
mod wav;
