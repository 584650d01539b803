//! A CLAP checkpoint's towers, and the default model's, as graphs of clapd's fused layers ([`clapd_core::model::ops`]).
//!
//! The graphs are written as NNEF; ONNX is for other programs. Weights go from the checkpoint's file into the graph tensor by tensor; only int8 needs the network itself, to be run on
//! the calibration. What is stored how:
//!
//! | | f32 | f16 | int8 |
//! |---|---|---|---|
//! | linears of the blocks and mergings | f32 | f16 | int8, a scale an output |
//! | vocabulary | f32 | f16 | int8, a scale a token |
//! | pooler, projection, positions | f32 | f16 | f16 |
//! | the rest: front, norms, biases | f32 | f32 | f32 |
//!
//! The head sees one vector, where errors of others average out over many tokens (see [`crate::quantize`]).

mod audio;
mod text;
mod weights;
mod yamnet;

pub use audio::audio;
pub use text::{encoder, text};
pub use weights::{TowerWeights, stored};
pub use yamnet::yamnet;
