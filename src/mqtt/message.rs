//! The wire messages: scores, events, health and the rest as JSON, frozen by the tests below.
//!
//! A field is never renamed or taken away, since others read it; others may come beside it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clapd_core::score::Score;
use clapd_core::text::shorten;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::Outcome;
use crate::health::{Health, QuietHealth, SourceHealth, ThreadHealth};
use crate::levels::{EventLevels, LevelReference, NewLevel};
use crate::outbox::EventRecord;

/// Payloads of `status`.
pub(super) const ONLINE: &str = "online";
pub(super) const STOPPED: &str = "stopped";
pub(super) const OFFLINE: &str = "offline";

/// Payloads of `state`.
pub(super) const ON: &str = "ON";
pub(super) const OFF: &str = "OFF";

/// Types of `event`.
pub(super) const STARTED: &str = "started";
pub(super) const ENDED: &str = "ended";

/// What runs on this node; the payload of `info`.
#[derive(Debug, Clone, Serialize)]
pub struct Info {
    /// clapd's version.
    pub version: String,
    /// The bundle's name.
    pub bundle: String,
    /// The version of the bundle's content.
    pub bundle_version: String,
    /// Changes whenever a score could.
    pub pipeline_id: String,
}

#[derive(Serialize)]
struct InfoPayload<'a> {
    #[serde(flatten)]
    info: &'a Info,
    instance: &'a str,
}

/// What we read of somebody's `info`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct AnnouncedInfo {
    pub(super) version: Option<String>,
    /// Former versions have none.
    pub(super) instance: Option<String>,
}

impl AnnouncedInfo {
    /// None where it is no such thing.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// Who that is, in the log.
    pub(super) fn in_words(&self) -> String {
        match &self.version {
            Some(version) => format!("another clapd {}", shorten(version)),
            None => "another clapd".into(),
        }
    }
}

#[derive(Serialize)]
struct ScorePayload {
    score: f64,
    cosine: f64,
    at: String,
}

#[derive(Serialize)]
struct EventPayload<'a> {
    event_type: &'static str,
    id: &'a str,
    prompt: &'a str,
    score: f64,
    peak: f64,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    /// Of an end, where somebody metered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    laeq: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lafmax: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level_unit: Option<&'static str>,
}

#[derive(Serialize)]
struct LevelPayload {
    /// `second` or `minute`.
    period: &'static str,
    laeq: f64,
    lafmax: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    la10: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    la50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    la90: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lzeq: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak: Option<f64>,
    unit: &'static str,
    calibrated: bool,
    at: String,
}

#[derive(Serialize)]
struct ResponsePayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<&'a Value>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

#[derive(Serialize)]
struct HealthPayload<'a> {
    uptime_s: u64,
    /// `disk`, or `memory` where events end with the daemon.
    outbox: &'static str,
    events_waiting: u64,
    events_dropped: u64,
    scores_dropped: u64,
    reconnects: u64,
    refused: u64,
    events_unconfirmed: u64,
    events_set_aside: u64,
    commands_dropped: u64,
    /// Left out where all is well, which is nearly everywhere.
    #[serde(skip_serializing_if = "is_zero")]
    names_taken: u64,
    /// The same.
    #[serde(skip_serializing_if = "is_zero")]
    journal_lost: u64,
    sources: BTreeMap<&'a str, SourcePayload>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    threads: BTreeMap<&'a str, ThreadPayload>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quiet: Vec<QuietPayload<'a>>,
}

/// A time in which no events begin.
#[derive(Serialize)]
struct QuietPayload<'a> {
    until: String,
    /// `hours`, or `snooze`.
    by: &'static str,
    /// Left out where it is all of them.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    sources: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    prompts: &'a [String],
}

#[derive(Serialize)]
struct ThreadPayload {
    state: &'static str,
    quiet_s: u64,
}

#[derive(Serialize)]
struct SourcePayload {
    state: &'static str,
    /// `null` before there was a second of sound.
    level_db: Option<i32>,
    /// Of a source that takes the best.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    samples_lost: u64,
    samples_bad: u64,
    reopens: u64,
    stream_errors: u64,
    windows_scored: u64,
    windows_skipped: u64,
    windows_gated: u64,
    events_started: u64,
    windows_failed: u64,
    /// Left out while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    loudest_db: Option<i32>,
    /// Of a source that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain_db: Option<i32>,
}

