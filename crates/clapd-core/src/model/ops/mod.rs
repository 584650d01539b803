//! The layers of CLAP's two towers and of the default model as operators of tract, each computed by our own [`kernels`](clapd_kernels).
//!
//! | operator | in | out |
//! |---|---|---|
//! | `clapd_htsat_tokens` | log-mel `[1, 1 or 4, frames, mels]` | tokens `[1, tokens, channels]` |
//! | `clapd_swin_block` | tokens | the same |
//! | `clapd_patch_merge` | tokens | a quarter of them, of twice the channels |
//! | `clapd_htsat_head` | tokens | a unit embedding `[1, output]` |
//! | `clapd_text_embeddings` | token ids `[1, S]` | hidden states `[1, S, width]` |
//! | `clapd_transformer_block` | hidden states and mask `[1, S]` | hidden states |
//! | `clapd_text_head` | hidden states | a unit embedding `[1, output]` |
//! | `clapd_mobilenet_stem` | log-mel `[1, 1, frames, mels]` | pixels `[1, pixels, channels]` |
//! | `clapd_separable_block` | pixels | as many, or a quarter |
//! | `clapd_mobilenet_head` | pixels | probabilities `[1, classes]` |
//! | `clapd_caption_pool` | mean probabilities `[1, classes]` | an embedding `[1, output]` |
//! | `clapd_caption_text` | hidden states and mask `[1, S]` | an embedding and its coverage `[1, output + 1]` |
//!
//! In an NNEF graph each is a primitive of the registry `clapd`: weights are named arguments that are variables, sizes are
//! named arguments that are numbers. A linear `name` is `name_weight` `[out, in]` (f32, f16, or int8 with `name_scale` `[out]` or
//! `[spans, out]` in f32) and perhaps `name_bias` `[out]`; a norm `name` is `name_weight` and `name_bias`.
//!
//! A graph may come from anyone: no size or shape is trusted before it was compared with the tensors. [`pack`] makes [`Fused`]
//! operators ready to run.

mod captions;
mod fused;
mod head;
mod image;
mod mobilenet;
mod params;
mod schema;
mod swin;
mod text;
mod tokens;

pub use fused::{Fused, pack, registry};
pub use params::OpParams;
pub use schema::{Field, OpSpec};

/// All kinds of operators.
pub(super) static OP_SPECS: [&OpSpec; 12] = [
    &tokens::HTSAT_TOKENS,
    &swin::SWIN_BLOCK,
    &swin::PATCH_MERGE,
    &head::HTSAT_HEAD,
    &text::TEXT_EMBEDDINGS,
    &text::TRANSFORMER_BLOCK,
    &head::TEXT_HEAD,
    &mobilenet::STEM,
    &mobilenet::SEPARABLE_BLOCK,
    &mobilenet::HEAD,
    &captions::CAPTION_POOL,
    &captions::CAPTION_TEXT,
];
