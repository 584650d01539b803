//! The one operator type that all our layers are to tract: read from NNEF, written to NNEF, packed, run.
//!
//! In: a graph. Out: a graph whose `clapd_*` nodes run on our kernels.
//! Never: runs, or is folded into a constant, before it is packed.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use clapd_kernels::Workspace;
use tract_nnef::ast::{Literal, RValue, TypeName};
use tract_nnef::internal::*;
use tract_nnef::ser::invocation;

use super::Parts;
use super::schema::{Field, Kind, Length, Packed, Signature};
use crate::model::compute::Compute;

/// Our registry's name in a graph's `extension tract_registry` line.
const REGISTRY: &str = "clapd";

/// One of our layers as an operator.
#[derive(Clone)]
pub struct Fused {
    kind: &'static Kind,
    signature: Arc<Signature>,
    state: State,
}

#[derive(Clone)]
enum State {
    Stored(Arc<Parts>),
    Packed(Arc<dyn Packed>, Arc<Engine>),
}

/// Memory that the layers of one graph share. A graph may run on several threads at once: each run takes a workspace, and
/// there are never more than there were runs at once.
struct Engine {
    threads: usize,
    idle: Mutex<Vec<Workspace>>,
}

impl Engine {
    fn run(&self, layer: &dyn Packed, inputs: TVec<TValue>) -> Result<Tensor> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = idle().pop().unwrap_or_else(|| Workspace::new(self.threads));
        let output = layer.run(inputs, &mut workspace);
        idle().push(workspace);
        output
    }
}

impl Fused {
    /// The operator with these parts.
    ///
    /// # Errors
    /// Parts that are missing or don't fit each other, as far as shapes depend on them.
    pub fn new(parts: Parts) -> Result<Self> {
        let kind = parts.kind();
        let signature = (kind.signature)(&parts).with_context(|| kind.name)?;
        Ok(Self { kind, signature: Arc::new(signature), state: State::Stored(Arc::new(parts)) })
    }

    /// What it was made of; none once it is packed.
    pub fn parts(&self) -> Option<&Parts> {
        match &self.state {
            State::Stored(parts) => Some(parts),
            State::Packed(..) => None,
        }
    }
}

/// Makes all our operators of a graph ready to run, and frees the weights in their stored form one operator at a time.
/// Gives how many there were.
///
/// # Errors
/// Names the operator whose parts don't fit each other.
pub fn pack(model: &mut TypedModel, compute: Compute) -> Result<usize> {
    let engine = Arc::new(Engine { threads: compute.threads(), idle: Mutex::new(vec![]) });
    let mut packed = 0;
    for node in &mut model.nodes {
        let name = &node.name;
        if let Some(fused) = node.op.downcast_mut::<Fused>()
            && let State::Stored(parts) = &fused.state
        {
            let layer = (fused.kind.pack)(parts, compute).with_context(|| format!("the operator {name}"))?;
            fused.state = State::Packed(layer.into(), engine.clone());
            packed += 1;
        }
    }
    Ok(packed)
}

/// The reader and writer of our operators.
pub fn registry() -> Registry {
    let mut registry = Registry::new(REGISTRY).with_doc("Layers of CLAP's towers, fused");
    for kind in super::KINDS {
        registry.register_primitive(kind.name, &kind.parameters(), &[("output", TypeName::Scalar.tensor())], read);
    }
    registry.register_dumper(write);
    registry
}

fn read(builder: &mut ModelBuilder, invocation: &ResolvedInvocation) -> TractResult<Value> {
    let mut parts = Parts::new(&invocation.invocation.id.0)?;
    let kind = parts.kind();
    let known = kind.parameters();
    for argument in &invocation.invocation.arguments {
        let name = argument.id.as_ref().map_or("", |id| &id.0);
        ensure!(name.is_empty() || known.iter().any(|p| p.id.0 == name), "{} takes no {name}", kind.name);
    }
    for field in kind.fields {
        for name in field.arguments() {
            match field {
                Field::Size(_) => {
                    if let Some(size) = invocation.get_named_arg_as::<i64>(builder, &name)? {
                        parts.set_size(&name, usize::try_from(size).with_context(|| format!("{name} is {size}"))?);
                    }
                }
                Field::Real(_) => {
                    if let Some(value) = invocation.get_named_arg_as::<f32>(builder, &name)? {
                        parts.set_real(&name, value);
                    }
                }
                _ => {
                    if let Some(tensor) = invocation.get_named_arg_as::<Arc<Tensor>>(builder, &name)? {
                        parts.set_tensor(name, tensor);
                    }
                }
            }
        }
    }
    let inputs = kind.inputs.iter().map(|name| invocation.named_arg_as(builder, name));
    let inputs = inputs.collect::<TractResult<TVec<OutletId>>>()?;
    builder.wire(Fused::new(parts)?, &inputs)
}

fn write(ast: &mut IntoAst, node: &TypedNode, op: &Fused) -> TractResult<Option<Arc<RValue>>> {
    let State::Stored(parts) = &op.state else { bail!("{} is packed and can't be written any more", node.name) };
    let inputs: Vec<_> = node.inputs.iter().map(|input| ast.mapping[input].clone()).collect();
    let mut arguments = vec![];
    for field in op.kind.fields {
        if let (Field::Size(name) | Field::Real(name), Some(number)) = (field, parts.number(*field)) {
            arguments.push((name.to_string(), RValue::Literal(Literal::Numeric(number))));
        }
    }
    for (name, tensor) in parts.tensors() {
        let variable = ast.konst_variable(format!("{}_{name}", node.name), tensor)?;
        arguments.push((name.to_string(), variable.as_ref().clone()));
    }
    let arguments: Vec<_> = arguments.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(Some(invocation(op.kind.name, &inputs, &arguments)))
}

impl Op for Fused {
    fn name(&self) -> StaticName {
        self.kind.name.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Fused {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let State::Packed(layer, engine) = &self.state else {
            bail!("{} runs only after it is packed", self.kind.name)
        };
        Ok(tvec!(engine.run(layer.as_ref(), inputs)?.into()))
    }
}

impl TypedOp for Fused {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let Signature { inputs: expected, output } = self.signature.as_ref();
        ensure!(
            inputs.len() == expected.len(),
            "{} has {} inputs, not {}",
            self.kind.name,
            expected.len(),
            inputs.len()
        );
        let mut tokens = None;
        for (fact, (kind, shape)) in inputs.iter().zip(expected) {
            let fits = fact.datum_type == *kind
                && fact.shape.rank() == shape.len()
                && fact.shape.iter().zip(shape).all(|(seen, length)| match length {
                    Some(length) => seen.to_usize().is_ok_and(|seen| seen == *length),
                    None => tokens.get_or_insert_with(|| seen.clone()) == seen,
                });
            ensure!(fits, "{} got {fact:?} where it takes {kind:?} of shape {shape:?}", self.kind.name);
        }
        let length = |length: &Length| match length {
            Some(length) => Ok(length.to_dim()),
            None => tokens.clone().with_context(|| format!("{} takes no tokens", self.kind.name)),
        };
        Ok(tvec!(f32::fact(output.iter().map(length).collect::<TractResult<TVec<TDim>>>()?)))
    }

    as_op!();
}

impl fmt::Debug for Fused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)
    }
}

impl PartialEq for Fused {
    fn eq(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (State::Stored(a), State::Stored(b)) => Arc::ptr_eq(a, b),
            (State::Packed(a, _), State::Packed(b, _)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Fused {}
