//! The library from outside: sound files, front ends against their references, the default model, the pipeline.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "clippy.toml is for the library; its tests write files"
)]

mod bundle;
mod decode;
mod frontend;
mod mini;
mod pipeline;
mod sound_level;
#[path = "../../../../tests/common/wav.rs"]
mod wav;
