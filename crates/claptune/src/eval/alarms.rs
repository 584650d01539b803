//! What a monitor's user feels: false alarms an hour, and events that were missed.
//!
//! Long recordings come with the times of their events, `recording,prompt,start_s,end_s` as CSV; a row without times
//! says that the prompt is listened for in that recording and never comes. The detector is the daemon's, and all
//! thresholds run in one pass, as prompts of their own.
//!
//! A detection that touches an event of its prompt, or comes as near to it as the detector's own clock is sure (half a
//! window and a hop), finds it; one that touches none is a false alarm. A prompt is only listened for in the recordings
//! that list it, and an hour is an hour of one prompt.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use clapd_core::model::TextEmbedding;
use clapd_core::pipeline::{Output, Pace, Pipeline};
use clapd_core::prompts::{PreparedPrompt, Prompt, PromptId, PromptTable, Rule};
use serde::Serialize;

use super::bundle_scorer::BundleScorer;
use super::records::{IntervalRecord, interval};
use crate::data::table::CsvTable;
use crate::metrics;

const COLUMNS: [&str; 4] = ["recording", "prompt", "start_s", "end_s"];

/// How events are detected.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmRules {
    /// Scores at which an event starts, 0 to 10.
    pub starts: Vec<f32>,
    /// How far below it ends: the hysteresis, in points.
    pub gap: f32,
    /// n of m windows have to agree.
    pub confirm: (u32, u32),
    /// After an end nothing starts for this long.
    pub cooldown: Duration,
    /// From one window to the next.
    pub hop: Duration,
}

impl Default for AlarmRules {
    /// The daemon's.
    fn default() -> Self {
        let (cooldown, hop) = (Duration::from_secs(10), Duration::from_secs(1));
        Self { starts: vec![5.0, 6.0, 7.0], gap: 1.5, confirm: (2, 3), cooldown, hop }
    }
}

/// Counts of one prompt, or of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlarmCounts {
    /// The prompt; none for all together.
    pub prompt: Option<String>,
    /// Hours that it was listened for.
    pub hours: f64,
    /// Events that there were.
    pub events: usize,
    /// Events that a detection found.
    pub found: usize,
    /// Detections that found nothing.
    pub false_alarms: usize,
    /// Share of events found, with Wilson's interval.
    pub recall: IntervalRecord,
    /// False alarms an hour, with the exact Poisson interval.
    pub false_alarms_per_hour: IntervalRecord,
}

/// A model at one threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarms {
    /// Place of the model in the report, from 0.
    pub model: usize,
    /// The threshold, 0 to 10.
    pub start: f32,
    /// All prompts together.
    pub all: AlarmCounts,
    /// Each prompt.
    pub prompts: Vec<AlarmCounts>,
}

/// Seconds from, to.
type TimeSpan = (f64, f64);
/// Events by recording and prompt.
type EventTimes = BTreeMap<PathBuf, BTreeMap<String, Vec<TimeSpan>>>;

/// Listens to every recording of an event manifest; names of files are taken from `audio_root`, without it from the
/// manifest's folder. `model` is the model's place in the report.
///
/// # Errors
/// A manifest at fault, a recording that can't be read, rules that can't be, or a model that fails. No recording is skipped:
/// without one, events and hours would be others.
pub fn measure_alarms(
    scorer: &BundleScorer,
    model: usize,
    events: &Path,
    audio_root: Option<&Path>,
    rules: &AlarmRules,
) -> Result<Vec<Alarms>> {
    rules.check()?;
    let text = fs::read_to_string(events).with_context(|| format!("{}: can't read it", events.display()))?;
    let root = audio_root.or(events.parent()).unwrap_or(Path::new("."));
    let events_by_recording = read(&text, root).with_context(|| events.display().to_string())?;
    let mut names: Vec<&String> = events_by_recording.values().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let texts: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let embeddings: BTreeMap<&String, TextEmbedding> = names.iter().copied().zip(scorer.texts(&texts)?).collect();
    let mut tallies = vec![vec![Tally::default(); names.len()]; rules.starts.len()];
    for (file, prompts) in &events_by_recording {
        let chosen: Vec<&TextEmbedding> = prompts.keys().map(|name| &embeddings[name]).collect();
        let (detections, seconds) = detect_events(scorer, file, &chosen, rules)?;
        for (prompt, (name, spans)) in prompts.iter().enumerate() {
            let place = names.partition_point(|other| *other < name);
            for (threshold, tally) in tallies.iter_mut().enumerate() {
                let detected = &detections[prompt * rules.starts.len() + threshold];
                tally[place].add(spans, detected, seconds, collar(scorer, rules));
            }
        }
    }
    let alarms = rules.starts.iter().zip(tallies).map(|(&start, tallies)| {
        let all = tallies.iter().fold(Tally::default(), |sum, tally| sum.plus(*tally)).counts(None);
        let prompts = names.iter().zip(tallies).map(|(name, tally)| tally.counts(Some((*name).clone()))).collect();
        Alarms { model, start, all, prompts }
    });
    Ok(alarms.collect())
}

