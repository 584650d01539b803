//! In which version of the protocol, and with which last will, a broker is connected to.
//!
//! MQTT 5 comes first. A broker that knows 3.1.1 only says so, or does not know what to say. One that takes no full last will
//! gets a lesser one, see `will`.

use std::time::Instant;

use super::limits::BrokerLimits;
use super::protocol::{ConnectOptions, LastWill, SessionFailure, Version};
use super::reason::Cause;
use super::session::{self, Client, Session};
use super::will::WillSearch;

/// What the attempts so far have shown.
#[derive(Debug)]
pub(super) struct Dialer {
    version: Version,
    will: WillSearch,
    /// What the broker announced last.
    limits: Option<BrokerLimits>,
}

impl Dialer {
    pub(super) fn new() -> Self {
        Self { version: Version::V5, will: WillSearch::default(), limits: None }
    }

    /// The version of the next attempt, or of the last while nothing has come of it.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// A connection to be, with as much of the will as this broker takes.
    pub(super) fn open(&mut self, options: &ConnectOptions) -> Result<(Client, Session), SessionFailure> {
        let form = self.will.form(Instant::now());
        let will = options.will.clone().zip(form).map(|(will, form)| LastWill { form, ..will });
        session::open(&ConnectOptions { will, ..options.clone() }, self.version)
    }

    /// The broker has let us in. True where this connection is to be ended at once, and another to follow: whether the
    /// broker takes the full last will is to be tried once more.
    pub(super) fn on_accepted(&mut self) -> bool {
        self.will.on_accepted();
        self.will.is_to_be_proven()
    }

    /// Whether the last connection was ended for that.
    pub(super) fn is_to_redial(&self) -> bool {
        self.will.is_to_be_proven()
    }

    /// What the broker has announced, in words, where that is news. In 3.1.1 it cannot announce anything.
    pub(super) fn news_of_limits(&mut self, limits: &BrokerLimits) -> Option<String> {
        let is_news = self.version == Version::V5 && self.limits.replace(*limits) != Some(*limits);
        Some(limits.to_string()).filter(|words| is_news && !words.is_empty())
    }

    /// A connection has ended that the broker had accepted. While it is found out what a broker takes, its version stays.
    pub(super) fn on_ended(&mut self, is_searching: bool) {
        if !is_searching {
            self.version = Version::V5;
        }
    }

    /// A connection was not accepted. Returns what is known of the last will by it, if that is news.
    pub(super) fn on_refused(&mut self, failure: &SessionFailure) -> Option<&'static str> {
        let refused = self.version;
        let is_other = failure.suggests_other_version() && refused == Version::V5;
        self.version = if is_other { Version::V4 } else { Version::V5 };
        let cause = failure.cause();
        // One that hangs up on MQTT 5 may only not know it.
        let hung_up = matches!(failure, SessionFailure::Closed(_)) && refused == Version::V4;
        if !(hung_up || matches!(cause, Some(Cause::Retain | Cause::Qos | Cause::Will))) {
            return None;
        }
        let finding = self.will.on_refused(cause, Instant::now());
        if finding.is_some() {
            // The version was not the reason.
            self.version = refused;
        }
        finding
    }

    /// Whether the next attempt will show more of what the broker takes.
    pub(super) fn is_searching(&self) -> bool {
        self.will.is_searching()
    }
}
