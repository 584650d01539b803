//! The configuration as it is written.
//!
//! A [`RawConfig`] holds every known key with its location, whatever its value is worth, and no default. Faults here are of shape:
//! syntax, types, unknown keys, missing keys, keys that exclude each other; the first does not end the reading.

use std::path::Path;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Location};
use super::section::{LineIndex, Located, Section, SectionReader, TextOrInteger, TextOrNumber};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct RawConfig {
    pub(super) node_id: Option<Located<String>>,
    pub(super) bundle: Option<Located<String>>,
    pub(super) threads: Option<Located<f64>>,
    pub(super) hop_s: Option<Located<f64>>,
    pub(super) gate_db: Option<Located<f64>>,
    pub(super) sources: Vec<RawSource>,
    pub(super) prompts: Vec<RawPrompt>,
    pub(super) mqtt: Option<RawMqtt>,
    pub(super) outbox: Option<RawOutbox>,
    pub(super) log: Option<RawLog>,
    pub(super) http: Option<RawHttp>,
    pub(super) history: Option<RawHistory>,
    pub(super) latitude: Option<Located<f64>>,
    pub(super) longitude: Option<Located<f64>>,
    pub(super) quiet: Vec<RawQuiet>,
    pub(super) levels: Option<RawLevels>,
    pub(super) journal: Option<RawJournal>,
}

/// `[history]`.
#[derive(Debug)]
pub(super) struct RawHistory {
    pub(super) hours: Option<Located<f64>>,
}

/// A `[[quiet]]`.
#[derive(Debug)]
pub(super) struct RawQuiet {
    pub(super) location: Location,
    pub(super) from: Option<Located<String>>,
    pub(super) to: Option<Located<String>>,
    pub(super) days: Option<Located<Vec<Located<String>>>>,
    pub(super) prompts: Option<Located<Vec<Located<String>>>>,
    pub(super) sources: Option<Located<Vec<Located<String>>>>,
}

/// A `[[source]]`.
#[derive(Debug)]
pub(super) struct RawSource {
    pub(super) location: Location,
    pub(super) id: Option<Located<String>>,
    pub(super) device: Option<Located<String>>,
    pub(super) file: Option<Located<String>>,
    pub(super) looped: Option<Located<bool>>,
    pub(super) realtime: Option<Located<bool>>,
    pub(super) stdin: Option<Located<bool>>,
    pub(super) url: Option<Located<String>>,
    pub(super) user: Option<Located<String>>,
    pub(super) password_file: Option<Located<String>>,
    pub(super) transport: Option<Located<String>>,
    pub(super) listen: Option<Located<String>>,
    pub(super) raw: Option<Located<String>>,
    pub(super) channel: Option<Located<TextOrInteger>>,
    pub(super) gain_db: Option<Located<TextOrNumber>>,
    pub(super) full_scale_db: Option<Located<f64>>,
    pub(super) correction_file: Option<Located<String>>,
}

/// A `[[prompt]]`.
#[derive(Debug)]
pub(super) struct RawPrompt {
    pub(super) location: Location,
    pub(super) id: Option<Located<String>>,
    pub(super) text: Option<Located<String>>,
    pub(super) audio: Option<Located<Vec<Located<String>>>>,
    pub(super) start: Option<Located<f64>>,
    pub(super) stop: Option<Located<f64>>,
    pub(super) confirm: Option<Located<Vec<Located<i64>>>>,
    pub(super) cooldown_s: Option<Located<f64>>,
    pub(super) contrast: Option<Located<Vec<Located<String>>>>,
}

/// `[mqtt]`.
#[derive(Debug)]
pub(super) struct RawMqtt {
    pub(super) url: Option<Located<String>>,
    pub(super) password_file: Option<Located<String>>,
    pub(super) ca_file: Option<Located<String>>,
    pub(super) client_cert: Option<Located<String>>,
    pub(super) client_key: Option<Located<String>>,
    pub(super) discovery_prefix: Option<Located<String>>,
}

/// `[outbox]`.
#[derive(Debug)]
pub(super) struct RawOutbox {
    pub(super) dir: Option<Located<String>>,
    pub(super) max_events: Option<Located<f64>>,
    pub(super) max_age_h: Option<Located<f64>>,
}

/// `[log]`.
#[derive(Debug)]
pub(super) struct RawLog {
    pub(super) scores: Option<Located<String>>,
    pub(super) max_mb: Option<Located<f64>>,
}

