//! Two ways out: a module's recorded forward pass becomes ONNX, for other programs; a graph that [`crate::layout`] made
//! becomes an NNEF archive, for the device, which has tract-nnef alone.
//!
//! ```text
//! module -> record -> emit -> (merge two lengths) -> fold -> ONNX
//! ```

pub mod capture;
pub mod emit;
pub mod fold;
pub mod nnef;
pub mod onnx;
pub mod precision;
pub mod symbolic;

use anyhow::{Context, Result};
use burn::module::Module;

pub use capture::Tracer;
use onnx::Graph;
pub use precision::Precision;
pub use symbolic::SymbolicLength;

/// Exports a module whose inputs have one shape only. `name` names the graph. Takes the module: a caller that needs it no
/// more lets its weights move, and one that does hands in a clone.
///
/// # Errors
/// Says which step failed, and on what.
pub fn export<M: Module>(name: &str, module: M, forward: impl Fn(&M, &mut Tracer)) -> Result<Graph> {
    let graph = emit::emit(capture::record(module, forward)?, name)?;
    fold::fold_constants(graph).with_context(|| format!("exporting {name}"))
}

/// Lengths at which a network of variable length is recorded: co-prime with each other and with common dimensions, so
/// that a number which only happens to equal a length is not taken for one.
const LENGTHS: [usize; 2] = [7, 11];

/// Exports a module for inputs of any length; `forward` gets the length to record.
///
/// # Errors
/// As [`export`]; also when the two recordings differ in more than lengths.
pub fn export_any_length<M: Module>(
    name: &str,
    module: M,
    length: &SymbolicLength,
    forward: impl Fn(&M, &mut Tracer, usize),
) -> Result<Graph> {
    let recorded = |module: M, n: usize| emit::emit(capture::record(module, |m, t| forward(m, t, n))?, name);
    let small = recorded(module.clone(), LENGTHS[0])?;
    let large = recorded(module, LENGTHS[1])?;
    let graph = symbolic::merge(small, &large, length).with_context(|| format!("exporting {name}"))?;
    drop(large);
    fold::fold_constants(graph).with_context(|| format!("exporting {name}"))
}
