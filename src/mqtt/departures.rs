//! How a former name of this node takes leave of the broker.
//!
//! Whoever changes `node.id` would leave the old one at the broker for good: its status, its states, and its devices in Home
//! Assistant. `identity` remembers such names. Before anything of one is removed, the broker is asked what it has there: another
//! computer may be called so by now, and what is another's is left alone. All of it comes after the events that wait, and a name is struck
//! out when the broker has acknowledged every removal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::announcements::MAX_REMOVED_SOURCES;
use super::discovery;
use super::elimination::MessageKind;
use super::identity::{Identity, Presence};
use super::message::{self, AnnouncedInfo};
use super::names::{device_name, former_device_name};
use super::ownership::{self, identifier};
use super::protocol::Filter;
use super::topics::Topics;

/// From the broker's answer to a subscription on, for what it has retained to arrive. It follows at once, and there is no hurry:
/// a slow link has time for thousands of states, and a computer of that name that is just starting says so.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Filters in one subscription: a packet of some 500 bytes, which every broker takes.
const FILTERS_AT_ONCE: usize = 4;
/// Connections that may end with a leave unfinished. Where each of them does, the broker may end them for it: the rest is left
/// for the next start, so that this node is not offline all the time.
const MAX_ATTEMPTS: u32 = 3;
/// More states than any configuration has, so that a broker full of odd topics does not fill our memory.
pub(super) const MAX_STATES: usize = 16_384;

/// A message of a leave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DepartureMessage {
    /// Which leave on which connection it is of.
    pub(super) leave: u32,
    pub(super) topic: Arc<str>,
    pub(super) kind: MessageKind,
    pub(super) payload: &'static str,
}

/// All former names of this node at this broker.
#[derive(Debug)]
pub(super) struct Departures {
    identity: Identity,
    /// The oldest first.
    waiting: VecDeque<Presence>,
    current: Option<Departure>,
    /// Leaves that were begun, on any connection.
    begun: u32,
    attempts: u32,
}

impl Departures {
    pub(super) fn new(identity: Identity) -> Self {
        let waiting = identity.former_here().cloned().collect();
        Self { identity, waiting, current: None, begun: 0, attempts: 0 }
    }

    /// The names of now are of these sources and prompts.
    pub(super) fn set_announced(&mut self, sources: &[String], prompts: impl Iterator<Item = String>) {
        self.identity.set_announced(sources, prompts);
    }

    /// A new connection knows nothing of what the one before it was asked and given.
    pub(super) fn begin_connection(&mut self) {
        if self.current.take().is_none() {
            return;
        }
        self.attempts += 1;
        if self.attempts >= MAX_ATTEMPTS {
            let nodes: Vec<_> = self.waiting.drain(..).map(|presence| presence.node).collect();
            log::warn!(
                "mqtt: {MAX_ATTEMPTS} connections ended while what is retained of former names ({}) was removed: the next \
                 start of clapd tries again; see the broker's log and its access list",
                nodes.join(", ")
            );
        }
    }

    /// What to ask the broker for next; `wildcards`: it takes filters with them.
    pub(super) fn take_filters(&mut self, wildcards: bool, now: Instant) -> Vec<Filter> {
        if self.current.is_none()
            && let Some(presence) = self.waiting.front()
        {
            self.begun += 1;
            self.current = Some(Departure::new(self.begun, presence.clone(), &self.identity, wildcards));
        }
        self.current.as_mut().map(|departure| departure.take_filters(now)).unwrap_or_default()
    }

    /// The broker has answered a subscription to this.
    pub(super) fn on_subscribed(&mut self, path: &str, is_granted: bool, now: Instant) {
        if let Some(departure) = &mut self.current
            && departure.on_subscribed(path, is_granted, now)
        {
            self.skip("the broker does not let us see whether another computer is called so");
        }
    }

    /// What somebody has published, or the broker has retained; true where it concerns nobody else.
    pub(super) fn found(&mut self, topic: &str, payload: &[u8], retained: bool, now: Instant) -> bool {
        self.current.as_mut().is_some_and(|departure| departure.found(topic, payload, retained, now))
    }

