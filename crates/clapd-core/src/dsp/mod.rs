//! Sound into log-mel patches: what an audio encoder of either family looks at.
//!
//! [`Samples`](crate::samples::Samples) at a source's rate, or a whole clip at the model's rate, become patches of
//! `patch_frames x mel_bins`, one row a frame, in the numbers on which the model was trained. Streaming and one-shot
//! give the same bits, because both go through the same function for a frame.
//!
//! ```text
//! samples -> resample -> ring of samples -> stft -> mel -> log -> ring of rows -> patch
//!     \-> loss mask (which samples were lost)
//! ```
//!
//! After construction the streaming front end allocates nothing (tests/suite/frontend/alloc.rs).

mod amplify;
mod clip;
mod frames;
mod frontend;
mod logmel;
mod loss_mask;
mod mel;
mod resample;
mod ring;
mod spec;
mod stft;

pub(crate) use amplify::amplify;
pub use clip::clip_patch;
pub use frontend::Frontend;
pub use resample::resample_clip;
pub use spec::{FrontendSpec, LogScale, MelNorm, MelScale, MelTriangles, ShortClipPolicy, Spectrum};