fn read(text: &str, root: &Path) -> Result<EventTimes> {
    let table = CsvTable::parse(text)?;
    if table.columns().len() != COLUMNS.len() || !COLUMNS.iter().all(|name| table.has(name)) {
        bail!("its columns are {}; {} are needed", table.columns().join(","), COLUMNS.join(","));
    }
    let mut events_by_recording = EventTimes::new();
    table.map(|row| {
        let spans = events_by_recording
            .entry(root.join(row.need("recording")?))
            .or_default()
            .entry(row.need("prompt")?.to_owned())
            .or_default();
        if row.get("start_s").is_some() || row.get("end_s").is_some() {
            let (start, end) = (row.number("start_s")?, row.number("end_s")?);
            // Written so that a NaN fails.
            ensure!(
                start >= 0.0 && end > start && end.is_finite(),
                "the event is from {start} to {end} s; 0 <= start_s < end_s is needed"
            );
            spans.push((start, end));
        }
        Ok(())
    })?;
    ensure!(!events_by_recording.is_empty(), "lists no recording");
    Ok(events_by_recording)
}

impl AlarmRules {
    fn check(&self) -> Result<()> {
        let (n, m) = self.confirm;
        ensure!(
            !self.starts.is_empty() && self.starts.iter().all(|start| *start > 0.0 && *start <= 10.0),
            "starts are {:?}; scores above 0 and up to 10 are needed",
            self.starts
        );
        ensure!(self.gap >= 0.0, "the gap is {}; 0 or more points are needed", self.gap);
        ensure!(1 <= n && n <= m && m <= 100, "confirm is {n} of {m}; 1 <= n <= m <= 100 is needed");
        ensure!(self.hop >= Duration::from_millis(10), "the hop is {:?}; a frame (10 ms) at least is needed", self.hop);
        Ok(())
    }
}

/// Detections of every prompt at every threshold, and the recording's length in seconds.
fn detect_events(
    scorer: &BundleScorer,
    file: &Path,
    prompts: &[&TextEmbedding],
    rules: &AlarmRules,
) -> Result<(Vec<Vec<TimeSpan>>, f64)> {
    let place = || file.display().to_string();
    let rule = |start: f32| {
        let stop = (start - rules.gap).max(0.0);
        Rule { start, stop, confirm: rules.confirm, cooldown: rules.cooldown }
    };
    let each = prompts.iter().flat_map(|text| rules.starts.iter().map(move |&start| (*text, rule(start))));
    let prepared = each.enumerate().map(|(number, (text, rule))| {
        let prompt = Prompt::of_text(PromptId::numbered(number), number.to_string(), rule);
        PreparedPrompt::of_text(prompt, text.clone())
    });
    let prompts = Arc::new(PromptTable::new(scorer.model.encoder.embedding_len(), prepared.collect())?);
    let mut found: HashMap<PromptId, Vec<TimeSpan>> = HashMap::new();
    let mut decoder = Decoder::open(file, Channel::Mix)?;
    let mut pipeline =
        Pipeline::new(scorer.model.clone(), Arc::clone(&prompts), decoder.rate(), rules.hop, Pace::Every)
            .with_context(place)?;
    let mut sink = |output: Output<'_>| {
        if let Output::Event(event) = output
            && let Some(end) = event.ended_at
        {
            found.entry(event.prompt).or_default().push((event.started_at.as_secs_f64(), end.as_secs_f64()));
        }
    };
    let (rate, mut samples_read) = (f64::from(decoder.rate()), 0);
    while let Some(samples) = decoder.next_block()? {
        samples_read += samples.lost + samples.data.len() as u64;
        pipeline.push(samples, &mut sink).with_context(place)?;
    }
    pipeline.finish(&mut sink).with_context(place)?;
    let ids = prompts.prompts().iter().map(|prompt| &prompt.id);
    let detections = ids.map(|id| found.remove(id).unwrap_or_default()).collect();
    Ok((detections, samples_read as f64 / rate))
}

