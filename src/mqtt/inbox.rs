//! What others send us: retained states of ours, what is said in our name, requests, and Home Assistant's birth message.

use super::protocol::Filter;
use super::topics::Topics;
use crate::command;

/// What Home Assistant says on `<discovery_prefix>/status` when it has begun.
const HOME_ASSISTANT_BIRTH: &[u8] = b"online";

/// What a received publish is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IncomingKind<'a> {
    /// The broker has retained a state of this node.
    RetainedState,
    /// Somebody wants this command carried out.
    Command(&'a str),
    /// A request that was retained: nobody knows for when it was meant.
    RetainedCommand,
    /// Home Assistant has begun, and knows nothing of us.
    HomeAssistantBirth,
    /// A device for Home Assistant, on a topic of ours.
    Announcement,
    /// Nothing that concerns us.
    Irrelevant,
}

/// What is subscribed to.
#[derive(Debug, Clone)]
pub(super) struct Subscriptions {
    states: String,
    /// What all topics of this node begin with.
    root: String,
    /// By which another of our name is known (`namesake`).
    names: [String; 2],
    requests: String,
    home_assistant: Option<String>,
    /// What all topics of devices begin with.
    devices: Option<String>,
}

impl Subscriptions {
    /// Those of this node; with the discovery prefix of Home Assistant, where devices are announced to it.
    pub(super) fn new(topics: &Topics, discovery_prefix: Option<&str>) -> Self {
        Self {
            root: topics.states().replace("+/+/state", ""),
            states: topics.states(),
            names: [topics.status.to_string(), topics.info.to_string()],
            requests: topics.requests(),
            home_assistant: discovery_prefix.map(|prefix| format!("{prefix}/status")),
            devices: discovery_prefix.map(|prefix| format!("{prefix}/device/")),
        }
    }

    /// All filters. Without wildcards there is one for each command, and none for states: what an earlier run has left cannot
    /// be found.
    pub(super) fn filters(&self, wildcards: bool) -> Vec<Filter> {
        let filter = |path: String, retained| Filter { path, retained };
        let mut filters = Vec::new();
        if wildcards {
            filters.extend([filter(self.states.clone(), true), filter(format!("{}#", self.requests), false)]);
        } else {
            filters.extend(command::names().map(|name| filter(format!("{}{name}", self.requests), false)));
        }
        filters.extend(self.names.iter().map(|path| filter(path.clone(), true)));
        filters.extend(self.home_assistant.iter().map(|path| filter(path.clone(), false)));
        filters
    }

    /// What this publish is; `retained` where it lay at the broker before we came.
    pub(super) fn classify<'a>(&self, topic: &'a str, payload: &[u8], retained: bool) -> IncomingKind<'a> {
        if let Some(command) = topic.strip_prefix(&self.requests) {
            return if retained { IncomingKind::RetainedCommand } else { IncomingKind::Command(command) };
        }
        if self.home_assistant.as_deref() == Some(topic) {
            // Where it began before we came, it gets all from us anyway: we have just connected.
            return if payload == HOME_ASSISTANT_BIRTH && !retained {
                IncomingKind::HomeAssistantBirth
            } else {
                IncomingKind::Irrelevant
            };
        }
        if self.devices.as_deref().is_some_and(|devices| topic.starts_with(devices)) {
            return IncomingKind::Announcement;
        }
        // What is not retained, we have sent ourselves.
        let is_state = topic.starts_with(&self.root) && topic.ends_with("/state");
        if retained && is_state { IncomingKind::RetainedState } else { IncomingKind::Irrelevant }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_of_one_kind() {
        let topics = Topics::new("attic");
        let subscriptions = Subscriptions::new(&topics, Some("homeassistant"));
        let paths: Vec<_> =
            subscriptions.filters(true).into_iter().map(|filter| (filter.path, filter.retained)).collect();
        let filter = |path: &str, retained| (path.to_owned(), retained);
        assert_eq!(
            paths,
            [
                filter("clapd/attic/+/+/state", true),
                filter("clapd/attic/request/#", false),
                filter("clapd/attic/status", true),
                filter("clapd/attic/info", true),
                filter("homeassistant/status", false)
            ]
        );
        for (topic, payload, retained, expected) in [
            ("clapd/attic/mic/dog/state", "ON", true, IncomingKind::RetainedState),
            ("clapd/attic/mic/dog/state", "ON", false, IncomingKind::Irrelevant),
            ("clapd/attic/request/prompts/set", "{}", false, IncomingKind::Command("prompts/set")),
            ("clapd/attic/request/", "", false, IncomingKind::Command("")),
            ("clapd/attic/request/mic/state", "ON", false, IncomingKind::Command("mic/state")),
            ("clapd/attic/request/pause", "{}", true, IncomingKind::RetainedCommand),
            ("homeassistant/status", "online", false, IncomingKind::HomeAssistantBirth),
            ("homeassistant/status", "online", true, IncomingKind::Irrelevant),
            ("homeassistant/status", "offline", false, IncomingKind::Irrelevant),
            ("clapd/den/mic/dog/state", "ON", true, IncomingKind::Irrelevant),
            ("homeassistant/sensor/attic_mic/score/config", "{}", true, IncomingKind::Irrelevant),
            ("homeassistant/device/attic_mic/config", "{}", true, IncomingKind::Announcement),
            ("homeassistant/device/attic_mic/config", "{}", false, IncomingKind::Announcement),
        ] {
            assert_eq!(
                subscriptions.classify(topic, payload.as_bytes(), retained),
                expected,
                "{topic} {payload} {retained}"
            );
        }
        assert_eq!(Subscriptions::new(&topics, None).filters(true).len(), 4);
        let plain = subscriptions.filters(false);
        assert!(plain.iter().all(|filter| !filter.path.contains(['+', '#'])), "{plain:?}");
        assert!(plain.contains(&Filter { path: "clapd/attic/request/prompts/set".into(), retained: false }));
    }
}
