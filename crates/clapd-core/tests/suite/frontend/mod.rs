//! The front ends against their references, against themselves in pieces, and at every rate.

mod alloc;
mod clip;
mod golden;
mod rates;
mod signals;
mod stream;
