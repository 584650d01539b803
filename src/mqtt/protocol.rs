//! What a connection to a broker is made of, and what may happen on it, in words that fit both versions of the protocol.
//!
//! MQTT 5 says why a message is refused or a connection ended; MQTT 3.1.1 is all that some brokers of home automation
//! speak. rumqttc's maintained fork (rumqttc-next) has a crate for each, with nearly the same interface: `v5` and `v4`
//! turn both into these types.

use std::fmt;
use std::io;
use std::sync::Arc;

use rumqttc_v5::tokio_rustls::rustls::ClientConfig;

use super::limits::BrokerLimits;
use super::reason::{Cause, Reason};
use super::tls::TlsFault;
use crate::config::Broker;

/// A broker closes a connection after one and a half of these without a packet of ours, and we close it after two without
/// one of the broker's. Two bytes each are no load.
pub(super) const KEEP_ALIVE_S: u16 = 10;
/// The largest that a broker may send us is a request to set prompts: a thousand of them, 250 bytes each. MQTT 5 has the
/// broker keep what is larger to itself; in 3.1.1 it ends the connection, see [`SessionFailure::TooLarge`].
pub(super) const MAX_PACKET: u32 = 256 * 1024;

/// The largest that is sent to a broker that cannot say how much it takes, in 3.1.1: the least that any of note does.
pub(super) const MAX_UNASKED: u32 = 64 * 1024;

/// What a connection is made of.
#[derive(Clone)]
pub(super) struct ConnectOptions {
    pub(super) broker: Broker,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) client_id: String,
    /// None: the broker publishes nothing when we vanish.
    pub(super) will: Option<LastWill>,
    /// Requests that may wait to be written.
    pub(super) capacity: usize,
}

/// What the broker publishes when we vanish.
#[derive(Debug, Clone)]
pub(super) struct LastWill {
    pub(super) topic: Arc<str>,
    pub(super) payload: &'static str,
    pub(super) form: PublishForm,
}

/// What a message asks of the broker beside its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublishForm {
    /// To acknowledge it: QoS 1.
    pub(super) acknowledged: bool,
    /// To keep it for those who subscribe later.
    pub(super) retained: bool,
}

impl PublishForm {
    /// Acknowledged and kept, as states are.
    pub(super) const RETAINED: Self = Self { acknowledged: true, retained: true };
    /// Acknowledged, and of use now only.
    pub(super) const ACKNOWLEDGED: Self = Self { acknowledged: true, retained: false };
    /// Neither: a newer one follows.
    pub(super) const PLAIN: Self = Self { acknowledged: false, retained: false };
}

/// The protocol's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V5,
    V4,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5 => "MQTT 5",
            Self::V4 => "MQTT 3.1.1",
        })
    }
}

/// A filter to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) path: String,
    /// Whether the broker shall send what it has retained, too.
    pub(super) retained: bool,
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// The broker has let us in, and says what it takes.
    Accepted(BrokerLimits),
    /// A publish was written, with this packet id; 0 means that no acknowledgement will come.
    Written(u16),
    /// The broker has acknowledged the publish with this packet id, or refused it.
    Acknowledged(u16, Result<(), Reason>),
    /// Somebody's message; `retained` where it lay at the broker before.
    Received { topic: String, payload: Vec<u8>, retained: bool },
    /// The broker's answer to our subscription: for each filter, whether it refuses it.
    Subscribed(Vec<Result<(), Reason>>),
    /// The broker has read everything that was written before a marker of ours; see `Client::mark`.
    MarkerReached,
    /// We asked whether the broker is there; that is once every keep-alive.
    PingSent,
    /// We have disconnected.
    Disconnected,
    /// What is of no interest here.
    Other,
}

/// Why a connection ended, or never was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SessionFailure {
    /// The broker does not let us in, for this reason.
    Refused(Reason),
    /// The broker has ended the connection for this reason, and perhaps in words of its own.
    Ended(Reason, Option<String>),
    /// It was closed without a word, or the broker sent what is not understood.
    Closed(String),
    /// The broker has sent more than [`MAX_PACKET`] at once: what somebody else has published.
    TooLarge,
    /// The broker answers our pings, but has acknowledged nothing for too long.
    NoAcks,
    /// TLS, before or after the broker has let us in.
    Tls(TlsFault),
    /// No way to the broker: name, network.
    Unreachable(String),
}

impl SessionFailure {
    /// A fault of the network; one with which a broker hangs up.
    pub(super) fn of_network(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed(format!("the broker hung up ({error})")),
            _ => Self::Unreachable(error.to_string()),
        }
    }

    /// What the program can do about it; none where the broker gave no reason.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Refused(reason) | Self::Ended(reason, _) => Some(reason.cause()),
            _ => None,
        }
    }

    /// Whether the connection ended for something else than a message of ours.
    pub(super) fn blames_no_message(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Tls(_) => true,
            Self::Ended(reason, _) => reason.is_about_connection(),
            _ => false,
        }
    }

    /// Whether only a person can mend it.
    pub(super) fn needs_a_person(&self) -> bool {
        matches!(self.cause(), Some(Cause::Settings | Cause::TakenOver))
    }

    /// Whether the broker does not speak this version of MQTT, or does not know what to say to it.
    pub(super) fn suggests_other_version(&self) -> bool {
        matches!(self, Self::Closed(_)) || matches!(self, Self::Refused(reason) if reason.cause() == Cause::Version)
    }
}

impl fmt::Display for SessionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) | Self::Ended(reason, None) => reason.fmt(f),
            Self::Ended(reason, Some(words)) => {
                write!(f, "{}, in the broker's words {words:?}; {}", reason.sentence(), reason.remedy())
            }
            Self::TooLarge => write!(f, "somebody has published more than {MAX_PACKET} bytes on a topic that we read"),
            Self::NoAcks => f.write_str("the broker acknowledges nothing"),
            // Which fault of TLS it is, and what mends it, takes the broker's settings to say: [`TlsFault::explain`].
            Self::Tls(_) => f.write_str("TLS failed"),
            Self::Closed(why) | Self::Unreachable(why) => f.write_str(why),
        }
    }
}
