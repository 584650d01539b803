//! clapd among real programs: brokers, sound servers, systemd, a shell.
#![expect(
    clippy::disallowed_methods,
    reason = "what programs print is collected whole, however slowly a test reads it"
)]

mod capture;
mod cards;
mod chaos;
mod clock;
mod commands;
mod daemon;
mod delivery;
mod discovery;
mod http;
mod identity;
mod levels;
mod limits;
mod liveness;
mod mqtt;
mod past;
mod quiet;
mod setup;
mod soak;
mod streams;
mod supervision;
mod support;
mod systemd;
mod tls;
#[path = "../common/wav.rs"]
mod wav;
