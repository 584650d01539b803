//! The layers that Burn records whole: linear, norms, embedding, convolution, pooling, activations.

use anyhow::{Result, bail, ensure};
use burn_ir::{
    ActivationOperationIr, AvgPool2dOpIr, Conv2dOpIr, LayerNormOpIr, LinearOpIr, ModuleOperationIr, UnaryOpIr,
};

use super::Emitter;
use crate::export::onnx::{float, int, ints};

impl Emitter {
    pub(super) fn module(&mut self, op: &ModuleOperationIr) -> Result<bool> {
        use ModuleOperationIr as Op;
        match op {
            Op::Linear(o) => self.linear(o),
            Op::LayerNorm(o) => self.layer_norm(o),
            Op::Embedding(o) => self.binary_with("Gather", &o.weights, &o.indices, &o.out, vec![int("axis", 0)]),
            Op::Conv2d(o) => self.conv(o),
            Op::BatchNorm(o) => {
                let names = [&o.x, &o.gamma, &o.beta, &o.mean, &o.variance].map(|t| self.value(t));
                let names = names.into_iter().collect::<Result<Vec<_>>>()?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let epsilon = float("epsilon", o.epsilon.elem::<f32>());
                let name = self.graph.node("BatchNormalization", &names, vec![epsilon]);
                self.bind(&o.out, name)
            }
            Op::AvgPool2d(o) => self.average_pool(o),
            Op::AdaptiveAvgPool2d(o) => {
                ensure!(
                    o.output_size == [1, 1],
                    "adaptive pooling to {:?} is not exported; only to 1x1",
                    o.output_size
                );
                self.unary("GlobalAveragePool", &o.x, &o.out, vec![])
            }
            _ => Ok(false),
        }
    }

    pub(super) fn activation(&mut self, op: &ActivationOperationIr) -> Result<bool> {
        use ActivationOperationIr as Op;
        match op {
            Op::Relu(o) => self.unary("Relu", &o.input, &o.out, vec![]),
            Op::Sigmoid(o) => self.unary("Sigmoid", &o.input, &o.out, vec![]),
            Op::Softmax(o) => self.unary("Softmax", &o.input, &o.out, vec![int("axis", o.axis as i64)]),
            Op::Gelu(o) => self.gelu(o),
            _ => Ok(false),
        }
    }

    /// Burn keeps a weight as [in, out], the way that MatMul wants it.
    fn linear(&mut self, o: &LinearOpIr) -> Result<bool> {
        let (x, weight) = (self.value(&o.x)?, self.value(&o.weight)?);
        let mut name = self.graph.node("MatMul", &[&x, &weight], vec![]);
        if let Some(bias) = &o.bias {
            let bias = self.value(bias)?;
            name = self.graph.node("Add", &[&name, &bias], vec![]);
        }
        self.bind(&o.out, name)
    }

    fn layer_norm(&mut self, o: &LayerNormOpIr) -> Result<bool> {
        let mut names = vec![self.value(&o.input)?, self.value(&o.gamma)?];
        if let Some(beta) = &o.beta {
            names.push(self.value(beta)?);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let attributes = vec![int("axis", -1), float("epsilon", o.epsilon.elem::<f32>())];
        let name = self.graph.node("LayerNormalization", &names, attributes);
        self.bind(&o.out, name)
    }

    fn conv(&mut self, o: &Conv2dOpIr) -> Result<bool> {
        let mut names = vec![self.value(&o.x)?, self.value(&o.weight)?];
        if let Some(bias) = &o.bias {
            names.push(self.value(bias)?);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let [(top, bottom), (left, right)] = o.options.padding;
        let attributes = vec![
            ints("kernel_shape", &o.weight.shape[2..]),
            ints("strides", &o.options.stride),
            ints("pads", &[top, left, bottom, right]),
            ints("dilations", &o.options.dilation),
            int("group", o.options.groups as i64),
        ];
        let name = self.graph.node("Conv", &names, attributes);
        self.bind(&o.out, name)
    }

    fn average_pool(&mut self, o: &AvgPool2dOpIr) -> Result<bool> {
        if o.ceil_mode {
            bail!("average pooling with ceil_mode is not exported");
        }
        let [y, x] = o.padding;
        let attributes = vec![
            ints("kernel_shape", &o.kernel_size),
            ints("strides", &o.stride),
            ints("pads", &[y, x, y, x]),
            int("count_include_pad", i64::from(o.count_include_pad)),
        ];
        self.unary("AveragePool", &o.x, &o.out, attributes)
    }

    /// x/2 (1 + erf(x/sqrt 2)): opset 17 has no Gelu.
    fn gelu(&mut self, o: &UnaryOpIr) -> Result<bool> {
        let x = self.value(&o.input)?;
        let (root, one, half) = (self.number(std::f64::consts::FRAC_1_SQRT_2), self.number(1.0), self.number(0.5));
        let scaled = self.graph.node("Mul", &[&x, &root], vec![]);
        let erf = self.graph.node("Erf", &[&scaled], vec![]);
        let shifted = self.graph.node("Add", &[&erf, &one], vec![]);
        let halved = self.graph.node("Mul", &[&x, &half], vec![]);
        let name = self.graph.node("Mul", &[&halved, &shifted], vec![]);
        self.bind(&o.out, name)
    }
}
