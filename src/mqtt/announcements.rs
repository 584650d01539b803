//! What is still to be announced to Home Assistant of our devices, and when.
//!
//! Home Assistant subscribes to an entity's topics some half a second after it has received the announcement, and what
//! is not retained is lost until then: so events and scores wait for [`SETTLE_TIME`] after each announcement. Nothing
//! is announced twice within it, since Home Assistant would overlook half of the second.
//!
//! To remove an entity Home Assistant wants a mark in its place, and heeds that only where it knows the entity from the
//! same run of its own: one that was removed while Home Assistant was away would stay for ever. So what is removed is
//! first announced once more, unretained.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discovery::{self, DeviceSpec, Node, PromptEntity};
use super::names::{device_name, former_device_name};
use super::ownership::{self, Finding, Ownership};
use super::protocol::Filter;
use super::topics::Topics;

/// Home Assistant waits for 0.1 to 0.5 s before it subscribes, to do it for many topics at once, and the broker answers then.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Largest payload: brokers of homes take 1 MiB and more where nobody has changed it, which is a thousand prompts.
const MAX_PAYLOAD: usize = 1_000_000;
/// Prompts of the past that are removed, so that a broker full of odd topics does not fill our memory.
const MAX_REMOVED: usize = 4_096;
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
    /// Where Home Assistant looks for devices; none: nothing is announced.
    prefix: Option<String>,
    sources: Vec<String>,
    prompts: Vec<PromptEntity>,
    period: Duration,
    /// Prompts of before, by source, until Home Assistant was certainly online when they were removed.
    removed: BTreeMap<String, BTreeSet<String>>,
    /// Sources whose newest announcement this connection has not had.
    due: BTreeSet<String>,
    /// Those that are being announced: their removed prompts first, if `is_reviving`, and then in `announcing` what there is.
    batch: VecDeque<String>,
    is_reviving: bool,
    announcing: VecDeque<String>,
    /// When the last was sent on this connection.
    sent: Option<Instant>,
    /// Home Assistant is online, as it has said itself: removals that are announced now need not be announced again.
    ha_is_online: bool,
    /// The most that this connection's broker takes.
    max_payload: usize,
    /// Prompts for which there was no room, as it was logged last.
    omitted: usize,
    ownership: Ownership,
    /// Sent before anything else: what takes leave of a former topic.
    parts: VecDeque<Announcement>,
}

/// Has Home Assistant keep a device's entities, their names and their history, for the device that is announced on another topic
/// next ("discovery migration" in its documentation). Without it the entities would be new ones.
const MIGRATE: &[u8] = br#"{"migrate_discovery":true}"#;

impl Announcements {
    pub(super) fn new(node: Node, prefix: Option<&str>) -> Self {
        Self {
            ownership: Ownership::new(&node.id),
            parts: VecDeque::new(),
            node,
            prefix: prefix.map(Into::into),
            sources: Vec::new(),
            prompts: Vec::new(),
            period: Duration::ZERO,
            removed: BTreeMap::new(),
            due: BTreeSet::new(),
            batch: VecDeque::new(),
            is_reviving: false,
            announcing: VecDeque::new(),
            sent: None,
            ha_is_online: false,
            max_payload: MAX_PAYLOAD,
            omitted: 0,
        }
    }

    /// The topics of the node.
    pub(super) fn topics(&self) -> &Topics {
        &self.node.topics
    }

    /// Sets what there is from now on; what there was and is no more is removed.
    pub(super) fn set(&mut self, sources: Vec<String>, prompts: Vec<PromptEntity>, period: Duration) {
        let same = (&self.sources, &self.prompts, self.period) == (&sources, &prompts, period);
        if same || self.prefix.is_none() {
            return;
        }
        let before = std::mem::replace(&mut self.sources, sources);
        let prompts = std::mem::replace(&mut self.prompts, prompts);
        self.period = period;
        let ids: BTreeSet<String> = self.prompts.iter().map(|prompt| prompt.id.clone()).collect();
        for source in &before {
            let stays = self.sources.contains(source);
            let lost = prompts.iter().filter(|prompt| !stays || !ids.contains(&prompt.id));
            for prompt in lost {
                self.mark_removed(source, &prompt.id);
            }
        }
        for source in &self.sources {
            self.removed.entry(source.clone()).or_default().retain(|id| !ids.contains(id));
        }
        self.removed.retain(|_, prompts| !prompts.is_empty());
        self.mark_all_due();
    }

    /// The broker has retained a state of this prompt, which is none of ours any more.
    pub(super) fn found_prompt(&mut self, source: &str, prompt: &str) {
        if self.prefix.is_some() && self.mark_removed(source, prompt) {
            self.due.insert(source.into());
        }
    }

