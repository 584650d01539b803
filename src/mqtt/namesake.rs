//! Whether another clapd has our node id, which no two computers of a broker may share: each would overwrite the other's
//! states, and the broker ends the connection of the one whenever the other connects.
//!
//! What gives it away is an `info` of another installation on our own topic. One that lies there when we come may be what
//! an earlier installation has left; it is another's that is alive where the status is `online`, where we have put our own there before,
//! or where it is published while we are here.

use std::time::{Duration, Instant};

use super::message::{self, AnnouncedInfo};
use super::topics::Topics;

/// For the broker to answer the subscription, which takes a round trip; one that does not answer keeps nobody waiting.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// The watch for another of our name.
#[derive(Debug)]
pub(super) struct NamesakeWatch {
    topics: Topics,
    instance: String,
    /// The broker had our own info on an earlier connection, or has it now.
    was_announced: bool,
    is_announced: bool,
    /// What was retained on this connection.
    is_online: bool,
    retained: Option<AnnouncedInfo>,
    is_said: bool,
    /// Until when our own status and info wait, so that what is retained is what was there before; none: we did not ask, or publish
    /// as soon as we do.
    look_until: Option<Instant>,
    has_answer: bool,
}

impl NamesakeWatch {
    pub(super) fn new(topics: Topics, instance: &str) -> Self {
        Self {
            topics,
            instance: instance.into(),
            was_announced: false,
            is_announced: false,
            is_online: false,
            retained: None,
            is_said: false,
            look_until: None,
            has_answer: false,
        }
    }

    pub(super) fn begin_connection(&mut self) {
        self.was_announced |= self.is_announced;
        (self.is_online, self.retained) = (false, None);
        (self.look_until, self.has_answer) = (None, false);
    }

    /// The broker is being asked what is there.
    pub(super) fn begin_look(&mut self, now: Instant) {
        self.look_until = Some(now + ANSWER_TIME);
    }

    /// The broker has answered a subscription: what it has retained is settled.
    pub(super) fn on_subscribed(&mut self, topic: &str) {
        self.has_answer |= self.concerns(topic);
    }

    /// Until when our own status and info have to wait; none where they need not.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.look_until.filter(|until| !self.has_answer && now < *until)
    }

    /// The broker has a retained message of ours on this topic.
    pub(super) fn accepted(&mut self, topic: &str) {
        self.is_announced |= *topic == *self.topics.info;
    }

    /// Whether this topic is one by which we know.
    pub(super) fn concerns(&self, topic: &str) -> bool {
        *topic == *self.topics.info || *topic == *self.topics.status
    }

    /// What is on such a topic, retained or new, our own messages among it; what to say about it, once.
    pub(super) fn found(&mut self, topic: &str, payload: &[u8], retained: bool) -> Option<String> {
        if *topic == *self.topics.status {
            self.is_online |= retained && self.look_until.is_some() && payload == message::ONLINE.as_bytes();
        } else {
            let info = AnnouncedInfo::read(payload).filter(|info| info.instance.as_ref() != Some(&self.instance))?;
            if !retained || self.was_announced {
                return self.say(&info);
            }
            self.retained = Some(info);
        }
        // An earlier run of a former version, which knew of no instances, may have left both behind.
        let info = self.retained.clone().filter(|info| self.is_online && info.instance.is_some())?;
        self.say(&info)
    }

    fn say(&mut self, info: &AnnouncedInfo) -> Option<String> {
        let topic = &self.topics.info;
        (!std::mem::replace(&mut self.is_said, true)).then(|| {
            format!(
                "{topic} is of {} on another computer, or in another installation: two have one name, and each overwrites what \
                 the other publishes; give every computer its own node.id",
                info.in_words()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "clapd/attic/info";
    const STATUS: &str = "clapd/attic/status";
    const OTHER: &[u8] = br#"{"version":"0.1.0","instance":"ff"}"#;
    const OURS: &[u8] = br#"{"version":"0.1.0","instance":"ab"}"#;

    fn watch() -> NamesakeWatch {
        NamesakeWatch::new(Topics::new("attic"), "ab")
    }

    #[test]
    fn who_is_online_when_we_come_is_named_once() {
        for order in [[(INFO, OTHER), (STATUS, b"online")], [(STATUS, b"online"), (INFO, OTHER)]] {
            let mut watch = watch();
            watch.begin_look(Instant::now());
            let said: Vec<String> =
                order.iter().filter_map(|(topic, payload)| watch.found(topic, payload, true)).collect();
            assert!(said.len() == 1 && said[0].contains("clapd 0.1.0") && said[0].contains("own node.id"), "{said:?}");
            assert_eq!(watch.found(INFO, OTHER, false), None);
        }
    }

    #[test]
    fn what_an_earlier_installation_or_we_ourselves_have_left_is_nobody() {
        let (mut watch, now) = (watch(), Instant::now());
        watch.begin_look(now);
        assert!(watch.wait_until(now).is_some() && watch.wait_until(now + ANSWER_TIME).is_none());
        watch.on_subscribed(INFO);
        assert_eq!(watch.wait_until(now), None);
        assert_eq!(watch.found(STATUS, b"offline", true), None);
        assert_eq!(watch.found(INFO, OTHER, true), None);
        // Our own.
        assert_eq!(watch.found(STATUS, b"online", false), None);
        assert_eq!(watch.found(INFO, OURS, false), None);
        watch.accepted(INFO);
        watch.begin_connection();
        assert_eq!((watch.found(STATUS, b"online", true), watch.found(INFO, OURS, true)), (None, None));
        assert_eq!(watch.found(INFO, b"", false), None);
    }

    #[test]
    fn a_former_version_that_was_killed_with_its_broker_is_nobody() {
        let mut watch = watch();
        assert_eq!(watch.found(STATUS, b"online", true), None);
        assert_eq!(watch.found(INFO, br#"{"version":"0.1.0"}"#, true), None);
        assert!(watch.found(INFO, br#"{"version":"0.1.0"}"#, false).is_some(), "this one is alive");
    }

    #[test]
    fn whoever_takes_turns_with_us_is_named() {
        let mut watch = watch();
        watch.accepted(INFO);
        watch.begin_connection();
        // The broker has ended its connection for ours, and published its last will.
        assert_eq!(watch.found(STATUS, b"offline", true), None);
        assert!(watch.found(INFO, OTHER, true).is_some());
    }
}
