//! What Home Assistant is still to be told of our devices, and when.
//!
//! In: the sources and prompts that there are, states of prompts that there were, new connections, Home Assistant's birth messages.
//! Out: the next [`Announcement`], and whether events have to wait.
//! Home Assistant subscribes to an entity's topics some half a second after it has heard of it, and what is not retained is lost
//! until then: so events and scores wait for [`SETTLE`] after each announcement.
//! To remove an entity it wants a mark in its place, and heeds that only where it knows the entity from the same run of its own: one
//! that was removed while Home Assistant was away would stay for ever. So what is removed is first announced once more, unretained.
//! Never: tells of a source that is gone, but to remove it; announces anything twice within [`SETTLE`], since Home Assistant
//! would overlook half of the second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discovery::{self, Device, Node, Sound};
use super::topics::Topics;

/// Home Assistant waits for 0.1 to 0.5 s before it subscribes, to do it for many topics at once, and the broker answers then.
const SETTLE: Duration = Duration::from_secs(1);
/// Largest payload: brokers of homes take 1 MiB and more where nobody has changed it, which is a thousand prompts.
const MAX_PAYLOAD: usize = 1_000_000;
/// Prompts of the past that are removed, so that a broker full of odd topics does not fill our memory.
const MAX_GONE: usize = 4_096;
/// Of a packet, beside topic and payload.
const HEADER: usize = 16;

/// A message of discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) topic: Arc<str>,
    /// Empty where the device is removed.
    pub(super) payload: Vec<u8>,
    pub(super) retained: bool,
}

/// All that is to be announced. Without sources there is nothing.
#[derive(Debug)]
pub(super) struct Announcements {
    node: Node,
    /// Where Home Assistant looks for devices; none: it is told nothing.
    prefix: Option<String>,
    sources: Vec<String>,
    sounds: Vec<Sound>,
    period: Duration,
    /// Prompts of before, by source, until Home Assistant was certainly there to hear of their removal.
    gone: BTreeMap<String, BTreeSet<String>>,
    /// Sources of which this connection has not heard the newest.
    due: BTreeSet<String>,
    /// Those that are being announced: their removed prompts first, if `reviving`, and then in `telling` what there is.
    batch: VecDeque<String>,
    reviving: bool,
    telling: VecDeque<String>,
    /// When the last was sent on this connection.
    sent: Option<Instant>,
    /// Home Assistant is there, as it has said itself: what it is told now of removals may be forgotten.
    certain: bool,
    /// The most that this connection's broker takes.
    limit: usize,
    /// Prompts for which there was no room, as it was logged last.
    left_out: usize,
}

impl Announcements {
    pub(super) fn new(node: Node, prefix: Option<&str>) -> Self {
        Self {
            node,
            prefix: prefix.map(Into::into),
            sources: Vec::new(),
            sounds: Vec::new(),
            period: Duration::ZERO,
            gone: BTreeMap::new(),
            due: BTreeSet::new(),
            batch: VecDeque::new(),
            reviving: false,
            telling: VecDeque::new(),
            sent: None,
            certain: false,
            limit: MAX_PAYLOAD,
            left_out: 0,
        }
    }

    /// The topics of the node.
    pub(super) fn topics(&self) -> &Topics {
        &self.node.topics
    }

    /// Sets what there is from now on; what there was and is no more is removed.
    pub(super) fn set(&mut self, sources: Vec<String>, sounds: Vec<Sound>, period: Duration) {
        let same = (&self.sources, &self.sounds, self.period) == (&sources, &sounds, period);
        if same || self.prefix.is_none() {
            return;
        }
        let before = std::mem::replace(&mut self.sources, sources);
        let sounds = std::mem::replace(&mut self.sounds, sounds);
        self.period = period;
        let ids: BTreeSet<String> = self.sounds.iter().map(|sound| sound.id.clone()).collect();
        for source in &before {
            let stays = self.sources.contains(source);
            let lost = sounds.iter().filter(|sound| !stays || !ids.contains(&sound.id));
            for sound in lost {
                self.forget(source, &sound.id);
            }
        }
        for source in &self.sources {
            self.gone.entry(source.clone()).or_default().retain(|id| !ids.contains(id));
        }
        self.gone.retain(|_, prompts| !prompts.is_empty());
        self.repeat();
    }

    /// The broker has retained a state of this prompt, which is none of ours any more.
    pub(super) fn found(&mut self, source: &str, prompt: &str) {
        if self.prefix.is_some() && self.forget(source, prompt) {
            self.due.insert(source.into());
        }
    }

    /// True where that is news, and there is room for it.
    fn forget(&mut self, source: &str, prompt: &str) -> bool {
        let room = self.gone.values().map(BTreeSet::len).sum::<usize>() < MAX_GONE;
        room && self.gone.entry(source.into()).or_default().insert(prompt.into())
    }

    /// The broker takes packets of so many bytes; none: it has not said.
    pub(super) fn fit(&mut self, limit: Option<u32>) {
        self.limit = limit.map_or(MAX_PAYLOAD, |limit| MAX_PAYLOAD.min(limit as usize));
    }

