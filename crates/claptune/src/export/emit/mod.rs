//! Recorded operations as ONNX nodes.
//!
//! A network with a new kind of operation adds one arm to one of the tables beside this file. An operation without an
//! arm is an error that names it.

mod base;
mod module;
mod numeric;

use std::collections::HashMap;

use anyhow::{Result, bail};
use burn::tensor::{DType, TensorData};
use burn_capture::TensorId;
use burn_ir::{OperationIr, ScalarIr, TensorIr};

use super::capture::{Port, Recording};
use super::onnx::{Constant, Dim, Edge, Element, Graph};

/// Translates a recording; `name` becomes the graph's name.
///
/// # Errors
/// Names the operations or element types that have no form here.
pub fn emit(mut recording: Recording, name: &str) -> Result<Graph> {
    let operations = std::mem::take(&mut recording.operations);
    let mut emitter = Emitter { graph: Graph::new(name), names: HashMap::new(), recording };
    for input in &emitter.recording.inputs {
        emitter.names.insert(input.id, input.name.clone());
    }
    for operation in &operations {
        emitter.operation(operation)?;
    }
    emitter.finish()
}

pub(super) struct Emitter {
    graph: Graph,
    names: HashMap<TensorId, String>,
    recording: Recording,
}

impl Emitter {
    fn operation(&mut self, operation: &OperationIr) -> Result<()> {
        let done = match operation {
            OperationIr::Init(_) | OperationIr::Drop(_) => true,
            OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op) => self.base(op)?,
            OperationIr::NumericFloat(_, op) | OperationIr::NumericInt(_, op) => self.numeric(op)?,
            OperationIr::Float(_, op) => self.float(op)?,
            OperationIr::Int(op) => self.int(op)?,
            OperationIr::Bool(op) => self.bool(op)?,
            OperationIr::Module(op) => self.module(op)?,
            OperationIr::Activation(op) => self.activation(op)?,
            OperationIr::Custom(_) | OperationIr::Distributed(_) => false,
        };
        if !done {
            let text = format!("{operation:?}");
            let kind: String = text.chars().take_while(|c| *c != '{').collect();
            bail!("the operation {} has no ONNX form here; add it in tune/export/emit", kind.trim());
        }
        Ok(())
    }

    /// The name of a value that exists already: an input, an earlier result or a constant.
    fn value(&mut self, tensor: &TensorIr) -> Result<String> {
        if let Some(name) = self.names.get(&tensor.id) {
            return Ok(name.clone());
        }
        // Out of the recording: one copy of a weight is enough.
        let Some(data) = self.recording.values.remove(&tensor.id) else {
            bail!("the recording reads tensor {} before anything made it", tensor.id);
        };
        let constant = constant(&data)?;
        let name = match self.recording.parameters.get(&tensor.id) {
            Some(path) => {
                // NNEF allows letters, digits and underscores in a name.
                let name = path.replace('.', "_");
                self.graph.constants.insert(name.clone(), constant);
                name
            }
            None => self.graph.constant(constant),
        };
        self.names.insert(tensor.id, name.clone());
        Ok(name)
    }

    /// A number of the same type as `like`.
    fn scalar(&mut self, value: &ScalarIr, like: &TensorIr) -> Result<String> {
        Ok(self.graph.constant(Constant::scalar(element(like.dtype)?, value.elem::<f64>())))
    }

    fn bind(&mut self, tensor: &TensorIr, name: String) -> Result<bool> {
        self.names.insert(tensor.id, name);
        Ok(true)
    }

    fn finish(mut self) -> Result<Graph> {
        for port in &self.recording.inputs {
            let element = match self.recording.values.get(&port.id) {
                Some(data) => element(data.dtype())?,
                None => bail!("the input `{}` was not made by the tracer", port.name),
            };
            self.graph.inputs.push(edge(port, element));
        }
        for port in &self.recording.outputs {
            let Some(name) = self.names.get(&port.id).cloned() else {
                bail!("the output `{}` was not computed in the recording", port.name);
            };
            self.graph.node_named("Identity", &[&name], &[&port.name], vec![]);
            self.graph.outputs.push(edge(port, Element::Float));
        }
        self.graph.prune();
        Ok(self.graph)
    }
}

fn edge(port: &Port, element: Element) -> Edge {
    Edge { name: port.name.clone(), element, shape: port.shape.iter().map(|&d| Dim::Fixed(d)).collect() }
}

/// The one integer and the one float type of an exported graph.
fn element(dtype: DType) -> Result<Element> {
    match dtype {
        DType::F32 => Ok(Element::Float),
        DType::I64 | DType::I32 => Ok(Element::Int),
        DType::Bool(_) => Ok(Element::Bool),
        other => bail!("tensors of type {other:?} are not exported; f32, i32, i64 and bool are"),
    }
}

fn constant(data: &TensorData) -> Result<Constant> {
    let element = element(data.dtype())?;
    let bytes = match data.dtype() {
        DType::F32 | DType::I64 => data.as_bytes().to_vec(),
        _ if element == Element::Int => data.iter::<i64>().flat_map(i64::to_le_bytes).collect(),
        _ => data.iter::<bool>().map(u8::from).collect(),
    };
    Ok(Constant { element, shape: data.shape().to_vec(), bytes })
}
