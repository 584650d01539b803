//! A connection in MQTT 5: rumqttc's client and connection, with its events and errors in the words of `protocol`.
//!
//! It neither reconnects nor resumes a broker's session: the outbox knows better what is acknowledged.

use std::error::Error as StdError;

use rumqttc_v5::{
    Client, ConnAckProperties, ConnectReturnCode, Connection, ConnectionError, Error, Event, Incoming, LastWill,
    MqttOptions, Outgoing, PubAck, PubAckReason, PublishOptions, QoS, RetainForwardRule, StateError, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};

use super::limits::BrokerLimits;
use super::protocol::{ConnectOptions, Filter, KEEP_ALIVE_S, MAX_PACKET, PublishForm, SessionEvent, SessionFailure};
use super::reason::{Answer, Reason};
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
    if let Some(will) = &with.will {
        options.set_last_will(LastWill::new(&*will.topic, will.payload, qos(will.form), will.form.retained, None));
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
            SessionEvent::Accepted(ack.properties.as_ref().map(limits).unwrap_or_default())
        }
        Event::Incoming(Incoming::UnsubAck(_)) => SessionEvent::MarkerReached,
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

/// Session expiry and topic aliases need no care: no session is resumed, and no alias is used.
fn limits(announced: &ConnAckProperties) -> BrokerLimits {
    let allows = |flag: Option<u8>| flag != Some(0);
    BrokerLimits {
        max_packet: announced.max_packet_size,
        is_max_packet_announced: true,
        retain: allows(announced.retain_available),
        qos1: allows(announced.max_qos),
        // The standard forbids 0, with which nothing could ever be sent.
        receive_max: announced.receive_max.unwrap_or(u16::MAX).max(1),
        wildcards: allows(announced.wildcard_subscription_available),
        // rumqttc keeps to it by itself.
        keep_alive_s: announced.server_keep_alive,
    }
}

fn answer(ack: &PubAck) -> Result<(), Reason> {
    match ack.reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
        refused => Err(Reason::of(Answer::Publish, refused as u8)),
    }
}

fn subscribed(code: &SubscribeReasonCode) -> Result<(), Reason> {
    let code = match code {
        SubscribeReasonCode::Success(_) => return Ok(()),
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => 0x80,
        SubscribeReasonCode::ImplementationSpecific => 0x83,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8F,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        SubscribeReasonCode::SharedSubscriptionsNotSupported => 0x9E,
        SubscribeReasonCode::SubscriptionIdNotSupported => 0xA1,
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => 0xA2,
    };
    Err(Reason::of(Answer::Subscribe, code))
}

fn refusal(code: ConnectReturnCode) -> Reason {
    Reason::of(
        Answer::Connect,
        match code {
            // rumqttc reads the codes of MQTT 3.1.1 here, too, with which an old broker answers.
            ConnectReturnCode::Success | ConnectReturnCode::RefusedProtocolVersion => 0x01,
            ConnectReturnCode::UnspecifiedError => 0x80,
            ConnectReturnCode::MalformedPacket => 0x81,
            ConnectReturnCode::ProtocolError => 0x82,
            ConnectReturnCode::ImplementationSpecificError => 0x83,
            ConnectReturnCode::UnsupportedProtocolVersion => 0x84,
            ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => 0x85,
            ConnectReturnCode::BadUserNamePassword => 0x86,
            ConnectReturnCode::NotAuthorized => 0x87,
            ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::ServerUnavailable => 0x88,
            ConnectReturnCode::ServerBusy => 0x89,
            ConnectReturnCode::Banned => 0x8A,
            ConnectReturnCode::BadAuthenticationMethod => 0x8C,
            ConnectReturnCode::TopicNameInvalid => 0x90,
            ConnectReturnCode::PacketTooLarge => 0x95,
            ConnectReturnCode::QuotaExceeded => 0x97,
            ConnectReturnCode::PayloadFormatInvalid => 0x99,
            ConnectReturnCode::RetainNotSupported => 0x9A,
            ConnectReturnCode::QoSNotSupported => 0x9B,
            ConnectReturnCode::UseAnotherServer => 0x9C,
            ConnectReturnCode::ServerMoved => 0x9D,
            ConnectReturnCode::ConnectionRateExceeded => 0x9F,
        },
    )
}

