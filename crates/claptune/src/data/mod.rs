//! People's ratings of sounds, and the sounds as the model sees them.
//!
//! Ratings come from RELATE's and XACLE's CSVs as published, or from a manifest of one's own, and stay one a listener
//! until they are screened. What is dropped on the way is counted.
//!
//! ```text
//! manifest -> ratings -> screen -> pairs -> batches -> training
//!                 \-> split                    \-> clips (audio -> patches, cached on disk)
//! ```

mod audio;
mod batches;
mod cache;
mod clips;
mod listener_norms;
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
pub use listener_norms::ListenerNorms;
pub use manifest::{read, write};
pub use pairs::{ListenerRating, Pair, pairs};
pub use rating::{NATURAL, Rating, Ratings, SCORES, Split};
pub use screen::{Screened, Screening, screen};
pub use skips::{Skipped, Skips};
