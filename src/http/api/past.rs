//! REST of the past: what prompts scored, what any sentence would have, what another rule would have made of it, what is heard now.
//!
//! What is computed here takes up to some tenths of a second, and is computed beside the thread that serves everybody.
#![expect(unused_qualifications, reason = "utoipa writes one of a query's type")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use clapd_core::prompts::{Rule, usual_stop};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::spawn_blocking;
use utoipa::{IntoParams, ToSchema};

use crate::config::{self, PromptOrigin, RecordingNames};
use crate::history::{History, HistoryError, NOT_KEPT, PastScores, Period, WhatIf, millis};
use crate::http::Site;
use crate::http::failure::{ErrorBody, Failure, add_error_headers};

/// What is asked about when nobody says: what a page shows at first.
const USUAL_PERIOD: Duration = Duration::from_secs(3_600);
/// Captions of a window.
const CAPTIONS: usize = 5;

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Missing(text) => Self::missing(text),
            HistoryError::TooMuch(text) => Self::invalid(text),
            HistoryError::NotYet(text) => Self::busy(text),
        }
    }
}

fn history(site: &Site) -> Result<History, Failure> {
    site.past.history.clone().ok_or_else(|| Failure::missing(NOT_KEPT))
}

/// From `from` to `to`, in milliseconds since 1970; the last hour where neither is named.
pub(super) fn period(from: Option<i64>, to: Option<i64>) -> Period {
    let to = to.unwrap_or_else(|| millis(SystemTime::now()));
    Period { from: from.unwrap_or(to.saturating_sub(USUAL_PERIOD.as_millis() as i64)), to }
}

/// Computes an answer beside this thread, and writes it there: it may be some megabytes.
pub(super) async fn compute<T: Serialize>(
    compute: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<Response, Failure> {
    let written = spawn_blocking(move || {
        let body = compute()?;
        serde_json::to_vec(&body).map_err(|error| fault(&error.to_string()))
    });
    let json = written.await.map_err(|error| fault(&error.to_string()))??;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

pub(super) fn fault(error: &str) -> Failure {
    log::error!("http: a question of the past fails: {error}");
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "this fails, which is a fault in clapd; the log says where")
}

/// So many decimals and no more: the rest is noise.
pub(super) fn rounded(value: f32, decimals: i32) -> f32 {
    let scale = 10_f32.powi(decimals);
    (value * scale).round() / scale
}

/// Which scores are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ScoresQuery {
    /// The id of a source.
    source: String,
    /// Ids of prompts with commas between; without it all.
    prompt: Option<String>,
    /// Milliseconds since 1970; without it an hour before `to`.
    from: Option<i64>,
    /// Milliseconds since 1970; without it now.
    to: Option<i64>,
}

/// Scores of the past; lists have a place for each window.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ScoresBody {
    source: String,
    /// When each window ended, in milliseconds since 1970.
    at: Vec<i64>,
    /// 1 where it was silent, and scores 0.
    gated: Vec<u8>,
    /// The share of it that was lost, 0 to 1.
    lost: Vec<f32>,
    /// Each prompt's scores, by its id.
    prompts: BTreeMap<String, Vec<f32>>,
}

/// Says what the prompts that are listened for have scored, by their present texts, recordings and contrasts.
#[utoipa::path(get, path = "/api/v1/scores", tag = "past", params(ScoresQuery), responses(
    (status = 200, body = ScoresBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::http) async fn scores(
    State(site): State<Arc<Site>>,
    query: Result<Query<ScoresQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let history = history(&site)?;
    compute(move || {
        let ids: Option<Vec<&str>> = query.prompt.as_deref().map(|ids| ids.split(',').collect());
        let PastScores { at, gated, lost, prompts } =
            history.scores(&query.source, ids.as_deref(), period(query.from, query.to))?;
        Ok(ScoresBody {
            source: query.source,
            at,
            gated: gated.into_iter().map(u8::from).collect(),
            lost: lost.into_iter().map(|share| rounded(share, 3)).collect(),
            prompts: prompts
                .into_iter()
                .map(|(id, scores)| (id.to_string(), scores.into_iter().map(|score| rounded(score, 2)).collect()))
                .collect(),
        })
    })
    .await
}

/// What is asked.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AskQuery {
    /// Any sentence of 1 to 300 letters.
    text: String,
    /// The id of a source; may be left out where there is one.
    source: Option<String>,
    /// Milliseconds since 1970; without it as far back as there is anything.
    from: Option<i64>,
    /// Milliseconds since 1970; without it now.
    to: Option<i64>,
}

