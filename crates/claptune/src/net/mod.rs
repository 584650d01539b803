//! The networks, each written once, as Burn modules. They are loaded from checkpoints, trained, and exported from here;
//! their parameters have the names that [`crate::checkpoint`] gives them.

pub mod bert;
pub mod captions;
pub mod clap;
pub mod htsat;
pub mod minilm;
pub mod norm;
pub mod observer;
pub mod ops;
pub mod projection;
pub mod resize;
pub mod roberta;
pub mod swin;
pub mod yamnet;
