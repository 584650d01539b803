//! The operators in Burn's graph of derivatives. With gradient checkpointing, all but softmax are computed again on the
//! way back instead of being kept, as Burn does with operators as cheap.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::TransformerOps;
use super::flex::Derivatives;

/// What computes forward and back.
pub trait ForwardAndBack: TransformerOps + Derivatives {}
impl<B: TransformerOps + Derivatives> ForwardAndBack for B {}

impl<B: ForwardAndBack, C: CheckpointStrategy> TransformerOps for Autodiff<B, C> {
    fn gelu_of(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let recompute = Recompute::new([x.id()], |[x]: [FloatTensor<B>; 1]| B::gelu_of(x));
        match GeluBack.prepare::<C>([x.node()]).memory_bound().retro_forward(recompute).parents([&x]).stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = prepared.checkpoint(&x);
                prepared.finish(state, B::gelu_of(x.into_primitive()))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::gelu_of(x.into_primitive())),
        }
    }

    fn softmax_of(x: FloatTensor<Self>) -> FloatTensor<Self> {
        // Its result is kept: the product that follows keeps it anyway.
        match SoftmaxBack.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let shares = B::softmax_of(x.into_primitive());
                prepared.finish(shares.clone(), shares)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::softmax_of(x.into_primitive())),
        }
    }

    fn norm_of(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let inputs = [x.id(), weight.id(), bias.id()];
        let forward = move |[x, weight, bias]: [FloatTensor<B>; 3]| B::norm_of(x, weight, bias, epsilon);
        let nodes = [x.node(), weight.node(), bias.node()];
        let prepared = NormBack.prepare::<C>(nodes).memory_bound();
        let prepared = prepared.retro_forward(Recompute::new(inputs, forward)).parents([&x, &weight, &bias]);
        match prepared.stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&x), prepared.checkpoint(&weight), epsilon);
                prepared.finish(state, forward([x, weight, bias].map(|tensor| tensor.into_primitive())))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(forward([x, weight, bias].map(|tensor| tensor.into_primitive())))
            }
        }
    }

    fn reordered_of(x: FloatTensor<Self>, order: IntTensor<Self>, back: IntTensor<Self>) -> FloatTensor<Self> {
        let [order_copy, back_copy] = [order.clone(), back.clone()];
        let forward = move |[x]: [FloatTensor<B>; 1]| B::reordered_of(x, order_copy.clone(), back_copy.clone());
        let prepared = ReorderedBack.prepare::<C>([x.node()]).memory_bound();
        match prepared.retro_forward(Recompute::new([x.id()], forward)).parents([&x]).stateful() {
            OpsKind::Tracked(prepared) => {
                let y = B::reordered_of(x.into_primitive(), order.clone(), back.clone());
                prepared.finish((order, back), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::reordered_of(x.into_primitive(), order, back)),
        }
    }
}

#[derive(Debug)]
struct GeluBack;

impl<B: ForwardAndBack> Backward<B, 1> for GeluBack {
    type State = NodeId;

    fn backward(self, ops: Ops<NodeId, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let x = checkpointer.retrieve_node_output(ops.state);
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::gelu_back(x, gradient));
    }
}

#[derive(Debug)]
struct SoftmaxBack;

impl<B: ForwardAndBack> Backward<B, 1> for SoftmaxBack {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<FloatTensor<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::softmax_back(ops.state, gradient));
    }
}

#[derive(Debug)]
struct NormBack;

impl<B: ForwardAndBack> Backward<B, 3> for NormBack {
    type State = (NodeId, NodeId, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (x, weight, epsilon) = ops.state;
        let [x, weight] = [x, weight].map(|id| checkpointer.retrieve_node_output(id));
        let gradient = grads.consume::<B>(&ops.node);
        for (parent, gradient) in ops.parents.into_iter().zip(B::norm_back(x, weight, gradient, epsilon)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct ReorderedBack;

impl<B: ForwardAndBack> Backward<B, 1> for ReorderedBack {
    type State = (IntTensor<B>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (order, back) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::reordered_of(gradient, back, order));
    }
}

/// The forward pass of a node, repeated.
struct Recompute<P, F, const N: usize> {
    inputs: [NodeId; N],
    forward: F,
    of: PhantomData<fn([P; N]) -> P>,
}

impl<P, F: Fn([P; N]) -> P, const N: usize> Recompute<P, F, N> {
    fn new(inputs: [NodeId; N], forward: F) -> Self {
        Self { inputs, forward, of: PhantomData }
    }
}

impl<P, F, const N: usize> Debug for Recompute<P, F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "again from {:?}", self.inputs)
    }
}

impl<P, F, const N: usize> RetroForward for Recompute<P, F, N>
where
    P: Clone + Debug + Send + 'static,
    F: Fn([P; N]) -> P + Send + 'static,
{
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let inputs = self.inputs.map(|id| states.get_state::<P>(&id));
        states.save(out, (self.forward)(inputs));
    }
}
