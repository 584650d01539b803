//! What a broker takes: what it has announced, and how large a packet is.
//!
//! In MQTT 5 a broker says in its CONNACK what it does not take, and may end a connection over what goes beyond. MQTT 3.1.1
//! cannot say it; `elimination` finds it out.

use std::fmt;

use super::protocol::PublishForm;

/// What the broker has announced. What it has not announced is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BrokerLimits {
    /// Bytes of a packet, its header among them.
    pub(super) max_packet: Option<u32>,
    /// It has announced them; in MQTT 3.1.1, where it cannot, they are our own bound.
    pub(super) is_max_packet_announced: bool,
    /// Whether it keeps retained messages.
    pub(super) retain: bool,
    /// Whether it takes QoS 1.
    pub(super) qos1: bool,
    /// Messages that may be under way without an acknowledgement; never 0.
    pub(super) receive_max: u16,
    /// Whether filters may have wildcards.
    pub(super) wildcards: bool,
    /// The keep-alive that it wants instead of ours, in seconds.
    pub(super) keep_alive_s: Option<u16>,
}

/// Below this a slow link delivers visibly slower; mosquitto's own setting is 20.
const NOTABLE_RECEIVE_MAX: u16 = 16;

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            max_packet: None,
            is_max_packet_announced: true,
            retain: true,
            qos1: true,
            receive_max: u16::MAX,
            wildcards: true,
            keep_alive_s: None,
        }
    }
}

impl BrokerLimits {
    /// The form that a message may have which is best sent in `form`.
    pub(super) fn allow(&self, form: PublishForm) -> PublishForm {
        PublishForm { acknowledged: form.acknowledged && self.qos1, retained: form.retained && self.retain }
    }

    /// Whose bound a packet that does not fit is beyond, and how to raise it.
    pub(super) fn explain_max_packet(&self) -> Option<(String, &'static str)> {
        let max = self.max_packet?;
        Some(if self.is_max_packet_announced {
            let remedy = "raise its limit (mosquitto: max_packet_size)";
            (format!("the broker takes packets of at most {max} bytes"), remedy)
        } else {
            let remedy = "let clapd in with MQTT 5, in which a broker says what it takes";
            (format!("clapd sends at most {max} bytes in MQTT 3.1.1, where a broker cannot say what it takes"), remedy)
        })
    }

    /// Whether a packet of so many bytes may be sent.
    pub(super) fn fits(&self, packet: usize) -> bool {
        self.max_packet.is_none_or(|max| packet <= max as usize)
    }
}

/// What is limited, for the log; nothing where nothing is that concerns us.
impl fmt::Display for BrokerLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(
            self.max_packet
                .filter(|_| self.is_max_packet_announced)
                .map(|max| format!("packets of at most {max} bytes")),
        );
        words.extend((!self.retain).then(|| "nothing retained".into()));
        words.extend((!self.qos1).then(|| "QoS 0 only".into()));
        words.extend(
            (self.receive_max < NOTABLE_RECEIVE_MAX).then(|| format!("{} messages at a time", self.receive_max)),
        );
        words.extend((!self.wildcards).then(|| "no wildcards".into()));
        f.write_str(&words.join(", "))
    }
}

/// Bytes of a publish as MQTT 5 writes it, which is one more than in 3.1.1: fixed header, topic with its length, packet id,
/// properties (none: their length alone), payload.
pub(super) fn packet_size(topic: &str, payload: usize) -> usize {
    let remaining = 2 + topic.len() + 2 + 1 + payload;
    // The remaining length takes a byte for every 7 bits.
    let length = match remaining {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    };
    1 + length + remaining
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_size_that_is_written() {
        for (topic, payload, size) in [("a", 0, 8), ("a", 121, 129), ("a", 122, 131), ("a/b", 16_375, 16_386)] {
            assert_eq!(packet_size(topic, payload), size, "{topic} {payload}");
        }
        let max = BrokerLimits { max_packet: Some(129), ..BrokerLimits::default() };
        assert!(max.fits(129) && !max.fits(130) && BrokerLimits::default().fits(usize::MAX));
    }

    #[test]
    fn limits_are_named_and_kept() {
        let limits = BrokerLimits {
            max_packet: Some(2048),
            is_max_packet_announced: true,
            retain: false,
            qos1: false,
            receive_max: 1,
            wildcards: false,
            keep_alive_s: None,
        };
        let words = "packets of at most 2048 bytes, nothing retained, QoS 0 only, 1 messages at a time, no wildcards";
        assert_eq!((limits.to_string().as_str(), BrokerLimits::default().to_string().as_str()), (words, ""));
        let full = PublishForm { acknowledged: true, retained: true };
        assert_eq!(limits.allow(full), PublishForm { acknowledged: false, retained: false });
        assert_eq!(BrokerLimits::default().allow(full), full);
    }

    #[test]
    fn a_bound_of_our_own_is_not_called_the_brokers() {
        let own = BrokerLimits { max_packet: Some(65_536), is_max_packet_announced: false, ..BrokerLimits::default() };
        let explained = own.explain_max_packet().unwrap().0;
        assert!(own.to_string().is_empty() && explained.starts_with("clapd sends at most 65536"), "{explained}");
        assert_eq!(BrokerLimits::default().explain_max_packet(), None);
    }
}
