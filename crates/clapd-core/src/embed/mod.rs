//! From samples to embeddings: which windows there are, and the unit vector of each.
//!
//! [`Samples`](crate::samples::Samples) of one source or one recording and a loaded [`Model`] make them.

mod clip;
mod gain;
mod window;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::dsp::FrontendSpec;
use crate::level::LevelRange;
use crate::model::{Bundle, Encode, Windowing};
use crate::score::Calibration;
pub use clip::ClipEmbedder;
pub(crate) use window::{Embedder, Schedule, Span};

/// Samples are taken in runs of this length, so that the front end has to keep little more than a window.
pub(crate) const CHUNK: Duration = Duration::from_millis(250);

/// A model that listens, shared by all sources.
#[derive(Clone)]
pub struct Model {
    /// The audio tower.
    pub encoder: Arc<dyn Encode>,
    /// From samples to patches.
    pub frontend: FrontendSpec,
    /// From patches to windows.
    pub windowing: Windowing,
    /// From cosine to score.
    pub calibration: Calibration,
    /// The levels at which it hears; none where nobody measured them.
    pub level: Option<LevelRange>,
}

impl Model {
    /// Loads the audio side of a bundle.
    ///
    /// # Errors
    /// A file that is missing, altered, or does not fit the manifest.
    pub fn load(bundle: &Bundle) -> Result<Self> {
        Ok(Self {
            encoder: Arc::new(bundle.audio_encoder()?),
            frontend: bundle.frontend(),
            windowing: bundle.windowing(),
            calibration: bundle.calibration()?,
            level: bundle.manifest().level_range(),
        })
    }
}
