//! Nodes that read only constants are computed once and replaced by their values.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use tract_onnx::prelude::*;

use super::onnx::{Constant, Edge, Element, Graph};

/// Folds the constant part of the graph.
///
/// # Errors
/// An operation that tract can't run.
pub fn fold_constants(mut graph: Graph) -> Result<Graph> {
    let mut constant: BTreeSet<String> = graph.constants.keys().cloned().collect();
    let mut folded = Graph::new("constants");
    for node in &graph.nodes {
        if node.input.iter().all(|i| i.is_empty() || constant.contains(i)) {
            constant.extend(node.output.iter().cloned());
            folded.nodes.push(node.clone());
        }
    }
    let made: BTreeSet<&String> = folded.nodes.iter().flat_map(|n| &n.output).collect();
    let edge = graph.outputs.iter().map(|e| &e.name);
    let running = graph.nodes.iter().filter(|n| n.output.iter().all(|o| !made.contains(o)));
    let read: BTreeSet<String> =
        running.flat_map(|n| &n.input).chain(edge).filter(|name| made.contains(name)).cloned().collect();
    if read.is_empty() {
        graph.prune();
        return Ok(graph);
    }
    let values = evaluate(folded, &graph, &read).context("computing the constant part of the graph")?;
    graph.constants.extend(values);
    graph.nodes.retain(|n| n.output.iter().all(|o| !constant.contains(o)));
    graph.prune();
    Ok(graph)
}

fn evaluate(mut part: Graph, whole: &Graph, names: &BTreeSet<String>) -> Result<Vec<(String, Constant)>> {
    // The type here is only a placeholder: tract infers it.
    part.outputs = names.iter().map(|n| Edge { name: n.clone(), element: Element::Float, shape: vec![] }).collect();
    let read: BTreeSet<&String> = part.nodes.iter().flat_map(|n| &n.input).collect();
    let constants = whole.constants.iter().filter(|(name, _)| read.contains(name));
    part.constants = constants.map(|(name, c)| (name.clone(), c.clone())).collect();
    part.prune();
    let reader = onnx().with_ignore_output_shapes(true).with_ignore_output_types(true);
    let model = reader.model_for_proto_model(&part.into_model())?.into_typed()?.into_runnable()?;
    let outputs = model.run(tvec![])?;
    names.iter().cloned().zip(outputs.iter().map(|t| constant(t))).map(|(n, c)| Ok((n, c?))).collect()
}

/// A tract tensor as a constant.
fn constant(tensor: &Tensor) -> Result<Constant> {
    let shape = tensor.shape().to_vec();
    let (element, bytes): (_, Vec<u8>) = match tensor.datum_type() {
        DatumType::F32 => {
            (Element::Float, tensor.to_plain_array_view::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        DatumType::Bool => {
            (Element::Bool, tensor.to_plain_array_view::<bool>()?.iter().map(|v| u8::from(*v)).collect())
        }
        DatumType::I64 | DatumType::TDim => {
            let tensor = tensor.cast_to::<i64>()?;
            (Element::Int, tensor.to_plain_array_view::<i64>()?.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        other => bail!("a constant of type {other:?}"),
    };
    Ok(Constant { element, shape, bytes })
}
