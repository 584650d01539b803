//! Whether a broker would do, step by step, before anybody relies on it.
//!
//! Each step says what it saw, up to the first that fails, which comes with its remedy. `transport_check` takes the
//! steps to the broker (name, TCP, TLS), `session_check` those with it (login, last will, event, state, discovery), as the
//! daemon would. Nothing is left at the broker, and a daemon of this node that runs is not disturbed.

mod session_check;
mod transport_check;

use std::fmt;
use std::time::Duration;

use clapd_core::prompts::Prompt;

use crate::config::Broker;

/// The steps, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStep {
    /// The broker's name has an address.
    Name,
    /// Somebody listens at its port.
    Tcp,
    /// It shows a certificate that is good for its name.
    Tls,
    /// It lets us in.
    Login,
    /// It takes a last will; that it takes a lesser one is no failure.
    Will,
    /// It takes an event.
    Publish,
    /// It takes a state, keeps it, and gives it back; that it does not keep it is no failure.
    Receive,
    /// It takes messages for Home Assistant; that it does not is no failure.
    Discovery,
}

impl ProbeStep {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Login => "login",
            Self::Will => "will",
            Self::Publish => "publish",
            Self::Receive => "receive",
            Self::Discovery => "discovery",
        }
    }
}

/// The step that failed; prints as `step: what was seen; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailure {
    /// The step that failed.
    pub step: ProbeStep,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.step.name(), self.seen, self.remedy)
    }
}

impl std::error::Error for ProbeFailure {}

impl ProbeFailure {
    fn new(step: ProbeStep, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { step, seen: seen.into(), remedy: remedy.into() }
    }
}

/// What the daemon would publish.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSpec<'a> {
    /// This computer's part of every topic.
    pub node: &'a str,
    /// Ids of the sources.
    pub sources: &'a [String],
    /// What is listened for at each.
    pub prompts: &'a [Prompt],
    /// Time between two scores.
    pub period: Duration,
}

/// Takes the steps one after the other, and calls `passed` with what each has seen, some of them twice. Takes a second; where the
/// broker does not answer at most some 10 s a step (a name that no server knows: as long as the system's resolver takes), and
/// where it ends connections over what it does not take, about a second for each such thing.
///
/// # Errors
/// The first step that fails.
pub fn probe(
    broker: &Broker,
    spec: &ProbeSpec<'_>,
    passed: &mut dyn FnMut(ProbeStep, &str),
) -> Result<(), ProbeFailure> {
    transport_check::run(broker, passed)?;
    session_check::run(broker, spec, passed)
}