/// How far beside an event a detection may lie, in seconds.
fn collar(scorer: &BundleScorer, rules: &AlarmRules) -> f64 {
    let window = scorer.model.windowing.samples() as f64 / f64::from(scorer.model.frontend.sample_rate);
    window / 2.0 + rules.hop.as_secs_f64()
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    seconds: f64,
    events: usize,
    found: usize,
    false_alarms: usize,
}

impl Tally {
    fn add(&mut self, events: &[TimeSpan], detections: &[TimeSpan], seconds: f64, collar: f64) {
        let touch =
            |event: &TimeSpan, detection: &TimeSpan| detection.0 <= event.1 + collar && event.0 - collar <= detection.1;
        self.seconds += seconds;
        self.events += events.len();
        self.found += events.iter().filter(|event| detections.iter().any(|detection| touch(event, detection))).count();
        self.false_alarms +=
            detections.iter().filter(|detection| !events.iter().any(|event| touch(event, detection))).count();
    }

    fn plus(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            events: self.events + other.events,
            found: self.found + other.found,
            false_alarms: self.false_alarms + other.false_alarms,
        }
    }

    fn counts(self, prompt: Option<String>) -> AlarmCounts {
        let hours = self.seconds / 3600.0;
        AlarmCounts {
            prompt,
            hours,
            events: self.events,
            found: self.found,
            false_alarms: self.false_alarms,
            recall: metrics::share(self.found, self.events).into(),
            false_alarms_per_hour: metrics::per_hour(self.false_alarms, hours).into(),
        }
    }
}

impl Alarms {
    /// Appends a table.
    pub(super) fn table(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nmodel {} at a start of {}:\n{:<34}{:>8}{:>8}{:>8}  {:<24}{:>8}  false alarms an hour",
            self.model + 1,
            self.start,
            "prompt",
            "hours",
            "events",
            "found",
            "recall",
            "false"
        );
        for counts in self.prompts.iter().chain([&self.all]) {
            let prompt = counts.prompt.as_deref().unwrap_or("all (an hour is an hour of a prompt)");
            let AlarmCounts { hours, events, found, false_alarms, .. } = counts;
            let (recall, rate) = (interval(counts.recall), interval(counts.false_alarms_per_hour));
            let _ =
                writeln!(out, "{prompt:<34}{hours:>8.3}{events:>8}{found:>8}  {recall:<24}{false_alarms:>8}  {rate}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_found_far_is_false() {
        let mut tally = Tally::default();
        let events = [(10.0, 12.0), (30.0, 31.0), (50.0, 60.0)];
        // Overlaps; within the collar; two in one event; far from all.
        let detections = [(11.0, 14.0), (33.0, 34.0), (51.0, 52.0), (55.0, 56.0), (80.0, 81.0)];
        tally.add(&events, &detections, 1800.0, 2.0);
        tally.add(&[], &[], 1800.0, 2.0);
        let counts = tally.counts(None);
        assert_eq!((counts.events, counts.found, counts.false_alarms, counts.hours), (3, 3, 1, 1.0));
        let mut strict = Tally::default();
        strict.add(&events, &detections, 3600.0, 1.0);
        assert_eq!((strict.found, strict.false_alarms), (2, 2));
    }

    #[test]
    fn a_manifest_of_events_says_what_never_comes() {
        let events_by_recording =
            read("recording,prompt,start_s,end_s\na.ogg,dog,1,2.5\na.ogg,dog,9,10\na.ogg,cat,,\n", Path::new("/r"))
                .unwrap();
        let prompts = &events_by_recording[Path::new("/r/a.ogg")];
        assert_eq!((prompts["dog"].as_slice(), prompts["cat"].len()), (&[(1.0, 2.5), (9.0, 10.0)][..], 0));
        for (text, word) in [
            ("recording,prompt,start_s,end_s\na,dog,3,2\n", "3 to 2"),
            ("recording,prompt,start_s,end_s\na,dog,3,\n", "end_s is empty"),
            ("recording,prompt\na,dog\n", "start_s"),
            ("recording,prompt,start_s,end_s\n", "no recording"),
        ] {
            let error = format!("{:#}", read(text, Path::new(".")).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
