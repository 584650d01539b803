//! Sound into log-mel patches: what an audio encoder of either family looks at.
//!
//! In: [`Samples`](crate::samples::Samples) at a source's rate, or a whole clip at the model's rate. Out: patches of
//! `patch_frames x mel_bins`, one row a frame, in the numbers on which the model was trained. Streaming and one-shot
//! give the same bits, because both go through the same function for a frame.
//!
//! ```text
//! samples -> resample -> ring of samples -> stft -> mel -> log -> ring of rows -> patch
//!     \-> ledger (which samples were lost)
//! ```
//!
//! Never: no prompts, no embeddings, no threads, no clock, no I/O. After construction nothing here allocates.

mod clip;
mod frames;
mod frontend;
mod ledger;
mod logmel;
mod mel;
mod resample;
mod ring;
mod spec;
mod stft;

pub use clip::clip_patch;
pub use frontend::Frontend;
pub use resample::{MAX_RATE, MIN_RATE, resample_clip};
pub use spec::{FrontendSpec, LogScale, MelNorm, MelScale, MelTriangles, Short, Spectrum};
