//! `claptune eval`'s and `claptune split`'s arguments.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::args::{BootstrapArgs, ListenerPolicy, ScreeningArgs, SplitName};
use crate::data::{self, split};
use crate::eval::{self, AlarmRules, BundleScorer, EvalReport};

/// Compare a model's scores with people's ratings, and count its false alarms
#[derive(clap::Args)]
pub(super) struct EvalArgs {
    /// Ratings: CSV or JSONL (audio,text,score[,listener,split,kind,category,recording,anchor]), or RELATE's or XACLE's CSV;
    /// may be given several times
    #[arg(long, value_name = "MANIFEST")]
    data: Vec<PathBuf>,
    /// Long recordings with the times of their events: CSV (recording,prompt,start_s,end_s; no times: never comes)
    #[arg(long, value_name = "MANIFEST", required_unless_present = "data")]
    events: Option<PathBuf>,
    /// Where the audio lies, if not beside its manifest
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// The model: a bundle, or a folder that claptune tune wrote
    #[arg(long, value_name = "BUNDLE|DIR")]
    model: PathBuf,
    /// Another model to compare it with, on the same pairs
    #[arg(long, value_name = "BUNDLE|DIR")]
    against: Option<PathBuf>,
    /// The ratings to use, where they have splits
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
    #[command(flatten)]
    screening: ScreeningArgs,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// Score at which an event starts; may be given several times
    #[arg(long = "start", value_name = "SCORE", default_values_t = [5.0, 6.0, 7.0])]
    starts: Vec<f32>,
    /// Seconds from one window to the next
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = hop)]
    hop: f64,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// Splits that neither a recording nor a listener crosses
#[derive(clap::Args)]
pub(super) struct SplitArgs {
    /// Ratings, as claptune eval takes them; may be given several times
    #[arg(long, value_name = "MANIFEST", required = true)]
    data: Vec<PathBuf>,
    /// Where the audio lies, if not beside its manifest
    #[arg(long, value_name = "DIR")]
    audio_root: Option<PathBuf>,
    /// The manifest to write
    #[arg(long, value_name = "CSV")]
    out: PathBuf,
    /// Shares of the recordings: train,validation,test
    #[arg(long, value_name = "A,B,C", default_value = "0.8,0.1,0.1", value_delimiter = ',', num_args = 1)]
    shares: Vec<f64>,
    /// Whether listeners are kept apart, too: apart costs ratings, shared lets a model meet a listener again
    #[arg(long, value_enum, default_value = "apart")]
    listeners: ListenerPolicy,
    /// The same seed gives the same splits
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// As for `clapd score`.
fn hop(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    (0.01..=600.0).contains(&seconds).then_some(seconds).ok_or_else(|| format!("{seconds} s; 0.01 to 600 are allowed"))
}

pub(super) fn eval(args: &EvalArgs) -> Result<()> {
    let folders = [Some(&args.model), args.against.as_ref()].into_iter().flatten();
    let models = folders.map(|folder| BundleScorer::open(folder)).collect::<Result<Vec<_>>>()?;
    let ratings = eval::RatingSelection {
        manifests: &args.data,
        audio_root: args.audio_root.as_deref(),
        split: args.split.into(),
        screening: args.screening.rules(),
        skip: args.screening.skip,
        plan: args.bootstrap.plan(),
    };
    let mut report = if args.data.is_empty() {
        EvalReport { models: models.iter().map(BundleScorer::name).collect(), ..EvalReport::default() }
    } else {
        eval::agreement(&models, &ratings)?
    };
    if let Some(events) = &args.events {
        let rules =
            AlarmRules { starts: args.starts.clone(), hop: Duration::from_secs_f64(args.hop), ..Default::default() };
        for (place, model) in models.iter().enumerate() {
            report.alarms.extend(eval::measure_alarms(model, place, events, args.audio_root.as_deref(), &rules)?);
        }
    }
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.table() };
    std::io::stdout().write_all(text.as_bytes()).context("writing the report")
}

pub(super) fn split_manifests(args: &SplitArgs) -> Result<()> {
    let shares: [f64; 3] = args.shares.as_slice().try_into().ok().with_context(|| {
        format!("--shares has {} numbers; train,validation,test are needed: 0.8,0.1,0.1", args.shares.len())
    })?;
    let (mut rows, mut excluded) = (vec![], 0);
    for manifest in &args.data {
        ensure!(manifest != &args.out, "--out is one of --data; a manifest is not overwritten with less than it holds");
        let read = data::read(manifest, args.audio_root.as_deref())?;
        rows.extend(read.rows);
        excluded += read.excluded;
    }
    let rules = split::SplitRules { shares, listeners: args.listeners == ListenerPolicy::Apart, seed: args.seed };
    let made = split::split(rows, &rules)?;
    data::write(&args.out, &made.ratings)?;
    println!("{:<12}{:>12}{:>12}{:>12}", "split", "recordings", "listeners", "ratings");
    for split in data::Split::ALL {
        let own = || made.ratings.iter().filter(|rating| rating.split == Some(split));
        let count = |mut names: Vec<&String>| {
            names.sort();
            names.dedup();
            names.len()
        };
        let recordings = count(own().map(|rating| &rating.recording).collect());
        let listeners = count(own().filter_map(|rating| rating.listener.as_ref()).collect());
        println!("{split:<12}{recordings:>12}{listeners:>12}{:>12}", own().count());
    }
    println!(
        "dropped: {} ratings whose recording and listener are in different splits ({} recordings have none left), {excluded} \
         that the publisher excludes",
        made.dropped, made.recordings_lost
    );
    Ok(())
}
