//! Arithmetic, comparisons and reductions.

use anyhow::Result;
use burn_ir::{BoolOperationIr, FloatOperationIr, IntOperationIr, NumericOperationIr, ReduceDimOpIr, TensorIr};

use super::Emitter;
use crate::export::onnx::{Constant, Element, int, ints};

impl Emitter {
    pub(super) fn numeric(&mut self, op: &NumericOperationIr) -> Result<bool> {
        use NumericOperationIr as Op;
        match op {
            Op::Add(o) => self.binary("Add", &o.lhs, &o.rhs, &o.out),
            Op::Sub(o) => self.binary("Sub", &o.lhs, &o.rhs, &o.out),
            Op::Mul(o) => self.binary("Mul", &o.lhs, &o.rhs, &o.out),
            Op::Div(o) => self.binary("Div", &o.lhs, &o.rhs, &o.out),
            Op::AddScalar(o) => self.with_scalar("Add", &o.lhs, &o.rhs, &o.out),
            Op::SubScalar(o) => self.with_scalar("Sub", &o.lhs, &o.rhs, &o.out),
            Op::MulScalar(o) => self.with_scalar("Mul", &o.lhs, &o.rhs, &o.out),
            Op::DivScalar(o) => self.with_scalar("Div", &o.lhs, &o.rhs, &o.out),
            Op::Powi(o) => self.binary("Pow", &o.lhs, &o.rhs, &o.out),
            Op::PowiScalar(o) => self.with_scalar("Pow", &o.lhs, &o.rhs, &o.out),
            Op::Neg(o) => self.unary("Neg", &o.input, &o.out, vec![]),
            Op::Abs(o) => self.unary("Abs", &o.input, &o.out, vec![]),
            Op::Greater(o) => self.binary("Greater", &o.lhs, &o.rhs, &o.out),
            Op::GreaterElem(o) => self.with_scalar("Greater", &o.lhs, &o.rhs, &o.out),
            Op::GreaterEqual(o) => self.binary("GreaterOrEqual", &o.lhs, &o.rhs, &o.out),
            Op::GreaterEqualElem(o) => self.with_scalar("GreaterOrEqual", &o.lhs, &o.rhs, &o.out),
            Op::Lower(o) => self.binary("Less", &o.lhs, &o.rhs, &o.out),
            Op::LowerElem(o) => self.with_scalar("Less", &o.lhs, &o.rhs, &o.out),
            Op::LowerEqual(o) => self.binary("LessOrEqual", &o.lhs, &o.rhs, &o.out),
            Op::LowerEqualElem(o) => self.with_scalar("LessOrEqual", &o.lhs, &o.rhs, &o.out),
            Op::ClampMin(o) => self.with_scalar("Max", &o.lhs, &o.rhs, &o.out),
            Op::ClampMax(o) => self.with_scalar("Min", &o.lhs, &o.rhs, &o.out),
            Op::Clamp(o) => {
                let (x, min, max) =
                    (self.value(&o.tensor)?, self.scalar(&o.min, &o.tensor)?, self.scalar(&o.max, &o.tensor)?);
                let name = self.graph.node("Clip", &[&x, &min, &max], vec![]);
                self.bind(&o.out, name)
            }
            Op::Full(o) => self.filled(&o.out, o.value.elem::<f64>()),
            Op::SumDim(o) => self.sum(&o.input, &[o.axis], &o.out),
            Op::SumDims(o) => self.sum(&o.input, &o.axes, &o.out),
            Op::MeanDim(o) => self.unary("ReduceMean", &o.input, &o.out, vec![ints("axes", &[o.axis])]),
            Op::MaxDim(o) => self.unary("ReduceMax", &o.input, &o.out, vec![ints("axes", &[o.axis])]),
            Op::MinDim(o) => self.unary("ReduceMin", &o.input, &o.out, vec![ints("axes", &[o.axis])]),
            Op::TopK(o) => self.top_k(o),
            _ => Ok(false),
        }
    }

    pub(super) fn float(&mut self, op: &FloatOperationIr) -> Result<bool> {
        use FloatOperationIr as Op;
        match op {
            Op::Exp(o) => self.unary("Exp", &o.input, &o.out, vec![]),
            Op::Log(o) => self.unary("Log", &o.input, &o.out, vec![]),
            Op::Sqrt(o) => self.unary("Sqrt", &o.input, &o.out, vec![]),
            Op::Erf(o) => self.unary("Erf", &o.input, &o.out, vec![]),
            Op::Tanh(o) => self.unary("Tanh", &o.input, &o.out, vec![]),
            Op::Recip(o) => self.unary("Reciprocal", &o.input, &o.out, vec![]),
            Op::Powf(o) => self.binary("Pow", &o.lhs, &o.rhs, &o.out),
            Op::PowfScalar(o) => self.with_scalar("Pow", &o.lhs, &o.rhs, &o.out),
            Op::Matmul(o) => self.binary("MatMul", &o.lhs, &o.rhs, &o.out),
            Op::IntoInt(o) => self.cast(&o.input, &o.out),
            _ => Ok(false),
        }
    }

    pub(super) fn int(&mut self, op: &IntOperationIr) -> Result<bool> {
        match op {
            IntOperationIr::IntoFloat(o) => self.cast(&o.input, &o.out),
            _ => Ok(false),
        }
    }

    pub(super) fn bool(&mut self, op: &BoolOperationIr) -> Result<bool> {
        use BoolOperationIr as Op;
        match op {
            Op::IntoFloat(o) => self.bool_to(&o.input, &o.out, Element::Float),
            Op::IntoInt(o) => self.bool_to(&o.input, &o.out, Element::Int),
            Op::Not(o) => self.unary("Not", &o.input, &o.out, vec![]),
            Op::And(o) => self.binary("And", &o.lhs, &o.rhs, &o.out),
            Op::Or(o) => self.binary("Or", &o.lhs, &o.rhs, &o.out),
            _ => Ok(false),
        }
    }

    /// Opset 17 takes the axes of a sum as an input (those of a mean are an attribute until 18).
    fn sum(&mut self, input: &TensorIr, axes: &[usize], out: &TensorIr) -> Result<bool> {
        let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        let (x, axes) = (self.value(input)?, self.graph.ints(&axes));
        let name = self.graph.node("ReduceSum", &[&x, &axes], vec![]);
        self.bind(out, name)
    }

    /// The k largest along an axis, largest first (the recording keeps k as the reduction's length).
    fn top_k(&mut self, o: &ReduceDimOpIr) -> Result<bool> {
        let (x, k) = (self.value(&o.input)?, self.graph.ints(&[o.accumulator_len as i64]));
        let values = self.graph.node("TopK", &[&x, &k], vec![int("axis", o.axis as i64)]);
        if let Some(node) = self.graph.nodes.last_mut() {
            node.output.push(format!("{values}_indices"));
        }
        self.bind(&o.out, values)
    }

    /// A float constant of no dimensions.
    pub(super) fn number(&mut self, value: f64) -> String {
        self.graph.constant(Constant::scalar(Element::Float, value))
    }
}