/// `[http]`.
#[derive(Debug)]
pub(super) struct RawHttp {
    pub(super) location: Location,
    pub(super) listen: Option<Located<String>>,
    pub(super) access: Option<Located<String>>,
    pub(super) read_token_file: Option<Located<String>>,
    pub(super) write_token_file: Option<Located<String>>,
    pub(super) trusted_proxy: Option<Located<Vec<Located<String>>>>,
    pub(super) allowed_hosts: Option<Located<Vec<Located<String>>>>,
}

/// `[levels]`.
#[derive(Debug)]
pub(super) struct RawLevels {
    pub(super) publish: Option<Located<String>>,
}

/// `[journal]`.
#[derive(Debug)]
pub(super) struct RawJournal {
    pub(super) max_mb: Option<Located<f64>>,
    pub(super) max_days: Option<Located<f64>>,
}

/// Reads the text; what is wrong with its shape goes to `faults`.
pub(super) fn read(text: &str, path: &Path, faults: &mut Vec<Diagnostic>) -> RawConfig {
    parse(text, path, &LineIndex::of(text), faults, document)
}

/// The same for a text that holds prompts and nothing else.
pub(super) fn read_prompts(text: &str, path: &Path, lines: &LineIndex, faults: &mut Vec<Diagnostic>) -> Vec<RawPrompt> {
    parse(text, path, lines, faults, |mut root, reader| {
        let raw = prompts(&mut root, reader);
        root.finish(reader);
        raw
    })
}

fn parse<T>(
    text: &str,
    path: &Path,
    lines: &LineIndex,
    faults: &mut Vec<Diagnostic>,
    document: impl FnOnce(Section<'_, '_>, &mut SectionReader<'_>) -> T,
) -> T {
    let whole = Location::of_file(path);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let location = error
            .span()
            .and_then(|span| lines.at(span.start))
            .map_or_else(|| whole.clone(), |line| whole.at_line(line));
        faults.push(location.diagnostic(error.message().replace('\n', " "), "correct the TOML syntax".into()));
    }
    let shape_from = faults.len();
    let mut reader = SectionReader { lines, faults, broken: !errors.is_empty() };
    let raw = document(Section::new(table.get_ref(), whole), &mut reader);
    remove_echoes(faults, shape_from);
    raw
}

/// What stands on a line with a syntax error was read wrongly: whatever else seems to be amiss there follows from it.
fn remove_echoes(faults: &mut Vec<Diagnostic>, shape_from: usize) {
    let broken: Vec<_> = faults[..shape_from].iter().filter_map(|fault| fault.location.line).collect();
    let mut index = 0;
    faults.retain(|fault| {
        index += 1;
        index <= shape_from || !fault.location.line.is_some_and(|line| broken.contains(&line))
    });
}

