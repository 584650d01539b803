//! One prompt's way between quiet and event: hysteresis, confirmation, cool-down.
//!
//! A tracker takes a score a window, in order, says what it meant, gives at most one event for it, and looks back at most the rule's m windows.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Event, EventKind, Verdict};
use crate::prompts::{PromptId, Rule};
use crate::time::SampleTime;

#[derive(Debug)]
pub(super) struct Tracker {
    id: PromptId,
    rule: Rule,
    /// Moment and score of the windows since the last change, at most m.
    recent: VecDeque<(SampleTime, f32)>,
    open: Option<Event>,
    last_end: Option<SampleTime>,
}

impl Tracker {
    pub(super) fn new(id: PromptId, rule: Rule) -> Self {
        Self { id, rule, recent: VecDeque::with_capacity(rule.confirm.1 as usize), open: None, last_end: None }
    }

    pub(super) fn id(&self) -> &PromptId {
        &self.id
    }

    /// The same, as another rule sees it from now on.
    pub(super) fn with_rule(self, rule: Rule) -> Self {
        Self { rule, ..self }
    }

    pub(super) fn observe(&mut self, moment: SampleTime, score: f32, sequence: u64) -> (Verdict, Option<Event>) {
        if let Some(left) = self.cooling(moment) {
            return (Verdict::Cooling(left), None);
        }
        while self.recent.len() >= self.rule.confirm.1.max(1) as usize {
            self.recent.pop_front();
        }
        self.recent.push_back((moment, score));
        let event = match self.open.take() {
            None => self.try_start(score, sequence),
            Some(event) => self.try_end(event, score),
        };
        (self.verdict(score, event.as_ref()), event)
    }

    fn verdict(&self, score: f32, event: Option<&Event>) -> Verdict {
        match event.map(|event| event.kind) {
            Some(EventKind::Started) => Verdict::Started,
            Some(EventKind::Ended) => Verdict::Ended,
            None if self.open.is_some() => Verdict::Open,
            None if score < self.rule.start => Verdict::Below,
            None => {
                let agreeing = self.recent.iter().filter(|(_, score)| *score >= self.rule.start).count();
                Verdict::Confirming(u32::try_from(agreeing).unwrap_or(u32::MAX), self.rule.confirm.0)
            }
        }
    }

    /// Ends what is open at `at` and forgets the windows before it.
    pub(super) fn finish(&mut self, at: SampleTime) -> Option<Event> {
        let newest = self.recent.back().map(|(_, score)| *score);
        self.recent.clear();
        let event = self.open.take()?;
        let score = newest.unwrap_or(event.score);
        Some(self.end(event, score, at))
    }

    /// For how long nothing starts yet; none where something may.
    fn cooling(&self, moment: SampleTime) -> Option<Duration> {
        let since = moment.since(self.last_end.filter(|_| self.open.is_none())?);
        self.rule.cooldown.checked_sub(since).filter(|left| !left.is_zero())
    }

    fn try_start(&mut self, score: f32, sequence: u64) -> Option<Event> {
        let (since, peak) = self.agreed(score, |score| score >= self.rule.start)?;
        let (kind, prompt) = (EventKind::Started, self.id.clone());
        let event = Event { kind, sequence, prompt, score, peak, started_at: since, ended_at: None };
        self.open = Some(event.clone());
        self.recent.clear();
        Some(event)
    }

    fn try_end(&mut self, event: Event, score: f32) -> Option<Event> {
        let event = Event { peak: event.peak.max(score), ..event };
        let Some((since, _)) = self.agreed(score, |score| score < self.rule.stop) else {
            self.open = Some(event);
            return None;
        };
        Some(self.end(event, score, since))
    }

    /// What is no longer open ends.
    fn end(&mut self, event: Event, score: f32, at: SampleTime) -> Event {
        self.recent.clear();
        self.last_end = Some(at);
        Event { kind: EventKind::Ended, score, ended_at: Some(at.max(event.started_at)), ..event }
    }

