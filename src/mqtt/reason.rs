//! What a broker's code says, in a sentence, and what mends it.
//!
//! The same number means another thing in another packet, so the table goes by both. Each code of MQTT 5 and of MQTT 3.1.1
//! with which a broker can refuse something has a line of its own; the tests below compare them with the standards.

use std::fmt;

use Answer::{Connect, Disconnect, OldConnect, Publish, Subscribe};
use Cause::{Passing, Qos, Retain, Settings, Size, TakenOver, Topic, Version, Wildcards, Will};

/// The packet that a code comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// CONNACK of MQTT 5.
    Connect,
    /// CONNACK of MQTT 3.1.1, whose codes are others.
    OldConnect,
    /// PUBACK.
    Publish,
    /// SUBACK, of both versions.
    Subscribe,
    /// DISCONNECT, which only MQTT 5 lets a broker send.
    Disconnect,
}

/// What the program can do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing: a person has to mend user, password or the broker's settings, and trying often may have us locked out.
    Settings,
    /// Go on in the other version of the protocol.
    Version,
    /// Publish nothing retained.
    Retain,
    /// Publish with QoS 0.
    Qos,
    /// Send smaller packets.
    Size,
    /// Go on without a last will.
    Will,
    /// Leave the topic alone.
    Topic,
    /// Subscribe to topics without wildcards.
    Wildcards,
    /// Another client has this client's id.
    TakenOver,
    /// Nothing to learn from: try again later.
    Passing,
}

/// A refusal in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason {
    answer: Answer,
    code: u8,
    name: &'static str,
    sentence: &'static str,
    remedy: &'static str,
    cause: Cause,
}

impl Reason {
    /// The line of the table for this code.
    pub(super) fn of(answer: Answer, code: u8) -> Self {
        let found = TABLE.iter().find(|reason| (reason.answer, reason.code) == (answer, code));
        found.copied().unwrap_or(Self { answer, code, ..UNKNOWN })
    }

    /// What happened.
    pub(super) fn sentence(&self) -> String {
        format!("{} ({} 0x{:02X})", self.sentence, self.name, self.code)
    }

    /// What a person can do about it.
    pub(super) fn remedy(&self) -> &'static str {
        self.remedy
    }

    /// Whether it is the user or the password that the broker does not take.
    pub(super) fn is_about_login(&self) -> bool {
        matches!((self.answer, self.code), (Connect, 0x86 | 0x87) | (OldConnect, 4 | 5))
    }

    /// Whether the broker has ended the connection for reasons of its own or for its time, and not for what was sent.
    pub(super) fn is_about_connection(&self) -> bool {
        const CODES: [u8; 9] = [0x89, 0x8B, 0x8D, 0x96, 0x98, 0x9C, 0x9D, 0x9F, 0xA0];
        self.answer == Disconnect && CODES.contains(&self.code)
    }

    /// What the program can do about it.
    pub(super) fn cause(&self) -> Cause {
        self.cause
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.sentence(), self.remedy)
    }
}

/// A code that neither standard knows.
const UNKNOWN: Reason = Reason {
    answer: Connect,
    code: 0,
    name: "unknown",
    sentence: "the broker answers with a code that no version of MQTT knows",
    remedy: "see the broker's log; a newer clapd may know the code",
    cause: Passing,
};

const fn line(
    answer: Answer,
    code: u8,
    name: &'static str,
    cause: Cause,
    sentence: &'static str,
    remedy: &'static str,
) -> Reason {
    Reason { answer, code, name, sentence, remedy, cause }
}

