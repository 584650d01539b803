//! `claptune calibrate`'s arguments.
//!
//! In: arguments. Out: a bundle with another curve, and a line about it.
//! Never: the fit itself.

use std::path::PathBuf;

use anyhow::Result;

use super::eval::Split;
use crate::calibrate;
use crate::data::Screening;
use crate::eval::Ratings;
use crate::metrics::{Interval, Plan};

/// Fit a bundle's curve from cosine to score to people's ratings
#[derive(clap::Args)]
pub(super) struct Calibrate {
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
    split: Split,
    /// Screen ratings first: listeners by their anchors, ratings that no other listener comes near
    #[arg(long)]
    screen: bool,
    /// Share of audio files that may be missing or broken, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    skip: f64,
}

pub(super) fn run(args: &Calibrate) -> Result<()> {
    let ratings = Ratings {
        manifests: &args.data,
        audio_root: args.audio_root.as_deref(),
        split: args.split.into(),
        screening: Screening::when(args.screen),
        skip: args.skip,
        plan: Plan::default(),
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
