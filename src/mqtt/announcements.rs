//! What is still to be announced to Home Assistant of our devices, and when.
//!
//! Home Assistant subscribes to an entity's topics some half a second after it has received the announcement, and what
//! is not retained is lost until then: so events and scores wait for [`SETTLE_TIME`] after each announcement, but never for
//! longer than [`MAX_HOLD`], whatever becomes of it. Nothing is announced twice within it, since Home Assistant would
//! overlook half of the second.
//!
//! A device is one message, where the broker takes one as large; else each of its entities is a message of its own, and those
//! that do not fit either are left out.
//!
//! To remove an entity Home Assistant wants a mark in its place, and heeds that only where it knows the entity from the
//! same run of its own: one that was removed while Home Assistant was away would stay for ever. So what is removed is
//! first announced once more, unretained.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discovery::{self, DeviceSpec, LevelSensor, Node, PromptEntity};
use super::limits::packet_size;
use super::names::{device_name, former_device_name};
use super::ownership::{self, Ownership, OwnershipChange};
use super::protocol::Filter;
use super::topics::Topics;

/// Home Assistant waits for 0.1 to 0.5 s before it subscribes, to do it for many topics at once, and the broker answers then.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// How long events wait at most: for what is revived, what there is, and a moment more.
const MAX_HOLD: Duration = Duration::from_secs(3);
/// So long after such a wait has begun no other does, so that events get through whoever has us announce again and again.
const HOLD_INTERVAL: Duration = Duration::from_secs(10);
/// Largest packet: brokers of homes take 1 MiB and more where nobody has changed it, which is a thousand prompts.
const MAX_PACKET: usize = 1_000_000;
/// Prompts of the past that are removed, so that a broker full of odd topics does not fill our memory.
const MAX_REMOVED: usize = 4_096;
/// Sources of the past, each of which is a device to announce and to remove: far more than anybody has had, and few enough for a
/// broker full of odd topics not to keep us busy.
pub(super) const MAX_REMOVED_SOURCES: usize = 64;

/// A message of discovery: a device or one of its entities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) topic: Arc<str>,
    /// Empty where it is removed.
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
    /// By source, where there is something to say of it.
    levels: BTreeMap<String, LevelSensor>,
    /// Prompts of before, by source, until Home Assistant was certainly online when they were removed.
    removed: BTreeMap<String, BTreeSet<String>>,
    /// Sources whose newest announcement this connection has not had.
    due: BTreeSet<String>,
    /// Those that are being announced: their removed prompts first, if `is_reviving`, and then in `announcing` what there is.
    batch: VecDeque<String>,
    is_reviving: bool,
    announcing: VecDeque<String>,
    /// Messages for the entities of a device that did not fit into one.
    parts: VecDeque<Announcement>,
    /// By source, the topics of entities that were announced by themselves.
    announced_parts: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// When the last was sent on this connection.
    sent: Option<Instant>,
    /// When events began to wait last.
    held_at: Option<Instant>,
    /// Home Assistant is online, as it has said itself: removals that are announced now need not be announced again.
    ha_is_online: bool,
    /// The largest packet that this connection's broker takes.
    max_packet: usize,
    /// By source, entities for which there was no room, as it was logged last.
    omitted: BTreeMap<String, usize>,
    ownership: Ownership,
}

/// Has Home Assistant keep a device's entities, their names and their history, for the device that is announced on another topic
/// next ("discovery migration" in its documentation). Without it the entities would be new ones.
const MIGRATE: &[u8] = br#"{"migrate_discovery":true}"#;

