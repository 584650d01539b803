//! Whether a broker would do, step by step, before anybody relies on it.
//!
//! In: a [`Broker`] and the node's id. Out: what each step saw, up to the first that fails, with its remedy. The way to the broker
//! (name, TCP, TLS) is gone in `way`, what is said there (login, publish, receive) in `talk`.
//! Never: leaves anything at the broker, takes the place of a daemon that runs, tries again, or shows a password.

mod talk;
mod way;

use std::fmt;

use crate::config::Broker;

/// The steps, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The broker's name has an address.
    Name,
    /// Somebody listens at its port.
    Tcp,
    /// It shows a certificate that is good for its name.
    Tls,
    /// It lets us in.
    Login,
    /// It takes a message on a topic of ours.
    Publish,
    /// The message comes back.
    Receive,
    /// It takes messages for Home Assistant; that it does not is no failure.
    Discovery,
}

impl Step {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Login => "login",
            Self::Publish => "publish",
            Self::Receive => "receive",
            Self::Discovery => "discovery",
        }
    }
}

/// Where it ended; prints as `step: what was seen; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The step that failed.
    pub step: Step,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.step.word(), self.seen, self.remedy)
    }
}

impl std::error::Error for Fault {}

impl Fault {
    fn new(step: Step, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { step, seen: seen.into(), remedy: remedy.into() }
    }
}

/// Takes the steps one after the other, and tells `passed` what each has seen. Takes a second, and where the broker does not
/// answer at most some 10 s a step (a name that no server knows: as long as the system's resolver takes).
///
/// # Errors
/// The first step that fails.
pub fn probe(broker: &Broker, node: &str, passed: &mut dyn FnMut(Step, &str)) -> Result<(), Fault> {
    way::go(broker, passed)?;
    talk::talk(broker, node, passed)
}