    /// When something is due that only time brings, if there is such a time.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.current.as_ref()?.looked_at().filter(|at| now < *at)
    }

    /// What to send next.
    pub(super) fn next(&mut self, now: Instant) -> Option<DepartureMessage> {
        let departure = self.current.as_mut()?;
        if departure.looked_at().is_none_or(|at| now < at) {
            return None;
        }
        if let Some(other) = departure.other() {
            let node = &departure.presence.node;
            log::warn!(
                "mqtt: {other} is the node {node} now, as this computer was called before: nothing of it is removed"
            );
            let presence = departure.presence.clone();
            self.finish(&presence);
            return None;
        }
        let message = departure.next();
        self.finish_if_answered();
        message
    }

    /// The broker has a message of the leave.
    pub(super) fn accepted(&mut self, leave: u32) {
        if let Some(departure) = self.current.as_mut().filter(|departure| departure.number == leave) {
            departure.unanswered = departure.unanswered.saturating_sub(1);
            self.finish_if_answered();
        }
    }

    /// The broker does not take a message of the leave.
    pub(super) fn refused(&mut self, leave: u32) {
        if self.current.as_ref().is_some_and(|departure| departure.number == leave) {
            self.skip("the broker does not take a message of ours there (see its access list)");
        }
    }

    fn finish_if_answered(&mut self) {
        let Some(departure) = self.current.as_ref().filter(|departure| departure.is_answered()) else { return };
        let Presence { node, prefix, .. } = &departure.presence;
        match prefix {
            Some(prefix) if node == self.identity.node() => {
                log::info!("mqtt: {node} is removed below {prefix}, where it was announced before");
            }
            _ => log::info!("mqtt: the node {node}, as this computer was called before, is removed at the broker"),
        }
        let presence = departure.presence.clone();
        self.finish(&presence);
    }

    /// There is nothing more to do for this name.
    fn finish(&mut self, presence: &Presence) {
        self.identity.remove(presence);
        self.waiting.pop_front();
        self.current = None;
    }

    /// This name is left to the next start.
    fn skip(&mut self, why: &str) {
        if let (Some(_), Some(presence)) = (self.current.take(), self.waiting.pop_front()) {
            let node = presence.node;
            log::warn!("mqtt: {why}: what is retained of the former name {node} waits for the next start of clapd");
        }
    }
}

/// The leave of one name, on one connection.
#[derive(Debug)]
struct Departure {
    number: u32,
    presence: Presence,
    topics: Topics,
    instance: String,
    /// The name is our own still, and only its devices are elsewhere.
    is_same_node: bool,
    /// What is to be subscribed to yet, and what the broker has not answered.
    filters: VecDeque<String>,
    unanswered_filters: BTreeSet<String>,
    /// What is there can be found by wildcards; else what is remembered is removed unseen.
    wildcards: bool,
    is_blind: bool,
    /// When the broker answered the last subscription.
    answered_at: Option<Instant>,
    /// Sources whose topics the broker was asked for, by the names that stand for them.
    sources: BTreeMap<String, String>,
    has_status_online: bool,
    came_online: bool,
    info: Option<AnnouncedInfo>,
    states: BTreeSet<Arc<str>>,
    /// Devices and entities in Home Assistant.
    devices: BTreeSet<Arc<str>>,
    /// What is to be sent, once it is known.
    queue: Option<VecDeque<DepartureMessage>>,
    unanswered: usize,
}

impl Departure {
    fn new(number: u32, presence: Presence, identity: &Identity, wildcards: bool) -> Self {
        let topics = Topics::new(&presence.node);
        let is_same_node = presence.node == identity.node();
        let mut filters = VecDeque::new();
        let mut states = BTreeSet::new();
        if !is_same_node {
            filters.extend([topics.status.to_string(), topics.info.to_string()]);
            filters.extend(wildcards.then(|| topics.states()));
            let of_source = |source| presence.prompts.iter().map(move |prompt| (source, prompt));
            let remembered = presence.sources.iter().flat_map(of_source);
            states.extend(remembered.take(MAX_STATES).map(|(source, prompt)| topics.route(source, prompt).state));
        }
        let mut departure = Self {
            number,
            topics,
            instance: identity.instance().into(),
            is_same_node,
            filters,
            unanswered_filters: BTreeSet::new(),
            wildcards,
            is_blind: !wildcards,
            answered_at: None,
            sources: BTreeMap::new(),
            has_status_online: false,
            came_online: false,
            info: None,
            states,
            devices: BTreeSet::new(),
            queue: None,
            unanswered: 0,
            presence,
        };
        for source in departure.presence.sources.clone() {
            departure.ask_for(&source);
        }
        departure
    }

