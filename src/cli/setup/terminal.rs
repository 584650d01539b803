//! Questions to a person.
//!
//! They are asked on a terminal only, and a password is not shown while it is typed.

use std::io::{self, BufRead, IsTerminal, Write, stdin, stdout};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::print_line;
use crate::cli::exit::Failure;
use crate::config::Secret;

/// The terminal that the process was started from.
#[derive(Debug)]
pub(super) struct Terminal(());

/// What is to become of a stage that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureChoice {
    Retry,
    Continue,
    Stop,
}

impl Terminal {
    /// None where there is none: a pipe is no person. From here on, whoever ends the process by Ctrl-C gets the terminal back as it
    /// was, also in the middle of a password.
    pub(super) fn of_process() -> Result<Option<Self>> {
        if !(stdin().is_terminal() && stdout().is_terminal()) {
            return Ok(None);
        }
        restore_when_ended().context("the terminal cannot be asked for its settings")?;
        Ok(Some(Self(())))
    }

    /// The answer, or `usual` where it is empty.
    pub(super) fn ask(&self, question: &str, usual: &str) -> Result<String> {
        let hint = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
        prompt(&format!("{question}{hint}: "))?;
        let answer = line()?;
        Ok(if answer.is_empty() { usual.to_owned() } else { answer })
    }

    /// Whether the answer is yes; no answer is no.
    pub(super) fn agrees(&self, question: &str) -> bool {
        let answer = prompt(&format!("{question} [y/N]: ")).and_then(|()| line());
        answer.is_ok_and(|answer| ["y", "yes"].contains(&answer.to_lowercase().as_str()))
    }

    /// What is typed is not shown.
    pub(super) fn ask_hidden(&self, question: &str) -> Result<Option<Secret>> {
        // First, so that nobody types faster than the terminal obeys.
        let quiet = EchoGuard::begin()?;
        let answer = prompt(&format!("{question}: ")).and_then(|()| line());
        drop(quiet);
        print_line("");
        Ok(Some(answer?).filter(|answer| !answer.is_empty()).map(Secret::new))
    }

    /// Shows what failed, and asks what is to become of it.
    pub(super) fn ask_choice(&self, failure: &Failure) -> Result<FailureChoice> {
        print_line(&format!("  failed     {failure}"));
        loop {
            let answer = self.ask("Try (o)ther answers, (g)o on all the same, or (s)top", "o")?;
            match answer.to_lowercase().chars().next() {
                Some('o') => return Ok(FailureChoice::Retry),
                Some('g') => return Ok(FailureChoice::Continue),
                Some('s') => return Ok(FailureChoice::Stop),
                _ => {}
            }
        }
    }
}

fn prompt(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("the terminal is gone")
}

fn line() -> Result<String> {
    let mut line = String::new();
    let count = stdin().lock().read_line(&mut line).context("the terminal is gone")?;
    ensure!(count > 0, "nobody answers any more; nothing was written");
    Ok(line.trim().to_owned())
}

fn restore_when_ended() -> io::Result<()> {
    let usual = tcgetattr(stdin())?;
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM])?;
    let wait = move || {
        for signal in &mut signals {
            restore(&usual);
            // Ends the process, and so that a shell sees by what.
            if let Err(error) = emulate_default_handler(signal) {
                log::warn!("signal {signal} cannot be obeyed: {error}");
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}

fn restore(usual: &Termios) {
    if let Err(error) = tcsetattr(stdin(), OptionalActions::Drain, usual) {
        log::warn!("the terminal shows nothing that is typed ({error}); `stty echo` mends it");
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct EchoGuard(Termios);

impl EchoGuard {
    fn begin() -> io::Result<Self> {
        let usual = tcgetattr(stdin())?;
        let mut quiet = usual.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // What was typed ahead stays.
        tcsetattr(stdin(), OptionalActions::Drain, &quiet)?;
        Ok(Self(usual))
    }
}

impl Drop for EchoGuard {
    fn drop(&mut self) {
        restore(&self.0);
    }
}
