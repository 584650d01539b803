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

use std::io::Write;

use anyhow::{Context, Result};
use burn::module::Module;

pub use capture::Tracer;
pub use precision::Precision;
pub use symbolic::Length;

use onnx::Graph;

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
    length: &Length,
    forward: impl Fn(&M, &mut Tracer, usize),
) -> Result<Graph> {
    let recorded = |module: M, n: usize| emit::emit(capture::record(module, |m, t| forward(m, t, n))?, name);
    let small = recorded(module.clone(), LENGTHS[0])?;
    let large = recorded(module, LENGTHS[1])?;
    let graph = symbolic::merge(small, &large, length).with_context(|| format!("exporting {name}"))?;
    drop(large);
    fold::fold_constants(graph).with_context(|| format!("exporting {name}"))
}

/// Writes the NNEF archive of a graph, its weights stored in `precision`. Takes the graph, so that a network of hundreds
/// of megabytes is in memory once.
///
/// # Errors
/// Says which step failed, and on what.
pub fn write_nnef(graph: Graph, precision: Precision, to: &mut dyn Write) -> Result<()> {
    let mut document = nnef::document(nnef::to_tract(graph)?)?;
    precision::store(&mut document, precision)?;
    nnef::write_tar(document, to)
}

/// The bytes of [`write_nnef`].
///
/// # Errors
/// As [`write_nnef`].
pub fn to_nnef(graph: &Graph, precision: Precision) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    write_nnef(graph.clone(), precision, &mut bytes)?;
    Ok(bytes)
}
