//! A module's forward pass, exported, must be the same function: Burn on one side, tract reading our ONNX on the other.

use std::sync::Arc;

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::{gelu, relu, sigmoid, softmax};
use burn::tensor::{Distribution, TensorData};
use claptune::export::onnx::Graph;
use claptune::export::{SymbolicLength, Tracer, export, export_any_length};
use claptune::net::bert::{Bert, BertConfig};
use claptune::net::yamnet::YamnetConfig;
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, TypedRunnableModel, tvec};

/// What two implementations of the same sums may differ by, at values of about 1.
const TOLERANCE: f32 = 1e-5;

fn device() -> Device {
    Device::flex()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.5), &device())
}

fn param<const D: usize>(shape: [usize; D]) -> Param<Tensor<D>> {
    Param::from_tensor(random(shape))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// What another program makes of the file.
fn ready(graph: &Graph) -> Arc<TypedRunnableModel> {
    let model = tract_onnx::onnx().model_for_read(&mut graph.clone().into_bytes().as_slice()).unwrap();
    model.into_optimized().unwrap().into_runnable().unwrap()
}

/// Runs a graph on float inputs; the first output.
fn run(graph: &Graph, inputs: Vec<(Vec<usize>, Vec<f32>)>) -> Vec<f32> {
    let inputs = inputs
        .into_iter()
        .map(|(shape, data)| tract_onnx::prelude::Tensor::from_shape(&shape, &data).unwrap().into())
        .collect();
    let outputs = ready(graph).run(inputs).unwrap();
    outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().any(|v| v.abs() > 1e-3), "an output of zeros compares nothing");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "value {i}: {a} against {b}");
    }
}

/// Exports a function of one float input and compares.
#[track_caller]
fn check<M: Module, const D: usize, const E: usize>(
    module: &M,
    shape: [usize; D],
    forward: impl Fn(&M, Tensor<D>) -> Tensor<E>,
) -> Graph {
    let graph = export("net", module.clone(), |m, t| {
        let x = t.float_input("x", shape);
        let y = forward(m, x);
        t.output("y", &y);
    })
    .unwrap();
    let x = random(shape);
    let ours = values(forward(module, x.clone()));
    assert_close(&ours, &run(&graph, vec![(shape.to_vec(), values(x))]));
    graph
}

#[derive(Module, Debug)]
struct Convolutions {
    first: Conv2d,
    depthwise: Conv2d,
    norm: BatchNorm,
}

#[test]
fn convolutions_strides_groups_asymmetric_padding_and_batch_norm() {
    let conv = |from, to, groups, stride, pad| {
        Conv2dConfig::new([from, to], [3, 3])
            .with_groups(groups)
            .with_stride([stride; 2])
            .with_padding(pad)
            .init(&device())
    };
    let module = Convolutions {
        first: conv(2, 6, 1, 2, PaddingConfig2d::Explicit(0, 0, 1, 1)),
        depthwise: conv(6, 6, 6, 1, PaddingConfig2d::Explicit(1, 1, 1, 1)),
        norm: BatchNormConfig::new(6).init(&device()),
    };
    check(&module, [1, 2, 8, 6], |m, x| {
        let x = relu(m.first.forward(x));
        let x = m.norm.forward(m.depthwise.forward(x));
        x.mean_dim(3).mean_dim(2)
    });
}

#[derive(Module, Debug)]
struct Dense {
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
}

#[test]
fn linears_layer_norm_gelu_softmax_and_sigmoid() {
    let module = Dense {
        inner: LinearConfig::new(8, 16).init(&device()),
        outer: LinearConfig::new(16, 8).with_bias(false).init(&device()),
        norm: LayerNormConfig::new(8).with_epsilon(1e-12).init(&device()),
    };
    check(&module, [1, 5, 8], |m, x| {
        let y = m.outer.forward(gelu(m.inner.forward(m.norm.forward(x.clone()))));
        softmax(x + y.clone(), 2) + sigmoid(y)
    });
}

#[derive(Module, Debug)]
struct Table {
    rows: Param<Tensor<2>>,
}

#[test]
fn constant_subgraphs_are_folded() {
    let module = Table { rows: param([9, 4]) };
    let graph = check(&module, [4, 4], |m, x| {
        let index = Tensor::<1, Int>::from_data([8, 0, 3, 3], &x.device());
        let picked = m.rows.val().select(0, index).reshape([2, 8]).permute([1, 0]).reshape([4, 4]);
        let mask = picked.clone().greater_elem(0.0).float() * -2.0;
        x + picked + mask
    });
    let kinds: Vec<&str> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert!(kinds.iter().all(|k| matches!(*k, "Add" | "Identity")), "left to compute at run time: {kinds:?}");
}