    /// A new connection has heard nothing.
    pub(super) fn begin(&mut self) {
        self.batch.clear();
        self.telling.clear();
        self.sent = None;
        self.certain = false;
        self.repeat();
    }

    /// Home Assistant has announced itself. False while it is being told anyway.
    pub(super) fn welcome(&mut self, now: Instant) -> bool {
        let idle = !self.is_under_way(now);
        if idle {
            self.certain = true;
            self.repeat();
        }
        idle
    }

    fn repeat(&mut self) {
        self.due = self.sources.iter().chain(self.gone.keys()).cloned().collect();
    }

    /// What to send next, but for topics of which `refused` says that the broker will not have them.
    pub(super) fn next(&mut self, now: Instant, refused: impl Fn(&str) -> bool) -> Option<Announcement> {
        let start = format!("{}/device/{}", self.prefix.as_ref()?, self.node.id);
        loop {
            while let Some(source) = self.batch.pop_front() {
                let topic = format!("{start}_{source}/config");
                let announcement = if refused(&topic) { None } else { self.announcement(&source, topic.into()) };
                if self.certain && !self.reviving {
                    self.gone.remove(&source);
                }
                if announcement.is_some() {
                    self.sent = Some(now);
                    return announcement;
                }
            }
            if self.quiet_until(now).is_some() || !self.advance() {
                return None;
            }
        }
    }

    /// The next batch: what there is after what is revived, or else what has fallen due; false where there is none.
    fn advance(&mut self) -> bool {
        self.batch = std::mem::take(&mut self.telling);
        self.reviving = false;
        if self.batch.is_empty() && !self.due.is_empty() {
            let due = std::mem::take(&mut self.due);
            self.batch = due.iter().filter(|source| self.gone.contains_key(*source)).cloned().collect();
            self.reviving = !self.batch.is_empty();
            if self.reviving {
                self.telling = due.into_iter().collect();
            } else {
                self.batch = due.into_iter().collect();
            }
        }
        self.certain &= !self.batch.is_empty();
        !self.batch.is_empty()
    }

    fn announcement(&mut self, source: &str, topic: Arc<str>) -> Option<Announcement> {
        let gone: Vec<String> = self.gone.get(source).into_iter().flatten().cloned().collect();
        let revived: Vec<Sound> = gone.iter().map(|id| Sound::new(id, "")).collect();
        let (sounds, gone) = match self.reviving {
            true => (revived.as_slice(), &[][..]),
            false if !self.sources.iter().any(|known| known == source) => {
                return Some(Announcement { topic, payload: Vec::new(), retained: true });
            }
            false => (self.sounds.as_slice(), gone.as_slice()),
        };
        let limit = self.limit.saturating_sub(topic.len() + HEADER);
        let device = Device { source, sounds, gone, period: self.period };
        let (payload, held) = discovery::device(&self.node, device, limit)
            .inspect_err(|error| log::error!("mqtt: {topic}: a payload cannot be written: {error}"))
            .ok()?;
        let (count, retained) = (sounds.len(), !self.reviving);
        if retained && self.left_out != count - held {
            self.left_out = count - held;
            log::warn!(
                "mqtt: {topic}: Home Assistant hears of {held} prompts of {count}: a payload may have {limit} bytes"
            );
        }
        Some(Announcement { topic, payload, retained })
    }

    /// Whether something is to be sent, now or after a pause.
    pub(super) fn is_due(&self) -> bool {
        !(self.due.is_empty() && self.batch.is_empty() && self.telling.is_empty())
    }

    /// Whether what is not retained has to wait.
    pub(super) fn is_under_way(&self, now: Instant) -> bool {
        self.is_due() || self.quiet_until(now).is_some()
    }

