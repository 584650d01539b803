//! What goes into the linears of a transformer's body is shown to an observer, for calibration. The head (pooler,
//! projection) is not: it stays as exact as it is.

use burn::module::Module;
use burn::nn::Linear;
use burn::prelude::*;

/// Who looks.
pub type ActivationObserver<'a> = dyn FnMut(&[&Linear], &Tensor<3>) + 'a;

/// For a forward pass that nobody watches.
pub fn ignore_activations(_: &[&Linear], _: &Tensor<3>) {}

/// A network that reads texts.
pub trait TextNetwork: Module {
    /// Ids and mask [N, S] (1 for a token, 0 for padding) to unit embeddings [N, output], while `observer` sees what goes into the
    /// encoder's linears.
    fn forward_observed(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Int>,
        observer: &mut ActivationObserver,
    ) -> Tensor<2>;
}
