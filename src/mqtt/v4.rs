//! A connection in MQTT 3.1.1: rumqttc's client and connection, with its events and errors in the words of `protocol`.
//!
//! It neither reconnects nor resumes a broker's session: the outbox knows better what is acknowledged.

use std::error::Error as StdError;

use rumqttc_v4::{
    Client, Connection, ConnectionError, Error, Event, Incoming, LastWill, MqttOptions, Outgoing, PublishOptions, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};

use super::limits::BrokerLimits;
use super::protocol::{
    ConnectOptions, Filter, KEEP_ALIVE_S, MAX_PACKET, MAX_UNASKED, PublishForm, SessionEvent, SessionFailure,
};
use super::reason::{Answer, Reason};
use super::tls::TlsFault;

pub(super) fn open(with: &ConnectOptions) -> Result<(Client, Connection), String> {
    let mut options = MqttOptions::new(&*with.client_id, (with.broker.host.as_str(), with.broker.port));
    options
        .set_keep_alive(KEEP_ALIVE_S)
        // One packet at a time: of those read together with the end of a connection, rumqttc reports the end only.
        .set_read_batch_size(1)
        .set_max_packet_size(MAX_PACKET as usize, MAX_UNASKED as usize);
    if let Some(will) = &with.will {
        options.set_last_will(LastWill::new(&*will.topic, will.payload, qos(will.form), will.form.retained));
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

fn qos(form: PublishForm) -> QoS {
    if form.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce }
}

pub(super) fn publish(client: &Client, topic: &str, payload: Vec<u8>, form: PublishForm) -> bool {
    client.try_publish(topic, payload, PublishOptions::new(qos(form)).retain(form.retained)).is_ok()
}

/// In this version a broker sends what it has retained, wanted or not.
pub(super) fn subscribe(client: &Client, filters: Vec<Filter>) -> bool {
    let filters = filters.into_iter().map(|filter| SubscribeFilter::new(filter.path, QoS::AtLeastOnce));
    client.try_subscribe_many(filters).is_ok()
}

pub(super) fn session_event(event: Result<Event, ConnectionError>) -> Result<SessionEvent, SessionFailure> {
    Ok(match event.map_err(|error| failure(&error))? {
        Event::Incoming(Incoming::ConnAck(_)) => SessionEvent::Accepted(BrokerLimits {
            max_packet: Some(MAX_UNASKED),
            is_max_packet_announced: false,
            ..BrokerLimits::default()
        }),
        Event::Incoming(Incoming::UnsubAck(_)) => SessionEvent::MarkerReached,
        // A broker of this version acknowledges what it refuses, too.
        Event::Incoming(Incoming::PubAck(ack)) => SessionEvent::Acknowledged(ack.pkid, Ok(())),
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

fn subscribed(code: &SubscribeReasonCode) -> Result<(), Reason> {
    match code {
        SubscribeReasonCode::Success(_) => Ok(()),
        SubscribeReasonCode::Failure => Err(Reason::of(Answer::Subscribe, 0x80)),
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
        ConnectionError::ConnectionRefused(code) => {
            SessionFailure::Refused(Reason::of(Answer::OldConnect, *code as u8))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            SessionFailure::Closed("the broker answers no more".into())
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            SessionFailure::Closed("the broker closed it".into())
        }
        ConnectionError::MqttState(StateError::Deserialization(Error::PayloadSizeLimitExceeded(_))) => {
            SessionFailure::TooLarge
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => SessionFailure::Closed(error.to_string()),
        ConnectionError::MqttState(error) => SessionFailure::Closed(error.to_string()),
        ConnectionError::NetworkTimeout => SessionFailure::Closed("no answer within 5 s".into()),
        ConnectionError::Io(error) => SessionFailure::of_network(error),
        other => SessionFailure::Unreachable(other.to_string()),
    }
}
