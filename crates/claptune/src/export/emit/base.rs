//! Operations that move, pick or compare values, whatever their type.

use anyhow::{Result, ensure};
use burn_ir::{BaseOperationIr, SliceOpIr, TensorIr};

use super::{Emitter, element};
use crate::export::onnx::{Constant, Element, int, ints};

impl Emitter {
    pub(super) fn base(&mut self, op: &BaseOperationIr) -> Result<bool> {
        use BaseOperationIr as Op;
        match op {
            Op::Reshape(o) => self.shaped("Reshape", &o.input, &o.out),
            Op::Expand(o) => self.shaped("Expand", &o.input, &o.out),
            Op::SwapDims(o) => {
                let mut axes: Vec<usize> = (0..o.input.shape.num_dims()).collect();
                axes.swap(o.dim1, o.dim2);
                self.unary("Transpose", &o.input, &o.out, vec![ints("perm", &axes)])
            }
            Op::Permute(o) => self.unary("Transpose", &o.input, &o.out, vec![ints("perm", &o.axes)]),
            Op::Slice(o) => self.slice(o),
            Op::Select(o) => self.binary_with("Gather", &o.tensor, &o.indices, &o.out, vec![int("axis", o.dim as i64)]),
            Op::Gather(o) => {
                self.binary_with("GatherElements", &o.tensor, &o.indices, &o.out, vec![int("axis", o.dim as i64)])
            }
            Op::RepeatDim(o) => {
                let mut times = vec![1i64; o.tensor.shape.num_dims()];
                times[o.dim] = o.times as i64;
                let (x, times) = (self.value(&o.tensor)?, self.graph.ints(&times));
                let name = self.graph.node("Tile", &[&x, &times], vec![]);
                self.bind(&o.out, name)
            }
            Op::Cat(o) => {
                let names = o.tensors.iter().map(|t| self.value(t)).collect::<Result<Vec<_>>>()?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let name = self.graph.node("Concat", &names, vec![int("axis", o.dim as i64)]);
                self.bind(&o.out, name)
            }
            Op::Cast(o) => self.cast(&o.input, &o.out),
            Op::Zeros(o) => self.filled(&o.out, 0.0),
            Op::Ones(o) => self.filled(&o.out, 1.0),
            Op::Equal(o) => self.binary("Equal", &o.lhs, &o.rhs, &o.out),
            Op::EqualElem(o) => self.with_scalar("Equal", &o.lhs, &o.rhs, &o.out),
            Op::NotEqual(o) => {
                let (a, b) = (self.value(&o.lhs)?, self.value(&o.rhs)?);
                self.not_equal(&a, &b, &o.out)
            }
            Op::NotEqualElem(o) => {
                let (a, b) = (self.value(&o.lhs)?, self.scalar(&o.rhs, &o.lhs)?);
                self.not_equal(&a, &b, &o.out)
            }
            Op::MaskWhere(o) => {
                let (mask, yes, no) = (self.value(&o.mask)?, self.value(&o.value)?, self.value(&o.tensor)?);
                let name = self.graph.node("Where", &[&mask, &yes, &no], vec![]);
                self.bind(&o.out, name)
            }
            Op::MaskFill(o) => {
                let (mask, no) = (self.value(&o.mask)?, self.value(&o.tensor)?);
                let yes = self.scalar(&o.value, &o.tensor)?;
                let name = self.graph.node("Where", &[&mask, &yes, &no], vec![]);
                self.bind(&o.out, name)
            }
            _ => Ok(false),
        }
    }

    /// `Reshape` and `Expand`: the target is the output's shape.
    fn shaped(&mut self, op: &str, input: &TensorIr, out: &TensorIr) -> Result<bool> {
        let target: Vec<i64> = out.shape.iter().map(|&d| d as i64).collect();
        let (x, target) = (self.value(input)?, self.graph.ints(&target));
        let name = self.graph.node(op, &[&x, &target], vec![]);
        self.bind(out, name)
    }

    fn slice(&mut self, o: &SliceOpIr) -> Result<bool> {
        let (mut starts, mut ends, mut axes) = (vec![], vec![], vec![]);
        for (axis, (range, &length)) in o.ranges.iter().zip(o.tensor.shape.iter()).enumerate() {
            ensure!(range.step == 1, "slices with a step of {} are not exported; only 1 is", range.step);
            let length = length as i64;
            let position = |p: isize| if p < 0 { p as i64 + length } else { p as i64 };
            let (start, end) = (position(range.start), range.end.map_or(length, position));
            if (start, end) != (0, length) {
                starts.push(start);
                ends.push(end);
                axes.push(axis as i64);
            }
        }
        let x = self.value(&o.tensor)?;
        if axes.is_empty() {
            return self.bind(&o.out, x);
        }
        let (starts, ends, axes) = (self.graph.ints(&starts), self.graph.ints(&ends), self.graph.ints(&axes));
        let name = self.graph.node("Slice", &[&x, &starts, &ends, &axes], vec![]);
        self.bind(&o.out, name)
    }

    fn not_equal(&mut self, a: &str, b: &str, out: &TensorIr) -> Result<bool> {
        let equal = self.graph.node("Equal", &[a, b], vec![]);
        let name = self.graph.node("Not", &[&equal], vec![]);
        self.bind(out, name)
    }

    /// To the type of `out`.
    pub(super) fn cast(&mut self, input: &TensorIr, out: &TensorIr) -> Result<bool> {
        let to = element(out.dtype)?.code();
        self.unary("Cast", input, out, vec![int("to", i64::from(to))])
    }

    /// A tensor of one value.
    pub(super) fn filled(&mut self, out: &TensorIr, value: f64) -> Result<bool> {
        let element = element(out.dtype)?;
        let one = Constant::scalar(element, value);
        let count: usize = out.shape.iter().product();
        let constant = Constant { element, shape: out.shape.to_vec(), bytes: one.bytes.repeat(count) };
        let name = self.graph.constant(constant);
        self.bind(out, name)
    }

    pub(super) fn unary(
        &mut self,
        op: &str,
        input: &TensorIr,
        out: &TensorIr,
        attributes: Vec<tract_onnx::pb::AttributeProto>,
    ) -> Result<bool> {
        let x = self.value(input)?;
        let name = self.graph.node(op, &[&x], attributes);
        self.bind(out, name)
    }

    pub(super) fn binary(&mut self, op: &str, lhs: &TensorIr, rhs: &TensorIr, out: &TensorIr) -> Result<bool> {
        self.binary_with(op, lhs, rhs, out, vec![])
    }

    pub(super) fn binary_with(
        &mut self,
        op: &str,
        lhs: &TensorIr,
        rhs: &TensorIr,
        out: &TensorIr,
        attributes: Vec<tract_onnx::pb::AttributeProto>,
    ) -> Result<bool> {
        let (a, b) = (self.value(lhs)?, self.value(rhs)?);
        let name = self.graph.node(op, &[&a, &b], attributes);
        self.bind(out, name)
    }

    pub(super) fn with_scalar(
        &mut self,
        op: &str,
        lhs: &TensorIr,
        rhs: &burn_ir::ScalarIr,
        out: &TensorIr,
    ) -> Result<bool> {
        let (a, b) = (self.value(lhs)?, self.scalar(rhs, lhs)?);
        let name = self.graph.node(op, &[&a, &b], vec![]);
        self.bind(out, name)
    }

    pub(super) fn bool_to(&mut self, input: &TensorIr, out: &TensorIr, to: Element) -> Result<bool> {
        self.unary("Cast", input, out, vec![int("to", i64::from(to.code()))])
    }
}
