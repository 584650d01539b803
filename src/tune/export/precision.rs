//! How the weights of an NNEF document are stored: f32, f16, or int8 with a scale for each row.
//!
//! In: a document with f32 tensors. Out: the same document with its large tensors stored small, each followed by the
//! cast (and product with its scales) that widens it, all in tract's own words. A reader folds these into f32 constants
//! when it loads; of an embedding table only the rows that are looked up are widened.
//! Never: touches small tensors (biases, norms); knows what the network is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use half::f16;
use tract_nnef::ast::{Argument, Assignment, Identifier, Invocation, LValue, Literal, ProtoModel, RValue, TypeName};
use tract_onnx::prelude::{DatumType, IntoArcTensor, Tensor};

use super::rows::{self, Rows};
use super::uses::{self, Channels, GATHER, Use};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    F32,
    /// Half precision.
    F16,
    /// 8-bit integers with an f32 scale for each row.
    Int8,
}

impl Precision {
    /// The word in `bundle.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// Tensors of fewer elements stay in f32: there is little to gain, and biases and norms are the least forgiving.
const SMALLEST: usize = 4096;

/// Rewrites a document so that its large tensors are stored in `precision`.
///
/// # Errors
/// A document whose tensors and variables don't agree, or a weight that is not finite.
pub fn store(document: &mut ProtoModel, precision: Precision) -> Result<()> {
    if precision == Precision::F32 {
        return Ok(());
    }
    let body = std::mem::take(&mut document.doc.graph_def.body);
    let uses = uses::uses(&body);
    let mut narrow = BTreeMap::new();
    let mut rewritten = vec![];
    for mut assignment in body {
        let large = variable(&assignment).filter(|(_, label)| {
            let tensor = document.tensors.get(&Identifier::from(label.as_str()));
            tensor.is_some_and(|t| t.datum_type() == DatumType::F32 && t.rank() > 1 && t.len() >= SMALLEST)
        });
        let Some((name, label)) = large else {
            widen_lookup(&mut assignment, &narrow);
            rewritten.push(assignment);
            continue;
        };
        let label = Identifier::from(label.as_str());
        let tensor = document.tensors.remove(&label).context("a variable without a tensor")?;
        let purpose = uses.get(&name).copied().unwrap_or(Use::Other);
        let stored =
            narrowed(&tensor, precision, purpose).with_context(|| format!("storing {name} as {}", precision.name()))?;
        let weights = Identifier(format!("{name}_{}", precision.name()));
        let scales = stored.scales.as_ref().map(|_| Identifier(format!("{name}_scale")));
        rewritten.push(declare(&weights, &stored.weights));
        document.tensors.insert(weights.clone(), stored.weights.into_arc_tensor());
        if let (Some(id), Some(tensor)) = (&scales, stored.scales) {
            rewritten.push(declare(id, &tensor));
            document.tensors.insert(id.clone(), tensor.into_arc_tensor());
        }
        let stored = Stored { weights: ident(&weights), scales: scales.as_ref().map(ident) };
        if matches!(purpose, Use::Lookup(_)) {
            narrow.insert(name, stored);
        } else {
            rewritten.push(Assignment { left: LValue::Identifier(Identifier(name)), right: stored.widened() });
        }
    }
    document.doc.graph_def.body = rewritten;
    Ok(())
}

struct Narrow {
    weights: Tensor,
    scales: Option<Tensor>,
}

/// The stored form. Scales run along the output channels of a weight, or the axis of a table that is looked up.
fn narrowed(tensor: &Arc<Tensor>, precision: Precision, purpose: Use) -> Result<Narrow> {
    let values = tensor.to_plain_array_view::<f32>()?;
    let values: Vec<f32> = values.iter().copied().collect();
    if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
        bail!("a weight is {bad}");
    }
    let shape = tensor.shape();
    if precision == Precision::F16 {
        if let Some(big) = values.iter().find(|v| v.abs() > f16::MAX.to_f32()) {
            bail!("a weight of {big} is beyond what f16 holds (65504): store it as f32 or int8");
        }
        let values: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
        return Ok(Narrow { weights: Tensor::from_shape(shape, &values)?, scales: None });
    }
    let axis = match purpose {
        Use::Lookup(axis) => axis,
        Use::Channels(channels) => channels.axis(shape.len()),
        Use::Other => Channels::Last.axis(shape.len()),
    };
    let Rows { values, scales } = rows::quantize(&values, shape, axis);
    let mut scale_shape = vec![1; shape.len()];
    scale_shape[axis] = shape[axis];
    let scales = Tensor::from_shape(&scale_shape, &scales)?;
    Ok(Narrow { weights: Tensor::from_shape(shape, &values)?, scales: Some(scales) })
}

/// A stored tensor as expressions.
struct Stored {
    weights: RValue,
    scales: Option<RValue>,
}

impl Stored {
    fn widened(self) -> RValue {
        let wide = call("tract_core_cast", vec![positional(self.weights), named("to", text("f32"))]);
        match self.scales {
            Some(scales) => call("mul", vec![positional(wide), positional(scales)]),
            None => wide,
        }
    }

    /// The rows that a lookup with these arguments picks.
    fn looked_up(&self, rest: &[Argument]) -> RValue {
        let pick = |table: &RValue| {
            let mut arguments = vec![positional(table.clone())];
            arguments.extend_from_slice(rest);
            call(GATHER, arguments)
        };
        Stored { weights: pick(&self.weights), scales: self.scales.as_ref().map(pick) }.widened()
    }
}

fn widen_lookup(assignment: &mut Assignment, narrow: &BTreeMap<String, Stored>) {
    let RValue::Invocation(call) = &assignment.right else { return };
    if let Some(stored) = uses::lookup(call).and_then(|(table, _)| narrow.get(&table.0)) {
        assignment.right = stored.looked_up(&call.arguments[1..]);
    }
}

/// The name and label of `name = variable(label = ...)`.
fn variable(assignment: &Assignment) -> Option<(String, String)> {
    let (LValue::Identifier(name), RValue::Invocation(call)) = (&assignment.left, &assignment.right) else {
        return None;
    };
    match uses::argument(call, "label")? {
        RValue::Literal(Literal::String(label)) if call.id.0 == "variable" => Some((name.0.clone(), label.clone())),
        _ => None,
    }
}

fn declare(id: &Identifier, tensor: &Tensor) -> Assignment {
    let shape = tensor.shape().iter().map(|d| RValue::Literal(Literal::Numeric(d.to_string()))).collect();
    let arguments = vec![named("label", text(&id.0)), named("shape", RValue::Array(shape))];
    let variable = Invocation { id: "variable".into(), generic_type_name: Some(TypeName::Scalar), arguments };
    Assignment { left: LValue::Identifier(id.clone()), right: RValue::Invocation(variable) }
}

fn ident(id: &Identifier) -> RValue {
    RValue::Identifier(id.clone())
}

fn text(value: &str) -> RValue {
    RValue::Literal(Literal::String(value.into()))
}

fn positional(rvalue: RValue) -> Argument {
    Argument { id: None, rvalue }
}

fn named(id: &str, rvalue: RValue) -> Argument {
    Argument { id: Some(id.into()), rvalue }
}

fn call(id: &str, arguments: Vec<Argument>) -> RValue {
    RValue::Invocation(Invocation { id: id.into(), generic_type_name: None, arguments })
}
