//! A connection in MQTT 5: rumqttc's client and connection, with its events and errors in the words of `protocol`.
//!
//! It neither reconnects nor resumes a broker's session: the outbox knows better what is acknowledged.

use std::error::Error as StdError;

use rumqttc_v5::{
    Client, ConnectReturnCode, Connection, ConnectionError, DisconnectReasonCode, Error, Event, Incoming, LastWill,
    MqttOptions, Outgoing, PubAck, PubAckReason, PublishOptions, QoS, RetainForwardRule, StateError, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};

use super::protocol::{ConnectOptions, Filter, KEEP_ALIVE_S, MAX_PACKET, SessionEvent, SessionFailure};
use super::tls::TlsFault;

/// Packet ids that may be in use, as in MQTT 3.1.1; more than ever are under way. Left alone, rumqttc has a table of all 65,536 for each
/// connection: 16 MB, touched at every reconnect.
const PACKET_IDS: u16 = 100;

pub(super) fn open(with: &ConnectOptions) -> Result<(Client, Connection), String> {
    let mut options = MqttOptions::new(&*with.client_id, (with.broker.host.as_str(), with.broker.port));
    options
        .set_keep_alive(KEEP_ALIVE_S)
        // One packet at a time: of those read together with the end of a connection, rumqttc reports the end only.
        .set_read_batch_size(1)
        .set_max_packet_size(Some(MAX_PACKET))
        .set_outgoing_inflight_upper_limit(PACKET_IDS);
    if let Some((topic, payload)) = &with.will {
        options.set_last_will(LastWill::new(&**topic, *payload, QoS::AtLeastOnce, true, None));
    }
    match (&with.broker.user, &with.broker.password) {
        (Some(user), Some(password)) => options.set_credentials(user, password.reveal().to_owned()),
        (Some(user), None) => options.set_username(user),
        (None, _) => &mut options,
    };
    if let Some(tls) = &with.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
    }
    Client::builder(options).capacity(with.capacity).try_build().map_err(|error| error.to_string())
}

pub(super) fn publish(client: &Client, topic: &str, payload: Vec<u8>, acknowledged: bool, retain: bool) -> bool {
    let qos = if acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    client.try_publish(topic, payload, PublishOptions::new(qos).retain(retain)).is_ok()
}

pub(super) fn subscribe(client: &Client, filters: Vec<Filter>) -> bool {
    let filters = filters.into_iter().map(|filter| SubscribeFilter {
        path: filter.path,
        qos: QoS::AtLeastOnce,
        retain_forward_rule: if filter.retained {
            RetainForwardRule::OnEverySubscribe
        } else {
            RetainForwardRule::Never
        },
        ..SubscribeFilter::default()
    });
    client.try_subscribe_many(filters).is_ok()
}

pub(super) fn session_event(event: Result<Event, ConnectionError>) -> Result<SessionEvent, SessionFailure> {
    Ok(match event.map_err(|error| failure(&error))? {
        Event::Incoming(Incoming::ConnAck(ack)) => {
            SessionEvent::Accepted(ack.properties.and_then(|properties| properties.max_packet_size))
        }
        Event::Incoming(Incoming::PubAck(ack)) => SessionEvent::Acknowledged(ack.pkid, answer(&ack)),
        Event::Incoming(Incoming::Publish(publish)) => SessionEvent::Received {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.into(),
            retained: publish.retain,
        },
        Event::Incoming(Incoming::SubAck(ack)) => {
            SessionEvent::Subscribed(ack.return_codes.iter().map(subscribed).collect())
        }
        Event::Outgoing(Outgoing::Publish(packet_id)) => SessionEvent::Written(packet_id),
        Event::Outgoing(Outgoing::PingReq) => SessionEvent::PingSent,
        Event::Outgoing(Outgoing::Disconnect) => SessionEvent::Disconnected,
        _ => SessionEvent::Other,
    })
}

fn answer(ack: &PubAck) -> Result<(), String> {
    match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
        PubAckReason::NotAuthorized => Err("this user may not write to it; see the broker's access list".into()),
        other => Err(format!("{other:?}")),
    }
}

fn subscribed(code: &SubscribeReasonCode) -> Result<(), String> {
    match code {
        SubscribeReasonCode::Success(_) => Ok(()),
        SubscribeReasonCode::NotAuthorized => Err("this user may not read it; see the broker's access list".into()),
        other => Err(format!("{other:?}")),
    }
}

fn failure(error: &ConnectionError) -> SessionFailure {
    // This one does not name its source.
    let source: &(dyn StdError + 'static) = match error {
        ConnectionError::MqttState(StateError::Deserialization(source)) => source,
        error => error,
    };
    if let Some(fault) = TlsFault::find(source) {
        return SessionFailure::Tls(fault);
    }
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
                SessionFailure::WrongVersion
            }
            ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::BadAuthenticationMethod
            | ConnectReturnCode::Banned => SessionFailure::Denied(format!("{code:?}")),
            code => SessionFailure::Closed(format!("the broker refuses us: {code:?}")),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => SessionFailure::TakenOver,
            DisconnectReasonCode::NotAuthorized => SessionFailure::Denied(format!("{reason_code:?}")),
            code => SessionFailure::Closed(format!(
                "the broker ends it: {code:?} {}",
                reason_string.as_deref().unwrap_or("")
            )),
        },
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            SessionFailure::Closed("the broker answers no more".into())
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            SessionFailure::Closed("the broker closed it".into())
        }
        ConnectionError::MqttState(StateError::Deserialization(Error::PayloadSizeLimitExceeded { .. })) => {
            SessionFailure::TooLarge
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => SessionFailure::Closed(error.to_string()),
        ConnectionError::MqttState(error) => SessionFailure::Closed(error.to_string()),
        ConnectionError::Timeout(_) => SessionFailure::Closed("no answer within 5 s".into()),
        other => SessionFailure::Unreachable(other.to_string()),
    }
}
