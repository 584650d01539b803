//! clapd's command line: what was asked for, and how it went as an exit status.
//!
//! Text or JSON lines go to standard output, complaints to standard error. Each command wires the modules that do the work.

mod advice;
mod ask;
mod bench;
mod calibrate;
mod check;
mod demo;
mod devices;
mod diary;
mod display;
mod embed;
mod exit;
mod paths;
mod recording;
mod run;
mod score;
mod setup;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::{Failure, Stage, printed};

/// Describe sounds in words; clapd listens, scores what it hears from 0 to 10, and tells your house over MQTT.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Try out a microphone and a broker, and write a configuration for them
    Setup(setup::SetupArguments),
    /// Listen and publish, as the configuration says (the daemon)
    Run {
        /// Configuration file
        #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
        config: PathBuf,
    },
    /// Hear the bundled recording: scores and events, without configuration or broker
    Demo(demo::DemoArguments),
    /// Show live scores, and suggest thresholds that suit the room
    Watch(watch::WatchArguments),
    /// Ask the running daemon what any sentence would have scored in the last hours
    Ask(ask::AskArguments),
    /// Score recordings against texts
    Score(score::ScoreArguments),
    /// Print the embeddings of recordings and texts
    Embed(embed::EmbedArguments),
    /// List the input devices by the names that a configuration may use
    Devices {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// What ALSA makes of them, too: conversions, surround sound, other sound systems
        #[arg(long)]
        all: bool,
    },
    /// Name every fault of a configuration, with its line and remedy; nothing is started
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
        config: PathBuf,
        /// Try the broker, too: log in, and publish what the daemon would; nothing is left there
        #[arg(long)]
        connect: bool,
    },
    /// Print the events of the past: when, how long, how loud
    Diary(diary::DiaryArguments),
    /// Find out what sound pressure a microphone's levels stand for
    Calibrate {
        #[command(subcommand)]
        command: calibrate::CalibrateCommand,
    },
    /// Embed the texts on standard input, a JSON list, into the cache: what the daemon does beside itself
    #[command(hide = true)]
    EmbedCache {
        /// Model bundle
        #[arg(long, value_name = "DIR")]
        bundle: PathBuf,
        /// Threads to compute with
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Measure a bundle's speed and memory on this machine
    Bench(bench::BenchArguments),
}

/// The command line's definition: what man pages and shell completions are made from (tests/program/manual.rs).
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Standard error without timestamps: journald and every terminal multiplexer add their own.
    // What a broker refuses is said by `mqtt`, with what to do about it; rumqttc warns of the same in codes.
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,tract=warn,symphonia=off,rumqttc=error"),
    )
    .format_timestamp(None)
    .format_target(false)
    .init();
    let arguments = match Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) => return print_usage(&asked),
    };
    let outcome = match arguments.command {
        CliCommand::Setup(arguments) => setup::run(&arguments),
        CliCommand::Run { config } => run::run(&config),
        CliCommand::Demo(arguments) => demo::run(&arguments),
        CliCommand::Watch(arguments) => watch::run(&arguments),
        CliCommand::Ask(arguments) => ask::run(&arguments),
        CliCommand::Score(arguments) => score::run(&arguments),
        CliCommand::Embed(arguments) => embed::run(&arguments),
        CliCommand::Devices { json, all } => devices::run(json, all),
        CliCommand::Check { config, connect } => check::run(&config, connect),
        CliCommand::EmbedCache { bundle, threads } => run::embed_cache(&bundle, threads),
        CliCommand::Diary(arguments) => diary::run(&arguments),
        CliCommand::Calibrate { command: calibrate::CalibrateCommand::Mic(arguments) } => calibrate::run(&arguments),
        CliCommand::Bench(arguments) => bench::run(&arguments),
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

/// Prints the help or the version that somebody asked for, or what is wrong with the arguments.
fn print_usage(asked: &clap::Error) -> ExitCode {
    match printed(asked.print()) {
        Err(error) if !asked.use_stderr() => Failure::new(Stage::Output, error).report(),
        _ => ExitCode::from(u8::try_from(asked.exit_code()).unwrap_or(Stage::Usage as u8)),
    }
}
