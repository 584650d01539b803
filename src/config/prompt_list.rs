//! Prompts on their own: as somebody sends them while the daemon runs, and as they are kept for its next start.
//!
//! A text that holds `[[prompt]]` tables and nothing else is checked by the same code as the configuration's, so that a prompt has
//! one set of rules; the way back is a text that gives the same prompts again.

use std::path::{Path, absolute};

use clapd_core::prompts::{Prompt, Rule};
use toml::{Table, Value};

use super::checker::{CheckOutcome, Checker};
use super::diagnostic::{Faults, Location, Recording};
use super::raw;
use super::section::LineIndex;
use super::{Environment, MAX_FILE_BYTES, RecordingNames};

/// Where a list of prompts comes from.
#[derive(Debug, Clone, Copy)]
pub enum PromptOrigin<'a> {
    /// A file: diagnostics name it, and a line.
    File(&'a Path),
    /// Somebody's request of this name: diagnostics name the key alone, and recordings have these names.
    Request(&'a str, &'a RecordingNames),
}

/// Reads and checks prompts; relative paths of recordings begin in `folder`. With them come the recordings that they name.
///
/// # Errors
/// Every fault at once.
pub fn parse_prompts(
    text: &str,
    origin: PromptOrigin<'_>,
    folder: &Path,
) -> Result<(Vec<Prompt>, Vec<Recording>), Faults> {
    let (path, lines) = match origin {
        PromptOrigin::File(path) => (path, LineIndex::of(text)),
        PromptOrigin::Request(name, _) => (Path::new(name), LineIndex::none()),
    };
    if text.len() as u64 > MAX_FILE_BYTES {
        let seen = format!("is longer than {MAX_FILE_BYTES} bytes, the most that prompts may have");
        return Err(Location::of_file(path).diagnostic(seen, "keep fewer prompts".into()).into());
    }
    let mut faults = Vec::new();
    let raw = raw::read_prompts(text, path, &lines, &mut faults);
    let environment = Environment::default();
    let mut check = Checker::new(folder, &environment, faults);
    if let PromptOrigin::Request(_, names) = origin {
        check = check.with_recording_names(names);
    }
    let prompts = check.check_prompts(&raw);
    let CheckOutcome { faults, recordings, .. } = check.into_outcome();
    match prompts {
        Some(prompts) if faults.is_empty() => Ok((prompts, recordings)),
        _ => Err(Faults::new(faults, recordings)),
    }
}

/// A prompt as it stands in a message, with every key that it has: recordings by their [`RecordingNames`].
pub fn prompt_table(prompt: &Prompt) -> Table {
    table(prompt, RecordingNames::name)
}

/// A prompt with every key that it has, and this for each of its recordings.
fn table(prompt: &Prompt, recording: impl Fn(&Path) -> String) -> Table {
    // Named one by one, so that a new part of a prompt is not forgotten here.
    let Prompt { id, text, audio, rule, contrast } = prompt;
    let Rule { start, stop, confirm, cooldown } = rule;
    let texts = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect());
    let mut table = Table::from_iter([
        ("id".to_owned(), Value::String(id.to_string())),
        ("start".to_owned(), number(f64::from(*start), &start.to_string())),
        ("stop".to_owned(), number(f64::from(*stop), &stop.to_string())),
        ("confirm".to_owned(), Value::Array([confirm.0, confirm.1].map(|n| Value::Integer(n.into())).into())),
        ("cooldown_s".to_owned(), Value::Float(cooldown.as_secs_f64())),
    ]);
    if let Some(text) = text {
        table.insert("text".into(), Value::String(text.clone()));
    }
    if !audio.is_empty() {
        table.insert("audio".into(), texts(&audio.iter().map(|path| recording(path)).collect::<Vec<_>>()));
    }
    if !contrast.is_empty() {
        table.insert("contrast".into(), texts(contrast));
    }
    table
}

/// Prompts as a file's text that [`parse_prompts`] makes the same prompts of.
///
/// # Errors
/// None that a checked prompt could bring about.
pub fn prompts_text(prompts: &[Prompt]) -> Result<String, toml::ser::Error> {
    // Whoever reads it may start from another folder.
    let path = |path: &Path| absolute(path).unwrap_or_else(|_| path.into()).to_string_lossy().into_owned();
    text(prompts.iter().map(|prompt| table(prompt, path)))
}

/// The same as a request's text, with the names of recordings.
///
/// # Errors
/// As [`prompts_text`].
pub fn request_text(prompts: &[Prompt]) -> Result<String, toml::ser::Error> {
    text(prompts.iter().map(prompt_table))
}

fn text(tables: impl Iterator<Item = Table>) -> Result<String, toml::ser::Error> {
    let tables = tables.map(Value::Table).collect();
    toml::to_string(&Table::from_iter([("prompt".to_owned(), Value::Array(tables))]))
}

