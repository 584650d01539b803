//! What a connection to a broker is made of, and what may happen on it, in words that fit both versions of the protocol.
//!
//! MQTT 5 says why a message is refused or a connection ended; MQTT 3.1.1 is all that some brokers of home automation
//! speak. rumqttc's maintained fork (rumqttc-next) has a crate for each, with nearly the same interface: `v5` and `v4`
//! turn both into these types.

use std::fmt;
use std::sync::Arc;

use rumqttc_v5::tokio_rustls::rustls::ClientConfig;

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
    /// The topic of the last will, and its payload, retained; none: the broker publishes nothing when we vanish.
    pub(super) will: Option<(Arc<str>, &'static str)>,
    /// Requests that may wait to be written.
    pub(super) capacity: usize,
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
    /// The broker has let us in, and takes packets of so many bytes; none: it has not said.
    Accepted(Option<u32>),
    /// A publish was written, with this packet id; 0 means that no acknowledgement will come.
    Written(u16),
    /// The broker has acknowledged the publish with this packet id, or refused it, with its reason.
    Acknowledged(u16, Result<(), String>),
    /// Somebody's message; `retained` where it lay at the broker before.
    Received { topic: String, payload: Vec<u8>, retained: bool },
    /// The broker's answer to our subscription: for each filter, whether it refuses it.
    Subscribed(Vec<Result<(), String>>),
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
    /// User or password are wrong, or this client is not allowed.
    Denied(String),
    /// The broker does not speak this version.
    WrongVersion,
    /// Somebody else has connected with our client id.
    TakenOver,
    /// It was closed, or the broker sent what is not understood.
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
