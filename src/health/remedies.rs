//! What a person should know or do, now that health is as it is.

use super::{Health, SourceHealth, ThreadHealth, state_log};

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// The source that it is about; none: the whole device.
    pub source: Option<String>,
    /// What is amiss, and what helps.
    pub text: String,
}

impl Health {
    /// All that is amiss with it, the device's first; none where all is well.
    pub fn remedies(&self) -> Vec<Remedy> {
        let device = self.of_device().into_iter().map(|text| Remedy { source: None, text });
        let sources = self.sources.iter().flat_map(|source| {
            of_source(source).into_iter().map(|text| Remedy { source: Some(source.id.clone()), text })
        });
        device.chain(sources).collect()
    }

    fn of_device(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if self.outbox == "memory" && self.connections > 0 {
            texts.push("events that wait for the broker are on no disk, and end with clapd; see outbox.dir".into());
        }
        let counts = [
            (
                self.events_dropped,
                "events were dropped, since too many waited for the broker, or for too long; see [outbox]",
            ),
            (self.events_set_aside, "starts and ends wait that this broker does not take; raise its limits"),
            (self.names_taken, "names in Home Assistant are another node's; give each node an id of its own"),
        ];
        texts.extend(counts.iter().filter(|(count, _)| *count > 0).map(|(count, text)| format!("{count} {text}")));
        let late = self.threads.iter().filter(|thread| thread.state == ThreadHealth::LATE);
        texts.extend(late.map(|thread| format!("thread {} hangs; the log says more", thread.name)));
        texts
    }
}

fn of_source(source: &SourceHealth) -> Vec<String> {
    let advice = state_log::advice(source.state).map(|advice| format!("{}{advice}", source.state));
    let mut texts: Vec<String> = advice.into_iter().chain(source.warnings.iter().cloned()).collect();
    if source.windows_skipped > 0 {
        let skipped = source.windows_skipped;
        texts.push(format!("{skipped} windows were skipped: this computer is too slow, or busy; see scoring.hop_s"));
    }
    texts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_amiss_is_said_and_nothing_else() {
        let source = SourceHealth { id: "mic".into(), state: "live", ..SourceHealth::default() };
        let well = Health { outbox: "disk", connections: 1, sources: vec![source.clone()], ..Health::default() };
        assert_eq!(well.remedies(), []);
        let late = ThreadHealth { name: "outbox", state: ThreadHealth::LATE, quiet: Duration::from_secs(60) };
        let source = SourceHealth { state: "lost", warnings: vec!["too quiet".into()], windows_skipped: 3, ..source };
        let ill = Health { outbox: "memory", events_dropped: 2, threads: vec![late], sources: vec![source], ..well };
        let said: Vec<_> = ill.remedies().into_iter().map(|it| format!("{:?} {}", it.source, it.text)).collect();
        let words = [
            "None events that wait",
            "None 2 events were dropped",
            "None thread outbox hangs",
            "Some(\"mic\") lost: the device is away",
            "Some(\"mic\") too quiet",
            "Some(\"mic\") 3 windows were skipped",
        ];
        assert_eq!(said.len(), words.len(), "{said:?}");
        assert!(said.iter().zip(words).all(|(said, words)| said.starts_with(words)), "{said:?}");
    }
}