    /// The broker is to be asked what is announced of this source.
    fn ask_for(&mut self, source: &str) {
        let Some(prefix) = &self.presence.prefix else { return };
        let node = &self.presence.node;
        if self.sources.len() >= MAX_REMOVED_SOURCES {
            return;
        }
        let name = device_name(node, source);
        if self.sources.contains_key(&name) {
            return;
        }
        self.filters.push_back(ownership::topic(prefix, &name));
        self.filters.extend(self.wildcards.then(|| format!("{prefix}/+/{name}/+/config")));
        self.sources.insert(name, source.into());
        if let Some(former) = former_device_name(node, source) {
            self.filters.push_back(ownership::topic(prefix, &former));
            self.sources.insert(former, source.into());
        }
    }

    /// The next to subscribe to, once the broker has answered those before.
    fn take_filters(&mut self, now: Instant) -> Vec<Filter> {
        if !self.unanswered_filters.is_empty() || self.queue.is_some() {
            return Vec::new();
        }
        if self.filters.is_empty() {
            // There may have been nothing to ask at all.
            self.answered_at.get_or_insert(now);
        }
        let count = self.filters.len().min(FILTERS_AT_ONCE);
        let paths: Vec<String> = self.filters.drain(..count).collect();
        self.unanswered_filters.extend(paths.iter().cloned());
        paths.into_iter().map(|path| Filter { path, retained: true }).collect()
    }

    /// True where it cannot be known whether another is called so.
    fn on_subscribed(&mut self, path: &str, is_granted: bool, now: Instant) -> bool {
        if !self.unanswered_filters.remove(path) {
            return false;
        }
        self.answered_at = Some(now);
        self.is_blind |= !is_granted && path.contains('+');
        !is_granted && (path == &*self.topics.status || path == &*self.topics.info)
    }

    /// When all that is retained has arrived; none where the broker has not answered everything.
    fn looked_at(&self) -> Option<Instant> {
        let is_asked = self.filters.is_empty() && self.unanswered_filters.is_empty();
        self.answered_at.filter(|_| is_asked).map(|at| at + ANSWER_TIME)
    }

    fn found(&mut self, topic: &str, payload: &[u8], retained: bool, now: Instant) -> bool {
        if !self.is_same_node {
            if topic == &*self.topics.status {
                let is_online = payload == message::ONLINE.as_bytes();
                self.came_online |= is_online && !retained;
                self.has_status_online |= is_online;
                return true;
            }
            if topic == &*self.topics.info {
                self.info = AnnouncedInfo::read(payload).or(self.info.take());
                return true;
            }
            if let Some((source, _)) = self.topics.parse_state(topic) {
                if retained && self.queue.is_none() && self.states.len() < MAX_STATES {
                    self.states.insert(topic.into());
                    self.ask_for(source);
                    // There may be more of them still.
                    self.answered_at = self.answered_at.map(|_| now);
                }
                return true;
            }
        }
        if let Some(source) = self.source_of(topic) {
            let ours = ownership::identifiers(payload).contains(&identifier(&self.presence.node, source));
            if !ours {
                self.devices.remove(topic);
            } else if self.queue.is_none() {
                self.devices.insert(topic.into());
            }
        }
        // It may concern the name of now, too.
        false
    }

    /// The source whose device, or an entity of which, is announced on this topic.
    fn source_of(&self, topic: &str) -> Option<&String> {
        let path = topic.strip_prefix(self.presence.prefix.as_deref()?)?.strip_prefix('/')?.strip_suffix("/config")?;
        let name = path.split('/').nth(1)?;
        self.sources.get(name)
    }

    /// Who is called so now, if it is another than us.
    fn other(&self) -> Option<String> {
        let instance = self.info.as_ref().and_then(|info| info.instance.as_deref());
        let is_ours = instance == Some(&self.instance);
        let is_other = self.came_online || (self.has_status_online && !is_ours) || (instance.is_some() && !is_ours);
        is_other.then(|| self.info.as_ref().map_or("another clapd".into(), AnnouncedInfo::in_words))
    }

    fn next(&mut self) -> Option<DepartureMessage> {
        if self.queue.is_none() {
            self.queue = Some(self.removals());
        }
        let message = self.queue.as_mut()?.pop_front()?;
        self.unanswered += 1;
        Some(message)
    }

