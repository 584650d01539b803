//! Both towers with the temperatures of contrastive training: what fine-tuning changes.
//!
//! Reference: transformers 5.23, models/clap/modeling_clap.py, `ClapModel`.

use burn::module::Param;
use burn::prelude::*;

use super::htsat::{Htsat, HtsatConfig};
use super::roberta::{Roberta, RobertaConfig};

/// ln(1 / 0.07), where CLIP and CLAP begin (arXiv 2103.00020, 2211.06687).
pub const LOG_SCALE: f32 = 2.659_26;

/// A CLAP.
#[derive(Module, Debug)]
pub struct Clap {
    /// The audio tower.
    pub audio: Htsat,
    /// The text tower.
    pub text: Roberta,
    /// Logarithm of what cosines are multiplied with to make logits of texts for each clip, `[1]`.
    pub audio_scale: Param<Tensor<1>>,
    /// The same for clips for each text, `[1]`.
    pub text_scale: Param<Tensor<1>>,
}

/// Unit embeddings of N pairs: row i of `audio` and row i of `text` belong together.
#[derive(Debug, Clone)]
pub struct PairEmbeddings {
    /// [N, D].
    pub audio: Tensor<2>,
    /// [N, D].
    pub text: Tensor<2>,
}

impl Clap {
    /// With zeros for weights, to be loaded. On an autodiff device: a module that is moved to one later learns nothing.
    pub fn init(audio: &HtsatConfig, text: &RobertaConfig, device: &Device) -> Self {
        let scale = || Param::from_tensor(Tensor::from_floats([LOG_SCALE], device));
        Self { audio: audio.init(device), text: text.init(device), audio_scale: scale(), text_scale: scale() }
    }

    /// [N, C, frames, mels] and ids and mask [N, S] (1 for a token, 0 for padding) to embeddings.
    pub fn forward(&self, mel: Tensor<4>, ids: Tensor<2, Int>, mask: Tensor<2, Int>) -> PairEmbeddings {
        PairEmbeddings { audio: self.audio.forward(mel), text: self.text.forward(ids, mask) }
    }
}