/// The payload of `score`.
pub(super) fn score(score: Score, at: SystemTime) -> serde_json::Result<Vec<u8>> {
    let cosine = rounded(score.cosine, 4);
    serde_json::to_vec(&ScorePayload { score: rounded(score.score, 2), cosine, at: time_of_day(at) })
}

/// The payload of `event`.
///
/// # Errors
/// What no payload of ours does: a number or a key that JSON has no form for.
pub fn event(record: &EventRecord) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&EventPayload {
        event_type: if record.duration.is_some() { ENDED } else { STARTED },
        id: &record.id,
        prompt: &record.prompt,
        score: rounded(record.score, 2),
        peak: rounded(record.peak, 2),
        started_at: time_of_day(record.started_at),
        ended_at: record.duration.map(|duration| time_of_day(record.started_at + duration)),
        duration_s: record.duration.map(|duration| (duration.as_secs_f64() * 1e3).round() / 1e3),
        laeq: record.levels.map(|levels| rounded(levels.laeq, 1)),
        lafmax: record.levels.map(|levels| rounded(levels.lafmax, 1)),
        level_unit: record.levels.map(|levels| levels.reference.unit()),
    })
}

/// Levels that have as many digits as any.
pub(super) const LONGEST_LEVELS: EventLevels =
    EventLevels { laeq: -144.4, lafmax: -144.4, reference: LevelReference::FullScale };

/// The payload of `level`.
pub(super) fn level(reference: LevelReference, level: &NewLevel) -> serde_json::Result<Vec<u8>> {
    let db = |level: f32| rounded(level, 1);
    let (unit, calibrated) = (reference.unit(), reference.is_calibrated());
    serde_json::to_vec(&match level {
        NewLevel::Second(second) => LevelPayload {
            period: "second",
            laeq: db(second.laeq),
            lafmax: db(second.lafmax),
            la10: None,
            la50: None,
            la90: None,
            lzeq: Some(db(second.lzeq)),
            peak: Some(db(second.peak)),
            unit,
            calibrated,
            at: time_of_day(second.at),
        },
        NewLevel::Minute(minute) => LevelPayload {
            period: "minute",
            laeq: db(minute.laeq),
            lafmax: db(minute.lafmax),
            la10: Some(db(minute.la10)),
            la50: Some(db(minute.la50)),
            la90: Some(db(minute.la90)),
            lzeq: None,
            peak: None,
            unit,
            calibrated,
            at: time_of_day(minute.at),
        },
    })
}

/// The payload of `response`.
///
/// # Errors
/// What no payload of ours does: a number or a key that JSON has no form for.
pub fn response(transaction: Option<&Value>, outcome: &Outcome) -> serde_json::Result<Vec<u8>> {
    let (status, error, data) = match outcome {
        Ok(data) => ("ok", None, Some(data)),
        Err(refusal) => ("error", Some(refusal.text.as_str()), None),
    };
    serde_json::to_vec(&ResponsePayload { transaction, status, error, data })
}

/// The payload of `info`; `instance` is the random id of this installation.
pub(super) fn info(info: &Info, instance: &str) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&InfoPayload { info, instance })
}

/// The payload of `health`.
///
/// # Errors
/// What no payload of ours does: a number or a key that JSON has no form for.
pub fn health(health: &Health) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&HealthPayload {
        uptime_s: health.uptime.as_secs(),
        outbox: health.outbox,
        events_waiting: health.events_waiting,
        events_dropped: health.events_dropped,
        scores_dropped: health.scores_dropped,
        reconnects: health.reconnects,
        refused: health.refused,
        events_unconfirmed: health.events_unconfirmed,
        events_set_aside: health.events_set_aside,
        commands_dropped: health.commands_dropped,
        names_taken: health.names_taken,
        journal_lost: health.journal_lost,
        sources: health.sources.iter().map(|source| (source.id.as_str(), SourcePayload::of(source))).collect(),
        threads: health.threads.iter().map(|thread| (thread.name, ThreadPayload::of(thread))).collect(),
        quiet: health.quiet.iter().map(QuietPayload::of).collect(),
    })
}

/// The data of `snooze`'s response: what is quiet then, as health has it.
///
/// # Errors
/// What no payload of ours does: a number or a key that JSON has no form for.
pub fn quiet(quiet: &[QuietHealth]) -> serde_json::Result<Value> {
    let list = quiet.iter().map(|quiet| serde_json::to_value(QuietPayload::of(quiet)));
    Ok(serde_json::json!({ "quiet": list.collect::<serde_json::Result<Vec<_>>>()? }))
}

