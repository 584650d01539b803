//! A line of the journal: an event as JSON, frozen by the tests below. Later versions read the lines of earlier ones: a key keeps its
//! meaning, and others may come.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::json;

use super::JournalEntry;
use crate::levels::{EventLevels, LevelReference};

/// The most bytes of a line: a prompt's text has 300 letters, and the rest are ids and numbers.
pub(super) const MAX_LINE: usize = 8_192;

#[derive(Deserialize)]
struct Line {
    id: String,
    source: String,
    prompt_id: String,
    prompt: String,
    score: f32,
    peak: f32,
    started_at: String,
    duration_s: f64,
    laeq: Option<f32>,
    lafmax: Option<f32>,
    level_unit: Option<String>,
    clip: Option<String>,
}

/// With its line end.
pub(super) fn write(entry: &JournalEntry) -> String {
    let rounded = |value: f32, scale: f64| (f64::from(value) * scale).round() / scale;
    let mut line = json!({
        "id": entry.id,
        "source": entry.source,
        "prompt_id": entry.prompt_id,
        "prompt": entry.prompt,
        "score": rounded(entry.score, 100.0),
        "peak": rounded(entry.peak, 100.0),
        "started_at": time_of_day(entry.started_at),
        "duration_s": (entry.duration.as_secs_f64() * 1e3).round() / 1e3,
    });
    if let Some(levels) = &entry.levels {
        line["laeq"] = rounded(levels.laeq, 10.0).into();
        line["lafmax"] = rounded(levels.lafmax, 10.0).into();
        line["level_unit"] = levels.reference.unit().into();
    }
    if let Some(clip) = &entry.clip {
        line["clip"] = clip.as_str().into();
    }
    format!("{line}\n")
}

/// None where it is no whole line of ours.
pub(super) fn read(line: &[u8]) -> Option<JournalEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let reference = line.level_unit.as_deref().and_then(LevelReference::of_unit);
    let levels = match (line.laeq, line.lafmax, reference) {
        (Some(laeq), Some(lafmax), Some(reference)) => Some(EventLevels { laeq, lafmax, reference }),
        _ => None,
    };
    Some(JournalEntry {
        id: line.id,
        source: line.source,
        prompt_id: line.prompt_id,
        prompt: line.prompt,
        score: line.score,
        peak: line.peak,
        started_at: humantime::parse_rfc3339(&line.started_at).ok()?,
        duration: duration(line.duration_s)?,
        levels,
        clip: line.clip,
    })
}

/// To the millisecond, as it was written.
fn duration(seconds: f64) -> Option<Duration> {
    /// Three hundred years.
    const LONGEST_S: f64 = 1e10;
    (0.0..LONGEST_S).contains(&seconds).then(|| Duration::from_millis((seconds * 1e3).round() as u64))
}

/// UTC. A clock that was never set stands at 1970, and one beyond 9999 is taken for that.
fn time_of_day(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event that lasted for 3.25 s, some seconds after the evening of 2026-11-22 began.
    pub(in crate::journal) fn entry(seconds: u64) -> JournalEntry {
        JournalEntry {
            id: format!("9f-mic-{seconds}"),
            source: "mic".into(),
            prompt_id: "dog".into(),
            prompt: "a \"dog\" barking".into(),
            score: 7.126,
            peak: 8.0,
            started_at: UNIX_EPOCH + Duration::from_secs(1_795_370_400 + seconds),
            duration: Duration::from_millis(3_250),
            levels: None,
            clip: None,
        }
    }

    #[test]
    fn a_line_is_frozen() {
        let mut entry = entry(0);
        let bare = r#"{"duration_s":3.25,"id":"9f-mic-0","peak":8.0,"prompt":"a \"dog\" barking","prompt_id":"dog","score":7.13,"source":"mic","started_at":"2026-11-22T18:00:00.000Z"}"#;
        let as_value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(as_value(&write(&entry)), as_value(bare));
        assert!(write(&entry).ends_with("}\n"));
        let reference = LevelReference::SoundPressure;
        entry.levels = Some(EventLevels { laeq: 61.24, lafmax: 70.0, reference });
        entry.clip = Some("c1".into());
        let line = as_value(&write(&entry));
        assert_eq!(
            (&line["laeq"], &line["lafmax"], &line["level_unit"]),
            (&json!(61.2), &json!(70.0), &json!("dB(A)"))
        );
        assert_eq!(line["clip"], "c1");
        // What a later version adds is passed over, and what is missing of the levels is no level.
        assert_eq!(read(bare.replace('{', "{\"later\":[1],\"laeq\":1,").as_bytes()).unwrap().levels, None);
    }

    proptest! {
        #[test]
        fn entries_come_back(prompt in ".{0,300}", ms in 0_u64..1 << 42, laeq in prop::option::of(-144.0_f32..140.0)) {
            let tenth = |level: f32| (f64::from(level) * 10.0).round() as f32 / 10.0;
            let levels = laeq.map(|laeq| EventLevels { laeq: tenth(laeq), lafmax: tenth(laeq), reference: LevelReference::FullScale });
            let entry = JournalEntry { prompt, duration: Duration::from_millis(ms), levels, score: 7.0, ..entry(5) };
            let line = write(&entry);
            prop_assert!(line.len() <= MAX_LINE && line.matches('\n').count() == 1, "{}", line);
            prop_assert_eq!(read(line.trim_end().as_bytes()), Some(entry));
        }

        #[test]
        fn noise_is_no_entry_and_no_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read(&noise), None);
        }
    }
}
