//! `claptune report`'s arguments.

use std::path::PathBuf;

use anyhow::Result;

use super::args::{BootstrapArgs, ScreeningArgs, SplitName};
use crate::report;

/// Write a training run as one HTML page: curves, figures, calibration, and the sounds that it gets wrong
#[derive(clap::Args)]
pub(super) struct ReportArgs {
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
    split: Option<SplitName>,
    /// The model before training, if not the run's --init: a bundle or a checkpoint
    #[arg(long, value_name = "BUNDLE|SRC")]
    start: Option<String>,
    #[command(flatten)]
    screening: ScreeningArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// The file to write [default: DIR/report.html]
    #[arg(long, value_name = "HTML")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: ReportArgs) -> Result<()> {
    let out = args.out.unwrap_or_else(|| args.dir.join("report.html"));
    let ratings = report::ReportOptions {
        manifests: args.data,
        audio_root: args.audio_root,
        split: args.split.map(Into::into),
        start: args.start,
        screening: args.screening.rules(),
        skip: args.screening.skip,
        plan: args.bootstrap.plan(),
    };
    report::write(&args.dir, &ratings, &out)?;
    println!("{}", out.display());
    Ok(())
}
