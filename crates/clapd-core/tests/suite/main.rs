//! The library from outside: sound files, front ends against their references, the default model, the pipeline.

mod bundle;
mod decode;
mod frontend;
mod mini;
mod pipeline;
#[path = "../../../../tests/common/wav.rs"]
mod wav;