    /// What removes the name. Whoever subscribes to a state or to the status learns first that it is over, which an empty
    /// message alone would not say. The info comes last: what is left by a crash in between is known as ours by it.
    fn removals(&mut self) -> VecDeque<DepartureMessage> {
        let mut removals = VecDeque::new();
        if self.is_blind {
            self.devices.extend(self.remembered_entities());
        }
        let leave = self.number;
        let mut send = |topic: &Arc<str>, kind, payload| {
            removals.push_back(DepartureMessage { leave, topic: Arc::clone(topic), kind, payload });
        };
        for topic in &self.states {
            send(topic, MessageKind::State, message::OFF);
            send(topic, MessageKind::State, "");
        }
        for topic in &self.devices {
            send(topic, MessageKind::Discovery, "");
        }
        if !self.is_same_node {
            send(&self.topics.health, MessageKind::Health, "");
            send(&self.topics.status, MessageKind::Status, message::STOPPED);
            send(&self.topics.status, MessageKind::Status, "");
            send(&self.topics.info, MessageKind::Info, "");
        }
        removals
    }

    /// The topics of entities that may have been announced by themselves.
    fn remembered_entities(&self) -> Vec<Arc<str>> {
        let Presence { node, prefix: Some(prefix), sources, prompts, .. } = &self.presence else { return Vec::new() };
        let topics = sources.iter().flat_map(|source| {
            let name = device_name(node, source);
            let of_prompts = prompts.iter().flat_map(|prompt| discovery::keys(prompt));
            let all = discovery::source_keys().into_iter().chain(of_prompts);
            all.map(move |(platform, key)| format!("{prefix}/{platform}/{name}/{key}/config").into())
        });
        topics.collect()
    }

