//! `clapd setup`: from a microphone and a broker to a configuration, each tried out before it is written.
//!
//! What no flag says is asked for on a terminal. Written are `clapd.toml` and files beside it for what does not belong into it.
//! Nobody's work is overwritten unasked, and a secret is neither printed nor taken from the command line.

mod answers;
mod draft;
mod microphone;
mod next;
mod store;
mod terminal;

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::anyhow;
use clap::builder::NonEmptyStringValueParser;

use super::exit::{AtStage, Failure, Stage};
use super::{check, paths};
use crate::config::{self, Environment, Faults, Settings};
use answers::Answers;
pub(super) use microphone::explain;
use store::Target;
use terminal::{FailureChoice, Terminal};

#[derive(Debug, clap::Args)]
pub(super) struct SetupArguments {
    /// The configuration to write
    #[arg(long, value_name = "FILE", default_value = paths::CONFIG)]
    config: PathBuf,
    /// The input device, by a name that `clapd devices` lists
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// The broker: a host's name, or mqtt://USER@HOST:PORT; mqtts:// is TLS; "none": events are only logged
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The file with the broker's password and nothing else (else: the variable CLAPD_MQTT_PASSWORD)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificate (PEM) of the authority that vouches for the broker, unless the system knows it
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A sound in words; may be given several times
    #[arg(short, long = "prompt", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    prompts: Vec<String>,
    /// This computer's part of every topic (default: the host's name)
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// Ask nothing, also on a terminal: what is not given takes its default, or is an error
    #[arg(long)]
    yes: bool,
    /// Replace a configuration that is there; it is kept beside the new one, as FILE.old
    #[arg(long)]
    force: bool,
    /// Write it also where the microphone or the broker does not pass, for one that comes later
    #[arg(long)]
    keep_going: bool,
}

pub(super) fn run(arguments: &SetupArguments) -> Result<(), Failure> {
    let terminal = if arguments.yes { None } else { Terminal::of_process().at(Stage::Usage)? };
    let target = Target::open(&arguments.config).at(Stage::Usage)?;
    if target.has_configuration() && !arguments.force {
        let replace =
            format!("{} is there already. Replace it (it is kept as {})?", target.path().display(), target.old());
        if !terminal.as_ref().is_some_and(|terminal| terminal.agrees(&replace)) {
            let seen = format!("{} is there already, and stays as it is", target.path().display());
            return Err(Failure::message(Stage::Usage, format!("{seen}; --force replaces it")));
        }
    }
    let answers = Answers::from_arguments(arguments, terminal.is_none()).at(Stage::Usage)?;
    let mut setup = Setup { terminal, answers, target, keep_going: arguments.keep_going };
    setup.run_stage("Microphone", Answers::ask_device, Setup::test_microphone)?;
    setup.run_stage("Broker", Answers::ask_broker, Setup::test_broker)?;
    setup.run_stage("Sounds", Answers::ask_prompts, |setup| setup.settings().map(drop))?;
    let settings = setup.write()?;
    print_line("Configuration");
    check::run(setup.target.path(), false)?;
    next::print(&setup.target, &settings);
    Ok(())
}

/// A set-up in progress.
struct Setup {
    /// None: nobody can be asked.
    terminal: Option<Terminal>,
    answers: Answers,
    target: Target,
    keep_going: bool,
}

impl Setup {
    /// Asks for what was not given and tries it out: again with other answers, as long as somebody has some.
    fn run_stage(
        &mut self,
        name: &str,
        ask: fn(&mut Answers, &Terminal, bool) -> anyhow::Result<()>,
        test: fn(&Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut again = false;
        loop {
            print_line(name);
            if let Some(terminal) = &self.terminal {
                ask(&mut self.answers, terminal, again).at(Stage::Usage)?;
            }
            let Err(failure) = test(self) else { return Ok(()) };
            let choice = match &self.terminal {
                _ if self.keep_going && failure.is_external() => FailureChoice::Continue,
                Some(terminal) => terminal.ask_choice(&failure).at(Stage::Usage)?,
                None => FailureChoice::Stop,
            };
            match choice {
                FailureChoice::Retry => again = true,
                FailureChoice::Continue => {
                    print_step("passed over", &failure.to_string());
                    return Ok(());
                }
                FailureChoice::Stop => return Err(failure),
            }
        }
    }

    /// What the answers so far would make of the daemon.
    fn settings(&self) -> Result<Settings, Failure> {
        let environment = Environment { mqtt_password: self.answers.password().cloned(), ..Environment::of_process() };
        let draft = draft::text(&self.answers, false);
        let parsed = config::parse(&draft, self.target.path(), &environment);
        parsed.map(|(settings, _)| settings).map_err(|faults| Failure::message(Stage::Usage, in_words(&faults)))
    }

    fn test_microphone(&self) -> Result<(), Failure> {
        let settings = self.settings()?;
        let source = settings.sources.first().ok_or_else(|| anyhow!("there is no source")).at(Stage::Other)?;
        // Where no bundle is installed yet, the level stands there for a person to judge.
        let bundle = paths::open_bundle(settings.bundle.as_deref(), settings.threads).ok();
        let range = bundle.and_then(|bundle| bundle.manifest().level_range());
        let report = microphone::measure(source, range).at(Stage::Input)?;
        print_step("sound", &report.to_string());
        report.warnings.iter().for_each(|warning| print_step("warning", warning));
        Ok(())
    }

    fn test_broker(&self) -> Result<(), Failure> {
        let settings = self.settings()?;
        let Some(broker) = &settings.broker else {
            print_step("none", "events are logged, and told to nobody");
            return Ok(());
        };
        check::probe_broker(broker, &settings, &mut print_step)
    }

    /// Writes what was found; the settings that a daemon makes of it.
    fn write(&self) -> Result<Settings, Failure> {
        self.settings()?;
        self.target.write_secret(draft::PASSWORD_FILE, self.answers.password()).at(Stage::Output)?;
        self.target.copy(draft::CA_FILE, self.answers.ca.as_deref()).at(Stage::Output)?;
        let text = draft::text(&self.answers, true);
        let parsed = config::parse(&text, self.target.path(), &Environment::of_process());
        let (settings, _) = parsed.map_err(|faults| Failure::message(Stage::Usage, in_words(&faults)))?;
        self.target.write_configuration(&text).at(Stage::Output)?;
        Ok(settings)
    }
}

/// A line of what was seen.
fn print_step(step: &str, seen: &str) {
    print_line(&format!("  {step:<10} {seen}"));
}

/// A line. Whoever has closed the pipe wants no more of them, and still gets a configuration.
fn print_line(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

/// Faults of answers: the file and its lines are not written yet.
fn in_words(faults: &Faults) -> String {
    let words: Vec<_> =
        faults.iter().map(|fault| format!("{}: {}; {}", fault.location.key, fault.message, fault.remedy)).collect();
    words.join("\n")
}
