//! One connection to a broker, in either version of the protocol. Trying again is the task of `connection`.

use std::time::Duration;

use super::protocol::{ConnectOptions, Filter, PublishForm, SessionEvent, SessionFailure, Version};
use super::{v4, v5};

/// Publishes; any thread may.
#[derive(Clone)]
pub(super) enum Client {
    V5(rumqttc_v5::Client),
    V4(rumqttc_v4::Client),
}

/// Makes the connection and keeps it going while [`Self::next`] is called.
pub(super) enum Session {
    V5(Box<rumqttc_v5::Connection>),
    V4(Box<rumqttc_v4::Connection>),
}

/// A connection to be; it is begun by the first [`Session::next`].
pub(super) fn open(options: &ConnectOptions, version: Version) -> Result<(Client, Session), SessionFailure> {
    match version {
        Version::V5 => v5::open(options).map(|(client, session)| (Client::V5(client), Session::V5(session.into()))),
        Version::V4 => v4::open(options).map(|(client, session)| (Client::V4(client), Session::V4(session.into()))),
    }
    .map_err(SessionFailure::Unreachable)
}

impl Client {
    /// Hands a message over to be written; false where the connection has ended.
    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>, form: PublishForm) -> bool {
        match self {
            Self::V5(client) => v5::publish(client, topic, payload, form),
            Self::V4(client) => v4::publish(client, topic, payload, form),
        }
    }

    /// Has the broker say when it has read everything that was handed over before ([`SessionEvent::MarkerReached`]), which no
    /// answer to a message with QoS 0 tells: a broker reads in order, and answers that nobody was subscribed to this filter.
    /// False where the connection has ended.
    pub(super) fn mark(&self) -> bool {
        const FILTER: &str = "clapd/marker";
        match self {
            Self::V5(client) => client.try_unsubscribe(FILTER).is_ok(),
            Self::V4(client) => client.try_unsubscribe(FILTER).is_ok(),
        }
    }

    /// Asks for messages; false where the connection has ended.
    pub(super) fn subscribe(&self, filters: Vec<Filter>) -> bool {
        match self {
            Self::V5(client) => v5::subscribe(client, filters),
            Self::V4(client) => v4::subscribe(client, filters),
        }
    }

    /// Disconnects in order, so that the broker keeps the last will to itself; false where the connection has ended.
    pub(super) fn disconnect(&self) -> bool {
        match self {
            Self::V5(client) => client.try_disconnect_now().is_ok(),
            Self::V4(client) => client.try_disconnect_now().is_ok(),
        }
    }
}

impl Session {
    /// Waits up to `patience` for something to happen; none where nothing did. Not to be used before the broker has
    /// accepted the connection: what has come of connecting by then is given up.
    pub(super) fn next_within(&mut self, patience: Duration) -> Result<Option<SessionEvent>, SessionFailure> {
        match self {
            Self::V5(session) => match session.recv_timeout(patience) {
                Ok(event) => v5::session_event(event).map(Some),
                Err(rumqttc_v5::RecvTimeoutError::Timeout { .. }) => Ok(None),
                Err(rumqttc_v5::RecvTimeoutError::Disconnected) => Ok(Some(SessionEvent::Disconnected)),
            },
            Self::V4(session) => match session.recv_timeout(patience) {
                Ok(event) => v4::session_event(event).map(Some),
                Err(rumqttc_v4::RecvTimeoutError::Timeout { .. }) => Ok(None),
                Err(rumqttc_v4::RecvTimeoutError::Disconnected) => Ok(Some(SessionEvent::Disconnected)),
            },
        }
    }

    /// Blocks until something happens.
    pub(super) fn next(&mut self) -> Result<SessionEvent, SessionFailure> {
        match self {
            Self::V5(session) => session.recv().map_or(Ok(SessionEvent::Disconnected), v5::session_event),
            Self::V4(session) => session.recv().map_or(Ok(SessionEvent::Disconnected), v4::session_event),
        }
    }
}
