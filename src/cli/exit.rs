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
    /// Anything else.
    Other = 1,
}

/// What failed, and where.
#[derive(Debug)]
pub(super) struct Failure {
    stage: Stage,
    error: Error,
}

impl Failure {
    pub(super) fn new(stage: Stage, error: impl Into<Error>) -> Self {
        Self { stage, error: error.into() }
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

/// Whether the reader of our output went away (`clapd score ... | head`): it has all it wants, and that is no failure.
pub(super) fn is_closed_pipe(error: &Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