#[rustfmt::skip]
const TABLE: &[Reason] = &[
    line(OldConnect, 1, "unacceptable protocol version", Version, "the broker does not speak MQTT 3.1.1", "see whether it is a broker for MQTT 3.1.1 or 5"),
    line(OldConnect, 2, "identifier rejected", Settings, "the broker does not take this client's id, or a keep-alive as long as 10 s", "give another node.id, or raise the broker's limit (mosquitto: max_keepalive)"),
    line(OldConnect, 3, "server unavailable", Passing, "the broker runs, but its MQTT service does not", "see the broker's log"),
    line(OldConnect, 4, "bad user name or password", Settings, "the broker does not know this user or this password", "see mqtt.url, mqtt.password_file, and the broker's list of users"),
    line(OldConnect, 5, "not authorized", Settings, "the broker does not let this user, or somebody without a user, connect", "see mqtt.url, mqtt.password_file, and the broker's list of users"),

    line(Connect, 0x01, "unacceptable protocol version", Version, "the broker answers in MQTT 3.1.1 that it does not speak MQTT 5", "clapd goes on in MQTT 3.1.1 by itself"),
    line(Connect, 0x80, "unspecified error", Passing, "the broker does not let us in, and does not say why", "see the broker's log"),
    line(Connect, 0x81, "malformed packet", Version, "the broker cannot read the first packet", "see whether another program listens at this port, and report it with the broker's name and version"),
    line(Connect, 0x82, "protocol error", Version, "the broker says that the first packet breaks the rules of MQTT 5", "report it with the broker's name and version"),
    line(Connect, 0x83, "implementation specific error", Passing, "the first packet is right, and the broker still does not take it", "see the broker's log for its own rules"),
    line(Connect, 0x84, "unsupported protocol version", Version, "the broker does not speak MQTT 5", "clapd goes on in MQTT 3.1.1 by itself"),
    line(Connect, 0x85, "client identifier not valid", Settings, "the broker does not take this client's id", "give another node.id, or allow the id in the broker's settings (mosquitto: clientid_prefixes)"),
    line(Connect, 0x86, "bad user name or password", Settings, "the broker does not know this user or this password", "see mqtt.url, mqtt.password_file, and the broker's list of users"),
    line(Connect, 0x87, "not authorized", Settings, "the broker does not let this user, or somebody without a user, connect", "see mqtt.url, mqtt.password_file, and the broker's list of users"),
    line(Connect, 0x88, "server unavailable", Passing, "the broker runs, but its MQTT service does not", "see the broker's log"),
    line(Connect, 0x89, "server busy", Passing, "the broker has too much to do", "see its load; clapd tries again by itself"),
    line(Connect, 0x8A, "banned", Settings, "the broker's administrator has locked this client out", "have the ban lifted, or give another node.id or user"),
    line(Connect, 0x8C, "bad authentication method", Settings, "the broker wants another way to log in than user and password", "allow user and password in its settings"),
    line(Connect, 0x90, "topic name invalid", Will, "the broker does not take the topic of the last will, clapd/<node.id>/status", "clapd goes on without one; allow that topic in the broker's settings, or give another node.id"),
    line(Connect, 0x95, "packet too large", Will, "the broker takes no packet as large as the first one", "clapd goes on without a last will; raise its limit (mosquitto: max_packet_size), or shorten node.id, user and password"),
    line(Connect, 0x97, "quota exceeded", Passing, "this client has used up what the broker allows it", "see the broker's quotas"),
    line(Connect, 0x99, "payload format invalid", Will, "the broker does not take the payload of the last will, \"offline\"", "clapd goes on without one; allow text without JSON on clapd/<node.id>/status"),
    line(Connect, 0x9A, "retain not supported", Retain, "the broker keeps no retained messages, and so no retained last will", "clapd goes on without; to have states kept, allow them (mosquitto: retain_available true)"),
    line(Connect, 0x9B, "QoS not supported", Qos, "the broker takes no last will with QoS 1", "clapd goes on with QoS 0; to have messages acknowledged, raise the limit (mosquitto: max_qos 1)"),
    line(Connect, 0x9C, "use another server", Passing, "the broker sends its clients to another one for now", "name that one as mqtt.url if this goes on"),
    line(Connect, 0x9D, "server moved", Settings, "the broker has moved for good", "name the new one as mqtt.url"),
    line(Connect, 0x9F, "connection rate exceeded", Passing, "too many clients connect to the broker at once", "raise its rate limit if this goes on"),

    line(Publish, 0x80, "unspecified error", Passing, "the broker does not take the message, and does not say why", "see the broker's log"),
    line(Publish, 0x83, "implementation specific error", Size, "the broker's own rules do not let it take the message, by its size for one", "see its log and its limits (mosquitto: message_size_limit)"),
    line(Publish, 0x87, "not authorized", Topic, "this user may not write to it", "see the broker's access list"),
    line(Publish, 0x90, "topic name invalid", Topic, "the broker does not take this topic", "see its rules for topics, and give other ids if need be"),
    line(Publish, 0x91, "packet identifier in use", Passing, "the broker believes that this packet id is in use", "report it with the broker's name and version"),
    line(Publish, 0x97, "quota exceeded", Passing, "this client has used up what the broker allows it, or the broker's memory is full", "see the broker's quotas and its memory"),
    line(Publish, 0x99, "payload format invalid", Passing, "the broker does not take this payload", "see its rules for payloads"),

    line(Subscribe, 0x80, "unspecified error", Passing, "the broker does not let us subscribe, and does not say why", "see its log and its access list"),
    line(Subscribe, 0x83, "implementation specific error", Passing, "the broker's own rules do not allow the subscription", "see the broker's log"),
    line(Subscribe, 0x87, "not authorized", Passing, "this user may not read it", "see the broker's access list"),
    line(Subscribe, 0x8F, "topic filter invalid", Passing, "the broker does not take this filter", "see its rules for topics, and give other ids if need be"),
    line(Subscribe, 0x91, "packet identifier in use", Passing, "the broker believes that the subscription's packet id is in use", "report it with the broker's name and version"),
    line(Subscribe, 0x97, "quota exceeded", Passing, "the broker allows this client no more subscriptions", "see the broker's quotas"),
    line(Subscribe, 0x9E, "shared subscriptions not supported", Passing, "the broker takes a plain subscription for a shared one", "report it with the broker's name and version"),
    line(Subscribe, 0xA1, "subscription identifiers not supported", Passing, "the broker sees a subscription identifier where there is none", "report it with the broker's name and version"),
    line(Subscribe, 0xA2, "wildcard subscriptions not supported", Wildcards, "the broker allows no wildcards in a subscription", "allow them; without, clapd takes commands, but cannot remove what an earlier run has left"),

    line(Disconnect, 0x00, "normal disconnection", Passing, "the broker ends the connection in order", "see the broker's log if this goes on"),
    line(Disconnect, 0x04, "disconnect with will message", Passing, "the broker ends the connection, and publishes the last will", "see the broker's log"),
    line(Disconnect, 0x80, "unspecified error", Passing, "the broker ends the connection, and does not say why", "see the broker's log"),
    line(Disconnect, 0x81, "malformed packet", Passing, "the broker cannot read a packet of ours", "report it with the broker's name and version"),
    line(Disconnect, 0x82, "protocol error", Passing, "the broker says that a packet of ours breaks the rules of MQTT 5", "report it with the broker's name and version"),
    line(Disconnect, 0x83, "implementation specific error", Passing, "a packet of ours is right, and the broker still does not take it", "see the broker's log for its own rules"),
    line(Disconnect, 0x87, "not authorized", Passing, "the broker ends the connection over something that this user may not do", "see its access list: this user needs to write and read clapd/<node.id>/#"),
    line(Disconnect, 0x89, "server busy", Passing, "the broker has too much to do to go on", "see its load; clapd tries again by itself"),
    line(Disconnect, 0x8B, "server shutting down", Passing, "the broker shuts down", "clapd tries again by itself"),
    line(Disconnect, 0x8D, "keep alive timeout", Passing, "the broker has received nothing for too long", "see the network between"),
    line(Disconnect, 0x8E, "session taken over", TakenOver, "somebody else has connected with this client's id", "give every computer its own node.id"),
    line(Disconnect, 0x8F, "topic filter invalid", Passing, "the broker does not take a filter that we subscribe to", "see its rules for topics, and give other ids if need be"),
    line(Disconnect, 0x90, "topic name invalid", Passing, "the broker does not take a topic that we publish on", "see its rules for topics, and give other ids if need be"),
    line(Disconnect, 0x93, "receive maximum exceeded", Passing, "the broker counts more unacknowledged packets than it has allowed", "report it with the broker's name and version"),
    line(Disconnect, 0x94, "topic alias invalid", Passing, "the broker sees a topic alias where there is none", "report it with the broker's name and version"),
    line(Disconnect, 0x95, "packet too large", Size, "the broker takes no packet as large as the last one", "raise its limit (mosquitto: max_packet_size) if what clapd leaves out is missed"),
    line(Disconnect, 0x96, "message rate too high", Passing, "the broker allows fewer messages in a time", "raise its rate limit"),
    line(Disconnect, 0x97, "quota exceeded", Passing, "this client has used up what the broker allows it", "see the broker's quotas"),
    line(Disconnect, 0x98, "administrative action", Passing, "the broker's administrator has ended the connection", "ask why; clapd tries again by itself"),
    line(Disconnect, 0x99, "payload format invalid", Passing, "the broker does not take a payload of ours", "see its rules for payloads"),
    line(Disconnect, 0x9A, "retain not supported", Retain, "the broker keeps no retained messages", "clapd goes on without; to have states kept, allow them (mosquitto: retain_available true)"),
    line(Disconnect, 0x9B, "QoS not supported", Qos, "the broker takes no messages with QoS 1", "clapd goes on with QoS 0; to have messages acknowledged, raise the limit (mosquitto: max_qos 1)"),
    line(Disconnect, 0x9C, "use another server", Passing, "the broker sends its clients to another one for now", "name that one as mqtt.url if this goes on"),
    line(Disconnect, 0x9D, "server moved", Settings, "the broker has moved for good", "name the new one as mqtt.url"),
    line(Disconnect, 0x9E, "shared subscriptions not supported", Passing, "the broker takes a plain subscription for a shared one", "report it with the broker's name and version"),
    line(Disconnect, 0x9F, "connection rate exceeded", Passing, "too many clients connect to the broker at once", "raise its rate limit if this goes on"),
    line(Disconnect, 0xA0, "maximum connect time", Passing, "the broker allows no longer connection", "nothing need be done: clapd connects again by itself"),
    line(Disconnect, 0xA1, "subscription identifiers not supported", Passing, "the broker sees a subscription identifier where there is none", "report it with the broker's name and version"),
    line(Disconnect, 0xA2, "wildcard subscriptions not supported", Wildcards, "the broker allows no wildcards in a subscription", "allow them; without, clapd takes commands, but cannot remove what an earlier run has left"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The codes with which a broker refuses, from MQTT 5.0 (tables 3-1, 3-4, 3-8 and 3-10) and MQTT 3.1.1 (table 3.1).
    const STANDARD: [(Answer, &[u8]); 5] = [
        (OldConnect, &[1, 2, 3, 4, 5]),
        (
            Connect,
            &[
                0x01, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
                0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ],
        ),
        (Publish, &[0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        (Subscribe, &[0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]),
        (
            Disconnect,
            &[
                0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
                0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
            ],
        ),
    ];

    #[test]
    fn every_code_has_a_sentence_and_a_remedy_of_its_own() {
        for (answer, codes) in STANDARD {
            let mut sentences = BTreeSet::new();
            for code in codes {
                let reason = Reason::of(answer, *code);
                assert_ne!(reason.name, UNKNOWN.name, "{answer:?} {code:#x}");
                assert!(sentences.insert(reason.sentence), "{answer:?} {code:#x}: another code has this sentence");
                assert!(!reason.remedy.is_empty() && !reason.sentence.ends_with('.'), "{reason}");
            }
        }
        let codes: usize = STANDARD.iter().map(|(_, codes)| codes.len()).sum();
        assert_eq!(TABLE.len(), codes, "nothing else is in the table, and nothing twice");
    }

    #[test]
    fn a_code_that_nobody_knows_is_said_to_be_unknown() {
        let reason = Reason::of(Publish, 0xFE);
        assert!(reason.to_string().contains("no version of MQTT knows (unknown 0xFE)"), "{reason}");
    }
}
