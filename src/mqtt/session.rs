//! One connection to a broker, in either version of the protocol.
//!
//! In: who we are, and packets to publish. Out: what happened, in the words of this room.
//! MQTT 5 says why a message is refused or a connection ended; MQTT 3.1.1 is all that some brokers of home automation speak.
//! rumqttc's maintained fork (rumqttc-next) has a crate for each, with nearly the same interface.
//! Never: knows what a message is about, or tries again; that is `connection`'s.

use std::fmt;
use std::sync::Arc;

use rumqttc_v5::tokio_rustls::rustls::ClientConfig;

use super::inbox::Filter;
use super::{v4, v5};
use crate::config::Broker;

/// A broker calls us gone after one and a half of these, and we it after two. Two bytes each are no load.
pub(super) const KEEP_ALIVE_S: u16 = 10;
/// The largest that a broker may send us is a request to set prompts: a thousand of them, 250 bytes each. MQTT 5 has the broker
/// keep what is larger to itself; in 3.1.1 it ends the connection, see [`Failure::TooLarge`].
pub(super) const MAX_PACKET: u32 = 256 * 1024;

/// The largest that is sent to a broker that cannot say how much it takes, in 3.1.1: the least that any of note does.
pub(super) const MAX_UNASKED: u32 = 64 * 1024;

/// What a connection is made of.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) broker: Broker,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) client_id: String,
    /// The topic of the last will, and what it says, retained; none: nobody is to hear of our end.
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

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Happened {
    /// The broker has let us in, and takes packets of so many bytes; none: it has not said.
    Accepted(Option<u32>),
    /// A publish was written, with this packet id; 0 means that no acknowledgement will come.
    Written(u16),
    /// The broker has acknowledged the publish with this packet id, or refused it, with its reason.
    Answered(u16, Result<(), String>),
    /// Somebody's message; `retained` where it lay at the broker before.
    Received { topic: String, payload: Vec<u8>, retained: bool },
    /// The broker's answer to our subscription: for each filter, whether it refuses it.
    Subscribed(Vec<Result<(), String>>),
    /// We asked whether the broker is there; that is once every keep-alive.
    Asked,
    /// We have taken leave.
    Left,
    /// What is of no interest here.
    Nothing,
}

/// Why a connection ended, or never was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// User or password are wrong, or this client is not welcome.
    Denied(String),
    /// The broker does not speak this version.
    WrongVersion,
    /// Somebody else has connected with our client id.
    TakenOver,
    /// It was closed, or something was said that is not understood.
    Closed(String),
    /// The broker has sent more than [`MAX_PACKET`] at once: what somebody else has published.
    TooLarge,
    /// The broker answers our pings, but has acknowledged nothing for too long.
    Mute,
    /// No way to the broker: name, network, TLS.
    Unreachable(String),
}

/// Publishes; any thread may.
#[derive(Clone)]
pub(super) enum Client {
    V5(rumqttc_v5::Client),
    V4(rumqttc_v4::Client),
}

/// Makes the connection and keeps it going while it is asked what happens.
pub(super) enum Session {
    V5(Box<rumqttc_v5::Connection>),
    V4(Box<rumqttc_v4::Connection>),
}

impl Plan {
    /// A connection to be; it is begun when it is first asked what happens.
    pub(super) fn open(&self, version: Version) -> Result<(Client, Session), Failure> {
        match version {
            Version::V5 => v5::open(self).map(|(client, session)| (Client::V5(client), Session::V5(session.into()))),
            Version::V4 => v4::open(self).map(|(client, session)| (Client::V4(client), Session::V4(session.into()))),
        }
        .map_err(Failure::Unreachable)
    }
}

impl Client {
    /// Hands a message over to be written: acknowledged if `acknowledged`. False where the connection has ended.
    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>, acknowledged: bool, retain: bool) -> bool {
        match self {
            Self::V5(client) => v5::publish(client, topic, payload, acknowledged, retain),
            Self::V4(client) => v4::publish(client, topic, payload, acknowledged, retain),
        }
    }

    /// Asks for messages; false where the connection has ended.
    pub(super) fn subscribe(&self, filters: Vec<Filter>) -> bool {
        match self {
            Self::V5(client) => v5::subscribe(client, filters),
            Self::V4(client) => v4::subscribe(client, filters),
        }
    }

    /// Takes leave, so that the broker keeps the last will to itself; false where the connection has ended.
    pub(super) fn leave(&self) -> bool {
        match self {
            Self::V5(client) => client.try_disconnect_now().is_ok(),
            Self::V4(client) => client.try_disconnect_now().is_ok(),
        }
    }
}

impl Session {
    /// Blocks until something happens.
    pub(super) fn next(&mut self) -> Result<Happened, Failure> {
        match self {
            Self::V5(session) => session.recv().map_or(Ok(Happened::Left), v5::happened),
            Self::V4(session) => session.recv().map_or(Ok(Happened::Left), v4::happened),
        }
    }
}
