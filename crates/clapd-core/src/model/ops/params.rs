//! An operator's weights and sizes as a bundle holds them, by name.
//!
//! They are checked as they are asked for, and [`Linear`]s are packed from them. Nothing is allocated by a size that no tensor bears
//! out.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clapd_kernels::{Isa, Linear, Norm};
use half::f16;
use tract_nnef::internal::{DatumType, Tensor};

use super::schema::{Field, OpSpec};

/// The largest whole number in a graph: the rows of a vocabulary. RoBERTa's has 50,265.
const MAX_SIZE: usize = 1 << 20;

/// Named tensors and numbers of one operator.
#[derive(Clone, Debug)]
pub struct OpParams {
    spec: &'static OpSpec,
    tensors: BTreeMap<String, Arc<Tensor>>,
    sizes: BTreeMap<String, usize>,
    reals: BTreeMap<String, f32>,
}

impl OpParams {
    /// Without any parameter yet. `name` is an operator's name in a graph.
    ///
    /// # Errors
    /// No operator of that name.
    pub fn new(name: &str) -> Result<Self> {
        let known = super::OP_SPECS.into_iter().find(|known| known.name == name);
        let spec = known.with_context(|| format!("there is no operator {name:?}"))?;
        Ok(Self { spec, tensors: BTreeMap::new(), sizes: BTreeMap::new(), reals: BTreeMap::new() })
    }

    /// Which operator.
    pub fn spec(&self) -> &'static OpSpec {
        self.spec
    }

    /// Adds a tensor, or replaces it.
    pub fn set_tensor(&mut self, name: impl Into<String>, tensor: impl Into<Arc<Tensor>>) {
        self.tensors.insert(name.into(), tensor.into());
    }

    /// Takes a tensor away, if it is there.
    pub fn remove_tensor(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Adds a whole number.
    pub fn set_size(&mut self, name: &str, size: usize) {
        self.sizes.insert(name.into(), size);
    }

    /// Adds a number.
    pub fn set_real(&mut self, name: &str, value: f32) {
        self.reals.insert(name.into(), value);
    }

    /// The tensors, by the names of their arguments.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Arc<Tensor>)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The number of a field, as text that NNEF reads back.
    pub(super) fn number(&self, field: Field) -> Option<String> {
        match field {
            Field::Size(name) => self.sizes.get(name).map(usize::to_string),
            // Debug writes the shortest text that reads back as the same number, with a point or an exponent.
            Field::Real(name) => self.reals.get(name).map(|value| format!("{value:?}")),
            _ => None,
        }
    }

    /// Whether there is such a tensor or whole number.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.sizes.contains_key(name)
    }

    /// A tensor.
    ///
    /// # Errors
    /// None of that name.
    pub fn tensor(&self, name: &str) -> Result<&Arc<Tensor>> {
        self.tensors.get(name).with_context(|| format!("{} lacks {name}", self.spec.name))
    }

    /// Shape of a matrix.
    pub(super) fn matrix(&self, name: &str) -> Result<[usize; 2]> {
        let shape = self.tensor(name)?.shape();
        <[usize; 2]>::try_from(shape).ok().filter(|[rows, columns]| rows * columns > 0).with_context(|| {
            format!("{name} of {} has the shape {shape:?}; two axes that are not empty are expected", self.spec.name)
        })
    }

    /// A whole number from `least` to `most`.
    pub(super) fn size(&self, name: &str, least: usize, most: usize) -> Result<usize> {
        let size = *self.sizes.get(name).with_context(|| format!("{} lacks {name}", self.spec.name))?;
        let most = most.min(MAX_SIZE);
        ensure!((least..=most).contains(&size), "{name} of {} is {size}; {least} to {most} is allowed", self.spec.name);
        Ok(size)
    }

    /// Epsilon of a norm.
    pub(super) fn epsilon(&self) -> Result<f32> {
        self.real("epsilon", f32::MIN_POSITIVE, 1.0)
    }

    /// A number from `least` to `most`.
    ///
    /// # Errors
    /// None of that name, or one that is out of bounds.
    pub fn real(&self, name: &str, least: f32, most: f32) -> Result<f32> {
        let value = *self.reals.get(name).with_context(|| format!("{} lacks {name}", self.spec.name))?;
        ensure!(
            (least..=most).contains(&value),
            "{name} of {} is {value}; {least} to {most} is allowed",
            self.spec.name
        );
        Ok(value)
    }

    /// Numbers of an f32 tensor of any shape with `length` elements, all finite.
    ///
    /// # Errors
    /// No such tensor, another type or length, or a number that is not finite.
    pub fn floats(&self, name: &str, length: usize) -> Result<&[f32]> {
        let values = slice::<f32>(self.tensor(name)?).with_context(|| name.to_string())?;
        ensure!(
            values.len() == length,
            "{name} of {} has {} numbers instead of {length}",
            self.spec.name,
            values.len()
        );
        ensure!(values.iter().all(|v| v.is_finite()), "{name} of {} has a number that is not finite", self.spec.name);
        Ok(values)
    }

    /// A norm over rows of `width`.
    pub(super) fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let part = |end: &str| self.floats(&format!("{name}_{end}"), width).map(<[f32]>::to_vec);
        Ok(Norm::new(part("weight")?, part("bias")?, self.epsilon()?))
    }

    /// A linear of the shape that its weight has.
    pub(super) fn linear(&self, name: &str, isa: Isa) -> Result<Linear> {
        let weight = format!("{name}_weight");
        let [n, k] = self.matrix(&weight)?;
        let (bias, scale) = (format!("{name}_bias"), format!("{name}_scale"));
        let bias = if self.has(&bias) { self.floats(&bias, n)? } else { &[] };
        let tensor = self.tensor(&weight)?;
        let made = match tensor.datum_type() {
            DatumType::I8 => {
                let scales = slice::<f32>(self.tensor(&scale)?).with_context(|| scale)?;
                Linear::int8(isa, n, k, slice(tensor)?, scales, bias)
            }
            DatumType::F16 => Linear::f16(isa, n, k, slice(tensor)?, bias),
            DatumType::F32 => Linear::f32(isa, n, k, slice(tensor)?, bias),
            other => Err(anyhow!("it is stored as {other:?}; i8, f16 and f32 are allowed")),
        };
        made.with_context(|| format!("{name} of {}", self.spec.name))
    }

    /// The same, but int8 is only how it is stored: weights are widened, so that what goes through it is not rounded.
    pub(super) fn weight_only_int8(&self, name: &str, isa: Isa) -> Result<Linear> {
        if self.tensor(&format!("{name}_weight"))?.datum_type() != DatumType::I8 {
            return self.linear(name, isa);
        }
        let ([n, k], weights) = (self.matrix(&format!("{name}_weight"))?, self.dequantized(name)?);
        let bias = format!("{name}_bias");
        let bias = if self.has(&bias) { self.floats(&bias, n)? } else { &[] };
        Linear::f16(isa, n, k, &weights, bias).with_context(|| format!("{name} of {}", self.spec.name))
    }

    /// Weights `[out, in]` of an int8 linear, widened. Rounding to 11 bits is nothing beside that to 8, and half the memory of f32.
    fn dequantized(&self, name: &str) -> Result<Vec<f16>> {
        let weight = format!("{name}_weight");
        let ([n, k], tensor) = (self.matrix(&weight)?, self.tensor(&weight)?);
        let rows = slice::<i8>(tensor)?.chunks_exact(k).zip(self.floats(&format!("{name}_scale"), n)?);
        Ok(rows.flat_map(|(row, scale)| row.iter().map(move |w| f16::from_f32(f32::from(*w) * scale))).collect())
    }

    /// Shape `[out, in]` and weights of a linear, as what goes through a weight-only int8 one is multiplied by them.
    ///
    /// # Errors
    /// No such linear, or one that is stored in an unknown form.
    pub fn weights(&self, name: &str) -> Result<([usize; 2], Vec<f32>)> {
        let weight = format!("{name}_weight");
        let (shape, tensor) = (self.matrix(&weight)?, self.tensor(&weight)?);
        let single = |half: &[f16]| half.iter().map(|w| w.to_f32()).collect();
        let values = match tensor.datum_type() {
            DatumType::I8 => single(&self.dequantized(name)?),
            DatumType::F16 => single(slice(tensor)?),
            DatumType::F32 => slice(tensor)?.to_vec(),
            other => bail!("{weight} is stored as {other:?}; i8, f16 and f32 are allowed"),
        };
        Ok((shape, values))
    }
}