    /// The end of the pause, if there is one.
    pub(super) fn quiet_until(&self, now: Instant) -> Option<Instant> {
        self.sent.map(|sent| sent + SETTLE).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct House {
        announcements: Announcements,
        now: Instant,
    }

    impl House {
        fn new() -> Self {
            let node =
                Node { id: "attic".into(), topics: Topics::new("attic"), version: "1".into(), model: "mini 1".into() };
            Self { announcements: Announcements::new(node, Some("ha")), now: Instant::now() }
        }

        fn set(&mut self, sources: &[&str], prompts: &[&str]) {
            let sounds = prompts.iter().map(|id| Sound::new(id, "")).collect();
            self.announcements.set(sources.iter().map(|id| (*id).into()).collect(), sounds, Duration::from_secs(1));
        }

        /// What is sent until the next pause: source, `once` where it is not retained, and what it says of prompts.
        fn sent(&mut self) -> Vec<String> {
            self.sent_but("none")
        }

        fn sent_but(&mut self, refused: &str) -> Vec<String> {
            let now = self.now;
            let sent = std::iter::from_fn(|| self.announcements.next(now, |topic| topic.contains(refused)));
            let sent = sent.map(|announcement| told(&announcement)).collect();
            self.now += SETTLE;
            sent
        }
    }

    fn told(announcement: &Announcement) -> String {
        let source = announcement.topic.strip_prefix("ha/device/attic_").unwrap().strip_suffix("/config").unwrap();
        let mut told = vec![source.to_owned()];
        told.extend((!announcement.retained).then(|| "once".into()));
        let payload: serde_json::Value = serde_json::from_slice(&announcement.payload).unwrap_or_default();
        for (id, component) in payload["components"].as_object().into_iter().flatten() {
            if let Some(id) = id.strip_suffix("_state") {
                told.push(if component.get("unique_id").is_some() { id.into() } else { format!("-{id}") });
            }
        }
        if announcement.payload.is_empty() {
            told.push("removed".into());
        }
        told.join(" ")
    }

    #[test]
    fn every_connection_hears_of_every_source() {
        let mut house = House::new();
        assert!(house.sent().is_empty() && !house.announcements.is_under_way(house.now));
        house.set(&["mic", "yard"], &["dog", "cat"]);
        for _ in 0..2 {
            assert_eq!(house.sent(), ["mic cat dog", "yard cat dog"]);
            assert!(house.sent().is_empty());
            house.announcements.begin();
        }
        house.sent();
        house.set(&["mic", "yard"], &["dog", "cat"]);
        assert!(!house.announcements.is_due(), "nothing has changed");
    }

    #[test]
    fn what_is_not_retained_waits_until_home_assistant_has_subscribed() {
        let mut house = House::new();
        house.set(&["mic"], &["dog"]);
        assert!(house.announcements.is_under_way(house.now));
        house.sent();
        let before = house.now - Duration::from_millis(1);
        assert_eq!(house.announcements.quiet_until(before), Some(house.now));
        assert!(house.announcements.is_under_way(before) && !house.announcements.is_under_way(house.now));
    }

    #[test]
    fn a_prompt_that_goes_is_revived_and_removed_until_home_assistant_was_there() {
        let mut house = House::new();
        house.set(&["mic"], &["dog", "cat"]);
        house.sent();
        house.set(&["mic"], &["dog"]);
        for _ in 0..2 {
            assert_eq!(house.sent(), ["mic once cat"]);
            assert_eq!(house.sent(), ["mic -cat dog"]);
            assert!(house.sent().is_empty());
            house.announcements.begin();
        }
        assert!(!house.announcements.welcome(house.now), "it is being told anyway");
        house.sent();
        house.sent();
        assert!(house.announcements.welcome(house.now));
        assert_eq!((house.sent(), house.sent()), (vec!["mic once cat".into()], vec!["mic -cat dog".into()]));
        assert!(house.announcements.welcome(house.now));
        assert_eq!(house.sent(), ["mic dog"]);
    }

    #[test]
    fn a_prompt_that_comes_back_is_not_removed() {
        let mut house = House::new();
        house.set(&["mic"], &["dog", "cat"]);
        house.set(&["mic"], &["dog"]);
        house.set(&["mic"], &["dog", "cat"]);
        assert_eq!(house.sent(), ["mic cat dog"]);
    }

    #[test]
    fn a_source_of_an_earlier_run_is_removed_once_for_certain() {
        let mut house = House::new();
        house.set(&["mic"], &["dog"]);
        assert_eq!(house.sent(), ["mic dog"]);
        house.announcements.found("yard", "cow");
        house.announcements.found("yard", "hen");
        house.announcements.found("mic", "cow");
        assert_eq!(house.sent(), ["mic once cow", "yard once cow hen"]);
        house.announcements.found("mic", "cow");
        assert_eq!(house.sent(), ["mic -cow dog", "yard removed"]);
        assert!(house.announcements.welcome(house.now));
        house.sent();
        house.sent();
        house.announcements.begin();
        assert_eq!(house.sent(), ["mic dog"]);
    }

    #[test]
    fn a_topic_that_the_broker_refuses_keeps_nobody_waiting() {
        let mut house = House::new();
        house.set(&["mic"], &["dog"]);
        assert!(house.sent_but("attic_mic").is_empty());
        assert!(!house.announcements.is_under_way(house.now));
    }

    #[test]
    fn prompts_are_left_out_where_the_broker_has_no_room() {
        let mut house = House::new();
        let ids: Vec<String> = (0..100).map(|n| format!("sound_{n:03}")).collect();
        house.set(&["mic"], &ids.iter().map(String::as_str).collect::<Vec<_>>());
        house.announcements.fit(Some(50_000));
        let announcement = house.announcements.next(house.now, |_| false).unwrap();
        assert!((40_000..50_000).contains(&announcement.payload.len()), "{}", announcement.payload.len());
        assert!(house.announcements.left_out > 0);
    }

    #[test]
    fn without_a_prefix_there_is_nothing_to_tell() {
        let mut house = House::new();
        house.announcements.prefix = None;
        house.set(&["mic"], &["dog"]);
        house.announcements.found("mic", "cat");
        assert!(!house.announcements.is_under_way(house.now) && house.sent().is_empty());
    }

    #[test]
    fn what_is_gone_has_a_bound() {
        let mut house = House::new();
        (0..2 * MAX_GONE).for_each(|n| house.announcements.found("mic", &n.to_string()));
        assert_eq!(house.announcements.gone["mic"].len(), MAX_GONE);
    }
}