    /// Notes that a prompt is to be removed; true where that is news, and there is room for it.
    fn mark_removed(&mut self, source: &str, prompt: &str) -> bool {
        let has_capacity = self.removed.values().map(BTreeSet::len).sum::<usize>() < MAX_REMOVED;
        has_capacity && self.removed.entry(source.into()).or_default().insert(prompt.into())
    }

    /// The broker takes packets of so many bytes; none: it has not said.
    pub(super) fn set_max_payload(&mut self, max_packet: Option<u32>) {
        self.max_payload = max_packet.map_or(MAX_PAYLOAD, |max_packet| MAX_PAYLOAD.min(max_packet as usize));
    }

    /// Nothing was sent on a new connection.
    pub(super) fn begin_connection(&mut self) {
        self.batch.clear();
        self.announcing.clear();
        self.parts.clear();
        self.ownership.begin_connection();
        self.sent = None;
        self.ha_is_online = false;
        self.mark_all_due();
    }

    /// Home Assistant has announced itself. False while an announcement is in progress anyway.
    pub(super) fn on_ha_birth(&mut self, now: Instant) -> bool {
        let idle = !self.is_in_progress(now);
        if idle {
            self.ha_is_online = true;
            self.mark_all_due();
        }
        idle
    }

    fn mark_all_due(&mut self) {
        self.due = self.sources.iter().chain(self.removed.keys()).cloned().collect();
    }

    /// What to send next, but for topics of which `refused` says that the broker will not have them.
    pub(super) fn next(&mut self, now: Instant, refused: impl Fn(&str) -> bool) -> Option<Announcement> {
        let prefix = self.prefix.clone()?;
        loop {
            if let Some(part) = self.parts.pop_front() {
                self.sent = Some(now);
                return Some(part);
            }
            if let Some(source) = self.batch.front().cloned() {
                if self.ownership.wait_until(&source, now).is_some() {
                    return None;
                }
                self.batch.pop_front();
                let topic = ownership::topic(&prefix, &device_name(&self.node.id, &source));
                let may_announce = !refused(&topic) && !self.ownership.is_taken(&source);
                if may_announce && !self.is_reviving && self.ownership.needs_preparation(&source) {
                    // Its former topic was found just now: it begins anew.
                    self.due.insert(source);
                    continue;
                }
                if may_announce {
                    self.prepare(&prefix, &source, topic.into());
                }
                if self.ha_is_online && !self.is_reviving {
                    self.removed.remove(&source);
                }
                continue;
            }
            if self.pause_until(now).is_some() || !self.advance() {
                return None;
            }
        }
    }

    /// The next batch: what there is after what is revived, or else what has fallen due; false where there is none.
    fn advance(&mut self) -> bool {
        self.batch = std::mem::take(&mut self.announcing);
        self.is_reviving = false;
        if self.batch.is_empty() && !self.due.is_empty() {
            let due = std::mem::take(&mut self.due);
            let comes_first =
                |source: &&String| self.removed.contains_key(*source) || self.ownership.has_former(source);
            self.batch = due.iter().filter(comes_first).cloned().collect();
            self.is_reviving = !self.batch.is_empty();
            if self.is_reviving {
                self.announcing = due.into_iter().collect();
            } else {
                self.batch = due.into_iter().collect();
            }
        }
        self.ha_is_online &= !self.batch.is_empty();
        !self.batch.is_empty()
    }

    /// Puts what there is to say of a source into `parts`, with the leave of its former topic around it.
    fn prepare(&mut self, prefix: &str, source: &str, topic: Arc<str>) {
        let former = former_device_name(&self.node.id, source).filter(|_| self.ownership.has_former(source));
        let former: Option<Arc<str>> = former.map(|name| ownership::topic(prefix, &name).into());
        if self.is_reviving
            && let Some(topic) = former.clone()
        {
            self.parts.push_back(Announcement { topic, payload: MIGRATE.into(), retained: false });
            self.ownership.set_prepared(source);
        }
        if !self.is_reviving || self.removed.contains_key(source) {
            let announcement = self.announcement(source, topic);
            self.parts.extend(announcement);
        }
        if !self.is_reviving
            && let Some(topic) = former
        {
            self.parts.push_back(Announcement { topic, payload: Vec::new(), retained: true });
            self.ownership.forget_former(source);
        }
    }

    /// The filters by which to ask the broker whose the topics are on which something is due; empty where all was asked.
    pub(super) fn take_filters(&mut self, now: Instant) -> Vec<Filter> {
        let Some(prefix) = &self.prefix else { return Vec::new() };
        self.ownership.filters(prefix, self.due.iter().chain(&self.batch).chain(&self.announcing), now)
    }