/// What a sentence would have scored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `ask` answers, which the supervisor writes")]
pub(in crate::http) struct AskBody {
    text: String,
    source: String,
    /// What the scores took to compute, the sentence's embedding left out.
    took_ms: f64,
    /// How many windows there are.
    windows: u64,
    /// When the first ended, in milliseconds since 1970; null where there is none.
    from: Option<i64>,
    /// When the last ended.
    to: Option<i64>,
    /// When each window ended.
    at: Vec<i64>,
    /// Its score.
    scores: Vec<f32>,
    /// The moments with the highest scores, at least 10 s apart, the highest first.
    best: Vec<BestBody>,
}

/// A moment.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `ask` answers, which the supervisor writes")]
struct BestBody {
    at: i64,
    score: f64,
}

/// Asks any sentence of the past: what would it have scored as a prompt?
#[utoipa::path(get, path = "/api/v1/ask", tag = "past", params(AskQuery), responses(
    (status = 200, body = AskBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 503, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(in crate::http) async fn ask(
    State(site): State<Arc<Site>>,
    query: Result<Query<AskQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let mut question = json!({ "text": query.text, "curve": true });
    let keys = [("source", json!(query.source)), ("from", json!(query.from)), ("to", json!(query.to))];
    keys.into_iter().filter(|(_, value)| !value.is_null()).for_each(|(key, value)| question[key] = value);
    let answer = site.calls.ask("ask", question.to_string().into_bytes()).await?;
    // What a command answers stands in an envelope that a question of its own kind needs not.
    let data = answer.payload.strip_prefix(b"{\"status\":\"ok\",\"data\":").and_then(|data| data.strip_suffix(b"}"));
    let body = data.map_or_else(|| answer.payload.to_vec(), <[u8]>::to_vec);
    let mut response = (answer.status, [(CONTENT_TYPE, "application/json")], body).into_response();
    add_error_headers(&mut response);
    Ok(response)
}

/// A rule to be tried: what is left out is as the prompt has it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WhatIfQuery {
    /// The id of a source.
    source: String,
    /// The id of a prompt.
    prompt: String,
    /// 0 to 10.
    start: Option<f64>,
    /// At most `start`; where it is left out and the prompt's is above `start`, what is usual for `start`.
    stop: Option<f64>,
    /// `n,m`: n of the last m windows.
    confirm: Option<String>,
    /// Seconds.
    cooldown_s: Option<f64>,
    /// Milliseconds since 1970; without it an hour before `to`.
    from: Option<i64>,
    /// Milliseconds since 1970; without it now.
    to: Option<i64>,
}

/// What another rule would have made of the scores.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct WhatIfBody {
    events: Vec<PastEventBody>,
    /// How many there are.
    count: usize,
    /// How many of them the rule in force does not make.
    new: usize,
    /// How many events of the rule in force are not among them.
    gone: usize,
}

/// An event that would have been.
#[derive(Serialize, ToSchema)]
struct PastEventBody {
    /// Milliseconds since 1970.
    started_at: i64,
    /// Null where it goes on.
    ended_at: Option<i64>,
    peak: f32,
    /// The rule in force makes none at that time.
    new: bool,
}

/// Says what events another rule would have made of a prompt's scores, against what the rule in force makes of them.
#[utoipa::path(get, path = "/api/v1/whatif", tag = "past", params(WhatIfQuery), responses(
    (status = 200, body = WhatIfBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::http) async fn what_if(
    State(site): State<Arc<Site>>,
    query: Result<Query<WhatIfQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let history = history(&site)?;
    let prompts = history.prompts();
    let prompt = prompts.named(&query.prompt);
    let prompt = prompt.ok_or_else(|| Failure::missing("there is no prompt of this id; /api/v1/prompts lists them"))?;
    let rule = proposed_rule(prompt.rule, &query)?;
    compute(move || {
        let period = period(query.from, query.to);
        let WhatIf { events, gone } = history.what_if(&query.source, &query.prompt, rule, period)?;
        let new = events.iter().filter(|event| event.is_new).count();
        let events: Vec<PastEventBody> = events
            .into_iter()
            .map(|event| PastEventBody {
                started_at: event.started_at,
                ended_at: event.ended_at,
                peak: rounded(event.peak, 2),
                new: event.is_new,
            })
            .collect();
        Ok(WhatIfBody { count: events.len(), events, new, gone })
    })
    .await
}