    fn is_answered(&self) -> bool {
        self.unanswered == 0 && self.queue.as_ref().is_some_and(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Broker;

    /// A node that was called attic, and is called loft.
    fn departures(prefix: Option<&str>) -> (Departures, tempfile::TempDir) {
        let state = tempfile::tempdir().unwrap();
        let broker = Broker {
            host: "hub".into(),
            port: 1883,
            user: None,
            password: None,
            tls: None,
            discovery_prefix: prefix.map(Into::into),
        };
        let open = |node| Identity::open(Some(state.path()), &broker, node, ["mic".into()], ["dog".into()]);
        open("attic");
        (Departures::new(open("loft")), state)
    }

    /// Has the broker grant everything that is asked for; the paths.
    fn ask(departures: &mut Departures, wildcards: bool, now: Instant) -> Vec<String> {
        let mut asked = Vec::new();
        loop {
            let filters = departures.take_filters(wildcards, now);
            if filters.is_empty() {
                return asked;
            }
            assert!(departures.take_filters(wildcards, now).is_empty(), "one after the other");
            assert!(filters.len() <= FILTERS_AT_ONCE && filters.iter().all(|filter| filter.retained));
            for Filter { path, .. } in filters {
                departures.on_subscribed(&path, true, now);
                asked.push(path);
            }
        }
    }

    /// What is sent until nothing more is.
    fn sent(departures: &mut Departures, now: Instant) -> (Vec<String>, u32) {
        let mut leave = 0;
        let messages = std::iter::from_fn(|| departures.next(now)).map(|message| {
            leave = message.leave;
            format!("{}={}", message.topic, message.payload)
        });
        (messages.collect(), leave)
    }

    fn device(source: &str) -> Vec<u8> {
        format!(r#"{{"device":{{"identifiers":["clapd/attic/{source}"]}}}}"#).into_bytes()
    }

    fn info_of(departures: &Departures) -> Vec<u8> {
        format!(r#"{{"version":"0","instance":"{}"}}"#, departures.identity.instance()).into_bytes()
    }

    const END: [&str; 4] =
        ["clapd/attic/health=", "clapd/attic/status=stopped", "clapd/attic/status=", "clapd/attic/info="];

    #[test]
    fn what_is_found_and_what_is_remembered_is_removed_and_then_struck_out() {
        let (mut departures, _state) = departures(Some("ha"));
        let now = Instant::now();
        let mut expected = vec!["clapd/attic/status", "clapd/attic/info", "clapd/attic/+/+/state"];
        expected.extend(["ha/device/attic_mic/config", "ha/+/attic_mic/+/config"]);
        assert_eq!(ask(&mut departures, true, now), expected);
        let info = info_of(&departures);
        // A broker that crashed still says that we are online.
        assert!(departures.found("clapd/attic/status", b"online", true, now));
        assert!(departures.found("clapd/attic/info", &info, true, now));
        assert!(departures.found("clapd/attic/yard/cat/state", b"ON", true, now));
        assert!(!departures.found("clapd/loft/mic/dog/state", b"ON", true, now));
        assert_eq!(departures.wake_at(now), None, "a source is to be asked for");
        assert_eq!(ask(&mut departures, true, now), ["ha/device/attic_yard/config", "ha/+/attic_yard/+/config"]);
        departures.found("ha/device/attic_yard/config", &device("yard"), true, now);
        departures.found("ha/device/attic_mic/config", &device("other"), true, now);
        departures.found("ha/sensor/attic_mic/dog_score/config", &device("mic"), true, now);
        assert_eq!((departures.wake_at(now), sent(&mut departures, now)), (Some(now + ANSWER_TIME), (Vec::new(), 0)));
        let now = now + ANSWER_TIME;
        let mut expected = vec!["clapd/attic/mic/dog/state=OFF", "clapd/attic/mic/dog/state="];
        expected.extend(["clapd/attic/yard/cat/state=OFF", "clapd/attic/yard/cat/state="]);
        expected.extend(["ha/device/attic_yard/config=", "ha/sensor/attic_mic/dog_score/config="]);
        expected.extend(END);
        let (messages, leave) = sent(&mut departures, now);
        assert_eq!(messages, expected);
        for _ in 0..expected.len() {
            assert_eq!(departures.identity.former_here().count(), 1, "not before the last was acknowledged");
            departures.accepted(leave);
        }
        assert_eq!(departures.identity.former_here().count(), 0);
        assert!(departures.take_filters(true, now).is_empty());
    }

    #[test]
    fn without_wildcards_all_that_may_be_there_is_removed() {
        let (mut departures, _state) = departures(Some("ha"));
        let now = Instant::now();
        let asked = ask(&mut departures, false, now);
        assert_eq!(asked, ["clapd/attic/status", "clapd/attic/info", "ha/device/attic_mic/config"]);
        let (messages, _) = sent(&mut departures, now + ANSWER_TIME);
        assert_eq!(messages[..2], ["clapd/attic/mic/dog/state=OFF", "clapd/attic/mic/dog/state="]);
        assert!(messages.contains(&"ha/binary_sensor/attic_mic/dog_state/config=".into()), "{messages:?}");
        assert_eq!((messages.len(), &messages[2 + 7..]), (2 + 7 + 4, &END.map(String::from)[..]));
    }

    #[test]
    fn another_that_is_called_so_is_left_alone() {
        let other = br#"{"version":"9","instance":"ff"}"#.as_slice();
        let cases: [&[(&str, &[u8], bool)]; 4] = [
            &[("clapd/attic/info", other, true)],
            &[("clapd/attic/status", b"online", true)],
            &[("clapd/attic/status", b"online", true), ("clapd/attic/info", br#"{"version":"0"}"#, true)],
            &[("clapd/attic/status", b"online", false)],
        ];
        for found in cases {
            let (mut departures, _state) = departures(None);
            let now = Instant::now();
            ask(&mut departures, true, now);
            for (topic, payload, retained) in found {
                departures.found(topic, payload, *retained, now);
            }
            assert_eq!(sent(&mut departures, now + ANSWER_TIME).0, [""; 0], "{found:?}");
            assert_eq!(departures.identity.former_here().count(), 0, "it is said once");
        }
        // One that comes while the name is being removed.
        let (mut departures, _state) = departures(None);
        let now = Instant::now();
        ask(&mut departures, true, now);
        assert!(departures.next(now + ANSWER_TIME).is_some());
        departures.found("clapd/attic/status", b"online", false, now);
        assert!(departures.next(now + ANSWER_TIME).is_none());
    }

    #[test]
    fn what_the_broker_refuses_waits_for_the_next_start() {
        let (mut departures, _state) = departures(None);
        let now = Instant::now();
        departures.take_filters(true, now);
        departures.on_subscribed("clapd/attic/status", false, now);
        assert!(departures.take_filters(true, now).is_empty());
        assert_eq!(departures.identity.former_here().count(), 1);
        let (mut departures, _state) = self::departures(None);
        ask(&mut departures, true, now);
        let leave = departures.next(now + ANSWER_TIME).unwrap().leave;
        departures.refused(leave);
        departures.accepted(leave);
        assert_eq!((departures.next(now + ANSWER_TIME), departures.identity.former_here().count()), (None, 1));
    }

    #[test]
    fn a_broker_that_ends_connections_over_it_is_spared() {
        let (mut departures, _state) = departures(None);
        let now = Instant::now();
        for _ in 0..MAX_ATTEMPTS {
            assert!(!ask(&mut departures, true, now).is_empty());
            departures.begin_connection();
        }
        assert!(departures.take_filters(true, now).is_empty());
        assert_eq!(departures.identity.former_here().count(), 1);
    }
}
