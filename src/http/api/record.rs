//! REST of what was measured and found: levels of seconds and minutes, and the events of the journal.
#![expect(unused_qualifications, reason = "utoipa writes one of a query's type")]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::guard;
use super::past::{compute, fault, period, rounded};
use crate::history::{Period, millis};
use crate::http::Site;
use crate::http::access::Role;
use crate::http::failure::{ErrorBody, Failure};
use crate::journal::{EventQuery, Journal, JournalEntry};

/// Events of an answer, unless fewer are asked for: more than a page shows, in 200 kB.
const USUAL_EVENTS: usize = 500;

/// Which levels are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LevelsQuery {
    /// The id of a source.
    source: String,
    /// `second` or `minute`; without it `minute`.
    by: Option<Step>,
    /// Milliseconds since 1970; without it an hour before `to`.
    from: Option<i64>,
    /// Milliseconds since 1970; without it now.
    to: Option<i64>,
}

/// How long a level is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Step {
    Second,
    Minute,
}

/// Levels of the past, A-weighted; lists have a place for each second or minute.
#[derive(Default, Serialize, ToSchema)]
pub(in crate::http) struct LevelsBody {
    source: String,
    /// `dB(A)` of sound pressure where the microphone is calibrated, `dBFS(A)` below digital full scale where not.
    unit: &'static str,
    /// Whether the microphone is calibrated.
    calibrated: bool,
    /// When each ended, in milliseconds since 1970.
    at: Vec<i64>,
    laeq: Vec<f32>,
    lafmax: Vec<f32>,
    /// Exceeded in a tenth of the time; of minutes alone, as `la50` and `la90`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    la10: Vec<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    la50: Vec<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    la90: Vec<f32>,
}

/// Says how loud it was.
#[utoipa::path(get, path = "/api/v1/levels", tag = "past", params(LevelsQuery), responses(
    (status = 200, body = LevelsBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::http) async fn levels(
    State(site): State<Arc<Site>>,
    query: Result<Query<LevelsQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    compute(move || past_levels(&site, query)).await
}

fn past_levels(site: &Site, query: LevelsQuery) -> Result<LevelsBody, Failure> {
    let [from, to] = times(period(query.from, query.to));
    let missing = || {
        Failure::missing(format!(
            "no levels of a source {:?}; /api/v1/sources lists those that there are",
            query.source
        ))
    };
    let mut body = LevelsBody::default();
    let reference = if query.by == Some(Step::Second) {
        let found = site.past.levels.seconds(&query.source, from, to).ok_or_else(missing)?;
        for level in found.levels {
            body.add(level.at, level.laeq, level.lafmax);
        }
        found.reference
    } else {
        let found = site.past.levels.minutes(&query.source, from, to).ok_or_else(missing)?;
        for level in found.levels {
            body.add(level.at, level.laeq, level.lafmax);
            body.la10.push(rounded(level.la10, 1));
            body.la50.push(rounded(level.la50, 1));
            body.la90.push(rounded(level.la90, 1));
        }
        found.reference
    };
    Ok(LevelsBody { source: query.source, unit: reference.unit(), calibrated: reference.is_calibrated(), ..body })
}

impl LevelsBody {
    fn add(&mut self, at: SystemTime, laeq: f32, lafmax: f32) {
        self.at.push(millis(at));
        self.laeq.push(rounded(laeq, 1));
        self.lafmax.push(rounded(lafmax, 1));
    }
}

/// Which events are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct EventsQuery {
    /// The id of a source; without it all.
    source: Option<String>,
    /// The id of a prompt; without it all.
    prompt: Option<String>,
    /// Milliseconds since 1970; without it an hour before `to`.
    from: Option<i64>,
    /// Milliseconds since 1970; without it now.
    to: Option<i64>,
    /// At most so many, the newest; without it 500.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// Events that have ended.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct EventsBody {
    /// The newest first.
    events: Vec<EndedEventBody>,
    /// How many more were asked for, that are older than these.
    left_out: u64,
}

/// An event that has ended.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct EndedEventBody {
    id: String,
    source: String,
    /// The prompt's id.
    prompt: String,
    /// The prompt's text.
    text: String,
    /// Milliseconds since 1970.
    started_at: i64,
    ended_at: i64,
    score: f32,
    peak: f32,
    /// How loud it was; the three are left out where nobody metered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    laeq: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lafmax: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level_unit: Option<&'static str>,
}

impl From<JournalEntry> for EndedEventBody {
    fn from(entry: JournalEntry) -> Self {
        let ended_at = millis(entry.ended_at());
        Self {
            id: entry.id,
            source: entry.source,
            prompt: entry.prompt_id,
            text: entry.prompt,
            started_at: millis(entry.started_at),
            ended_at,
            score: rounded(entry.score, 2),
            peak: rounded(entry.peak, 2),
            laeq: entry.levels.map(|levels| rounded(levels.laeq, 1)),
            lafmax: entry.levels.map(|levels| rounded(levels.lafmax, 1)),
            level_unit: entry.levels.map(|levels| levels.reference.unit()),
        }
    }
}

/// Lists events that have ended.
#[utoipa::path(get, path = "/api/v1/events", tag = "past", params(EventsQuery), responses(
    (status = 200, body = EventsBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::http) async fn events(
    State(site): State<Arc<Site>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let journal = journal(&site)?;
    compute(move || {
        let [from, to] = times(period(query.from, query.to));
        let EventsQuery { source, prompt, limit, .. } = query;
        let asked = EventQuery { from, to, source, prompt, limit: limit.unwrap_or(USUAL_EVENTS).max(1) };
        let page = journal.find(&asked).map_err(|error| fault(&format!("the journal cannot be read: {error}")))?;
        let events = page.events.into_iter().rev().map(EndedEventBody::from).collect();
        Ok(EventsBody { events, left_out: page.left_out })
    })
    .await
}

/// Forgets an event.
#[utoipa::path(delete, path = "/api/v1/events/{id}", tag = "past", params(("id" = String, Path)), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::http) async fn remove_event(
    State(site): State<Arc<Site>>,
    Extension(role): Extension<Role>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    guard::require_writer(role)?;
    let journal = journal(&site)?;
    let removed = tokio::task::spawn_blocking(move || journal.remove([id])).await;
    let removed = removed.map_err(|error| fault(&error.to_string()))?;
    match removed.map_err(|error| fault(&format!("the journal cannot be written: {error}")))? {
        0 => Err(Failure::missing(
            "there is no event with this id in the journal; /api/v1/events lists those that there are",
        )),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

fn journal(site: &Site) -> Result<Journal, Failure> {
    let off = "no journal is written; `[journal] max_days` is 0 in the configuration, or there is no state directory";
    site.past.journal.clone().ok_or_else(|| Failure::missing(off))
}

/// What is before 1970 is shown as that.
fn times(Period { from, to }: Period) -> [SystemTime; 2] {
    [from, to].map(|time| {
        let since = Duration::from_millis(u64::try_from(time).unwrap_or_default());
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    })
}