    /// A message, or what the broker has retained, on a topic of Home Assistant's discovery; what to say about it.
    pub(super) fn found_announcement(&mut self, topic: &str, payload: &[u8]) -> Option<String> {
        let prefix = self.prefix.as_deref()?;
        match self.ownership.found(prefix, topic, payload) {
            Finding::Taken(other) => Some(format!(
                "{topic} is another device's ({other}), so it is left alone, and Home Assistant is not told of ours;                  give one of the two another node.id or source id, or remove what is retained there"
            )),
            Finding::Freed(source) | Finding::Former(source) => {
                self.due.insert(source);
                None
            }
            Finding::Nothing => None,
        }
    }

    fn announcement(&mut self, source: &str, topic: Arc<str>) -> Option<Announcement> {
        let removed: Vec<String> = self.removed.get(source).into_iter().flatten().cloned().collect();
        let revived: Vec<PromptEntity> = removed.iter().map(|id| PromptEntity::new(id, "")).collect();
        let (prompts, removed) = match self.is_reviving {
            true => (revived.as_slice(), &[][..]),
            false if !self.sources.iter().any(|known| known == source) => {
                return Some(Announcement { topic, payload: Vec::new(), retained: true });
            }
            false => (self.prompts.as_slice(), removed.as_slice()),
        };
        let limit = self.max_payload.saturating_sub(topic.len() + HEADER);
        let device = DeviceSpec { source, prompts, removed, period: self.period };
        let (payload, held) = discovery::device(&self.node, device, limit)
            .inspect_err(|error| log::error!("mqtt: {topic}: a payload cannot be written: {error}"))
            .ok()?;
        let (count, retained) = (prompts.len(), !self.is_reviving);
        if retained && self.omitted != count - held {
            self.omitted = count - held;
            log::warn!(
                "mqtt: {topic}: Home Assistant hears of {held} prompts of {count}: a payload may have {limit} bytes"
            );
        }
        Some(Announcement { topic, payload, retained })
    }

    /// Whether something is to be sent, now or after a pause.
    pub(super) fn is_due(&self) -> bool {
        !(self.due.is_empty() && self.batch.is_empty() && self.announcing.is_empty() && self.parts.is_empty())
    }

    /// Whether what is not retained has to wait.
    pub(super) fn is_in_progress(&self, now: Instant) -> bool {
        self.is_due() || self.pause_until(now).is_some()
    }

    /// The end of the pause, if there is one.
    pub(super) fn pause_until(&self, now: Instant) -> Option<Instant> {
        let settled = self.sent.map(|sent| sent + SETTLE_TIME).filter(|until| now < *until);
        let answered = self.batch.front().and_then(|source| self.ownership.wait_until(source, now));
        settled.or(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        announcements: Announcements,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let node =
                Node { id: "attic".into(), topics: Topics::new("attic"), version: "1".into(), model: "mini 1".into() };
            Self { announcements: Announcements::new(node, Some("ha")), now: Instant::now() }
        }

        fn set(&mut self, sources: &[&str], prompts: &[&str]) {
            let prompts = prompts.iter().map(|id| PromptEntity::new(id, "")).collect();
            self.announcements.set(sources.iter().map(|id| (*id).into()).collect(), prompts, Duration::from_secs(1));
        }

        /// What is sent until the next pause: source, `once` where it is not retained, and what it says of prompts.
        fn sent(&mut self) -> Vec<String> {
            self.sent_but("none")
        }

        fn sent_but(&mut self, refused: &str) -> Vec<String> {
            let now = self.now;
            let sent = std::iter::from_fn(|| self.announcements.next(now, |topic| topic.contains(refused)));
            let sent = sent.map(|announcement| summary(&announcement)).collect();
            self.now += SETTLE_TIME;
            sent
        }
    }

    fn summary(announcement: &Announcement) -> String {
        let source = announcement.topic.strip_prefix("ha/device/attic_").unwrap().strip_suffix("/config").unwrap();
        let mut words = vec![source.to_owned()];
        words.extend((!announcement.retained).then(|| "once".into()));
        let payload: serde_json::Value = serde_json::from_slice(&announcement.payload).unwrap_or_default();
        for (id, component) in payload["components"].as_object().into_iter().flatten() {
            if let Some(id) = id.strip_suffix("_state") {
                words.push(if component.get("unique_id").is_some() { id.into() } else { format!("-{id}") });
            }
        }
        if announcement.payload.is_empty() {
            words.push("removed".into());
        }
        words.join(" ")
    }

