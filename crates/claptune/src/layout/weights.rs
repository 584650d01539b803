//! A checkpoint's tensors as an operator's parameters, stored as the precision says, one tensor after the other.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use clapd_core::model::ops::OpParams;
use half::f16;
use tract_onnx::prelude::Tensor;

use crate::checkpoint::Weight;
use crate::export::Precision;
use crate::quantize::Int8Linear;
use crate::quantize::rows::Rows;

/// One tower of a checkpoint.
pub struct TowerWeights<'a> {
    /// A tensor by its path in the network, a linear's weight as [out, in].
    pub source: &'a dyn Fn(&str) -> Result<Weight>,
    /// How the linears of the body are stored.
    pub precision: Precision,
    /// Whether int8 is only how transformer blocks are stored: what goes through them is then not rounded. Slower, and nearer.
    pub weight_only_int8: bool,
    /// Of an int8 tower: its linears by path, taken out as they are laid out.
    pub int8: BTreeMap<String, Int8Linear>,
}

/// An operator in the making.
pub struct LayerBuilder<'w, 'a> {
    pub parts: OpParams,
    pub weights: &'w mut TowerWeights<'a>,
}

impl<'a> TowerWeights<'a> {
    /// Nothing rounded to int8 yet.
    pub fn new(source: &'a dyn Fn(&str) -> Result<Weight>, precision: Precision) -> Self {
        Self { source, precision, weight_only_int8: false, int8: BTreeMap::new() }
    }

    /// With the linears of an int8 tower.
    pub fn set_int8(&mut self, linears: Vec<Int8Linear>) {
        self.int8 = linears.into_iter().map(|linear| (linear.path.clone(), linear)).collect();
    }

    /// A tensor, a linear's weight as [out, in].
    pub fn read(&self, path: &str) -> Result<Weight> {
        (self.source)(path)
    }

    /// An operator without parts yet.
    pub fn layer(&mut self, kind: &str) -> Result<LayerBuilder<'_, 'a>> {
        Ok(LayerBuilder { parts: OpParams::new(kind)?, weights: self })
    }
}

impl LayerBuilder<'_, '_> {
    /// Whole numbers.
    pub fn sizes(&mut self, sizes: &[(&str, usize)]) {
        sizes.iter().for_each(|(name, size)| self.parts.set_size(name, *size));
    }

    /// Numbers in f32 under another name.
    pub fn table(&mut self, name: &str, path: &str) -> Result<()> {
        let weight = self.weights.read(path)?;
        self.floats(name, &weight.shape, &weight.values)
    }

    /// The same, of numbers that are at hand.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.parts.set_tensor(name, Tensor::from_shape(shape, values)?);
        Ok(())
    }

    /// A norm.
    pub fn norm(&mut self, name: &str, path: &str) -> Result<()> {
        self.table(&format!("{name}_weight"), &format!("{path}.gamma"))?;
        self.table(&format!("{name}_bias"), &format!("{path}.beta"))
    }

    /// A linear of the body: int8 where the tower is. Several paths are one linear, their outputs one behind the other.
    pub fn body(&mut self, name: &str, paths: &[String], bias: bool) -> Result<()> {
        if self.weights.precision != Precision::Int8 {
            return self.linear(name, paths, bias, self.weights.precision == Precision::F16);
        }
        let (mut values, mut scales, mut inputs) = (vec![], vec![], 0);
        for path in paths {
            let int8 = self.weights.int8.remove(path).with_context(|| format!("{path} was not rounded to int8"))?;
            inputs = int8.inputs;
            values.extend(int8.rounded.weights);
            scales.extend(int8.rounded.scales);
        }
        ensure!(values.len() == scales.len() * inputs, "{name}: {} integers, {} scales", values.len(), scales.len());
        self.parts.set_tensor(format!("{name}_weight"), Tensor::from_shape(&[scales.len(), inputs], &values)?);
        self.floats(&format!("{name}_scale"), &[scales.len()], &scales)?;
        if bias { self.bias(name, paths) } else { Ok(()) }
    }

    /// A linear of the head: never int8.
    pub fn head(&mut self, name: &str, path: &str) -> Result<()> {
        self.linear(name, &[path.into()], true, self.weights.precision != Precision::F32)
    }

    fn linear(&mut self, name: &str, paths: &[String], bias: bool, half: bool) -> Result<()> {
        let (mut values, mut rows, mut inputs) = (vec![], 0, 0);
        for path in paths {
            let weight = self.weights.read(&format!("{path}.weight"))?;
            rows += weight.shape[0];
            inputs = weight.shape[1];
            values.extend(weight.values);
        }
        let tensor = stored(&[rows, inputs], &values, half).with_context(|| paths.join(", "))?;
        self.parts.set_tensor(format!("{name}_weight"), tensor);
        if bias { self.bias(name, paths) } else { Ok(()) }
    }

    fn bias(&mut self, name: &str, paths: &[String]) -> Result<()> {
        let mut values = vec![];
        for path in paths {
            values.extend(self.weights.read(&format!("{path}.bias"))?.values);
        }
        self.floats(&format!("{name}_bias"), &[values.len()], &values)
    }

    /// Rows that are looked up, in f32, in f16, or as they were rounded.
    pub fn rows(&mut self, name: &str, path: &str, rounded: Option<Rows>) -> Result<()> {
        let weight = self.weights.read(path)?;
        let Some(Rows { values, scales }) = rounded else {
            let tensor = stored(&weight.shape, &weight.values, self.weights.precision == Precision::F16)?;
            self.parts.set_tensor(name, tensor);
            return Ok(());
        };
        self.parts.set_tensor(name, Tensor::from_shape(&weight.shape, &values)?);
        self.floats(&format!("{name}_scale"), &[scales.len()], &scales)
    }
}

/// A tensor in f32 or f16.
///
/// # Errors
/// A number beyond what f16 holds.
pub fn stored(shape: &[usize], values: &[f32], half: bool) -> Result<Tensor> {
    if !half {
        return Tensor::from_shape(shape, values);
    }
    if let Some(big) = values.iter().find(|v| v.abs() > f16::MAX.to_f32()) {
        anyhow::bail!("a weight of {big} is beyond what f16 holds (65504): import it with --precision f32");
    }
    let values: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    Tensor::from_shape(shape, &values)
}
