//! The configuration as it is written.
//!
//! In: the text. Out: [`Written`]: every known key with its place, whatever its value is worth; and faults of shape: syntax,
//! types, unknown keys, missing keys, keys that exclude each other.
//! Never: fills in a default, judges a value, or stops at the first fault.

use std::path::Path;

use toml::de::DeTable;

use super::finding::{Finding, Place};
use super::section::{At, Lines, Reading, Section, TextOrInteger};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) node_id: Option<At<String>>,
    pub(super) bundle: Option<At<String>>,
    pub(super) threads: Option<At<f64>>,
    pub(super) hop_s: Option<At<f64>>,
    pub(super) gate_db: Option<At<f64>>,
    pub(super) sources: Vec<WrittenSource>,
    pub(super) prompts: Vec<WrittenPrompt>,
    pub(super) mqtt: Option<WrittenMqtt>,
    pub(super) outbox: Option<WrittenOutbox>,
    pub(super) log: Option<WrittenLog>,
}

/// A `[[source]]`.
#[derive(Debug)]
pub(super) struct WrittenSource {
    pub(super) place: Place,
    pub(super) id: Option<At<String>>,
    pub(super) device: Option<At<String>>,
    pub(super) file: Option<At<String>>,
    pub(super) looped: Option<At<bool>>,
    pub(super) realtime: Option<At<bool>>,
    pub(super) stdin: Option<At<bool>>,
    pub(super) channel: Option<At<TextOrInteger>>,
}

/// A `[[prompt]]`.
#[derive(Debug)]
pub(super) struct WrittenPrompt {
    pub(super) place: Place,
    pub(super) id: Option<At<String>>,
    pub(super) text: Option<At<String>>,
    pub(super) audio: Option<At<Vec<At<String>>>>,
    pub(super) start: Option<At<f64>>,
    pub(super) stop: Option<At<f64>>,
    pub(super) confirm: Option<At<Vec<At<i64>>>>,
    pub(super) cooldown_s: Option<At<f64>>,
    pub(super) contrast: Option<At<Vec<At<String>>>>,
}

/// `[mqtt]`.
#[derive(Debug)]
pub(super) struct WrittenMqtt {
    pub(super) url: Option<At<String>>,
    pub(super) password_file: Option<At<String>>,
    pub(super) ca_file: Option<At<String>>,
    pub(super) client_cert: Option<At<String>>,
    pub(super) client_key: Option<At<String>>,
    pub(super) discovery_prefix: Option<At<String>>,
}

/// `[outbox]`.
#[derive(Debug)]
pub(super) struct WrittenOutbox {
    pub(super) dir: Option<At<String>>,
    pub(super) max_events: Option<At<f64>>,
    pub(super) max_age_h: Option<At<f64>>,
}

/// `[log]`.
#[derive(Debug)]
pub(super) struct WrittenLog {
    pub(super) scores: Option<At<String>>,
    pub(super) max_mb: Option<At<f64>>,
}

/// Reads the text; what is wrong with its shape goes to `faults`.
pub(super) fn read(text: &str, path: &Path, faults: &mut Vec<Finding>) -> Written {
    parse(text, path, &Lines::of(text), faults, document)
}

/// The same for a text that holds prompts and nothing else.
pub(super) fn read_prompts(text: &str, path: &Path, lines: &Lines, faults: &mut Vec<Finding>) -> Vec<WrittenPrompt> {
    parse(text, path, lines, faults, |mut root, reading| {
        let written = prompts(&mut root, reading);
        root.finish(reading);
        written
    })
}

fn parse<T>(
    text: &str,
    path: &Path,
    lines: &Lines,
    faults: &mut Vec<Finding>,
    document: impl FnOnce(Section<'_, '_>, &mut Reading<'_>) -> T,
) -> T {
    let whole = Place::of_file(path);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error
            .span()
            .and_then(|span| lines.at(span.start))
            .map_or_else(|| whole.clone(), |line| whole.at_line(line));
        faults.push(place.finding(error.message().replace('\n', " "), "correct the TOML syntax".into()));
    }
    let shape_from = faults.len();
    let mut reading = Reading { lines, faults, broken: !errors.is_empty() };
    let written = document(Section::new(table.get_ref(), whole), &mut reading);
    forget_echoes(faults, shape_from);
    written
}

/// What stands on a line with a syntax error was read wrongly: whatever else seems to be amiss there follows from it.
fn forget_echoes(faults: &mut Vec<Finding>, shape_from: usize) {
    let broken: Vec<_> = faults[..shape_from].iter().filter_map(|fault| fault.place.line).collect();
    let mut index = 0;
    faults.retain(|fault| {
        index += 1;
        index <= shape_from || !fault.place.line.is_some_and(|line| broken.contains(&line))
    });
}