impl<'a> QuietPayload<'a> {
    fn of(quiet: &'a QuietHealth) -> Self {
        let by = if quiet.is_snooze { "snooze" } else { "hours" };
        Self { until: time_of_day(quiet.until), by, sources: &quiet.sources, prompts: &quiet.prompts }
    }
}

impl ThreadPayload {
    fn of(thread: &ThreadHealth) -> Self {
        Self { state: thread.state, quiet_s: thread.quiet.as_secs() }
    }
}

impl SourcePayload {
    fn of(source: &SourceHealth) -> Self {
        Self {
            state: source.state,
            level_db: source.level_db,
            channel: source.channel,
            warnings: source.warnings.clone(),
            samples_lost: source.samples_lost,
            samples_bad: source.samples_bad,
            reopens: source.reopens,
            stream_errors: source.stream_errors,
            windows_scored: source.windows_scored,
            windows_skipped: source.windows_skipped,
            windows_gated: source.windows_gated,
            events_started: source.events_started,
            windows_failed: source.windows_failed,
            loudest_db: source.loudest_db,
            gain_db: source.gain_db,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// So many decimals and no more: the rest is noise, and a payload is read by people. Widened first, so that 7.3 is not 7.3000002.
pub fn rounded(value: impl Into<f64>, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value.into() * scale).round() / scale
}

/// UTC with milliseconds and `Z`. A clock that was never set stands at 1970; what is before that, or after 9999, is shown as that.
pub fn time_of_day(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::{MinuteLevel, SecondLevel};

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_370_400_000 + millis)
    }

    fn text(payload: serde_json::Result<Vec<u8>>) -> String {
        String::from_utf8(payload.unwrap()).unwrap()
    }

