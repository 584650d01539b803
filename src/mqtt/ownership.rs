//! Whose the topics are on which we announce devices.
//!
//! Before a device is announced or removed, the broker is asked what it has retained on that topic. What another node has put
//! there is left alone: neither overwritten nor removed. And what we have put on a topic that a former version chose is taken
//! away, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::names::{device_name, former_device_name};
use super::protocol::Filter;

/// For the broker to send what it has retained, which it does as soon as it is asked. Longer than a round trip around the world, and
/// no longer than anybody would notice.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// What a message on one of the topics means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OwnershipChange {
    /// Another node's device, of which this is the identifier, is where ours should be. To be said once.
    Taken(String),
    /// The topic of this source has become free.
    Freed(String),
    /// Our device is on the former topic of this source.
    Former(String),
    /// Nothing to do.
    Nothing,
}

/// The topics of one node.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    node: String,
    /// Sources whose topics the broker was asked about on this connection, and when.
    looked: BTreeMap<String, Instant>,
    /// Sources whose topic is another node's.
    taken: BTreeSet<String>,
    /// Those of which it was said.
    said: BTreeSet<String>,
    /// Sources that are retained on their former topic, and whether Home Assistant was prepared for the change.
    former: BTreeMap<String, bool>,
}

/// What we read of an announcement.
#[derive(Deserialize)]
struct Announced {
    #[serde(alias = "dev")]
    device: AnnouncedDevice,
}

#[derive(Deserialize)]
struct AnnouncedDevice {
    #[serde(alias = "ids")]
    identifiers: Identifiers,
}

/// Home Assistant takes one as well as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Identifiers {
    One(String),
    Several(Vec<String>),
}

/// How a device of ours is known.
pub(super) fn identifier(node: &str, source: &str) -> String {
    format!("clapd/{node}/{source}")
}

/// Where a device of this name is announced.
pub(super) fn topic(prefix: &str, name: &str) -> String {
    format!("{prefix}/device/{name}/config")
}

impl Ownership {
    pub(super) fn new(node: &str) -> Self {
        Self { node: node.into(), ..Self::default() }
    }

    /// On a new connection nothing was asked.
    pub(super) fn begin_connection(&mut self) {
        self.looked.clear();
        self.taken.clear();
        self.former.clear();
    }

    /// The filters by which to ask for the topics of those `sources` that were not asked for yet; they count as asked for from now.
    pub(super) fn filters<'a>(
        &mut self,
        prefix: &str,
        sources: impl Iterator<Item = &'a String>,
        now: Instant,
    ) -> Vec<Filter> {
        let mut filters = Vec::new();
        for source in sources {
            if !self.looked.contains_key(source) {
                self.looked.insert(source.clone(), now);
                let names = [Some(device_name(&self.node, source)), former_device_name(&self.node, source)];
                let paths = names.into_iter().flatten().map(|name| topic(prefix, &name));
                filters.extend(paths.map(|path| Filter { path, retained: true }));
            }
        }
        filters
    }

    /// Until when to wait for the broker's answer; none where it has had its time, or was not asked.
    pub(super) fn wait_until(&self, source: &str, now: Instant) -> Option<Instant> {
        self.looked.get(source).map(|at| *at + ANSWER_TIME).filter(|until| now < *until)
    }

    /// Whether the topic of this source is another node's.
    pub(super) fn is_taken(&self, source: &str) -> bool {
        self.taken.contains(source)
    }

    /// Whether this source is announced on its former topic, too.
    pub(super) fn has_former(&self, source: &str) -> bool {
        self.former.contains_key(source)
    }

    /// Whether Home Assistant has to be prepared for a change of topic before this source is announced.
    pub(super) fn needs_preparation(&self, source: &str) -> bool {
        self.former.get(source) == Some(&false)
    }

    /// Home Assistant was prepared for a change of this source's topic.
    pub(super) fn set_prepared(&mut self, source: &str) {
        self.former.entry(source.into()).and_modify(|is_prepared| *is_prepared = true);
    }

    /// The former topic of this source is taken leave of.
    pub(super) fn forget_former(&mut self, source: &str) {
        self.former.remove(source);
    }

    /// Somebody's message on a topic below `prefix`, or what was retained there.
    pub(super) fn found(&mut self, prefix: &str, on: &str, payload: &[u8]) -> OwnershipChange {
        let is = |name: String| topic(prefix, &name) == on;
        let source = self.looked.keys().find(|source| is(device_name(&self.node, source))).cloned();
        let Some(source) = source else {
            let former = |source: &&String| former_device_name(&self.node, source).is_some_and(is);
            let Some(source) = self.looked.keys().find(former).cloned() else { return OwnershipChange::Nothing };
            let ours = identifiers(payload).contains(&identifier(&self.node, &source));
            if !ours || self.former.contains_key(&source) {
                return OwnershipChange::Nothing;
            }
            self.former.insert(source.clone(), false);
            return OwnershipChange::Former(source);
        };
        let found = identifiers(payload);
        let other = found.iter().find(|found| **found != identifier(&self.node, &source));
        match other {
            Some(other) => {
                self.taken.insert(source.clone());
                if self.said.insert(source) { OwnershipChange::Taken(other.clone()) } else { OwnershipChange::Nothing }
            }
            None if self.taken.remove(&source) => {
                self.said.remove(&source);
                OwnershipChange::Freed(source)
            }
            None => OwnershipChange::Nothing,
        }
    }
}

