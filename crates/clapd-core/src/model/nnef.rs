//! From what a `*.nnef.tar` holds to a graph that runs.
//!
//! The manifest vouches for an [`Archive`]'s hash only. A bundle may come from anyone, so a value's size is known to be sane before it is worked out, and a panic
//! inside the library becomes an error.

mod archive;

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tract_nnef::internal::*;
use tract_nnef::tract_core::plan;

use super::ops;
use super::{Compute, Step};
use crate::panics::catch_panic;
pub use archive::Archive;

/// Most numbers in any one value of the graph: the largest is the embedding table (39 M); a graph that broadcasts a
/// small constant into more than this is hostile.
const MAX_VALUE: usize = 256 << 20;

/// tract's parser, optimiser and operators assert what a hostile graph can break; that must end the work, not the daemon.
const HOSTILE: &str = "the graph broke an assumption of the inference library";

/// A graph ready to run.
#[derive(Debug, Clone)]
pub struct Graph {
    plan: Arc<TypedRunnableModel>,
    compute: Option<Compute>,
}

impl Graph {
    /// The kernels of our own that it runs on; none where it has none of our operators.
    pub fn compute(&self) -> Option<Compute> {
        self.compute
    }
}

/// The operators that a bundle's graphs may use: NNEF's own, tract's and ours.
pub fn registry() -> Nnef {
    tract_nnef::nnef().with_registry(ops::registry())
}

/// Reads an archive of `length` bytes; nothing of it is used yet.
///
/// # Errors
/// Anything that is not a plain tar of one `graph.nnef` and tensors, each within bounds.
pub fn read(archive: impl Read, length: u64) -> Result<Archive> {
    catch_panic(HOSTILE, || Archive::read(archive, length))
}

/// Optimises and plans a graph; its layers that are ours are packed for `compute`.
///
/// # Errors
/// A graph that does not parse or type-check; the message names `file`.
pub fn plan(file: &str, archive: Archive, compute: Compute) -> Result<Graph> {
    catch_panic(HOSTILE, || translate(archive, compute)).with_context(|| format!("cannot load {file}"))
}

fn translate(archive: Archive, compute: Compute) -> Result<Graph> {
    let model = registry().model_for_proto_model(&archive.parse()?)?;
    for (outlet, fact) in
        model.nodes.iter().flat_map(|node| node.outputs.iter().map(move |out| (&node.name, &out.fact)))
    {
        let numbers =
            fact.shape.as_concrete().map_or(Some(1), |dims| dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)));
        ensure!(
            numbers.is_some_and(|n| n <= MAX_VALUE),
            "value {outlet} has shape {:?}; at most {MAX_VALUE} numbers are allowed",
            fact.shape
        );
    }
    // What is optimised no longer holds the weights of our operators as constants: they alone do, until they are packed.
    let mut model = model.into_optimized()?;
    let compute = (ops::pack(&mut model, compute)? > 0).then_some(compute);
    Ok(Graph { plan: model.into_runnable()?, compute })
}

/// Shape of a graph's input, where it is a number; `None` stands for a length that is free.
pub fn input_shape(graph: &Graph, input: usize) -> Result<Vec<Option<usize>>> {
    let model = graph.plan.model();
    ensure!(input < model.input_outlets()?.len(), "the graph has no input {input}");
    let fact = model.input_fact(input)?;
    Ok(fact.shape.iter().map(|dim| dim.to_usize().ok()).collect())
}

/// Numbers that a graph's first output holds, where its shape is known before it runs.
pub fn output_len(graph: &Graph) -> Result<Option<usize>> {
    Ok(graph.plan.model().output_fact(0)?.shape.volume().to_usize().ok())
}

/// Runs a graph and returns its outputs as f32, in order.
///
/// # Errors
/// A graph that does not take these inputs, or breaks an assumption of the library on the way.
pub fn run(graph: &Graph, inputs: TVec<TValue>) -> Result<Vec<Vec<f32>>> {
    run_stepwise(graph, inputs, &|| Ok(()))
}

/// The same, with `step` called before each operator.
///
/// # Errors
/// As [`run`], and those of `step`.
pub fn run_stepwise(graph: &Graph, inputs: TVec<TValue>, step: Step<'_>) -> Result<Vec<Vec<f32>>> {
    let run = || {
        graph.plan.spawn()?.run_plan_with_eval(inputs, |context, state, node, inputs| {
            step()?;
            plan::eval(context, state, node, inputs)
        })
    };
    let outputs = catch_panic(HOSTILE, run)?;
    outputs.iter().map(|value| Ok(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())).collect()
}
