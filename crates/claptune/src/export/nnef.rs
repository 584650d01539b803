//! A graph of our fused layers as an NNEF archive (`*.nnef.tar`), of the same bytes for the same graph whenever and
//! wherever it is written.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use tract_nnef::ast::dump::Dumper;
use tract_nnef::framework::Nnef;
use tract_onnx::prelude::*;

/// The reader and writer of the device: tract's own operations, our fused layers, and no others.
pub fn framework() -> Nnef {
    tract_nnef::nnef().with_registry(clapd_core::model::ops::registry())
}

/// Writes a graph as a tar: `graph.nnef` and one `.dat` a tensor, sorted, with the time of the epoch. A tensor is freed once it
/// is written.
///
/// # Errors
/// An operation or a tensor of a type that NNEF can't hold, or a place that can't be written.
pub fn write(model: TypedModel, to: &mut dyn Write) -> Result<()> {
    let document = tract_nnef::ser::to_proto_model(&framework(), &model).context("writing the graph as NNEF")?;
    // The document has what it needs of it.
    drop(model);
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
