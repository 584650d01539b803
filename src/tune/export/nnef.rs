//! ONNX to NNEF by way of tract.
//!
//! In: an ONNX graph. Out: an NNEF tar that the plain `tract_nnef` registry reads, the same bytes for the same graph
//! whenever and wherever it is written.
//! Never: writes an operation that needs more than tract-nnef on the device.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use tract_nnef::ast::ProtoModel;
use tract_nnef::ast::dump::Dumper;
use tract_nnef::framework::Nnef;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::{math, nn::gelu_exact::GeluExact};

use super::onnx::Graph;

/// The reader and writer of the device: tract's own operations, our fused layers, and no others.
pub fn framework() -> Nnef {
    tract_nnef::nnef().with_registry(crate::clap::ops::registry())
}

/// Types and simplifies a graph, and spells out what NNEF has no word for. Takes the graph: its weights move into the model.
///
/// # Errors
/// What tract says of a graph that it can't type.
pub fn to_tract(graph: Graph) -> Result<TypedModel> {
    let reader = onnx().with_ignore_output_shapes(true);
    let outputs: Vec<String> = graph.outputs.iter().map(|edge| edge.name.clone()).collect();
    let proto = graph.into_model();
    let model = reader.model_for_proto_model(&proto).context("tract does not accept the ONNX graph")?;
    // tract has its own copy of the weights now.
    drop(proto);
    let mut model = model.into_typed().and_then(|m| m.into_decluttered()).context("simplifying the graph")?;
    for (slot, name) in outputs.into_iter().enumerate() {
        let outlet = model.output_outlets()?[slot];
        model.set_outlet_label(outlet, name)?;
    }
    expand_gelu(&mut model).context("spelling out GELU")?;
    Ok(model)
}

/// The model as an NNEF document and its tensors.
///
/// # Errors
/// Names an operation that NNEF can't hold.
pub fn document(mut model: TypedModel) -> Result<ProtoModel> {
    // The writer would do this by itself, after which names could not be put in order any more.
    tract_nnef::ser::rewrite_model(&mut model).context("preparing the graph for NNEF")?;
    number_names(&mut model)?;
    tract_nnef::ser::to_proto_model(&framework(), &model).context("writing the graph as NNEF")
}

/// tract 0.23.9 gives nodes that one rewriting made under the same name a `.1`, `.2` in the order of a hash table, which
/// is another one in every run: number them in the order in which the graph runs.
fn number_names(model: &mut TypedModel) -> Result<()> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for id in model.eval_order()? {
        let name = unnumbered(&model.nodes[id].name);
        let count = seen.entry(name.clone()).or_default();
        model.nodes[id].name = if *count == 0 { name } else { format!("{name}.{count}") };
        *count += 1;
    }
    Ok(())
}

/// A name less the numbers that tract put into it: names are made of other nodes' names, so they can stand anywhere.
fn unnumbered(name: &str) -> String {
    let mut pieces = name.split('.');
    let mut plain = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == piece.len() {
            plain.push('.');
        }
        plain.push_str(rest);
    }
    plain
}

/// Writes the tar: `graph.nnef` and one `.dat` a tensor, sorted, with the time of the epoch. A tensor is freed once it is
/// written.
///
/// # Errors
/// Tensors of a type that NNEF can't hold, or a place that can't be written.
pub fn write_tar(document: ProtoModel, to: &mut dyn Write) -> Result<()> {
    let mut text = vec![];
    Dumper::new(&framework(), &mut text).document(&document.doc)?;
    let mut archive = tar::Builder::new(to);
    append(&mut archive, "graph.nnef", &text)?;
    let tensors: BTreeMap<_, _> = document.tensors.into_iter().collect();
    for (name, tensor) in tensors {
        let mut data = vec![];
        tract_nnef::tensors::write_tensor(&mut data, &tensor).with_context(|| format!("the tensor {}", name.0))?;
        drop(tensor);
        append(&mut archive, &format!("{}.dat", name.0), &data)?;
    }
    archive.finish().context("finishing the archive")
}

fn append(archive: &mut tar::Builder<&mut dyn Write>, path: &str, data: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, data).with_context(|| format!("adding {path} to the archive"))
}

/// Reads an NNEF tar as the device does.
///
/// # Errors
/// What tract says of an archive that it can't read.
pub fn read(tar: &[u8]) -> Result<TypedModel> {
    framework().model_for_read(&mut &*tar).context("reading the NNEF archive back")
}

/// tract 0.23.9 recognises x/2 (1 + erf(x/sqrt 2)) and has no NNEF word for the result: undo it before writing.
fn expand_gelu(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes.len() {
        let node = &model.nodes[id];
        if !node.op_as::<ElementWiseOp>().is_some_and(|op| op.0.is::<GeluExact>()) {
            continue;
        }
        let (name, rank) = (node.name.clone(), node.outputs[0].fact.rank());
        let mut patch = TypedModelPatch::default();
        let x = patch.tap_model(model, node.inputs[0])?;
        let mut number = |label: &str, value: f32| {
            patch.add_const(format!("{name}_{label}"), tensor0(value).broadcast_into_rank(rank)?)
        };
        let (root, one) = (number("root", std::f32::consts::FRAC_1_SQRT_2)?, number("one", 1.0)?);
        let half = number("half", 0.5)?;
        let scaled = patch.wire_node(format!("{name}_scaled"), math::mul(), &[x, root])?[0];
        let erf = patch.wire_node(format!("{name}_erf"), math::erf(), &[scaled])?[0];
        let shifted = patch.wire_node(format!("{name}_shifted"), math::add(), &[erf, one])?[0];
        let halved = patch.wire_node(format!("{name}_halved"), math::mul(), &[x, half])?[0];
        let product = patch.wire_node(&name, math::mul(), &[halved, shifted])?[0];
        patch.shunt_outside(model, id.into(), product)?;
        patch.apply(model)?;
    }
    model.compact()
}
