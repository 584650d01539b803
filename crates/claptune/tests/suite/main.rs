//! claptune from outside: checkpoints, networks, data, training, export, reports.

mod calibrate;
mod checkpoint;
mod clap;
mod data;
mod eval;
mod export;
mod hub;
mod metrics;
mod mini;
mod ops;
mod quantize;
mod report;
mod run;
mod trainable_mini;
// The front end's own tests use more of it.
#[allow(dead_code)]
#[path = "../../../clapd-core/tests/suite/frontend/signals.rs"]
mod signals;
mod support;
mod train;
mod trainable_clap;
#[path = "../../../../tests/common/wav.rs"]
mod wav;
