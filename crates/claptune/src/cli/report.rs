//! `claptune report`'s arguments.
//!
//! In: arguments. Out: an HTML file, and its name.
//! Never: the page itself.

use std::path::PathBuf;

use anyhow::Result;

use super::eval::Split;
use crate::data::Screening;
use crate::metrics::Plan;
use crate::report;

/// Write a training run as one HTML page: curves, figures, calibration, and the sounds that it gets wrong
#[derive(clap::Args)]
pub(super) struct Report {
    /// The folder that claptune tune wrote
    dir: PathBuf,
    /// Ratings to judge by, if not those of the run; may be given several times
    #[arg(long, value_name = "MANIFEST")]
    data: Vec<PathBuf>,
    /// Where the audio lies, if not as in the run
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// The ratings to use: test, where there is none validation
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// The model before training, if not the run's --init: a bundle or a checkpoint
    #[arg(long, value_name = "BUNDLE|SRC")]
    start: Option<String>,
    /// Screen ratings first: listeners by their anchors, ratings that no other listener comes near
    #[arg(long)]
    screen: bool,
    /// Share of audio files that may be missing or broken, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    skip: f64,
    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    resamples: u32,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The file to write [default: DIR/report.html]
    #[arg(long, value_name = "HTML")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Report) -> Result<()> {
    let out = args.out.unwrap_or_else(|| args.dir.join("report.html"));
    let ratings = report::Ratings {
        manifests: args.data,
        audio_root: args.audio_root,
        split: args.split.map(Into::into),
        start: args.start,
        screening: Screening::when(args.screen),
        skip: args.skip,
        plan: Plan { resamples: args.resamples as usize, seed: args.seed },
    };
    report::write(&args.dir, &ratings, &out)?;
    println!("{}", out.display());
    Ok(())
}
