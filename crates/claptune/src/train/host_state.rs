//! Where an optimizer's state is read from a file: the processor, until its next step brings it to the network's
//! device.
//!
//! Burn itself reads it to its default device, which is a GPU in a build that has a backend for one, whether the
//! machine has that GPU or not, and whatever the network is on: a run on the processor could not be resumed then.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::prelude::*;

/// An optimizer that is read so.
#[derive(Clone)]
pub struct HostStateOptimizer<O>(pub O);

/// Its state of one parameter.
#[derive(Clone)]
pub struct State<S>(S);

impl<O: Optimizer> Optimizer for HostStateOptimizer<O> {
    type State<const D: usize> = State<O::State<D>>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (tensor, state) = self.0.step(rate, tensor, gradient, state.map(|state| state.0));
        (tensor, state.map(State))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        State(O::to_device(state.0, device))
    }
}

impl<S: RecordState> RecordState for State<S> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        self.0.state_flatten(prefix, out);
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, _: &Device) -> Option<Self> {
        S::state_unflatten(prefix, source, &Device::flex()).map(Self)
    }
}
