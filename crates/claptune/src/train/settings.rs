//! Where a run writes, and all that may differ between a run and its resume.

use std::path::PathBuf;
use std::time::Duration;

use crate::export::Precision;

/// Where a run writes, and all that may be different when it is resumed.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The run's folder.
    pub out: PathBuf,
    /// Whether to go on with the run that is there; if none is, it begins.
    pub resume: bool,
    /// The folder of decoded recordings.
    pub cache: PathBuf,
    /// Its bound in bytes.
    pub cache_bytes: u64,
    /// Time from one state to the next, beside those at validations.
    pub save_every: Duration,
    /// How the bundle's weights are stored.
    pub precision: Precision,
}