fn document(mut root: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawConfig {
    let mut raw = RawConfig::default();
    if let Some(mut node) = root.section("node", reader) {
        raw.node_id = node.string("id", reader);
        raw.latitude = node.number("latitude", reader);
        raw.longitude = node.number("longitude", reader);
        node.finish(reader);
    }
    if let Some(mut model) = root.section("model", reader) {
        raw.bundle = model.string("bundle", reader);
        raw.threads = model.number("threads", reader);
        model.finish(reader);
    }
    if !root.has("source") {
        reader.missing(
            &root.location.child(None, "source"),
            "is missing",
            "add `[[source]]` with `id` and `device = \"default\"`",
        );
    }
    raw.sources = root.sections("source", reader).into_iter().map(|section| source(section, reader)).collect();
    if let Some(mut scoring) = root.section("scoring", reader) {
        raw.hop_s = scoring.number("hop_s", reader);
        raw.gate_db = scoring.number("gate_db", reader);
        scoring.finish(reader);
    }
    raw.prompts = prompts(&mut root, reader);
    raw.mqtt = root.section("mqtt", reader).map(|section| mqtt(section, reader));
    raw.outbox = root.section("outbox", reader).map(|section| outbox(section, reader));
    raw.log = root.section("log", reader).map(|section| log(section, reader));
    raw.http = root.section("http", reader).map(|section| http(section, reader));
    raw.history = root.section("history", reader).map(|mut section| {
        let raw = RawHistory { hours: section.number("hours", reader) };
        section.finish(reader);
        raw
    });
    raw.quiet = root.sections("quiet", reader).into_iter().map(|section| quiet(section, reader)).collect();
    raw.levels = root.section("levels", reader).map(|section| levels(section, reader));
    raw.journal = root.section("journal", reader).map(|section| journal(section, reader));
    root.finish(reader);
    raw
}

fn prompts(root: &mut Section<'_, '_>, reader: &mut SectionReader<'_>) -> Vec<RawPrompt> {
    let missing = if root.has("prompt") { "has no prompts" } else { "is missing" };
    let faults = reader.faults.len();
    let sections = root.sections("prompt", reader);
    if sections.is_empty() && reader.faults.len() == faults {
        let location = root.location.child(None, "prompt");
        reader.missing(&location, missing, "add `[[prompt]]` with `text = \"a dog barking\"`");
    }
    sections.into_iter().map(|section| prompt(section, reader)).collect()
}

fn source(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawSource {
    const KINDS: [&str; 5] = ["device", "file", "stdin", "url", "listen"];
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
    match kinds.as_slice() {
        [] => {
            let missing = "has none of `device`, `file`, `stdin`, `url` and `listen`";
            reader.missing(&section.location, missing, "add `device = \"default\"`");
        }
        [_] => {}
        several => {
            let seen = format!("has {}, and a source is one of them", several.join(" and "));
            reader.fault(&section.location, seen, "make a [[source]] of each");
        }
    }
    let raw = RawSource {
        location: section.location.clone(),
        id: section.required("id", "mic", reader),
        device: section.string("device", reader),
        file: section.string("file", reader),
        looped: section.boolean("loop", reader),
        realtime: section.boolean("realtime", reader),
        stdin: section.boolean("stdin", reader),
        url: section.string("url", reader),
        user: section.string("user", reader),
        password_file: section.string("password_file", reader),
        transport: section.string("transport", reader),
        listen: section.string("listen", reader),
        raw: section.string("raw", reader),
        channel: section.text_or_integer("channel", reader),
        gain_db: section.text_or_number("gain_db", reader),
        full_scale_db: section.number("full_scale_db", reader),
        correction_file: section.string("correction_file", reader),
    };
    section.finish(reader);
    raw
}

fn prompt(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawPrompt {
    if !section.has("text") && !section.has("audio") {
        let location = section.location.child(section.location.line, "text");
        reader.missing(
            &location,
            "is missing, and so is `audio`",
            "add `text = \"a dog barking\"`, or recordings of it",
        );
    }
    let raw = RawPrompt {
        location: section.location.clone(),
        id: section.string("id", reader),
        text: section.string("text", reader),
        audio: section.texts("audio", reader),
        start: section.number("start", reader),
        stop: section.number("stop", reader),
        confirm: section.integers("confirm", reader),
        cooldown_s: section.number("cooldown_s", reader),
        contrast: section.texts("contrast", reader),
    };
    section.finish(reader);
    raw
}

fn mqtt(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawMqtt {
    let raw = RawMqtt {
        url: section.required("url", "mqtt://user@host:1883", reader),
        password_file: section.string("password_file", reader),
        ca_file: section.string("ca_file", reader),
        client_cert: section.string("client_cert", reader),
        client_key: section.string("client_key", reader),
        discovery_prefix: section.string("discovery_prefix", reader),
    };
    section.finish(reader);
    raw
}

fn outbox(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawOutbox {
    let raw = RawOutbox {
        dir: section.string("dir", reader),
        max_events: section.number("max_events", reader),
        max_age_h: section.number("max_age_h", reader),
    };
    section.finish(reader);
    raw
}

fn log(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawLog {
    let raw = RawLog {
        scores: section.required("scores", "/var/lib/clapd/scores.jsonl", reader),
        max_mb: section.number("max_mb", reader),
    };
    section.finish(reader);
    raw
}

fn http(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawHttp {
    let raw = RawHttp {
        location: section.location.clone(),
        listen: section.string("listen", reader),
        access: section.string("access", reader),
        read_token_file: section.string("read_token_file", reader),
        write_token_file: section.string("write_token_file", reader),
        trusted_proxy: section.texts("trusted_proxy", reader),
        allowed_hosts: section.texts("allowed_hosts", reader),
    };
    section.finish(reader);
    raw
}

fn levels(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawLevels {
    let raw = RawLevels { publish: section.string("publish", reader) };
    section.finish(reader);
    raw
}

fn quiet(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawQuiet {
    let raw = RawQuiet {
        location: section.location.clone(),
        from: section.required("from", "22:00", reader),
        to: section.required("to", "07:00", reader),
        days: section.texts("days", reader),
        prompts: section.texts("prompts", reader),
        sources: section.texts("sources", reader),
    };
    section.finish(reader);
    raw
}

fn journal(mut section: Section<'_, '_>, reader: &mut SectionReader<'_>) -> RawJournal {
    let raw = RawJournal { max_mb: section.number("max_mb", reader), max_days: section.number("max_days", reader) };
    section.finish(reader);
    raw
}