    #[test]
    fn every_source_is_announced_on_every_connection() {
        let mut fixture = Fixture::new();
        assert!(fixture.sent().is_empty() && !fixture.announcements.is_in_progress(fixture.now));
        fixture.set(&["mic", "yard"], &["dog", "cat"]);
        for _ in 0..2 {
            assert_eq!(fixture.sent(), ["mic cat dog", "yard cat dog"]);
            assert!(fixture.sent().is_empty());
            fixture.announcements.begin_connection();
        }
        fixture.sent();
        fixture.set(&["mic", "yard"], &["dog", "cat"]);
        assert!(!fixture.announcements.is_due(), "nothing has changed");
    }

    #[test]
    fn what_is_not_retained_waits_until_home_assistant_has_subscribed() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog"]);
        assert!(fixture.announcements.is_in_progress(fixture.now));
        fixture.sent();
        let before = fixture.now - Duration::from_millis(1);
        assert_eq!(fixture.announcements.pause_until(before), Some(fixture.now));
        assert!(fixture.announcements.is_in_progress(before) && !fixture.announcements.is_in_progress(fixture.now));
    }

    #[test]
    fn a_removed_prompt_is_revived_and_removed_until_home_assistant_was_online() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog", "cat"]);
        fixture.sent();
        fixture.set(&["mic"], &["dog"]);
        for _ in 0..2 {
            assert_eq!(fixture.sent(), ["mic once cat"]);
            assert_eq!(fixture.sent(), ["mic -cat dog"]);
            assert!(fixture.sent().is_empty());
            fixture.announcements.begin_connection();
        }
        assert!(!fixture.announcements.on_ha_birth(fixture.now), "it is announced anyway");
        fixture.sent();
        fixture.sent();
        assert!(fixture.announcements.on_ha_birth(fixture.now));
        assert_eq!((fixture.sent(), fixture.sent()), (vec!["mic once cat".into()], vec!["mic -cat dog".into()]));
        assert!(fixture.announcements.on_ha_birth(fixture.now));
        assert_eq!(fixture.sent(), ["mic dog"]);
    }

    #[test]
    fn a_prompt_that_comes_back_is_not_removed() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog", "cat"]);
        fixture.set(&["mic"], &["dog"]);
        fixture.set(&["mic"], &["dog", "cat"]);
        assert_eq!(fixture.sent(), ["mic cat dog"]);
    }

    #[test]
    fn a_source_of_an_earlier_run_is_removed_once_for_certain() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog"]);
        assert_eq!(fixture.sent(), ["mic dog"]);
        fixture.announcements.found_prompt("yard", "cow");
        fixture.announcements.found_prompt("yard", "hen");
        fixture.announcements.found_prompt("mic", "cow");
        assert_eq!(fixture.sent(), ["mic once cow", "yard once cow hen"]);
        fixture.announcements.found_prompt("mic", "cow");
        assert_eq!(fixture.sent(), ["mic -cow dog", "yard removed"]);
        assert!(fixture.announcements.on_ha_birth(fixture.now));
        fixture.sent();
        fixture.sent();
        fixture.announcements.begin_connection();
        assert_eq!(fixture.sent(), ["mic dog"]);
    }

    #[test]
    fn a_topic_that_the_broker_refuses_keeps_nobody_waiting() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog"]);
        assert!(fixture.sent_but("attic_mic").is_empty());
        assert!(!fixture.announcements.is_in_progress(fixture.now));
    }

    #[test]
    fn prompts_are_left_out_where_the_broker_has_no_room() {
        let mut fixture = Fixture::new();
        let ids: Vec<String> = (0..100).map(|n| format!("sound_{n:03}")).collect();
        fixture.set(&["mic"], &ids.iter().map(String::as_str).collect::<Vec<_>>());
        fixture.announcements.set_max_payload(Some(50_000));
        let announcement = fixture.announcements.next(fixture.now, |_| false).unwrap();
        assert!((40_000..50_000).contains(&announcement.payload.len()), "{}", announcement.payload.len());
        assert!(fixture.announcements.omitted > 0);
    }

    #[test]
    fn without_a_prefix_nothing_is_announced() {
        let mut fixture = Fixture::new();
        fixture.announcements.prefix = None;
        fixture.set(&["mic"], &["dog"]);
        fixture.announcements.found_prompt("mic", "cat");
        assert!(!fixture.announcements.is_in_progress(fixture.now) && fixture.sent().is_empty());
    }

    #[test]
    fn removed_prompts_have_a_bound() {
        let mut fixture = Fixture::new();
        (0..2 * MAX_REMOVED).for_each(|n| fixture.announcements.found_prompt("mic", &n.to_string()));
        assert_eq!(fixture.announcements.removed["mic"].len(), MAX_REMOVED);
    }
}
