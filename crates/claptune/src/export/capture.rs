//! One forward pass of a Burn module, recorded on inputs of fixed shape: the operations in order, the values of
//! constants, the names of parameters, and the named inputs and outputs. It knows no graph format.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_capture::{CaptureBackend, TensorId};
use burn_ir::OperationIr;

/// A tensor at the edge of the graph.
#[derive(Clone, Debug)]
pub struct Port {
    /// The name that the exported graph gives it.
    pub name: String,
    /// Its shape in this recording.
    pub shape: Vec<usize>,
    pub(super) id: TensorId,
}

/// A recorded forward pass.
pub struct Recording {
    pub(super) operations: Vec<OperationIr>,
    pub(super) values: BTreeMap<TensorId, TensorData>,
    pub(super) parameters: BTreeMap<TensorId, String>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

/// Handed to the function under [`record`]: makes the inputs and takes the outputs.
pub struct Tracer {
    host: Device,
    device: Device,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    faults: Vec<String>,
}

impl Tracer {
    /// A float input of the graph, as zeros of this shape.
    pub fn float_input<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let tensor = Tensor::<D>::zeros(shape, &self.host).to_device(&self.device);
        let id = self.id_of(name, tensor.clone().try_into_primitive::<CaptureBackend>().map(|t| t.id()));
        self.inputs.push(Port { name: name.into(), shape: shape.to_vec(), id });
        tensor
    }

    /// A 64-bit integer input of the graph, as zeros of this shape.
    pub fn int_input<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D, Int> {
        let zeros = TensorData::new(vec![0i64; shape.iter().product()], shape);
        let tensor = Tensor::<D, Int>::from_data(zeros, (&self.host, DType::I64)).to_device(&self.device);
        let id = self.id_of(name, tensor.clone().try_into_primitive::<CaptureBackend>().map(|t| t.id()));
        self.inputs.push(Port { name: name.into(), shape: shape.to_vec(), id });
        tensor
    }

    /// Declares an output of the graph.
    pub fn output<const D: usize>(&mut self, name: &str, tensor: &Tensor<D>) {
        let shape = tensor.dims().to_vec();
        let id = self.id_of(name, tensor.clone().try_into_primitive::<CaptureBackend>().map(|t| t.id()));
        self.outputs.push(Port { name: name.into(), shape, id });
    }

    /// The id of a tensor; a tensor of another device is a fault that [`record`] reports.
    fn id_of<E: std::fmt::Debug>(&mut self, name: &str, id: std::result::Result<TensorId, E>) -> TensorId {
        id.unwrap_or_else(|e| {
            self.faults.push(format!("`{name}`: {e:?}"));
            TensorId::new(u64::MAX)
        })
    }
}

/// Records `forward` of `module`. Every float parameter of the module must take part in it: one that does not would be
/// lost without a word.
///
/// # Errors
/// Names the inputs, outputs or parameters that the recording does not reach.
pub fn record<M: Module>(module: M, forward: impl FnOnce(&M, &mut Tracer)) -> Result<Recording> {
    let device = Device::capture();
    let mut tracer =
        Tracer { host: Device::flex(), device: device.clone(), inputs: vec![], outputs: vec![], faults: vec![] };
    let mut parameters = Parameters::default();
    let graph = device
        .capture_scope(|scope| {
            // `valid` copies what clones of a module share (the statistics of batch norms): other clones stay where they are.
            let copy = module.valid();
            // From here on a weight that no clone shares moves instead of being copied.
            drop(module);
            let module = copy.to_device(&device);
            module.visit(&mut parameters);
            forward(&module, &mut tracer);
            let ids = |ports: &[Port]| ports.iter().map(|p| p.id).collect::<Vec<_>>();
            scope.complete(ids(&tracer.inputs), ids(&tracer.outputs))
        })
        .map_err(|e| anyhow::anyhow!("{e}; {}", tracer.faults.join("; ")))
        .context("recording the network's forward pass")?;
    let recording = Recording {
        operations: graph.graph.operations,
        values: graph.values,
        parameters: parameters.names,
        inputs: tracer.inputs,
        outputs: tracer.outputs,
    };
    recording.check_parameters()?;
    Ok(recording)
}

impl Recording {
    fn check_parameters(&self) -> Result<()> {
        let read: BTreeSet<TensorId> = self
            .operations
            .iter()
            .filter(|op| !matches!(op, OperationIr::Init(_) | OperationIr::Drop(_)))
            .flat_map(|op| op.inputs().map(|t| t.id).collect::<Vec<_>>())
            .collect();
        let unused: Vec<&str> =
            self.parameters.iter().filter(|(id, _)| !read.contains(id)).map(|(_, name)| name.as_str()).collect();
        if !unused.is_empty() {
            bail!("parameters that the forward pass does not read: {}", unused.join(", "));
        }
        Ok(())
    }
}

/// Collects the path of every float parameter.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    names: BTreeMap<TensorId, String>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Ok(tensor) = param.val().try_into_primitive::<CaptureBackend>() {
            self.names.insert(tensor.id(), self.path.join("."));
        }
    }
}
