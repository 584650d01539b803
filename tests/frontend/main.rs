//! The front ends against their references, against themselves in pieces, and at every rate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alloc;
mod clip;
mod golden;
mod rates;
mod signals;
mod stream;
