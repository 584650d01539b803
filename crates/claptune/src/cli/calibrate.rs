//! `claptune calibrate`'s arguments.

use std::path::PathBuf;

use anyhow::Result;

use super::args::{ScreeningArgs, SplitName};
use crate::calibrate;
use crate::eval::RatingSelection;
use crate::metrics::{BootstrapPlan, Interval};

/// Fit a bundle's curve from cosine to score to people's ratings
#[derive(clap::Args)]
pub(super) struct CalibrateArgs {
    /// The bundle, or a folder that claptune tune wrote; its bundle.toml is replaced
    #[arg(value_name = "BUNDLE|DIR")]
    model: PathBuf,
    /// Ratings, as claptune eval takes them; may be given several times
    #[arg(long, value_name = "MANIFEST", required = true)]
    data: Vec<PathBuf>,
    /// Where the audio lies, if not beside its manifest
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// The ratings to use, where they have splits; never those that the model is judged by
    #[arg(long, value_enum, default_value = "validation")]
    split: SplitName,
    #[command(flatten)]
    screening: ScreeningArgs,
}

pub(super) fn run(args: &CalibrateArgs) -> Result<()> {
    let ratings = RatingSelection {
        manifests: &args.data,
        audio_root: args.audio_root.as_deref(),
        split: args.split.into(),
        screening: args.screening.rules(),
        skip: args.screening.skip,
        plan: BootstrapPlan::default(),
    };
    let (fitted, id) = calibrate::bundle(&args.model, &ratings)?;
    println!("{} pairs of {} recordings; pipeline id {id}", fitted.pairs, fitted.recordings);
    if let Some(error) = fitted.error {
        let figure = |Interval { value, low, high }: Interval| format!("{value:.3} [{low:.3}, {high:.3}]");
        println!(
            "error on recordings that the curve was not fitted to: MSE {}, MAE {}, calibration {} points",
            figure(error.mse),
            figure(error.mae),
            figure(error.ece)
        );
    }
    Ok(())
}
