//! Arguments that several commands take.
//!
//! The structs have plain comments: clap would take a documentation comment of a flattened one for the help of the command.

use crate::data::{self, Screening};
use crate::export::Precision;
use crate::metrics::BootstrapPlan;

#[derive(clap::Args)]
pub(super) struct ProcessorArgs {
    /// Folder or repository of the model's processor (preprocessor_config.json), if not beside the checkpoint
    #[arg(long, value_name = "DIR|ID")]
    pub(super) processor: Option<String>,
}

// Which ratings are trusted and which audio may be missing, wherever ratings are read.
#[derive(clap::Args)]
pub(super) struct ScreeningArgs {
    /// Screen ratings first: listeners by their anchors, ratings that no other listener comes near
    #[arg(long)]
    pub(super) screen: bool,
    /// Share of audio files that may be missing or broken, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub(super) skip: f64,
}

impl ScreeningArgs {
    pub(super) fn rules(&self) -> Screening {
        Screening::when(self.screen)
    }
}

// How intervals are drawn, wherever figures have some.
#[derive(clap::Args)]
pub(super) struct BootstrapArgs {
    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    resamples: u32,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl BootstrapArgs {
    pub(super) fn plan(&self) -> BootstrapPlan {
        BootstrapPlan { resamples: self.resamples as usize, seed: self.seed }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum SplitName {
    Train,
    Validation,
    Test,
}

impl From<SplitName> for data::Split {
    fn from(split: SplitName) -> Self {
        match split {
            SplitName::Train => Self::Train,
            SplitName::Validation => Self::Validation,
            SplitName::Test => Self::Test,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum PrecisionName {
    F32,
    F16,
    Int8,
}

/// Whether a listener may be in several splits.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(super) enum ListenerPolicy {
    Apart,
    Shared,
}

impl From<PrecisionName> for Precision {
    fn from(stored: PrecisionName) -> Self {
        match stored {
            PrecisionName::F32 => Self::F32,
            PrecisionName::F16 => Self::F16,
            PrecisionName::Int8 => Self::Int8,
        }
    }
}
