//! Thresholds from what a room sounds like when the sound is not there.
//!
//! Out of the scores of windows in which nothing of what is listened for happened comes the lowest start at which a prompt's
//! own rule would have told falsely no more often than wanted, and how much can be claimed for it. No tail is fitted beyond
//! what was heard: loud moments of a room are few kinds of sound and not draws from one distribution, and what comes tomorrow
//! is none of those that came today.

use std::time::Duration;

use super::{Detector, Event, EventKind, MAX_LOST};
use crate::prompts::{PromptId, Rule, usual_stop};
use crate::score::Score;
use crate::time::SampleTime;

/// Below this a score says "hardly": fans and hum alone reach 3 now and then, so that a start there would be an accident of
/// a quiet hour.
pub const MIN_START: f32 = 3.0;
/// Starts are tried in such steps; the score of a steady sound moves by more between windows.
const STEP: f32 = 0.1;
/// An alarm that goes on for so long is another one: without this, a start below the room's steady noise would count as a
/// single alarm that never ends.
const ONE_ALARM: Duration = Duration::from_secs(60);
/// Scores that are kept: 20 prompts for two days at a hop of a second, in 14 MB.
const MAX_SCORES: usize = 3_500_000;

/// What one source sounded like: the scores of its windows, in order.
#[derive(Debug, Clone, Default)]
pub struct Series {
    prompts: usize,
    /// Start, end and lost share of each window.
    windows: Vec<(SampleTime, SampleTime, f32)>,
    /// A row of scores a window.
    scores: Vec<f32>,
}

impl Series {
    /// An empty one for so many prompts.
    pub fn new(prompts: usize) -> Self {
        Self { prompts, ..Self::default() }
    }

    /// Takes a window; false when there is no room for more.
    pub fn push(&mut self, start: SampleTime, end: SampleTime, lost: f32, scores: &[Score]) -> bool {
        self.windows.push((start, end, lost));
        self.scores.extend(scores.iter().map(|score| score.score).chain(std::iter::repeat(0.0)).take(self.prompts));
        self.scores.len() + self.prompts <= MAX_SCORES
    }

    /// How long was listened, windows of which too much was lost left out, at a window every `hop`.
    pub fn duration(&self, hop: Duration) -> Duration {
        let whole = self.windows.iter().filter(|(.., lost)| *lost <= MAX_LOST).count();
        hop * u32::try_from(whole).unwrap_or(u32::MAX)
    }

    fn peak(&self, prompt: usize) -> f32 {
        let rows = self.scores.chunks_exact(self.prompts.max(1));
        rows.filter_map(|row| row.get(prompt)).copied().fold(0.0, f32::max)
    }

    /// Alarms that `rule` would have made; one more than `most` where it is more.
    fn alarms(&self, prompt: usize, rule: Rule, most: u64) -> u64 {
        let mut detector = Detector::new([(PromptId::numbered(0), rule)]);
        let mut alarms = 0;
        let mut count = |event: Event| {
            if let (EventKind::Ended, Some(end)) = (event.kind, event.ended_at) {
                alarms += end.since(event.started_at).as_nanos().div_ceil(ONE_ALARM.as_nanos()).max(1) as u64;
            }
        };
        for ((start, end, lost), row) in self.windows.iter().zip(self.scores.chunks_exact(self.prompts.max(1))) {
            let Some(score) = row.get(prompt) else { continue };
            detector.observe(*start, *end, *lost, &[Score { cosine: 0.0, score: *score }], &mut count);
        }
        if let Some((_, end, _)) = self.windows.last() {
            detector.finish(*end, &mut count);
        }
        alarms.min(most + 1)
    }
}

/// What to write for a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suggestion {
    /// The rule with the start, stop and confirmation to use; none where even a start of 10 tells falsely too often.
    pub rule: Option<Rule>,
    /// Alarms that it would have made in what was heard. An alarm of several minutes counts once a minute.
    pub alarms: u64,
    /// Alarms that the rule as it is configured would have made.
    pub alarms_now: u64,
    /// The highest score that was heard.
    pub peak: f32,
}

/// The lowest start at which `prompt` and every higher start would have alarmed at most `allowed` times. Asks for one more
/// window to confirm if that lets the start be a point lower.
pub fn suggest(series: &[Series], prompt: usize, configured: Rule, allowed: u64) -> Suggestion {
    let peak = series.iter().map(|series| series.peak(prompt)).fold(0.0, f32::max);
    let (n, m) = configured.confirm;
    let as_it_is = lowest(series, prompt, configured, allowed, peak);
    let firmer = lowest(series, prompt, Rule { confirm: (n + 1, m + 1), ..configured }, allowed, peak);
    let best = match (as_it_is, firmer) {
        (None, firmer) => firmer,
        (Some(own), Some(firmer)) if firmer.0.start + 1.0 <= own.0.start => Some(firmer),
        (own, _) => own,
    };
    Suggestion {
        rule: best.map(|best| best.0),
        alarms: best.map_or(0, |best| best.1),
        alarms_now: count(series, prompt, configured, u64::MAX - 1),
        peak,
    }
}

fn lowest(series: &[Series], prompt: usize, configured: Rule, allowed: u64, peak: f32) -> Option<(Rule, u64)> {
    // Nothing reaches the first step above the peak: no need to try what lies higher.
    let steps = |score: f32| (score / STEP).round() as u32;
    let first = steps(10.0).min(steps(peak) + 1).max(steps(MIN_START));
    let mut found = None;
    for step in (steps(MIN_START)..=first).rev() {
        let start = step as f32 * STEP;
        let rule = Rule { start, stop: usual_stop(start), ..configured };
        let alarms = count(series, prompt, rule, allowed);
        if alarms > allowed {
            break;
        }
        found = Some((rule, alarms));
    }
    found
}