impl Announcements {
    pub(super) fn new(node: Node, prefix: Option<&str>) -> Self {
        Self {
            ownership: Ownership::new(&node.id),
            node,
            prefix: prefix.map(Into::into),
            sources: Vec::new(),
            prompts: Vec::new(),
            period: Duration::ZERO,
            levels: BTreeMap::new(),
            removed: BTreeMap::new(),
            due: BTreeSet::new(),
            batch: VecDeque::new(),
            is_reviving: false,
            announcing: VecDeque::new(),
            parts: VecDeque::new(),
            announced_parts: BTreeMap::new(),
            sent: None,
            held_at: None,
            ha_is_online: false,
            max_packet: MAX_PACKET,
            omitted: BTreeMap::new(),
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

    /// Sets what the sensors of the sources' levels are from now on.
    pub(super) fn set_levels(&mut self, levels: BTreeMap<String, LevelSensor>) {
        if self.levels != levels && self.prefix.is_some() {
            self.levels = levels;
            self.mark_all_due();
        }
    }

    fn level_of(&self, source: &str) -> LevelSensor {
        self.levels.get(source).copied().unwrap_or_default()
    }

    /// The broker has retained a state of this prompt, which is none of ours any more.
    pub(super) fn found_prompt(&mut self, source: &str, prompt: &str) {
        if self.prefix.is_some() && self.mark_removed(source, prompt) {
            self.due.insert(source.into());
        }
    }

    /// Notes that a prompt is to be removed; true where that is news, and there is room for it.
    fn mark_removed(&mut self, source: &str, prompt: &str) -> bool {
        let has_capacity = self.removed.values().map(BTreeSet::len).sum::<usize>() < MAX_REMOVED
            && (self.removed.len() < MAX_REMOVED_SOURCES || self.removed.contains_key(source));
        has_capacity && self.removed.entry(source.into()).or_default().insert(prompt.into())
    }

    /// The broker takes packets of at most so many bytes.
    pub(super) fn set_max_packet(&mut self, max_packet: usize) {
        self.max_packet = max_packet.min(MAX_PACKET);
    }

    /// The broker has refused the device with this topic by its size: it is announced once more, in parts. False where it is
    /// none of the devices.
    pub(super) fn retry(&mut self, topic: &str) -> bool {
        let source = self.sources.iter().find(|source| self.device_topic(source).is_some_and(|its| *its == *topic));
        let Some(source) = source.cloned() else { return false };
        self.due.insert(source);
        true
    }

    fn device_topic(&self, source: &str) -> Option<Arc<str>> {
        self.topic_of(&device_name(&self.node.id, source))
    }

    /// Where a device of this name is announced.
    fn topic_of(&self, name: &str) -> Option<Arc<str>> {
        self.prefix.as_deref().map(|prefix| ownership::topic(prefix, name).into())
    }

    /// Nothing was sent on a new connection.
    pub(super) fn begin_connection(&mut self) {
        self.batch.clear();
        self.announcing.clear();
        self.parts.clear();
        self.ownership.begin_connection();
        (self.sent, self.held_at) = (None, None);
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
        loop {
            while let Some(part) = self.parts.pop_front() {
                let size = packet_size(&part.topic, part.payload.len());
                if size <= self.max_packet && !refused(&part.topic) {
                    self.sent = Some(now);
                    return Some(part);
                }
            }
            if let Some(source) = self.batch.front().cloned() {
                if self.ownership.wait_until(&source, now).is_some() {
                    return None;
                }
                self.batch.pop_front();
                let topic = self.device_topic(&source)?;
                let may_announce = !refused(&topic) && !self.ownership.is_taken(&source);
                if may_announce && !self.is_reviving && self.ownership.needs_preparation(&source) {
                    // Its former topic was found just now: it begins anew.
                    self.due.insert(source);
                    continue;
                }
                if may_announce {
                    self.prepare(&source, topic);
                }
                if self.ha_is_online && !self.is_reviving {
                    self.removed.remove(&source);
                }
            } else if self.pause_until(now).is_some() || !self.advance() {
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
    fn prepare(&mut self, source: &str, topic: Arc<str>) {
        let former = former_device_name(&self.node.id, source).filter(|_| self.ownership.has_former(source));
        let former = former.and_then(|name| self.topic_of(&name));
        if self.is_reviving
            && let Some(topic) = former.clone()
        {
            self.parts.push_back(Announcement { topic, payload: MIGRATE.into(), retained: false });
            self.ownership.set_prepared(source);
        }
        if !self.is_reviving || self.removed.contains_key(source) {
            self.prepare_device(source, topic);
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
            OwnershipChange::Taken(other) => Some(format!(
                "{topic} is another device's ({other}), so it is left alone, and Home Assistant is not told of ours; \
                 give one of the two another node.id or source id, or remove what is retained there"
            )),
            OwnershipChange::Freed(source) | OwnershipChange::Former(source) => {
                self.due.insert(source);
                None
            }
            OwnershipChange::Nothing => None,
        }
    }

    /// Puts what there is to say of a source's entities into `parts`: one message if the broker takes one as large.
    fn prepare_device(&mut self, source: &str, topic: Arc<str>) {
        let removed: Vec<String> = self.removed.get(source).into_iter().flatten().cloned().collect();
        let revived: Vec<PromptEntity> = removed.iter().map(|id| PromptEntity::new(id, "")).collect();
        let is_here = self.sources.iter().any(|known| known == source);
        let (prompts, removed) = match self.is_reviving {
            true => (revived.as_slice(), &[][..]),
            false if !is_here => {
                self.parts.push_back(Announcement { topic, payload: Vec::new(), retained: true });
                self.replace_parts(source, BTreeSet::new());
                return;
            }
            false => (self.prompts.as_slice(), removed.as_slice()),
        };
        let (period, level) = (self.period, self.level_of(source));
        let device = DeviceSpec { source, prompts, removed, period, level };
        let retained = !self.is_reviving;
        let written = discovery::device(&self.node, device)
            .inspect_err(|error| log::error!("mqtt: {topic}: a payload cannot be written: {error}"));
        let Ok(payload) = written else { return };
        if packet_size(&topic, payload.len()) <= self.max_packet {
            if retained {
                self.replace_parts(source, BTreeSet::new());
                self.omitted.remove(source);
            }
            return self.parts.push_back(Announcement { topic, payload, retained });
        }
        // What is removed by itself is removed by an empty message, also where Home Assistant does not know it.
        if retained {
            self.prepare_entities(source, &topic, packet_size(&topic, payload.len()));
        }
    }

    /// Each entity by itself. The device of an earlier connection with another broker goes first: Home Assistant takes no entity
    /// twice.
    fn prepare_entities(&mut self, source: &str, topic: &Arc<str>, device_size: usize) {
        let prefix = self.prefix.clone().unwrap_or_default();
        let (prompts, period, level) = (&self.prompts, self.period, self.level_of(source));
        let device = DeviceSpec { source, prompts, removed: &[], period, level };
        let written = discovery::entities(&self.node, device)
            .inspect_err(|error| log::error!("mqtt: {topic}: a payload cannot be written: {error}"));
        let Ok(entities) = written else { return };
        let id = device_name(&self.node.id, source);
        let all = entities.len();
        let part_of =
            |platform: &str, key: &str| -> Arc<str> { format!("{prefix}/{platform}/{id}/{key}/config").into() };
        let fitting: Vec<Announcement> = entities
            .into_iter()
            .map(|entity| Announcement {
                topic: part_of(entity.platform, &entity.key),
                payload: entity.payload,
                retained: true,
            })
            .filter(|part| packet_size(&part.topic, part.payload.len()) <= self.max_packet)
            .collect();
        let removed = self.removed.get(source).into_iter().flatten();
        let removed: Vec<Arc<str>> =
            removed.flat_map(|prompt| discovery::keys(prompt)).map(|(platform, key)| part_of(platform, &key)).collect();
        self.parts.push_back(Announcement { topic: Arc::clone(topic), payload: Vec::new(), retained: true });
        self.announced_parts.entry(source.into()).or_default().extend(removed);
        self.replace_parts(source, fitting.iter().map(|part| Arc::clone(&part.topic)).collect());
        let omitted = all - fitting.len();
        self.parts.extend(fitting);
        if self.omitted.insert(source.into(), omitted) != Some(omitted) {
            let max = self.max_packet;
            let how = match all - omitted {
                0 => format!("of none of its {all} entities, since each is larger"),
                held => format!("of its entities one by one, of {held} of {all}"),
            };
            log::warn!(
                "mqtt: {topic}: the device's message has {device_size} bytes, of which at most {max} may be sent: Home \
                 Assistant is told {how}; raise the broker's limit (mosquitto: max_packet_size) for all of them in one"
            );
        }
    }

    /// From now on these are the entities of a source that are announced by themselves: the others are removed.
    fn replace_parts(&mut self, source: &str, parts: BTreeSet<Arc<str>>) {
        let before = self.announced_parts.remove(source).unwrap_or_default();
        let gone = before.into_iter().filter(|topic| !parts.contains(topic));
        self.parts.extend(gone.map(|topic| Announcement { topic, payload: Vec::new(), retained: true }));
        if !parts.is_empty() {
            self.announced_parts.insert(source.into(), parts);
        }
    }

    /// Whether something is to be sent, now or after a pause.
    pub(super) fn is_due(&self) -> bool {
        !(self.due.is_empty() && self.batch.is_empty() && self.announcing.is_empty() && self.parts.is_empty())
    }

    /// Whether what is not retained has to wait for a moment. It is asked when there may be something to send.
    pub(super) fn holds_events(&mut self, now: Instant) -> bool {
        if !self.is_in_progress(now) {
            return false;
        }
        if self.held_at.is_none_or(|at| now >= at + HOLD_INTERVAL) {
            self.held_at = Some(now);
        }
        self.held_until(now).is_some()
    }

    fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_at.map(|at| at + MAX_HOLD).filter(|until| now < *until)
    }

    /// When something is due that only time brings, if there is such a time.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        [self.pause_until(now), self.held_until(now)].into_iter().flatten().min()
    }

    /// Whether an announcement is on its way, or so fresh that Home Assistant may not have followed it.
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

    /// Topics, without the prefix, of what is sent until the next pause, and `-` before what is removed.
    fn topics(fixture: &mut Fixture) -> Vec<String> {
        let now = fixture.now;
        let sent = std::iter::from_fn(|| fixture.announcements.next(now, |_| false));
        let sent = sent.map(|part| {
            let topic = part.topic.strip_prefix("ha/").unwrap().strip_suffix("/config").unwrap().to_owned();
            if part.payload.is_empty() { format!("-{topic}") } else { topic }
        });
        let sent = sent.collect();
        fixture.now += SETTLE_TIME;
        sent
    }

    const PARTS: [&str; 6] = [
        "sensor/attic_mic/status",
        "sensor/attic_mic/windows_skipped",
        "sensor/attic_mic/events_dropped",
        "sensor/attic_mic/dog_score",
        "binary_sensor/attic_mic/dog_state",
        "event/attic_mic/dog_event",
    ];

    #[test]
    fn a_device_that_does_not_fit_is_announced_in_parts_and_again_as_one() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog"]);
        assert_eq!(topics(&mut fixture), ["device/attic_mic"]);
        fixture.announcements.begin_connection();
        fixture.announcements.set_max_packet(1_000);
        let mut sent = topics(&mut fixture);
        assert_eq!(sent.remove(0), "-device/attic_mic", "Home Assistant takes no entity twice");
        sent.sort_by_key(|topic| PARTS.iter().position(|part| part == topic));
        assert_eq!(sent, PARTS);
        fixture.set(&["mic"], &["cat"]);
        let sent = topics(&mut fixture);
        for topic in ["-event/attic_mic/dog_event", "-sensor/attic_mic/dog_score", "event/attic_mic/cat_event"] {
            assert!(sent.contains(&topic.to_owned()), "{topic}: {sent:?}");
        }
        fixture.announcements.begin_connection();
        fixture.announcements.set_max_packet(usize::MAX);
        topics(&mut fixture);
        let sent = topics(&mut fixture);
        assert!(sent.contains(&"-sensor/attic_mic/cat_score".into()), "{sent:?}");
        assert_eq!(sent.last().map(String::as_str), Some("device/attic_mic"));
    }

    #[test]
    fn what_does_not_fit_at_all_is_left_out() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog"]);
        fixture.announcements.set_max_packet(300);
        assert_eq!(topics(&mut fixture), ["-device/attic_mic"]);
        assert_eq!(fixture.announcements.omitted["mic"], 6);
        assert!(!fixture.announcements.is_due() && !fixture.announcements.is_in_progress(fixture.now));
    }

    #[test]
    fn events_never_wait_for_long() {
        let mut fixture = Fixture::new();
        fixture.set(&["mic"], &["dog"]);
        let begun = fixture.now;
        let mut held = Duration::ZERO;
        // Somebody has us announce all the time.
        for _ in 0..200 {
            fixture.now += Duration::from_millis(100);
            fixture.announcements.on_ha_birth(fixture.now);
            let now = fixture.now;
            fixture.announcements.next(now, |_| false);
            held += if fixture.announcements.holds_events(now) { Duration::from_millis(100) } else { Duration::ZERO };
        }
        assert_eq!(fixture.now - begun, Duration::from_secs(20));
        assert!(held <= 2 * MAX_HOLD, "{held:?}");
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
        let mut fixture = Fixture::new();
        (0..2 * MAX_REMOVED).for_each(|n| fixture.announcements.found_prompt(&n.to_string(), "dog"));
        assert_eq!(fixture.announcements.removed.len(), MAX_REMOVED_SOURCES);
    }
}