/// The shortest decimal number that is the same 32-bit one: 4.2, and not 4.199999809.
fn number(wide: f64, shortest: &str) -> Value {
    Value::Float(shortest.parse().unwrap_or(wide))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clapd_core::prompts::PromptId;
    use proptest::prelude::*;

    use super::*;
    use crate::config::MAX_EMBEDDINGS;

    fn parse(text: &str) -> Result<Vec<Prompt>, String> {
        parse_with(text, &RecordingNames::default())
    }

    fn parse_with(text: &str, names: &RecordingNames) -> Result<Vec<Prompt>, String> {
        let parsed = parse_prompts(text, PromptOrigin::Request("prompts/set", names), Path::new("/"));
        parsed.map(|(prompts, _)| prompts).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_request_is_checked_as_the_configuration_is_and_has_no_lines() {
        for (text, error) in [
            (
                "[[prompt]]\ntext = \"a dog\"\nstart = 11\n",
                "prompts/set: prompt[0].start: 11 is not on the scale from 0 to 10; 6 is the usual start",
            ),
            (
                "[[prompt]]\ntext = \"a\"\n[[prompt]]\ntext = \"a\"\n",
                "prompts/set: prompt[1].text: \"a\" is taken; give each an `id` of its own",
            ),
            ("[[prompt]]\ntext = \"a\"\ntreshold = 1\n", "prompt[0].treshold: is not a known key"),
            ("[[source]]\nid = \"a\"\n[[prompt]]\ntext = \"a\"\n", "source: is not a known key"),
            ("prompt = []\n", "prompt: has no prompts"),
            ("", "prompt: is missing"),
        ] {
            let seen = parse(text).unwrap_err();
            assert!(seen.contains(error), "{text}: {seen}");
        }
    }

    #[test]
    fn a_request_names_recordings_that_are_known_and_no_other_file() {
        let text = |audio: &str| format!("[[prompt]]\nid = \"a\"\naudio = [{audio:?}]\n");
        let recordings = ["/etc/clapd/bark.wav", "/etc/clapd/other/bark.wav"];
        let file =
            |path| parse_prompts(&text(path), PromptOrigin::File(Path::new("p.toml")), Path::new("/")).unwrap().0;
        let mut names = RecordingNames::default();
        recordings.iter().for_each(|path| names.add(&file(path)));
        for path in recordings {
            let name = RecordingNames::name(Path::new(path));
            assert!(name.starts_with("bark.wav#") && !name.contains('/'), "{name}");
            assert_eq!(parse_with(&text(&name), &names), Ok(file(path)));
            let error = parse_with(&text(path), &names).unwrap_err();
            assert!(error.contains("is no recording that this node has; take a name from prompts/get"), "{error}");
        }
    }

    #[test]
    fn no_prompts_ask_for_more_embeddings_than_the_cache_has_room_for() {
        let list = |name: &str, count: usize| (0..count).map(|n| format!("\"{name}{n}\",")).collect::<String>();
        let prompts = |prompts: usize, contrast: usize, audio: usize| {
            let prompt = |n| {
                let (contrast, audio) = (list("c", contrast), list("a", audio));
                format!("[[prompt]]\ntext = \"t{n}\"\ncontrast = [{contrast}]\naudio = [{audio}]\n")
            };
            let text = (0..prompts).map(prompt).collect::<String>();
            let parsed = parse_prompts(&text, PromptOrigin::File(Path::new("prompts.toml")), Path::new("/"));
            parsed.map(|(prompts, _)| prompts).map_err(|faults| faults.to_string())
        };
        let all = prompts(1_000, 16, 32).unwrap();
        assert_eq!(all.iter().map(|prompt| prompt.texts().count() + prompt.audio.len()).sum::<usize>(), MAX_EMBEDDINGS);
        for over in [prompts(1_001, 16, 32), prompts(1, 17, 1), prompts(1, 1, 33)] {
            assert!(over.unwrap_err().contains("allowed"));
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_comes_back(
            id in "[a-zA-Z0-9_-]{1,64}", text in "[a-z\"\\\\ '\u{e4}\u{72ac}]{0,40}x", start in 0.0_f32..10.0, share in 0.0_f32..1.0,
            n in 1_u32..50, more in 0_u32..50, cooldown in 0_u64..86_400_000,
            contrast in prop::collection::vec("[a-w]{1,9}y", 0..4), audio in prop::collection::vec("/[a-c]/[a-z\u{e4} ]{1,9}", 0..4),
        ) {
            let rule = Rule { start, stop: start * share, confirm: (n, n + more), cooldown: Duration::from_millis(cooldown) };
            let text = Some(text.trim().to_owned());
            let audio = audio.into_iter().map(Into::into).collect();
            let prompts = vec![Prompt { id: PromptId::new(&id).unwrap(), text, audio, rule, contrast }];
            let stored = prompts_text(&prompts).unwrap();
            let read = parse_prompts(&stored, PromptOrigin::File(Path::new("prompts.toml")), Path::new("/"));
            prop_assert_eq!(read.map(|(prompts, _)| prompts), Ok(prompts.clone()), "{}", stored);
            let mut names = RecordingNames::default();
            names.add(&prompts);
            let sent = request_text(&prompts).unwrap();
            prop_assert_eq!(parse_with(&sent, &names), Ok(prompts), "{}", sent);
        }
    }
}
