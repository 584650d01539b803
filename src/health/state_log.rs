//! What a log says of the sources' states: a line a change, and few lines where one flaps.
//!
//! In: each [`Health`], whose uptime is the only clock. Out: lines to log.
//! Never: more lines of a source than its budget has; hides for good where a source stands, or how often it changed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Health, SourceHealth};

/// Lines of a source that may come at once: some days of a house with a microphone that is unplugged now and then.
const AT_ONCE: f64 = 12.0;
/// One more for each of these: a source that flaps for ever writes 288 lines a day, which no disk feels.
const EVERY: Duration = Duration::from_secs(300);

/// A line to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The source, its state, and what may be done about it.
    pub text: String,
    /// Whether somebody should look.
    pub is_trouble: bool,
}

/// Remembers what was logged of each source.
#[derive(Debug, Default)]
pub struct StateLog(BTreeMap<String, Logged>);

#[derive(Debug)]
struct Logged {
    /// The state that was logged last, and the one seen last.
    said: &'static str,
    seen: &'static str,
    /// Changes since the last line.
    changes: u64,
    /// Lines that may be written.
    budget: f64,
    at: Duration,
}

impl StateLog {
    /// The lines that are due now that the sources stand like this. To be called often: it finds the changes itself.
    pub fn changes(&mut self, health: &Health) -> Vec<StateChange> {
        self.0.retain(|id, _| health.sources.iter().any(|source| source.id == *id));
        let log = |source: &SourceHealth| {
            let fresh = Logged { said: "", seen: "", changes: 0, budget: AT_ONCE, at: health.uptime };
            self.0.entry(source.id.clone()).or_insert(fresh).change(source, health.uptime)
        };
        health.sources.iter().filter_map(log).collect()
    }
}

impl Logged {
    fn change(&mut self, source: &SourceHealth, now: Duration) -> Option<StateChange> {
        if source.state != self.seen {
            (self.seen, self.changes) = (source.state, self.changes + 1);
        }
        let refilled = now.saturating_sub(self.at).as_secs_f64() / EVERY.as_secs_f64();
        (self.budget, self.at) = ((self.budget + refilled).min(AT_ONCE), now);
        if self.seen == self.said || self.budget < 1.0 {
            return None;
        }
        let hidden = match self.changes {
            0 | 1 => String::new(),
            changes => format!(" (it changed {changes} times since the last such line)"),
        };
        (self.said, self.changes, self.budget) = (self.seen, 0, self.budget - 1.0);
        let advice = advice(source.state);
        let text = format!("{}: {}{}{hidden}", source.id, source.state, advice.unwrap_or_default());
        Some(StateChange { text, is_trouble: advice.is_some() })
    }
}

/// What a person should know or do; none where all is well.
fn advice(state: &str) -> Option<&'static str> {
    match state {
        "silent" => Some(": samples come, and not even noise is in them; is it muted or unplugged?"),
        "clipping" => Some(": it is cut off at full scale; lower its capture volume (alsamixer, pavucontrol)"),
        "stalled" => Some(": the device is there and delivers nothing; it is opened again and again"),
        "lost" => Some(": the device is away, or can't be opened; it is waited for"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn health(uptime_s: u64, states: &[&'static str]) -> Health {
        let ids = ["mic", "yard"];
        let source =
            |(id, state): (&&str, &&'static str)| SourceHealth { id: (*id).into(), state, ..SourceHealth::default() };
        let sources = ids.iter().zip(states).map(source).collect();
        Health { uptime: Duration::from_secs(uptime_s), sources, ..Health::default() }
    }

    fn texts(log: &mut StateLog, health: &Health) -> Vec<String> {
        log.changes(health).into_iter().map(|change| change.text).collect()
    }

    #[test]
    fn a_change_is_a_line_and_no_change_is_none() {
        let mut log = StateLog::default();
        assert_eq!(texts(&mut log, &health(0, &["starting", "starting"])), ["mic: starting", "yard: starting"]);
        assert!(texts(&mut log, &health(1, &["starting", "starting"])).is_empty());
        assert_eq!(texts(&mut log, &health(2, &["live", "starting"])), ["mic: live"]);
        let trouble = log.changes(&health(3, &["live", "silent"]));
        assert!(
            trouble.len() == 1 && trouble[0].is_trouble && trouble[0].text.starts_with("yard: silent: "),
            "{trouble:?}"
        );
    }

    #[test]
    fn what_flaps_is_told_in_few_lines_and_its_end_is_told() {
        let mut log = StateLog::default();
        let mut lines = Vec::new();
        for second in 0..86_400 {
            lines.extend(texts(&mut log, &health(second, &[if second % 2 == 0 { "live" } else { "silent" }])));
        }
        assert!((200..=300).contains(&lines.len()), "{} lines in a day", lines.len());
        let end: Vec<_> = (86_400..87_000).flat_map(|second| texts(&mut log, &health(second, &["silent"]))).collect();
        assert!(end.len() <= 1, "{end:?}");
        assert!(
            end.iter().chain(lines.last()).any(|line| line.starts_with("mic: silent") && line.contains(" times since"))
        );
    }

    proptest! {
        #[test]
        fn lines_have_a_budget_and_the_last_state_is_said(steps in prop::collection::vec((0_u64..400, 0_usize..4), 1..200)) {
            let (mut log, mut now, mut said, mut lines) = (StateLog::default(), 0, String::new(), 0_u64);
            let mut state = "";
            for (seconds, index) in steps {
                now += seconds;
                state = ["live", "silent", "clipping", "lost"][index];
                for line in texts(&mut log, &health(now, &[state])) {
                    lines += 1;
                    said = line;
                }
                prop_assert!(lines <= 12 + now / 300);
            }
            let end = texts(&mut log, &health(now + 300, &[state]));
            let last = end.last().unwrap_or(&said);
            prop_assert!(last.starts_with(&format!("mic: {state}")), "{} is not {}", last, state);
        }
    }
}
