//! claptune makes and measures model bundles for clapd, on a host: it imports CLAP checkpoints, fine-tunes them on people's ratings,
//! calibrates, quantises, exports and compares them. The program is [`cli::main`]; each command is a function of this library.
//!
//! | module | does |
//! |---|---|
//! | [`checkpoint`] | reads what others published (`ClapModel`, LAION's `.pt`, the hub) into named tensors |
//! | [`net`] | the networks, each written once, as Burn modules |
//! | [`data`] | people's ratings, their splits and screening, recordings as patches, batches |
//! | [`train`] | fine-tunes a checkpoint or a `mini` bundle on ratings |
//! | [`calibrate`] | fits a bundle's curve from cosine to score to ratings |
//! | [`metrics`] | agreement with people as figures, with intervals |
//! | [`eval`] | a bundle's agreement with people, and its false alarms |
//! | [`report`] | a training run as one HTML page |
//! | [`quantize`] | rounds linears to int8 so that outputs change least |
//! | [`layout`] | a checkpoint's towers as graphs of clapd's fused layers, in f32, f16 or int8 |
//! | [`export`] | graphs as NNEF, recorded modules as ONNX |
//! | [`bundle`] | writes a bundle's folder |
//! | [`import`] | a CLAP checkpoint becomes a bundle or ONNX files |
//! | [`verify`] | compares a bundle with its checkpoint, by [`agreement`] on [`clips`] |
//! | [`mini`] | builds the default bundle, and writes a trained one |
//! | [`progress`] | bars on standard error |
//! | [`cli`] | the commands' arguments |
//!
//! Only an id of Hugging Face's hub needs a network connection.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