    #[test]
    fn score_is_frozen() {
        let payload = text(score(Score { cosine: 0.412_34, score: 7.3 }, at(5)));
        assert_eq!(payload, r#"{"score":7.3,"cosine":0.4123,"at":"2026-11-22T18:00:00.005Z"}"#);
    }

    #[test]
    fn event_is_frozen() {
        let mut record = EventRecord {
            id: "9f-mic-0".into(),
            prompt: "a \"dog\" barking".into(),
            score: 7.126,
            peak: 8.0,
            started_at: at(0),
            duration: None,
            levels: None,
        };
        let started = r#"{"event_type":"started","id":"9f-mic-0","prompt":"a \"dog\" barking","score":7.13,"peak":8.0,"started_at":"2026-11-22T18:00:00.000Z"}"#;
        assert_eq!(text(event(&record)), started);
        record.duration = Some(Duration::from_micros(3_250_400));
        let ended = r#"{"event_type":"ended","id":"9f-mic-0","prompt":"a \"dog\" barking","score":7.13,"peak":8.0,"started_at":"2026-11-22T18:00:00.000Z","ended_at":"2026-11-22T18:00:03.250Z","duration_s":3.25}"#;
        assert_eq!(text(event(&record)), ended);
        record.levels = Some(EventLevels { laeq: 61.24, lafmax: 70.0, reference: LevelReference::SoundPressure });
        let with_levels = ended.replace(r#":3.25}"#, r#":3.25,"laeq":61.2,"lafmax":70.0,"level_unit":"dB(A)"}"#);
        assert_eq!(text(event(&record)), with_levels);
    }

    #[test]
    fn level_is_frozen() {
        let minute = MinuteLevel { at: at(0), laeq: 45.04, lafmax: 61.0, la10: 48.1, la50: 41.0, la90: 38.96 };
        let expected = r#"{"period":"minute","laeq":45.0,"lafmax":61.0,"la10":48.1,"la50":41.0,"la90":39.0,"unit":"dB(A)","calibrated":true,"at":"2026-11-22T18:00:00.000Z"}"#;
        assert_eq!(text(level(LevelReference::SoundPressure, &NewLevel::Minute(minute))), expected);
        let second = SecondLevel { at: at(0), laeq: -45.04, lafmax: -40.0, lzeq: -39.0, peak: -12.5 };
        let expected = r#"{"period":"second","laeq":-45.0,"lafmax":-40.0,"lzeq":-39.0,"peak":-12.5,"unit":"dBFS(A)","calibrated":false,"at":"2026-11-22T18:00:00.000Z"}"#;
        assert_eq!(text(level(LevelReference::FullScale, &NewLevel::Second(second))), expected);
    }

    #[test]
    fn response_is_frozen() {
        let transaction = Value::from("7");
        let done = text(response(Some(&transaction), &Ok(serde_json::json!({"paused": ["mic"]}))));
        assert_eq!(done, r#"{"transaction":"7","status":"ok","data":{"paused":["mic"]}}"#);
        assert_eq!(text(response(None, &Err("no".to_owned().into()))), r#"{"status":"error","error":"no"}"#);
    }

    #[test]
    fn info_is_frozen() {
        let node = Info {
            version: "0.1.0".into(),
            bundle: "mini".into(),
            bundle_version: "1".into(),
            pipeline_id: "ab".into(),
        };
        let payload = text(info(&node, "9f"));
        let expected = r#"{"version":"0.1.0","bundle":"mini","bundle_version":"1","pipeline_id":"ab","instance":"9f"}"#;
        assert_eq!(payload, expected);
        let (version, instance) = (Some("0.1.0".into()), Some("9f".into()));
        assert_eq!(AnnouncedInfo::read(payload.as_bytes()), Some(AnnouncedInfo { version, instance }));
        assert_eq!(AnnouncedInfo::read(br#"{"version":"0"}"#).map(|info| info.instance), Some(None));
        assert_eq!((AnnouncedInfo::read(b""), AnnouncedInfo::read(b"[]")), (None, None));
    }

    #[test]
    fn health_is_frozen() {
        let source = SourceHealth {
            id: "mic".into(),
            state: "live",
            level_db: Some(-52),
            samples_lost: 1,
            windows_scored: 6,
            ..SourceHealth::default()
        };
        let node = Health {
            uptime: Duration::from_millis(61_900),
            outbox: "disk",
            events_waiting: 3,
            reconnects: 2,
            sources: vec![source],
            ..Health::default()
        };
        let expected = r#"{"uptime_s":61,"outbox":"disk","events_waiting":3,"events_dropped":0,"scores_dropped":0,"reconnects":2,"refused":0,"events_unconfirmed":0,"events_set_aside":0,"commands_dropped":0,"sources":{"mic":{"state":"live","level_db":-52,"samples_lost":1,"samples_bad":0,"reopens":0,"stream_errors":0,"windows_scored":6,"windows_skipped":0,"windows_gated":0,"events_started":0,"windows_failed":0}}}"#;
        assert_eq!(text(health(&node)), expected);
        let faint = SourceHealth {
            warnings: vec!["louder".into()],
            loudest_db: Some(-61),
            gain_db: Some(6),
            ..node.sources[0].clone()
        };
        let faint = text(health(&Health { sources: vec![faint], ..node.clone() }));
        assert!(faint.contains(r#""level_db":-52,"warnings":["louder"],"samples_lost""#), "{faint}");
        assert!(faint.ends_with(r#""windows_failed":0,"loudest_db":-61,"gain_db":6}}}"#), "{faint}");
        let taken = text(health(&Health { names_taken: 1, ..node.clone() }));
        assert!(taken.contains(r#""commands_dropped":0,"names_taken":1,"sources""#), "{taken}");
        let (until, dog) = (at(0), vec!["dog".into()]);
        let night = QuietHealth { until, is_snooze: false, sources: Vec::new(), prompts: dog };
        let snooze = QuietHealth { is_snooze: true, sources: vec!["mic".into()], prompts: Vec::new(), until };
        let quiet = text(health(&Health { quiet: vec![night, snooze], ..node.clone() }));
        let expected_quiet = r#","quiet":[{"until":"2026-11-22T18:00:00.000Z","by":"hours","prompts":["dog"]},{"until":"2026-11-22T18:00:00.000Z","by":"snooze","sources":["mic"]}]}"#;
        assert!(quiet.ends_with(expected_quiet), "{quiet}");
        let lost = text(health(&Health { journal_lost: 2, ..node.clone() }));
        assert!(lost.contains(r#""commands_dropped":0,"journal_lost":2,"sources""#), "{lost}");
        let threads = vec![
            ThreadHealth { name: "outbox", state: ThreadHealth::OK, quiet: Duration::from_millis(4_900) },
            ThreadHealth { name: "mqtt", state: ThreadHealth::LATE, quiet: Duration::from_secs(301) },
        ];
        let expected = expected.replace(
            r#""windows_failed":0}}}"#,
            r#""windows_failed":0}},"threads":{"mqtt":{"state":"late","quiet_s":301},"outbox":{"state":"ok","quiet_s":4}}}"#,
        );
        assert_eq!(text(health(&Health { threads, ..node })), expected);
    }

    #[test]
    fn no_clock_is_too_wrong_to_be_written() {
        assert_eq!(time_of_day(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_of_day(UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59.000Z");
    }
}