    /// Moment of the earliest window that agrees and the highest score among those that do, if the newest agrees and
    /// at least n do.
    fn agreed(&self, newest: f32, agrees: impl Fn(f32) -> bool) -> Option<(SampleTime, f32)> {
        let agreeing = || self.recent.iter().filter(|(_, score)| agrees(*score));
        let enough = agrees(newest) && agreeing().count() >= self.rule.confirm.0 as usize;
        let first = agreeing().next().filter(|_| enough)?;
        Some((first.0, agreeing().fold(f32::MIN, |peak, (_, score)| peak.max(*score))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Detector;
    use super::*;
    use crate::score::Score;

    const RULE: Rule = Rule { start: 6.0, stop: 4.5, confirm: (2, 3), cooldown: Duration::from_secs(3) };

    fn id(n: usize) -> PromptId {
        PromptId::numbered(n)
    }

    fn second(n: u64) -> SampleTime {
        SampleTime::from_samples(n, 1)
    }

    /// Window k spans k to k + 2 s, so its centre is k + 1 s.
    fn events(rule: Rule, scores: &[f32], lost: &[usize]) -> Vec<Event> {
        let mut detector = Detector::new([(id(0), rule)]);
        let mut events = Vec::new();
        for (k, score) in scores.iter().enumerate() {
            let share = if lost.contains(&k) { 0.3 } else { 0.0 };
            let score = Score { cosine: 0.0, score: *score };
            detector.observe(second(k as u64), second(k as u64 + 2), share, &[score], |event| events.push(event));
        }
        detector.finish(second(scores.len() as u64 + 1), |event| events.push(event));
        events
    }

    #[test]
    fn two_of_three_start_and_two_of_three_end() {
        let seen = events(RULE, &[0.0, 7.0, 3.0, 8.0, 5.0, 4.0, 9.0, 2.0, 1.0, 0.0], &[]);
        assert_eq!(seen.len(), 2);
        assert_eq!(
            (seen[0].kind, seen[0].started_at, seen[0].score, seen[0].peak),
            (EventKind::Started, second(2), 8.0, 8.0)
        );
        assert_eq!((seen[1].kind, seen[1].ended_at, seen[1].peak), (EventKind::Ended, Some(second(6)), 9.0));
        assert_eq!(seen[0].sequence, seen[1].sequence);
    }

    #[test]
    fn one_loud_window_is_not_an_event() {
        assert_eq!(events(RULE, &[0.0, 9.0, 0.0, 0.0, 9.0, 0.0], &[]), []);
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        let seen = events(RULE, &[7.0, 7.0, 5.0, 5.0, 5.0, 5.0], &[]);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(seen[1].ended_at, Some(second(7)), "only the end of the source ends it");
    }

    #[test]
    fn nothing_starts_while_cooling_down() {
        let rule = Rule { confirm: (1, 1), ..RULE };
        let starts: Vec<_> = events(rule, &[9.0, 0.0, 9.0, 9.0, 9.0, 9.0], &[])
            .into_iter()
            .filter(|event| event.kind == EventKind::Started)
            .map(|event| event.started_at)
            .collect();
        assert_eq!(starts, [second(1), second(5)]);
    }

    #[test]
    fn lost_windows_neither_fire_nor_clear() {
        assert_eq!(events(RULE, &[9.0, 9.0, 9.0], &[0, 1, 2]), []);
        let seen = events(RULE, &[9.0, 9.0, 0.0, 0.0, 0.0, 9.0], &[2, 3, 4]);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].ended_at, Some(second(7)));
    }

    #[test]
    fn a_prompt_that_stays_keeps_its_event_and_one_that_goes_ends_it() {
        let rule = Rule { confirm: (1, 1), ..RULE };
        let mut detector = Detector::new([(id(0), rule), (id(1), rule)]);
        let mut events = Vec::new();
        let loud = Score { cosine: 0.0, score: 9.0 };
        detector.observe(second(0), second(2), 0.0, &[loud, loud], |event| events.push(event));
        assert_eq!(events.len(), 2);
        let strict = Rule { stop: 6.0, ..rule };
        // The first is another sound of the same id now.
        let prompts = [(id(0), rule), (id(1), strict), (id(2), rule)];
        detector.change(prompts, |same| *same != id(0), second(2), |event| events.push(event));
        let ended =
            events[2..].iter().map(|event| (event.kind, event.prompt.clone(), event.ended_at)).collect::<Vec<_>>();
        assert_eq!(ended, [(EventKind::Ended, id(0), Some(second(2)))]);
        let quiet = Score { cosine: 0.0, score: 5.0 };
        detector.observe(second(1), second(3), 0.0, &[loud, quiet, quiet], |event| events.push(event));
        let rest = events[3..].iter().map(|event| (event.kind, event.prompt.clone(), event.sequence));
        let expected = [(EventKind::Started, id(0), 2), (EventKind::Ended, id(1), 1)];
        assert_eq!(rest.collect::<Vec<_>>(), expected, "by the new, stricter rule");
    }

    #[test]
    fn each_window_says_what_it_meant() {
        let rule = Rule { cooldown: Duration::from_secs(3), ..RULE };
        let mut detector = Detector::new([(id(0), rule)]);
        let mut seen = Vec::new();
        for (k, score) in (0..).zip([1.0, 7.0, 7.0, 5.0, 1.0, 1.0, 9.0, 9.0, 7.0]) {
            let lost = if k == 3 { 0.3 } else { 0.0 };
            detector.observe(second(k), second(k + 2), lost, &[Score { cosine: 0.0, score }], drop);
            seen.extend_from_slice(detector.verdicts());
        }
        let cooling = |seconds| Verdict::Cooling(Duration::from_secs(seconds));
        // The end lies where the windows began to agree, at 5 s.
        let expected = [
            Verdict::Below,
            Verdict::Confirming(1, 2),
            Verdict::Started,
            Verdict::Lost,
            Verdict::Open,
            Verdict::Ended,
            cooling(1),
            Verdict::Confirming(1, 2),
            Verdict::Started,
        ];
        assert_eq!(seen, expected);
    }

    proptest! {
        #[test]
        fn starts_and_ends_alternate_in_order(
            scores in prop::collection::vec(0.0_f32..10.0, 0..200),
            n in 1_u32..4, extra in 0_u32..4, cooldown in 0_u64..5, stop in 0.0_f32..6.0,
        ) {
            let rule = Rule { start: 6.0, stop, confirm: (n, n + extra), cooldown: Duration::from_secs(cooldown) };
            let seen = events(rule, &scores, &[]);
            prop_assert_eq!(seen.len() % 2, 0);
            for pair in seen.chunks(2) {
                prop_assert_eq!((pair[0].kind, pair[1].kind), (EventKind::Started, EventKind::Ended));
                prop_assert_eq!(pair[0].sequence, pair[1].sequence);
                prop_assert!(pair[1].ended_at >= Some(pair[0].started_at));
                prop_assert!(pair[1].peak >= pair[0].peak && pair[0].score >= 6.0);
            }
            for next in seen.windows(3).step_by(2) {
                let quiet = next[2].started_at.since(next[1].ended_at.unwrap());
                prop_assert!(quiet >= rule.cooldown);
                prop_assert!(next[2].sequence > next[0].sequence);
            }
        }
    }
}
