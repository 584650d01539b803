//! The names that `ClapModel` gives its tensors, and ours.
//!
//! In: a name of transformers' checkpoints. Out: which tower it is in, its path there, and whether it is transposed.
//! Never: sees a value.

use super::minilm;

/// Where a tensor of a checkpoint goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path in [`crate::tune::net::htsat::Htsat`].
    Audio(String),
    /// A path in [`crate::tune::net::roberta::Roberta`].
    Text(String),
    /// A buffer that the network makes anew, or a temperature of training.
    Unused,
    /// Not a part of a CLAP.
    Unknown,
}

/// Where the tensor `name` goes.
pub fn target(name: &str) -> Target {
    let unused = ["num_batches_tracked", "relative_position_index", "position_ids", "token_type_ids"];
    if unused.iter().any(|end| name.ends_with(end)) || ["logit_scale_a", "logit_scale_t"].contains(&name) {
        return Target::Unused;
    }
    if let Some(rest) = name.strip_prefix("audio_model.audio_encoder.") {
        return Target::Audio(audio(rest));
    }
    if let Some(rest) = name.strip_prefix("text_model.") {
        return match rest.strip_prefix("pooler.dense.") {
            Some(end) => Target::Text(format!("pooler.{end}")),
            None => Target::Text(minilm::path(rest)),
        };
    }
    for (tower, wrap) in
        [("audio_projection.", Target::Audio as fn(String) -> Target), ("text_projection.", Target::Text)]
    {
        if let Some(rest) = name.strip_prefix(tower) {
            return wrap(format!("projection.{rest}"));
        }
    }
    Target::Unknown
}

/// Whether the tensor of one of our paths is a linear's weight, which PyTorch keeps as [out, in] and Burn as [in, out].
pub fn is_transposed(path: &str, rank: usize) -> bool {
    rank == 2 && path.ends_with(".weight") && path != "bert.words.weight"
}

/// Pieces of a name and ours, in the order in which they are replaced.
const PIECES: [(&str, &str); 16] = [
    ("patch_embed.fusion_model.local_att.", "fusion.local."),
    ("patch_embed.fusion_model.global_att.", "fusion.global."),
    ("patch_embed.mel_conv2d.", "fusion.crops."),
    ("patch_embed.proj.", "patch."),
    ("patch_embed.norm.", "patch_norm."),
    ("layers.", "stages."),
    ("downsample.norm.", "merge.norm."),
    ("downsample.reduction.", "merge.reduction."),
    ("layernorm_before.", "norm_before."),
    ("layernorm_after.", "norm_after."),
    ("attention.self.relative_position_bias_table", "attention.position_bias"),
    ("attention.self.", "attention."),
    ("attention.output.dense.", "attention.output."),
    ("intermediate.dense.", "inner."),
    ("output.dense.", "outer."),
    ("batch_norm.", "batch_norm."),
];

/// The fusion block's layers by their places in the reference's sequences; the global one begins with a pooling.
const LAYERS: [(&str, &str); 8] = [
    ("local.0.", "local.reduce."),
    ("local.1.", "local.reduce_norm."),
    ("local.3.", "local.expand."),
    ("local.4.", "local.expand_norm."),
    ("global.1.", "global.reduce."),
    ("global.2.", "global.reduce_norm."),
    ("global.4.", "global.expand."),
    ("global.5.", "global.expand_norm."),
];

fn audio(name: &str) -> String {
    let mut path = name.to_string();
    for (theirs, ours) in PIECES.iter().chain(&LAYERS) {
        path = path.replacen(theirs, ours, 1);
    }
    // PyTorch calls a norm's factor weight, and its summand bias.
    match path.rsplit_once('.') {
        Some((layer, "weight")) if layer.ends_with("norm") || is_block_norm(layer) => format!("{layer}.gamma"),
        Some((layer, "bias")) if layer.ends_with("norm") || is_block_norm(layer) => format!("{layer}.beta"),
        _ => path,
    }
}

fn is_block_norm(layer: &str) -> bool {
    layer.ends_with("norm_before") || layer.ends_with("norm_after")
}
