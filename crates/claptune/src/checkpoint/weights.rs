//! Tensors by name, and their way into a module.
//!
//! A module takes all of its tensors or none: what is missing, left over, of another shape or not finite is reported together, so that
//! a checkpoint that does not fit is understood at one glance.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::TensorData;

use super::clap_names::is_transposed;

/// A tensor of a checkpoint: row-major f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Shape.
    pub shape: Vec<usize>,
    /// As many values as the shape says.
    pub values: Vec<f32>,
}

impl Weight {
    /// A matrix [rows, columns] as [columns, rows]. Other ranks stay as they are.
    pub fn transposed(self) -> Self {
        let &[rows, columns] = self.shape.as_slice() else { return self };
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            values.extend(self.values[column..].iter().step_by(columns).take(rows));
        }
        Self { shape: vec![columns, rows], values }
    }

    /// Itself, if it can be a parameter of this shape; otherwise what is wrong with the tensor `name`.
    ///
    /// # Errors
    /// A line for [`fail_on_faults`].
    pub fn check(self, name: &str, shape: &[usize]) -> std::result::Result<Self, String> {
        if self.shape != shape {
            return Err(format!("shape    {name} is {:?}, the network has {shape:?}", self.shape));
        }
        match self.values.iter().find(|v| !v.is_finite()) {
            Some(bad) => Err(format!("value    {name} holds {bad}")),
            None => Ok(self),
        }
    }
}

/// Tensors by name.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Weight>,
}

impl Weights {
    /// Adds a tensor.
    pub fn insert(&mut self, name: impl Into<String>, weight: Weight) {
        self.tensors.insert(name.into(), weight);
    }

    /// Adds all tensors of another set.
    pub fn append(&mut self, mut others: Self) {
        self.tensors.append(&mut others.tensors);
    }

    /// Takes a tensor out.
    pub fn take(&mut self, name: &str) -> Option<Weight> {
        self.tensors.remove(name)
    }

    /// A copy of a network's tensor by its path, a linear's weight as [out, in].
    ///
    /// # Errors
    /// No tensor of that path.
    pub fn read(&self, path: &str) -> Result<Weight> {
        let weight = self.tensors.get(path).with_context(|| format!("the checkpoint has no {path}"))?.clone();
        Ok(if is_transposed(path, weight.shape.len()) { weight.transposed() } else { weight })
    }

    /// The names that are left.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Keeps the first `rows` rows of a matrix.
    pub fn truncate_rows(&mut self, name: &str, rows: usize) {
        if let Some(Weight { shape, values }) = self.tensors.get_mut(name)
            && let [height, width] = shape.as_mut_slice()
            && rows < *height
        {
            *height = rows;
            values.truncate(rows * *width);
        }
    }

    /// Fills every float parameter of a module from the tensor of the same path.
    ///
    /// # Errors
    /// Lists all tensors that are missing, left over, of another shape, or not finite.
    pub fn load_into<M: Module>(self, module: M) -> Result<M> {
        let mut tensors = self.tensors;
        let mut faults = vec![];
        let fetch = |path: &str, shape: &[usize]| match tensors.remove(path) {
            Some(weight) => weight.check(path, shape),
            None => Err(format!("missing  {path} {shape:?}")),
        };
        let module = load_parameters(module, fetch, &mut faults);
        faults.extend(tensors.iter().map(|(name, w)| format!("extra    {name} {:?}", w.shape)));
        fail_on_faults(&faults)?;
        Ok(module)
    }
}

/// One error for all that is wrong with a checkpoint's tensors.
///
/// # Errors
/// Any fault at all.
pub fn fail_on_faults(faults: &[String]) -> Result<()> {
    if !faults.is_empty() {
        bail!("the checkpoint does not fit the network:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// Fills every float parameter of a module with what `fetch` gives for its path and shape; what `fetch` says is wrong is
/// added to `faults`.
pub fn load_parameters<M: Module>(
    module: M,
    fetch: impl FnMut(&str, &[usize]) -> std::result::Result<Weight, String>,
    faults: &mut Vec<String>,
) -> M {
    module.map(&mut ParameterLoader { path: vec![], fetch, faults })
}

struct ParameterLoader<'a, F> {
    path: Vec<String>,
    fetch: F,
    faults: &'a mut Vec<String>,
}

impl<F: FnMut(&str, &[usize]) -> std::result::Result<Weight, String>> ModuleMapper for ParameterLoader<'_, F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let expected = param.dims();
        let weight = match (self.fetch)(&name, &expected) {
            Ok(weight) => weight,
            Err(fault) => {
                self.faults.push(fault);
                return param;
            }
        };
        // To be trained as before: a tensor from data is a constant, on an autodiff device too.
        let trained = param.is_require_grad();
        let (id, old, mapper) = param.consume();
        let new = Tensor::from_data(TensorData::new(weight.values, expected), &old.device());
        let new = if trained && new.device().is_autodiff() { new.require_grad() } else { new };
        Param::from_mapped_value(id, new, mapper)
    }
}