fn count(series: &[Series], prompt: usize, rule: Rule, most: u64) -> u64 {
    series.iter().map(|series| series.alarms(prompt, rule, most)).sum()
}

/// The rate an hour that the true one is below with 95% certainty, after `alarms` in `duration`, if alarms come independently
/// of each other (Poisson). 3 an hour after a silent hour: the "rule of three". By hand: these few lines agree with the tables, and
/// a crate of statistics in every device's binary would serve nothing else.
pub fn at_most_per_hour(alarms: u64, duration: Duration) -> f64 {
    // Bisection for the mean at which so few alarms have a chance of 5%.
    let (mut low, mut high) = (0.0, 10.0 + 3.0 * alarms as f64);
    for _ in 0..60 {
        let mean = f64::midpoint(low, high);
        if chance_of_at_most(alarms, mean) > 0.05 { low = mean } else { high = mean }
    }
    high / (duration.as_secs_f64() / 3600.0)
}

fn chance_of_at_most(alarms: u64, mean: f64) -> f64 {
    let mut logarithm = -mean;
    let mut sum = logarithm.exp();
    for k in 1..=alarms {
        logarithm += (mean / k as f64).ln();
        sum += logarithm.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(scores: &[f32]) -> Series {
        let mut series = Series::new(1);
        for (second, score) in (0_u64..).zip(scores) {
            let at = |second| SampleTime::from_samples(second, 1);
            assert!(series.push(at(second), at(second + 2), 0.0, &[Score { cosine: 0.0, score: *score }]));
        }
        series
    }

    fn rule(confirm: (u32, u32)) -> Rule {
        Rule { start: 6.0, stop: 4.5, confirm, cooldown: Duration::from_secs(10) }
    }

    #[test]
    fn a_quiet_room_gets_the_floor_and_a_loud_one_what_lies_above_it() {
        let quiet = suggest(&[series(&[0.5; 600])], 0, rule((2, 3)), 0);
        assert_eq!(quiet.rule.map(|rule| rule.start), Some(MIN_START));
        let mut scores = vec![1.0; 600];
        scores[300..304].fill(7.3);
        let loud = suggest(&[series(&scores)], 0, rule((2, 3)), 0);
        let rule = loud.rule.unwrap();
        assert!((rule.start - 7.4).abs() < 1e-4 && (rule.stop - 5.9).abs() < 1e-4, "{loud:?}");
        assert_eq!((loud.alarms, loud.alarms_now, loud.peak), (0, 1, 7.3));
    }

    #[test]
    fn a_noise_that_never_ends_is_more_than_one_alarm() {
        let fan = suggest(&[series(&[6.5; 3600])], 0, rule((2, 3)), 5);
        assert!(fan.rule.unwrap().start > 6.5 && fan.alarms_now >= 60, "{fan:?}");
    }

    #[test]
    fn what_is_always_at_the_top_has_no_start() {
        assert_eq!(suggest(&[series(&[10.0; 600])], 0, rule((2, 3)), 0).rule, None);
    }

    #[test]
    fn one_more_window_is_asked_for_where_it_helps() {
        // Two windows of 9 now and then, never three: 2 of 3 would need a start above 9.
        let scores: Vec<f32> = (0..1000).map(|n| if n % 50 < 2 { 9.0 } else { 2.0 }).collect();
        let found = suggest(&[series(&scores)], 0, rule((2, 3)), 0).rule.unwrap();
        assert_eq!((found.confirm, found.start), ((3, 4), MIN_START));
    }

    #[test]
    fn windows_that_were_lost_are_not_heard() {
        let mut series = Series::new(1);
        let at = |second| SampleTime::from_samples(second, 1);
        series.push(at(0), at(2), 0.0, &[Score::default()]);
        series.push(at(1), at(3), 0.5, &[Score { cosine: 0.0, score: 9.0 }]);
        assert_eq!(series.duration(Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn bounds_are_those_of_the_tables() {
        let hour = Duration::from_secs(3600);
        for (alarms, bound) in [(0, 2.996), (1, 4.744), (2, 6.296), (10, 16.96)] {
            assert!((at_most_per_hour(alarms, hour) - bound).abs() < 0.01, "{alarms}");
        }
        assert!((at_most_per_hour(0, hour * 6) - 0.5).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn the_wanted_rate_is_met_on_the_same_sound_and_more_alarms_never_raise_the_start(
            scores in prop::collection::vec(0.0_f32..10.0, 0..300), n in 1_u32..4, extra in 0_u32..3, allowed in 0_u64..6,
        ) {
            let series = [series(&scores)];
            let configured = rule((n, n + extra));
            let few = suggest(&series, 0, configured, allowed);
            if let Some(rule) = few.rule {
                prop_assert!(count(&series, 0, rule, u64::MAX - 1) == few.alarms && few.alarms <= allowed);
                prop_assert!((MIN_START..=10.0).contains(&rule.start) && rule.stop < rule.start);
            }
            let with = |allowed| lowest(&series, 0, configured, allowed, few.peak).map(|found| found.0.start);
            if let Some(start) = with(allowed) {
                prop_assert!(with(allowed + 1).is_some_and(|more| more <= start));
                // Every higher start meets it as well.
                let higher = Rule { start: start + 0.5, stop: usual_stop(start + 0.5), ..configured };
                prop_assert!(higher.start > 10.0 || count(&series, 0, higher, u64::MAX - 1) <= allowed);
            }
        }
    }
}
