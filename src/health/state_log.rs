//! What a log says of the sources' states: a line a change, and few lines where one flaps.
//!
//! A source's lines have a budget, which the tests below hold; the last state is logged in the end, and how often it
//! changed meanwhile. The uptime in each [`Health`] is the only clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{FAILING, Health, SourceHealth};

/// Lines of a source that may come at once: some days of a home with a microphone that is unplugged now and then.
const MAX_BUDGET: f64 = 12.0;
/// One more for each of these: a source that flaps for ever writes 288 lines a day, which no disk feels.
const REFILL_INTERVAL: Duration = Duration::from_secs(300);

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
pub struct StateLog(BTreeMap<String, SourceLog>);

#[derive(Debug)]
struct SourceLog {
    /// The state that was logged last.
    logged: &'static str,
    /// The state at the last call.
    current: &'static str,
    /// Changes since the last line.
    changes: u64,
    /// Lines that may be written.
    budget: f64,
    at: Duration,
}

impl StateLog {
    /// The lines that are due now that the sources are in these states. To be called often: it finds the changes itself.
    pub fn changes(&mut self, health: &Health) -> Vec<StateChange> {
        self.0.retain(|id, _| health.sources.iter().any(|source| source.id == *id));
        let log = |source: &SourceHealth| {
            let fresh = SourceLog { logged: "", current: "", changes: 0, budget: MAX_BUDGET, at: health.uptime };
            self.0.entry(source.id.clone()).or_insert(fresh).update(source, health.uptime)
        };
        health.sources.iter().filter_map(log).collect()
    }
}

impl SourceLog {
    fn update(&mut self, source: &SourceHealth, now: Duration) -> Option<StateChange> {
        if source.state != self.current {
            (self.current, self.changes) = (source.state, self.changes + 1);
        }
        let refilled = now.saturating_sub(self.at).as_secs_f64() / REFILL_INTERVAL.as_secs_f64();
        (self.budget, self.at) = ((self.budget + refilled).min(MAX_BUDGET), now);
        if self.current == self.logged || self.budget < 1.0 {
            return None;
        }
        let hidden = match self.changes {
            0 | 1 => String::new(),
            changes => format!(" (it changed {changes} times since the last such line)"),
        };
        (self.logged, self.changes, self.budget) = (self.current, 0, self.budget - 1.0);
        let advice = advice(source.state);
        let text = format!("{}: {}{}{hidden}", source.id, source.state, advice.unwrap_or_default());
        Some(StateChange { text, is_trouble: advice.is_some() })
    }
}

/// What a person should know or do; none where all is well.
pub(super) fn advice(state: &str) -> Option<&'static str> {
    match state {
        "silent" => Some(": samples come, and not even noise is in them; is it muted or unplugged?"),
        "clipping" => Some(": it is cut off at full scale; lower its capture volume (alsamixer, pavucontrol)"),
        "stalled" => Some(": the device is there and delivers nothing; it is opened again and again"),
        "lost" => Some(": the device is away, or can't be opened; it is waited for"),
        FAILING => Some(": its sound comes, and the model fails with every window of it; the lines above say how"),
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
    fn a_flapping_source_writes_few_lines_and_its_last_state() {
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
        fn lines_have_a_budget_and_the_last_state_is_logged(steps in prop::collection::vec((0_u64..400, 0_usize..4), 1..200)) {
            let (mut log, mut now, mut logged, mut lines) = (StateLog::default(), 0, String::new(), 0_u64);
            let mut state = "";
            for (seconds, index) in steps {
                now += seconds;
                state = ["live", "silent", "clipping", "lost"][index];
                for line in texts(&mut log, &health(now, &[state])) {
                    lines += 1;
                    logged = line;
                }
                prop_assert!(lines <= 12 + now / 300);
            }
            let end = texts(&mut log, &health(now + 300, &[state]));
            let last = end.last().unwrap_or(&logged);
            prop_assert!(last.starts_with(&format!("mic: {state}")), "{} is not {}", last, state);
        }
    }
}
