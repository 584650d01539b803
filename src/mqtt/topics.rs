//! Every topic below `clapd/`. (Those of Home Assistant are put together in `announcements` and `inbox`.)
//!
//! The ids of node, source and prompt are what `config` let through: letters, digits, `_` and `-`.

use std::sync::Arc;

/// The topics of a node.
#[derive(Debug, Clone)]
pub struct Topics {
    root: String,
    /// `online`, `stopped`, or as the last will `offline`.
    pub status: Arc<str>,
    /// What runs here.
    pub info: Arc<str>,
    /// How it is doing.
    pub health: Arc<str>,
}

/// The topics of a prompt at a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Scores, as they come.
    pub score: Arc<str>,
    /// `ON` while an event is open.
    pub state: Arc<str>,
    /// Starts and ends.
    pub event: Arc<str>,
}

impl Topics {
    /// The topics of the node with this id.
    pub fn new(node: &str) -> Self {
        let root = format!("clapd/{node}");
        let topic = |leaf: &str| format!("{root}/{leaf}").into();
        Self { status: topic("status"), info: topic("info"), health: topic("health"), root }
    }

    /// A filter for the states of all prompts that this node ever had.
    pub(super) fn states(&self) -> String {
        format!("{}/+/+/state", self.root)
    }

    /// Source and prompt of such a state; none where somebody else made it up, who may have used any letters.
    pub(super) fn parse_state<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        let ids = topic.strip_prefix(&self.root)?.strip_prefix('/')?.strip_suffix("/state")?;
        let plain = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        ids.split_once('/').filter(|(source, prompt)| plain(source) && plain(prompt))
    }

    /// What the topics of requests to this node begin with; the command follows.
    pub(super) fn requests(&self) -> String {
        format!("{}/request/", self.root)
    }

    /// Where the answer to a command is published.
    pub(super) fn response(&self, command: &str) -> Arc<str> {
        format!("{}/response/{command}", self.root).into()
    }

    /// Where the levels of a source's minutes are published.
    pub fn level(&self, source: &str) -> Arc<str> {
        format!("{}/{source}/level", self.root).into()
    }

    /// Where those of its seconds are.
    pub fn second_level(&self, source: &str) -> Arc<str> {
        format!("{}/{source}/level/second", self.root).into()
    }

    /// The topics of a prompt at a source of this node.
    pub fn route(&self, source: &str, prompt: &str) -> Route {
        let topic = |leaf: &str| format!("{}/{source}/{prompt}/{leaf}", self.root).into();
        Route { score: topic("score"), state: topic("state"), event: topic("event") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_frozen() {
        let topics = Topics::new("kitchen");
        assert_eq!(
            [&*topics.status, &topics.info, &topics.health],
            ["clapd/kitchen/status", "clapd/kitchen/info", "clapd/kitchen/health"]
        );
        assert_eq!(topics.states(), "clapd/kitchen/+/+/state");
        assert_eq!(topics.parse_state("clapd/kitchen/mic/dog/state"), Some(("mic", "dog")));
        for other in ["clapd/kitchen/a/b/c/state", "clapd/kitchen/it's/dog/state", "clapd/kitchen2/mic/dog/state"] {
            assert_eq!(topics.parse_state(other), None, "{other}");
        }
        assert_eq!(topics.requests(), "clapd/kitchen/request/");
        assert_eq!(&*topics.response("prompts/get"), "clapd/kitchen/response/prompts/get");
        assert_eq!(&*topics.level("mic"), "clapd/kitchen/mic/level");
        assert_eq!(&*topics.second_level("mic"), "clapd/kitchen/mic/level/second");
        let route = topics.route("mic", "dog");
        let expected = ["clapd/kitchen/mic/dog/score", "clapd/kitchen/mic/dog/state", "clapd/kitchen/mic/dog/event"];
        assert_eq!([&*route.score, &route.state, &route.event], expected);
    }
}
