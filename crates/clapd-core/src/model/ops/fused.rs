//! The one operator type that all our layers are to tract: read from NNEF, written to NNEF, packed, run.
//!
//! [`pack`] makes a graph's `clapd_*` nodes run on our kernels. Before that they neither run nor are folded into a constant.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use clapd_kernels::Workspace;
use tract_nnef::ast::{Literal, RValue, TypeName};
use tract_nnef::internal::*;
use tract_nnef::ser::invocation;

use super::OpParams;
use super::schema::{Field, Length, OpSpec, PackedLayer, Signature};
use crate::model::compute::Compute;

/// Our registry's name in a graph's `extension tract_registry` line.
const REGISTRY: &str = "clapd";

/// One of our layers as an operator.
#[derive(Clone)]
pub struct Fused {
    spec: &'static OpSpec,
    signature: Arc<Signature>,
    state: FusedState,
}

#[derive(Clone)]
enum FusedState {
    Stored(Arc<OpParams>),
    Packed(Arc<dyn PackedLayer>, Arc<WorkspacePool>),
}

/// Memory that the layers of one graph share. A graph may run on several threads at once: each run takes a workspace, and
/// there are never more than there were runs at once.
struct WorkspacePool {
    threads: usize,
    idle: Mutex<Vec<Workspace>>,
}

impl WorkspacePool {
    fn run(&self, layer: &dyn PackedLayer, inputs: TVec<TValue>) -> Result<Tensor> {
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
    /// Parameters that are missing or don't fit each other, as far as shapes depend on them.
    pub fn new(params: OpParams) -> Result<Self> {
        let spec = params.spec();
        let signature = (spec.signature)(&params).with_context(|| spec.name)?;
        Ok(Self { spec, signature: Arc::new(signature), state: FusedState::Stored(Arc::new(params)) })
    }

    /// What it was made of; none once it is packed.
    pub fn params(&self) -> Option<&OpParams> {
        match &self.state {
            FusedState::Stored(params) => Some(params),
            FusedState::Packed(..) => None,
        }
    }
}

/// Makes all our operators of a graph ready to run, and frees the weights in their stored form one operator at a time.
/// Gives how many there were.
///
/// # Errors
/// Names the operator whose parameters don't fit each other.
pub fn pack(model: &mut TypedModel, compute: Compute) -> Result<usize> {
    let pool = Arc::new(WorkspacePool { threads: compute.threads(), idle: Mutex::new(vec![]) });
    let mut packed = 0;
    for node in &mut model.nodes {
        let name = &node.name;
        if let Some(fused) = node.op.downcast_mut::<Fused>()
            && let FusedState::Stored(params) = &fused.state
        {
            let layer = (fused.spec.pack)(params, compute).with_context(|| format!("the operator {name}"))?;
            fused.state = FusedState::Packed(layer.into(), pool.clone());
            packed += 1;
        }
    }
    Ok(packed)
}

/// The reader and writer of our operators.
pub fn registry() -> Registry {
    let mut registry = Registry::new(REGISTRY).with_doc("Layers of CLAP's towers, fused");
    for spec in super::OP_SPECS {
        registry.register_primitive(spec.name, &spec.parameters(), &[("output", TypeName::Scalar.tensor())], read);
    }
    registry.register_dumper(write);
    registry
}

fn read(builder: &mut ModelBuilder, invocation: &ResolvedInvocation) -> TractResult<Value> {
    let mut params = OpParams::new(&invocation.invocation.id.0)?;
    let spec = params.spec();
    let known = spec.parameters();
    for argument in &invocation.invocation.arguments {
        let name = argument.id.as_ref().map_or("", |id| &id.0);
        ensure!(name.is_empty() || known.iter().any(|p| p.id.0 == name), "{} takes no {name}", spec.name);
    }
    for field in spec.fields {
        for name in field.arguments() {
            match field {
                Field::Size(_) => {
                    if let Some(size) = invocation.get_named_arg_as::<i64>(builder, &name)? {
                        params.set_size(&name, usize::try_from(size).with_context(|| format!("{name} is {size}"))?);
                    }
                }
                Field::Real(_) => {
                    if let Some(value) = invocation.get_named_arg_as::<f32>(builder, &name)? {
                        params.set_real(&name, value);
                    }
                }
                _ => {
                    if let Some(tensor) = invocation.get_named_arg_as::<Arc<Tensor>>(builder, &name)? {
                        params.set_tensor(name, tensor);
                    }
                }
            }
        }
    }
    let inputs = spec.inputs.iter().map(|name| invocation.named_arg_as(builder, name));
    let inputs = inputs.collect::<TractResult<TVec<OutletId>>>()?;
    builder.wire(Fused::new(params)?, &inputs)
}

fn write(ast: &mut IntoAst, node: &TypedNode, op: &Fused) -> TractResult<Option<Arc<RValue>>> {
    let FusedState::Stored(params) = &op.state else { bail!("{} is packed and can't be written any more", node.name) };
    let inputs: Vec<_> = node.inputs.iter().map(|input| ast.mapping[input].clone()).collect();
    let mut arguments = vec![];
    for field in op.spec.fields {
        if let (Field::Size(name) | Field::Real(name), Some(number)) = (field, params.number(*field)) {
            arguments.push((name.to_string(), RValue::Literal(Literal::Numeric(number))));
        }
    }
    for (name, tensor) in params.tensors() {
        let variable = ast.konst_variable(format!("{}_{name}", node.name), tensor)?;
        arguments.push((name.to_string(), variable.as_ref().clone()));
    }
    let arguments: Vec<_> = arguments.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(Some(invocation(op.spec.name, &inputs, &arguments)))
}

impl Op for Fused {
    fn name(&self) -> StaticName {
        self.spec.name.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Fused {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let FusedState::Packed(layer, pool) = &self.state else {
            bail!("{} runs only after it is packed", self.spec.name)
        };
        Ok(tvec!(pool.run(layer.as_ref(), inputs)?.into()))
    }
}

impl TypedOp for Fused {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let Signature { inputs: expected, output } = self.signature.as_ref();
        ensure!(
            inputs.len() == expected.len(),
            "{} has {} inputs, not {}",
            self.spec.name,
            expected.len(),
            inputs.len()
        );
        let mut tokens = None;
        for (fact, (datum_type, shape)) in inputs.iter().zip(expected) {
            let fits = fact.datum_type == *datum_type
                && fact.shape.rank() == shape.len()
                && fact.shape.iter().zip(shape).all(|(seen, length)| match length {
                    Some(length) => seen.to_usize().is_ok_and(|seen| seen == *length),
                    None => tokens.get_or_insert_with(|| seen.clone()) == seen,
                });
            ensure!(fits, "{} got {fact:?} where it takes {datum_type:?} of shape {shape:?}", self.spec.name);
        }
        let length = |length: &Length| match length {
            Some(length) => Ok(length.to_dim()),
            None => tokens.clone().with_context(|| format!("{} takes no tokens", self.spec.name)),
        };
        Ok(tvec!(f32::fact(output.iter().map(length).collect::<TractResult<TVec<TDim>>>()?)))
    }

    as_op!();
}

impl fmt::Debug for Fused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec.name)
    }
}

impl PartialEq for Fused {
    fn eq(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (FusedState::Stored(a), FusedState::Stored(b)) => Arc::ptr_eq(a, b),
            (FusedState::Packed(a, _), FusedState::Packed(b, _)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Fused {}
