//! Exit statuses: which stage failed decides the number that scripts and systemd see.

use std::fmt::Display;
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

    /// Says what failed and gives the status. A reader that closed the pipe (`clapd score ... | head`) has all it wants.
    pub(super) fn report(self) -> ExitCode {
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if self.error.chain().any(closed) {
            return ExitCode::SUCCESS;
        }
        eprintln!("clapd: {:#}", self.error);
        ExitCode::from(self.stage as u8)
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
