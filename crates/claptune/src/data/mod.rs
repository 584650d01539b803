//! People's ratings of sounds, and the sounds as the model sees them.
//!
//! In: RELATE's and XACLE's CSVs as published, or a manifest of one's own, and the audio files that they name. Out: ratings by
//! listener, screened; pairs of a recording and a text with their mean rating; log-mel patches; batches.
//!
//! ```text
//! manifest -> ratings -> screen -> pairs -> batches -> training
//!                 \-> split                    \-> clips (audio -> patches, cached on disk)
//! ```
//!
//! Never: averages away who said what before it was screened; lets a recording or a listener be in two splits unseen; drops
//! anything without a count.

mod audio;
mod batches;
mod cache;
mod clips;
mod listeners;
mod manifest;
mod pairs;
mod published;
mod rating;
mod screen;
mod skips;
pub mod split;
pub(crate) mod table;

pub use audio::{MAX_PATCHES, patches};
pub use batches::batches;
pub use cache::{CacheCounts, MelCache};
pub use clips::{Clips, Prepared};
pub use listeners::Scales;
pub use manifest::{Ratings, read, write};
pub use pairs::{Opinion, Pair, pairs};
pub use rating::{NATURAL, Rating, SCORES, Split};
pub use screen::{Screened, Screening, screen};
pub use skips::{Skipped, Skips};