/// Rows to be looked up, in their stored form.
pub(super) struct Lookup {
    table: Arc<Tensor>,
    scales: Vec<f32>,
    width: usize,
}

impl Lookup {
    /// The rows of `name`.
    pub(super) fn new(params: &OpParams, name: &str) -> Result<Self> {
        let [rows, width] = params.matrix(name)?;
        let table = params.tensor(name)?.clone();
        let scales = match table.datum_type() {
            DatumType::I8 => params.floats(&format!("{name}_scale"), rows)?.to_vec(),
            DatumType::F16 | DatumType::F32 => vec![],
            other => bail!("{name} is stored as {other:?}; i8, f16 and f32 are allowed"),
        };
        Ok(Self { table, scales, width })
    }

    /// Adds a row to `out`.
    pub(super) fn add(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let rows = self.table.len() / self.width;
        ensure!(row < rows, "row {row} of a table of {rows} rows");
        let at = row * self.width..(row + 1) * self.width;
        match self.table.datum_type() {
            DatumType::I8 => {
                let scale = self.scales[row];
                add(out, slice::<i8>(&self.table)?[at].iter().map(|v| f32::from(*v) * scale));
            }
            DatumType::F16 => add(out, slice::<f16>(&self.table)?[at].iter().map(|v| v.to_f32())),
            _ => add(out, slice::<f32>(&self.table)?[at].iter().copied()),
        }
        Ok(())
    }
}

fn add(out: &mut [f32], row: impl Iterator<Item = f32>) {
    out.iter_mut().zip(row).for_each(|(out, value)| *out += value);
}

/// The numbers of a tensor of this type.
pub(super) fn slice<D: tract_nnef::internal::Datum>(tensor: &Tensor) -> Result<&[D]> {
    tensor.try_as_plain_ram()?.as_slice::<D>()
}
