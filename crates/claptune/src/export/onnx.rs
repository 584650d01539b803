//! A small writer of ONNX graphs on the types that tract-onnx generates from the standard's own schema.
//!
//! It gives a `ModelProto` of opset 17 that onnx.checker accepts and onnxruntime runs. Values are named strings,
//! numbered in the order in which they are made, so that the same network gives the same bytes.

use std::collections::BTreeMap;

use prost::Message;
use tract_onnx::pb::{self, attribute_proto::AttributeType, tensor_proto::DataType};

/// The operator set written: the first with LayerNormalization; GELU came with 20 and is spelled out.
pub const OPSET: i64 = 17;
/// The file format version that goes with [`OPSET`].
const IR_VERSION: i64 = 8;

/// The element types that occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    Float,
    /// 64-bit integer.
    Int,
    /// Truth value, a byte each.
    Bool,
}

impl Element {
    /// The standard's number for it.
    pub fn code(self) -> i32 {
        match self {
            Self::Float => DataType::Float as i32,
            Self::Int => DataType::Int64 as i32,
            Self::Bool => DataType::Bool as i32,
        }
    }
}

/// A constant: little-endian bytes in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Element type.
    pub element: Element,
    /// Shape.
    pub shape: Vec<usize>,
    /// Data.
    pub bytes: Vec<u8>,
}

impl Constant {
    /// A vector of integers.
    pub fn ints(values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { element: Element::Int, shape: vec![values.len()], bytes }
    }

    /// A single number of no dimensions, of the given type.
    pub fn scalar(element: Element, value: f64) -> Self {
        let bytes = match element {
            Element::Float => (value as f32).to_le_bytes().to_vec(),
            Element::Int => (value as i64).to_le_bytes().to_vec(),
            Element::Bool => vec![u8::from(value != 0.0)],
        };
        Self { element, shape: vec![], bytes }
    }

    /// The values, if these are integers.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        (self.element == Element::Int)
            .then(|| self.bytes.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap_or_default())).collect())
    }

    fn into_proto(self, name: String) -> pb::TensorProto {
        pb::TensorProto {
            name,
            data_type: self.element.code(),
            dims: self.shape.iter().map(|&d| d as i64).collect(),
            raw_data: self.bytes,
            ..Default::default()
        }
    }
}

/// A dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(usize),
    /// A name that stands for whatever length comes at run time.
    Symbol(String),
    /// A length that follows from the others.
    Free,
}

/// An input or output of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Name of the value.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Shape.
    pub shape: Vec<Dim>,
}

/// A graph in the making: nodes in an order in which they can run.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// Nodes.
    pub nodes: Vec<pb::NodeProto>,
    /// Constants by name.
    pub constants: BTreeMap<String, Constant>,
    /// Inputs.
    pub inputs: Vec<Edge>,
    /// Outputs.
    pub outputs: Vec<Edge>,
    prefix: &'static str,
    count: usize,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self::with_prefix(name, "")
    }

    /// An empty graph whose values get names with a prefix, to be joined to another one.
    pub fn with_prefix(name: &str, prefix: &'static str) -> Self {
        Self { name: name.into(), prefix, ..Self::default() }
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{}{kind}_{}", self.prefix, self.count)
    }

    /// Adds a constant and returns its name.
    pub fn constant(&mut self, constant: Constant) -> String {
        let name = self.fresh("constant");
        self.constants.insert(name.clone(), constant);
        name
    }

    /// Adds a vector of integers (a shape, axes).
    pub fn ints(&mut self, values: &[i64]) -> String {
        self.constant(Constant::ints(values))
    }

    /// Adds a node with one output and returns the output's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<pb::AttributeProto>) -> String {
        let output = self.fresh(&op.to_lowercase());
        self.node_named(op, inputs, &[&output], attributes);
        output
    }

    /// Adds a node whose outputs are named by the caller.
    pub fn node_named(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<pb::AttributeProto>) {
        let owned = |names: &[&str]| names.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
        self.nodes.push(pb::NodeProto {
            name: outputs.first().copied().unwrap_or_default().into(),
            op_type: op.into(),
            input: owned(inputs),
            output: owned(outputs),
            attribute: attributes,
            ..Default::default()
        });
    }

    /// Removes nodes and constants that no output depends on.
    pub fn prune(&mut self) {
        let mut needed: std::collections::BTreeSet<String> = self.outputs.iter().map(|e| e.name.clone()).collect();
        let mut used = vec![];
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.output.iter().any(|o| needed.contains(o)) {
                needed.extend(node.input.iter().cloned());
                used.push(node);
            }
        }
        used.reverse();
        self.nodes = used;
        self.constants.retain(|name, _| needed.contains(name));
    }

    /// The finished file. Takes the graph: the weights move.
    pub fn into_model(self) -> pb::ModelProto {
        let graph = pb::GraphProto {
            name: self.name,
            node: self.nodes,
            initializer: self.constants.into_iter().map(|(name, c)| c.into_proto(name)).collect(),
            input: self.inputs.iter().map(value_info).collect(),
            output: self.outputs.iter().map(value_info).collect(),
            ..Default::default()
        };
        pb::ModelProto {
            ir_version: IR_VERSION,
            producer_name: "claptune".into(),
            opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: OPSET }],
            graph: Some(graph),
            ..Default::default()
        }
    }

    /// The finished file's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.into_model().encode_to_vec()
    }
}

fn value_info(edge: &Edge) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dimension = |dim: &Dim| Dimension {
        value: match dim {
            Dim::Fixed(n) => Some(Value::DimValue(*n as i64)),
            Dim::Symbol(name) => Some(Value::DimParam(name.clone())),
            Dim::Free => None,
        },
        ..Default::default()
    };
    let shape = pb::TensorShapeProto { dim: edge.shape.iter().map(dimension).collect() };
    let tensor = pb::type_proto::Tensor { elem_type: edge.element.code(), shape: Some(shape) };
    let r#type = pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
    pb::ValueInfoProto { name: edge.name.clone(), r#type: Some(r#type), ..Default::default() }
}

/// An integer attribute.
pub fn int(name: &str, i: i64) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..Default::default() }
}

/// A float attribute.
pub fn float(name: &str, f: f32) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..Default::default() }
}

/// An attribute of several integers.
pub fn ints(name: &str, values: &[usize]) -> pb::AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    pb::AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints, ..Default::default() }
}