/// The rule in force with what the query changes of it, judged as the configuration judges rules.
fn proposed_rule(in_force: Rule, query: &WhatIfQuery) -> Result<Rule, Failure> {
    // Through text, since 4.3 as it is written is no 4.300000190734863.
    let in_words = |score: f32| score.to_string().parse::<f64>().unwrap_or_default();
    let start = query.start.unwrap_or_else(|| in_words(in_force.start));
    let stop = query.stop.unwrap_or_else(|| {
        let stop = in_words(in_force.stop);
        if stop <= start { stop } else { in_words(usual_stop(start as f32)) }
    });
    let confirm: Vec<i64> = match &query.confirm {
        None => vec![in_force.confirm.0.into(), in_force.confirm.1.into()],
        Some(text) => {
            let numbers = text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>();
            numbers.map_err(|_| Failure::invalid("`confirm` is no list of two numbers; write confirm=2,3"))?
        }
    };
    let cooldown = query.cooldown_s.unwrap_or(in_force.cooldown.as_secs_f64());
    let table = toml::Table::from_iter([
        ("text".to_owned(), toml::Value::from("x")),
        ("start".to_owned(), start.into()),
        ("stop".to_owned(), stop.into()),
        ("confirm".to_owned(), confirm.into()),
        ("cooldown_s".to_owned(), cooldown.into()),
    ]);
    let document = toml::Table::from_iter([("prompt".to_owned(), toml::Value::Array(vec![table.into()]))]);
    let names = RecordingNames::default();
    let origin = PromptOrigin::Request("whatif", &names);
    let parsed = config::parse_prompts(&document.to_string(), origin, Path::new(""));
    let (prompts, _) = parsed
        .map_err(|faults| Failure::invalid(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")))?;
    prompts.first().map(|prompt| prompt.rule).ok_or_else(|| Failure::invalid("there is no rule"))
}

/// Of which source captions are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HeardQuery {
    /// The id of a source.
    source: String,
}

/// What the newest window sounds like.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct HeardBody {
    /// When it ended, in milliseconds since 1970; null where it was silent, or there was none yet.
    at: Option<i64>,
    /// The best of the stock captions, the best first.
    captions: Vec<CaptionBody>,
}

/// A caption.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct CaptionBody {
    text: &'static str,
    score: f32,
}

/// The captions that describe an embedding best; none where they are not embedded yet, which is begun then.
pub(in crate::http) fn captions(history: &History, embedding: &[f32], count: usize) -> Option<Vec<CaptionBody>> {
    let Some(captions) = history.captions() else {
        history.want_captions();
        return None;
    };
    Some(bodies(captions.best(embedding, count)))
}

fn bodies(captions: Vec<crate::history::ScoredCaption>) -> Vec<CaptionBody> {
    captions.into_iter().map(|it| CaptionBody { text: it.text, score: rounded(it.score, 2) }).collect()
}

/// Says in stock captions what the newest window sounds like; none yet in the first seconds that somebody looks.
#[utoipa::path(get, path = "/api/v1/heard", tag = "past", params(HeardQuery), responses(
    (status = 200, body = HeardBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(in crate::http) async fn heard(
    State(site): State<Arc<Site>>,
    query: Result<Query<HeardQuery>, QueryRejection>,
) -> Result<axum::Json<HeardBody>, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    // Sixty products: a hundredth of a millisecond.
    let heard = match history(&site)?.heard(&query.source, CAPTIONS) {
        // Captions are embedded when somebody first looks: a browser would call a refusal an error on its console.
        Err(HistoryError::NotYet(_)) => None,
        heard => heard?,
    };
    let (at, captions) = heard.map_or((None, Vec::new()), |(at, captions)| (Some(at), bodies(captions)));
    Ok(axum::Json(HeardBody { at, captions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> WhatIfQuery {
        let Ok(uri) = format!("/?source=mic&prompt=dog{text}").parse() else { panic!("{text}") };
        Query::<WhatIfQuery>::try_from_uri(&uri).unwrap().0
    }

    #[test]
    fn a_rule_is_tried_as_the_configuration_would_take_it() {
        let rule = Rule { start: 6.0, stop: 4.3, confirm: (2, 3), cooldown: Duration::from_secs(10) };
        let tried = |text| proposed_rule(rule, &query(text)).map_err(|failure| failure.text);
        assert_eq!(tried(""), Ok(rule));
        assert_eq!(tried("&start=7&cooldown_s=0"), Ok(Rule { start: 7.0, cooldown: Duration::ZERO, ..rule }));
        assert_eq!(tried("&start=4&confirm=1,1"), Ok(Rule { start: 4.0, stop: 2.5, confirm: (1, 1), ..rule }));
        for (text, words) in [
            ("&start=11", "11 is not on the scale"),
            ("&start=5&stop=6", "6 is above `start`"),
            ("&confirm=3,2", "[3, 2] is not"),
            ("&confirm=3", "[3] is not"),
            ("&confirm=x", "write confirm=2,3"),
            ("&cooldown_s=-1", "-1 is not from 0"),
        ] {
            let error = tried(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(tried("&start=NaN").is_err() && tried("&stop=inf").is_err());
    }
}