fn document(mut root: Section<'_, '_>, reading: &mut Reading<'_>) -> Written {
    let mut written = Written::default();
    if let Some(mut node) = root.section("node", reading) {
        written.node_id = node.string("id", reading);
        node.finish(reading);
    }
    if let Some(mut model) = root.section("model", reading) {
        written.bundle = model.string("bundle", reading);
        written.threads = model.number("threads", reading);
        model.finish(reading);
    }
    if !root.has("source") {
        reading.missing(
            &root.place.child(None, "source"),
            "is missing",
            "add `[[source]]` with `id` and `device = \"default\"`",
        );
    }
    written.sources = root.sections("source", reading).into_iter().map(|section| source(section, reading)).collect();
    if let Some(mut scoring) = root.section("scoring", reading) {
        written.hop_s = scoring.number("hop_s", reading);
        written.gate_db = scoring.number("gate_db", reading);
        scoring.finish(reading);
    }
    written.prompts = prompts(&mut root, reading);
    written.mqtt = root.section("mqtt", reading).map(|section| mqtt(section, reading));
    written.outbox = root.section("outbox", reading).map(|section| outbox(section, reading));
    written.log = root.section("log", reading).map(|section| log(section, reading));
    root.finish(reading);
    written
}

fn prompts(root: &mut Section<'_, '_>, reading: &mut Reading<'_>) -> Vec<WrittenPrompt> {
    let missing = if root.has("prompt") { "has no prompts" } else { "is missing" };
    let faults = reading.faults.len();
    let sections = root.sections("prompt", reading);
    if sections.is_empty() && reading.faults.len() == faults {
        let place = root.place.child(None, "prompt");
        reading.missing(&place, missing, "add `[[prompt]]` with `text = \"a dog barking\"`");
    }
    sections.into_iter().map(|section| prompt(section, reading)).collect()
}

fn source(mut section: Section<'_, '_>, reading: &mut Reading<'_>) -> WrittenSource {
    let kinds: Vec<&str> = ["device", "file", "stdin"].into_iter().filter(|kind| section.has(kind)).collect();
    match kinds.as_slice() {
        [] => reading.missing(&section.place, "has none of `device`, `file` and `stdin`", "add `device = \"default\"`"),
        [_] => {}
        several => {
            let seen = format!("has {}, and a source is one of them", several.join(" and "));
            reading.fault(&section.place, seen, "make a [[source]] of each");
        }
    }
    let written = WrittenSource {
        place: section.place.clone(),
        id: section.required("id", "mic", reading),
        device: section.string("device", reading),
        file: section.string("file", reading),
        looped: section.boolean("loop", reading),
        realtime: section.boolean("realtime", reading),
        stdin: section.boolean("stdin", reading),
        channel: section.text_or_integer("channel", reading),
    };
    section.finish(reading);
    written
}

fn prompt(mut section: Section<'_, '_>, reading: &mut Reading<'_>) -> WrittenPrompt {
    if !section.has("text") && !section.has("audio") {
        let place = section.place.child(section.place.line, "text");
        reading.missing(&place, "is missing, and so is `audio`", "add `text = \"a dog barking\"`, or recordings of it");
    }
    let written = WrittenPrompt {
        place: section.place.clone(),
        id: section.string("id", reading),
        text: section.string("text", reading),
        audio: section.texts("audio", reading),
        start: section.number("start", reading),
        stop: section.number("stop", reading),
        confirm: section.integers("confirm", reading),
        cooldown_s: section.number("cooldown_s", reading),
        contrast: section.texts("contrast", reading),
    };
    section.finish(reading);
    written
}

fn mqtt(mut section: Section<'_, '_>, reading: &mut Reading<'_>) -> WrittenMqtt {
    let written = WrittenMqtt {
        url: section.required("url", "mqtt://user@host:1883", reading),
        password_file: section.string("password_file", reading),
        ca_file: section.string("ca_file", reading),
        client_cert: section.string("client_cert", reading),
        client_key: section.string("client_key", reading),
        discovery_prefix: section.string("discovery_prefix", reading),
    };
    section.finish(reading);
    written
}

fn outbox(mut section: Section<'_, '_>, reading: &mut Reading<'_>) -> WrittenOutbox {
    let written = WrittenOutbox {
        dir: section.string("dir", reading),
        max_events: section.number("max_events", reading),
        max_age_h: section.number("max_age_h", reading),
    };
    section.finish(reading);
    written
}

fn log(mut section: Section<'_, '_>, reading: &mut Reading<'_>) -> WrittenLog {
    let written = WrittenLog {
        scores: section.required("scores", "/var/lib/clapd/scores.jsonl", reading),
        max_mb: section.number("max_mb", reading),
    };
    section.finish(reading);
    written
}
