//! Exit statuses: which stage failed decides the number that scripts and systemd see.

use std::fmt::{self, Display};
use std::io;
use std::process::ExitCode;

use anyhow::Error;

/// The stages that have a status of their own. 1 is left to what no stage claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Arguments or configuration; `clap` itself exits with the same number.
    Usage = 2,
    /// The model bundle.
    Bundle = 3,
    /// An audio device or an audio file.
    Input = 4,
    /// The broker, where it was asked to be tried.
    Broker = 5,
    /// Standard output, or a file that is to be written: a full disk.
    Output = 6,
    /// Anything else.
    Other = 1,
}

/// What was to be printed or written and could not be. It is a failure of [`Stage::Output`] wherever it comes up, in the
/// middle of reading a recording too.
#[derive(Debug)]
pub(super) struct OutputError {
    what: String,
    error: io::Error,
}

impl Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be written", self.what)
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Says of what was printed that it was standard output which could not be written.
pub(super) fn printed(result: io::Result<()>) -> Result<(), OutputError> {
    result.map_err(|error| OutputError { what: "standard output".into(), error })
}

/// What failed, and where.
#[derive(Debug)]
pub(super) struct Failure {
    stage: Stage,
    error: Error,
}

impl Failure {
    pub(super) fn new(stage: Stage, error: impl Into<Error>) -> Self {
        let error = error.into();
        let stage = if output_error(&error).is_some() { Stage::Output } else { stage };
        Self { stage, error }
    }

    pub(super) fn message(stage: Stage, message: impl Display) -> Self {
        Self::new(stage, Error::msg(message.to_string()))
    }

    /// Whether it is a device or a broker that fails, which another day may be there.
    pub(super) fn is_external(&self) -> bool {
        matches!(self.stage, Stage::Input | Stage::Broker)
    }

    /// Says what failed and gives the status.
    pub(super) fn report(self) -> ExitCode {
        if is_closed_pipe(&self.error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("clapd: {self}");
        ExitCode::from(self.stage as u8)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// Gives a result the stage that it belongs to.
pub(super) trait AtStage<T> {
    fn at(self, stage: Stage) -> Result<T, Failure>;
}

impl<T, E: Into<Error>> AtStage<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(stage, error))
    }
}

fn output_error(error: &Error) -> Option<&OutputError> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// Whether it is our output that cannot be written, so that going on with the next recording is of no use.
pub(super) fn is_output(error: &Error) -> bool {
    output_error(error).is_some()
}

/// Whether the reader of our output went away (`clapd score ... | head`): it has all it wants, and that is no failure. A
/// broker that goes away is one.
fn is_closed_pipe(error: &Error) -> bool {
    output_error(error).is_some_and(|output| output.error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn what_cannot_be_printed_is_told_apart_wherever_it_comes_up() {
        let full = || Error::from(printed(Err(io::ErrorKind::StorageFull.into())).unwrap_err());
        let inner = Err::<(), _>(full()).context("a.wav").at(Stage::Input).unwrap_err();
        assert_eq!(inner.stage, Stage::Output);
        assert!(inner.to_string().starts_with("a.wav: standard output cannot be written: "), "{inner}");
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&printed(Err(pipe())).unwrap_err().into()));
        // The broker's.
        assert!(!is_closed_pipe(&pipe().into()));
        assert_eq!(Failure::new(Stage::Broker, pipe()).stage, Stage::Broker);
    }
}
