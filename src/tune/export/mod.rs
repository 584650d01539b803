//! The one way out of Burn: a module's recorded forward pass becomes ONNX, tract and NNEF.
//!
//! In: modules of [`crate::tune::net`]. Out: the bytes of `*.onnx` and `*.nnef.tar`.
//!
//! ```text
//! module -> record -> emit -> (merge two lengths) -> fold -> ONNX -> tract -> NNEF -> store precision -> tar
//! ```
//! Never: knows a network by name; needs on the device anything that tract-nnef does not bring.

pub mod capture;
pub mod emit;
pub mod fold;
pub mod nnef;
pub mod onnx;
pub mod precision;
pub mod rows;
pub mod symbolic;
pub mod uses;

use anyhow::{Context, Result};
use burn::module::Module;

pub use capture::Tracer;
pub use precision::Precision;
pub use symbolic::Length;

use onnx::Graph;

/// Exports a module whose inputs have one shape only. `name` names the graph.
///
/// # Errors
/// Says which step failed, and on what.
pub fn export<M: Module>(name: &str, module: &M, forward: impl Fn(&M, &mut Tracer)) -> Result<Graph> {
    let graph = emit::emit(&capture::record(module, forward)?, name)?;
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
    module: &M,
    length: &Length,
    forward: impl Fn(&M, &mut Tracer, usize),
) -> Result<Graph> {
    let recorded = |n: usize| emit::emit(&capture::record(module, |m, t| forward(m, t, n))?, name);
    let (small, large) = (recorded(LENGTHS[0])?, recorded(LENGTHS[1])?);
    let graph = symbolic::merge(small, &large, length).with_context(|| format!("exporting {name}"))?;
    drop(large);
    fold::fold_constants(graph).with_context(|| format!("exporting {name}"))
}

/// The NNEF archive of a graph, its weights stored in `precision`.
///
/// # Errors
/// Says which step failed, and on what.
pub fn to_nnef(graph: &Graph, precision: Precision) -> Result<Vec<u8>> {
    let model = nnef::to_tract(graph)?;
    let mut document = nnef::document(&model)?;
    precision::store(&mut document, precision)?;
    nnef::to_tar(&document)
}
