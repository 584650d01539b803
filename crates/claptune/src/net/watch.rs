//! A look at what goes into the linears of a transformer's body, for calibration.
//!
//! In: the linears that share an input, and the input [N, S, k]. Out: nothing.
//! Never: sees the head (pooler, projection), which stays as exact as it is; changes a value.

use burn::module::Module;
use burn::nn::Linear;
use burn::prelude::*;

/// Who looks.
pub type Watch<'a> = dyn FnMut(&[&Linear], &Tensor<3>) + 'a;

/// For a forward pass that nobody watches.
pub fn nobody(_: &[&Linear], _: &Tensor<3>) {}

/// A network that reads texts.
pub trait TextNetwork: Module {
    /// Ids and mask [N, S] (1 for a token, 0 for padding) to unit embeddings [N, output], while `watch` sees what goes into the
    /// encoder's linears.
    fn forward_watched(&self, ids: Tensor<2, Int>, mask: Tensor<2, Int>, watch: &mut Watch) -> Tensor<2>;
}