const PACKET_TOO_LARGE: u8 = 0x95;

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
        ConnectionError::ConnectionRefused(code) => SessionFailure::Refused(refusal(*code)),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let reason = Reason::of(Answer::Disconnect, *reason_code as u8);
            SessionFailure::Ended(reason, reason_string.clone().filter(|words| !words.is_empty()))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            SessionFailure::Closed("the broker answers no more".into())
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            SessionFailure::Closed("the broker closed it".into())
        }
        ConnectionError::MqttState(StateError::Deserialization(Error::PayloadSizeLimitExceeded { .. })) => {
            SessionFailure::TooLarge
        }
        // mosquitto answers what is over its message_size_limit with a PUBACK of this code, which MQTT has for the end of a
        // connection alone; rumqttc takes it for a fault and ends the connection.
        ConnectionError::MqttState(StateError::Deserialization(Error::InvalidConnectReturnCode(
            code @ PACKET_TOO_LARGE,
        ))) => SessionFailure::Ended(Reason::of(Answer::Disconnect, *code), None),
        ConnectionError::MqttState(StateError::Deserialization(error)) => SessionFailure::Closed(error.to_string()),
        ConnectionError::MqttState(error) => SessionFailure::Closed(error.to_string()),
        ConnectionError::Timeout(_) => SessionFailure::Closed("no answer within 5 s".into()),
        ConnectionError::Io(error) => SessionFailure::of_network(error),
        other => SessionFailure::Unreachable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::reason::Cause;

    #[test]
    fn every_code_of_rumqttc_is_the_standards() {
        for (code, number, cause) in [
            (ConnectReturnCode::RefusedProtocolVersion, "0x01", Cause::Version),
            (ConnectReturnCode::UnsupportedProtocolVersion, "0x84", Cause::Version),
            (ConnectReturnCode::ServiceUnavailable, "0x88", Cause::Passing),
            (ConnectReturnCode::BadClientId, "0x85", Cause::Settings),
            (ConnectReturnCode::BadUserNamePassword, "0x86", Cause::Settings),
            (ConnectReturnCode::NotAuthorized, "0x87", Cause::Settings),
            (ConnectReturnCode::UnspecifiedError, "0x80", Cause::Passing),
            (ConnectReturnCode::MalformedPacket, "0x81", Cause::Version),
            (ConnectReturnCode::ProtocolError, "0x82", Cause::Version),
            (ConnectReturnCode::ImplementationSpecificError, "0x83", Cause::Passing),
            (ConnectReturnCode::ClientIdentifierNotValid, "0x85", Cause::Settings),
            (ConnectReturnCode::ServerUnavailable, "0x88", Cause::Passing),
            (ConnectReturnCode::ServerBusy, "0x89", Cause::Passing),
            (ConnectReturnCode::Banned, "0x8A", Cause::Settings),
            (ConnectReturnCode::BadAuthenticationMethod, "0x8C", Cause::Settings),
            (ConnectReturnCode::TopicNameInvalid, "0x90", Cause::Will),
            (ConnectReturnCode::PacketTooLarge, "0x95", Cause::Will),
            (ConnectReturnCode::QuotaExceeded, "0x97", Cause::Passing),
            (ConnectReturnCode::PayloadFormatInvalid, "0x99", Cause::Will),
            (ConnectReturnCode::RetainNotSupported, "0x9A", Cause::Retain),
            (ConnectReturnCode::QoSNotSupported, "0x9B", Cause::Qos),
            (ConnectReturnCode::UseAnotherServer, "0x9C", Cause::Passing),
            (ConnectReturnCode::ServerMoved, "0x9D", Cause::Settings),
            (ConnectReturnCode::ConnectionRateExceeded, "0x9F", Cause::Passing),
        ] {
            let reason = refusal(code);
            assert!(reason.sentence().ends_with(&format!(" {number})")), "{code:?}: {reason}");
            assert_eq!(reason.cause(), cause, "{code:?}");
        }
    }

    #[test]
    fn what_is_not_announced_is_not_limited() {
        let none = ConnAckProperties {
            session_expiry_interval: None,
            receive_max: None,
            max_qos: None,
            retain_available: None,
            max_packet_size: None,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        };
        assert_eq!(limits(&none), BrokerLimits::default());
        let all = ConnAckProperties {
            receive_max: Some(0),
            max_qos: Some(0),
            retain_available: Some(0),
            max_packet_size: Some(2048),
            wildcard_subscription_available: Some(0),
            server_keep_alive: Some(5),
            ..none
        };
        let expected = BrokerLimits {
            max_packet: Some(2048),
            is_max_packet_announced: true,
            retain: false,
            qos1: false,
            receive_max: 1,
            wildcards: false,
            keep_alive_s: Some(5),
        };
        assert_eq!(limits(&all), expected);
    }
}