#[test]
fn arithmetic_reductions_and_movement() {
    let module = Table { rows: param([3, 4]) };
    check(&module, [2, 3, 4], |m, x| {
        let y = x.clone().abs().add_scalar(0.1).powf_scalar(0.7) * m.rows.val().unsqueeze::<3>();
        let y = (y - x.clone().mean_dim(1)) / x.square().sum_dim(2).sqrt();
        let y = Tensor::cat(vec![y.clone().slice([0..2, 1..3]), y], 1);
        y.swap_dims(0, 2).clamp(-2.0, 2.0).exp().tanh()
    });
}

#[test]
fn the_best_of_a_row_and_a_mask() {
    let module = Table { rows: param([1, 12]) };
    check(&module, [1, 12], |m, x| {
        let x = x + m.rows.val();
        let least = x.clone().topk(3, 1).slice([0..1, 2..3]);
        let low = x.clone().lower(least);
        softmax(x.clone().mask_fill(low, -1e4), 1) + x.reshape([4, 3]).max_dim(1).repeat_dim(1, 3).reshape([1, 12])
    });
}

#[test]
fn an_unknown_operation_is_named() {
    let module = Table { rows: param([2, 2]) };
    let error = export("net", module, |m, t| {
        let x = t.float_input("x", [2, 2]);
        let y = (x + m.rows.val()).cosh();
        t.output("y", &y);
    });
    let message = format!("{:#}", error.unwrap_err());
    assert!(message.contains("Cosh"), "{message}");
}

#[test]
fn a_parameter_that_is_not_read_is_named() {
    let module = Dense {
        inner: LinearConfig::new(4, 4).init(&device()),
        outer: LinearConfig::new(4, 4).init(&device()),
        norm: LayerNormConfig::new(4).init(&device()),
    };
    let error = export("net", module, |m, t| {
        let x = t.float_input("x", [1, 4]);
        let y = m.inner.forward(m.norm.forward(x));
        t.output("y", &y);
    });
    let message = format!("{:#}", error.unwrap_err());
    assert!(message.contains("outer.weight") && message.contains("outer.bias"), "{message}");
    assert!(!message.contains("inner"), "{message}");
}

fn tiny_bert(pad_id: Option<usize>) -> Bert {
    let config = BertConfig {
        vocabulary: 40,
        positions: 32,
        pad_id,
        types: 2,
        width: 12,
        layers: 2,
        heads: 3,
        inner: 24,
        epsilon: 1e-12,
    };
    randomized(config.init(&device()))
}

/// The same module with random weights.
fn randomized<M: Module>(module: M) -> M {
    struct Randomize;
    impl burn::module::ModuleMapper for Randomize {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, old, mapper) = param.consume();
            Param::from_mapped_value(id, random(old.dims()), mapper)
        }
    }
    module.map(&mut Randomize)
}

fn trace_bert(m: &Bert, t: &mut Tracer, length: usize) {
    let ids = t.int_input("ids", [1, length]);
    let mask = t.int_input("mask", [1, length]);
    t.output("hidden", &m.forward(ids, mask.float()));
}

#[test]
fn a_text_network_takes_any_length() {
    for pad_id in [None, Some(1)] {
        takes_any_length(&tiny_bert(pad_id));
    }
}

fn takes_any_length(bert: &Bert) {
    let length = SymbolicLength { symbol: "S", input: "ids", axis: 1 };
    let graph = export_any_length("text", bert.clone(), &length, trace_bert).unwrap();
    let model = ready(&graph);
    for n in [1usize, 2, 7, 11, 12, 30] {
        let ids: Vec<i64> = (0..n as i64).map(|i| i * 7 % 40).collect();
        let mask: Vec<i64> = (0..n).map(|i| i64::from(i < n.div_ceil(2))).collect();
        let row = |v: &[i64]| tract_onnx::prelude::Tensor::from_shape(&[1, n], v).unwrap();
        let outputs = model.run(tvec!(row(&ids).into(), row(&mask).into())).unwrap();
        let theirs: Vec<f32> = outputs[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect();
        let ints = |v: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(v, [1, n]), &device());
        assert_close(&values(bert.forward(ints(ids), ints(mask).float())), &theirs);
    }
}

#[test]
fn yamnet_of_small_width() {
    let config = YamnetConfig { stem: 4, blocks: vec![(1, 8), (2, 8), (2, 12)], classes: 7 };
    let net = randomized(config.init(&device()));
    check(&net, [1, 1, 96, 64], |m, x| m.forward(x));
}

#[test]
fn the_same_network_gives_the_same_bytes() {
    let bert = tiny_bert(Some(1));
    let length = SymbolicLength { symbol: "S", input: "ids", axis: 1 };
    let once = || {
        let graph = export_any_length("text", bert.clone(), &length, trace_bert).unwrap();
        graph.into_bytes()
    };
    assert!(once() == once());
}
