//! Files that others published become named tensors.
//!
//! A small file is read whole into [`Weights`], which load into a module all or not at all. Of a large one, each
//! [`stored_tensor::StoredTensor`] is read by itself. Checkpoints come from strangers: the length that a file states is checked against
//! the file, and of a pickle only its tensors are read, for it could run code (`tests/suite/checkpoint.rs`, `tests/suite/clap.rs`).

pub mod clap;
pub mod clap_config;
pub mod clap_names;
pub mod hub;
pub mod laion;
pub mod minilm;
pub mod processor;
pub mod source;
pub mod stored_tensor;
mod weights;
pub mod yamnet;

pub use weights::{Weight, Weights, fail_on_faults, load_parameters};