/// Those of the device in an announcement; none where it is no such thing, or removes one.
pub(super) fn identifiers(payload: &[u8]) -> Vec<String> {
    match serde_json::from_slice::<Announced>(payload).map(|announced| announced.device.identifiers) {
        Ok(Identifiers::One(one)) => vec![one],
        Ok(Identifiers::Several(several)) => several,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(identifier: &str) -> Vec<u8> {
        format!(r#"{{"device":{{"identifiers":["{identifier}"]}},"components":{{}}}}"#).into_bytes()
    }

    fn looking(node: &str, sources: &[&str]) -> (Ownership, Vec<String>) {
        let mut ownership = Ownership::new(node);
        let sources: Vec<String> = sources.iter().map(|source| (*source).into()).collect();
        let filters = ownership.filters("ha", sources.iter(), Instant::now());
        (ownership, filters.into_iter().map(|filter| filter.path).collect())
    }

    #[test]
    fn what_is_another_nodes_is_left_alone_until_it_is_free() {
        let (mut pi, filters) = looking("pi", &["kitchen_mic"]);
        assert_eq!(filters, ["ha/device/pi_kitchen_mic/config"]);
        let on = filters[0].as_str();
        assert_eq!(pi.found("ha", on, &payload("clapd/pi/kitchen_mic")), OwnershipChange::Nothing);
        let other = payload("clapd/pi_kitchen/mic");
        assert_eq!(pi.found("ha", on, &other), OwnershipChange::Taken("clapd/pi_kitchen/mic".into()));
        assert!(pi.is_taken("kitchen_mic"));
        assert_eq!(pi.found("ha", on, &other), OwnershipChange::Nothing, "it is said once");
        assert_eq!(pi.found("ha", on, b""), OwnershipChange::Freed("kitchen_mic".into()));
        assert!(!pi.is_taken("kitchen_mic"));
        assert_eq!(
            pi.found("ha", on, br#"{"dev":{"ids":"sonoff"}}"#),
            OwnershipChange::Taken("sonoff".into()),
            "another"
        );
        assert!(pi.is_taken("kitchen_mic"));
        assert_eq!(pi.found("ha", "ha/device/other/config", &other), OwnershipChange::Nothing);
    }

    #[test]
    fn a_former_topic_is_ours_only_where_our_device_is_on_it() {
        let (mut pi, filters) = looking("pi_kitchen", &["mic"]);
        assert_eq!(filters, ["ha/device/_10_pi_kitchen_mic/config", "ha/device/pi_kitchen_mic/config"]);
        assert_eq!(pi.found("ha", &filters[1], &payload("clapd/pi/kitchen_mic")), OwnershipChange::Nothing);
        assert!(!pi.has_former("mic") && !pi.is_taken("mic"));
        assert_eq!(
            pi.found("ha", &filters[1], &payload("clapd/pi_kitchen/mic")),
            OwnershipChange::Former("mic".into())
        );
        assert!(pi.has_former("mic"));
    }

    #[test]
    fn the_broker_is_asked_once_a_connection_and_has_its_time() {
        let (mut pi, _) = looking("pi", &["mic"]);
        let now = Instant::now();
        let sources = ["mic".to_owned(), "yard".to_owned()];
        assert_eq!(pi.filters("ha", sources[1..].iter(), now).len(), 1);
        assert!(pi.wait_until("yard", now).is_some() && pi.wait_until("yard", now + ANSWER_TIME).is_none());
        pi.begin_connection();
        assert_eq!((pi.filters("ha", sources.iter(), now).len(), pi.wait_until("other", now)), (2, None));
    }
}
