//! claptune: the host's side. Checkpoints come in, bundles go out.
//!
//! | room | does |
//! |---|---|
//! | `checkpoint` | reads files that others published into named tensors |
//! | `net` | the networks, each written once, as Burn modules |
//! | `data` | ratings, splits, recordings as patches, batches |
//! | `calibrate` | the curve from cosine to score, as people rated |
//! | `eval` | agreement with people, false alarms |
//! | `export` | a module becomes ONNX, a graph NNEF |
//! | `layout` | towers as graphs of clapd's fused layers, in f32, f16 or int8 |
//! | `import` | a CLAP checkpoint becomes a bundle |
//! | `quantize` | rounds linears to int8 |
//! | `report` | a training run as one HTML page |
//! | `train` | fine-tunes a checkpoint on ratings |
//! | `verify` | compares a bundle with its checkpoint |
//! | `clips` | sounds to calibrate on and to judge by |
//! | `agreement` | figures of two sets of embeddings |
//! | `metrics` | how well a model agrees with people's ratings, with intervals |
//! | `mini` | builds the default bundle out of these |
//! | `progress` | shows that a long step is at work |
//! | `cli` | claptune's subcommands |
//!
//! Never: reaches into the device's private parts, or is reached from them; needs a network connection, but for a hub id.

pub mod agreement;
pub mod bundle;
pub mod calibrate;
pub mod checkpoint;
pub mod cli;
pub mod clips;
pub mod data;
pub mod eval;
pub mod export;
pub mod import;
pub mod layout;
pub mod metrics;
pub mod mini;
pub mod net;
pub mod progress;
pub mod quantize;
pub mod report;
pub mod train;
pub mod verify;
