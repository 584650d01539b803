//! clapd among real programs: brokers, sound servers, systemd, a shell.

mod capture;
mod chaos;
mod clock;
mod commands;
mod daemon;
mod delivery;
mod discovery;
mod liveness;
mod mqtt;
mod setup;
mod soak;
mod support;
mod systemd;
#[path = "../common/wav.rs"]
mod wav;
