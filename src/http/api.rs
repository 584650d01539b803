//! REST: what is true now, the stream of what happens, and commands.
//!
//! Whoever may read gets all that the page shows; whoever may write may send commands, too. Each handler belongs to one of three sets:
//! for everybody, for readers, for writers.
#![expect(unused_qualifications, reason = "utoipa writes one of a query's type")]

pub(super) mod commands;
mod guard;
pub(super) mod past;
pub(super) mod record;
pub(super) mod session;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use clapd_core::dsp::FrontendSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::access::Role;
use super::failure::{ErrorBody, Failure, add_error_headers};
use super::feed::EventKind;
use super::stream::{self, Selection};
use super::{Site, live, metrics, openapi, page};
use crate::command::{self, Effect};
use crate::health::Health;
use crate::mqtt;

/// A page of prompts, as MQTT takes it; all 1,000 that are allowed are smaller.
const MAX_BODY_BYTES: usize = 256 << 10;
/// For a body of that size over the slowest network that a page is of use on.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// All routes, with what stands before them.
pub(super) fn router(site: Arc<Site>) -> Router {
    let readers = Router::new()
        .route("/api/v1/info", get(info))
        .route("/api/v1/health", get(health))
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/prompts", get(prompts))
        .route("/api/v1/stream", get(stream_events))
        .route("/api/v1/scores", get(past::scores))
        .route("/api/v1/ask", get(past::ask))
        .route("/api/v1/whatif", get(past::what_if))
        .route("/api/v1/heard", get(past::heard))
        .route("/api/v1/levels", get(record::levels))
        .route("/api/v1/events", get(record::events))
        .route("/api/v1/events/{id}", delete(record::remove_event))
        .route("/api/v1/request/{*command}", post(request))
        .route("/metrics", get(metrics::scrape))
        .route_layer(from_fn_with_state(Arc::clone(&site), guard::require_reader));
    let everybody = Router::new()
        .route("/api/v1/login", post(session::login))
        .route("/api/v1/logout", post(session::logout))
        .route("/openapi.json", get(openapi::serve))
        .route("/", get(page::index))
        .route("/{*file}", get(page::file));
    readers
        .merge(everybody)
        .fallback(missing)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&site), guard::refuse_strangers))
        .layer(from_fn(guard::add_headers))
        .with_state(site)
}

async fn missing() -> Failure {
    Failure::missing("there is nothing here; /openapi.json says what there is")
}

async fn wrong_method(method: Method) -> Failure {
    let text = format!("{method} is not what this takes; /openapi.json says what it does");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// What runs here, and what whoever asks may do.
#[derive(Serialize, ToSchema)]
struct InfoBody {
    /// clapd's version.
    version: String,
    /// This device's part of every topic.
    node: String,
    /// The bundle's name.
    bundle: String,
    /// The version of the bundle's content.
    bundle_version: String,
    /// Changes whenever a score could.
    pipeline_id: String,
    /// What whoever asks may do: `read`, or `write`, which includes it.
    #[schema(pattern = "^(read|write)$")]
    role: &'static str,
    /// Who is asked for a token: `off`, `read` or `token`.
    #[schema(pattern = "^(off|read|token)$")]
    access: &'static str,
    /// Whether there are tokens to log in with.
    login: bool,
    /// Seconds between two scores.
    hop_s: f64,
    /// What the columns of `mel` are.
    spectrogram: SpectrogramBody,
    /// The ids of the sources.
    sources: Vec<String>,
}

/// What the columns of the stream's `mel` are: a byte for each band, the lowest first.
#[derive(Serialize, ToSchema)]
struct SpectrogramBody {
    /// The frequency of each band in hertz.
    bands_hz: Vec<f64>,
    /// Milliseconds from a column to the next.
    hop_ms: f64,
    /// The level that a byte of 0 stands for, in dB below full scale.
    floor_db: f64,
    /// The level that a byte of 255 stands for.
    top_db: f64,
}

impl SpectrogramBody {
    fn of(frontend: &FrontendSpec) -> Self {
        Self {
            bands_hz: frontend.band_centres().into_iter().map(|hz| hz.round()).collect(),
            hop_ms: live::hop_ms(frontend),
            floor_db: live::FLOOR_DB.into(),
            top_db: live::TOP_DB.into(),
        }
    }
}

/// Says what runs here.
#[utoipa::path(get, path = "/api/v1/info", tag = "state", responses(
    (status = 200, body = InfoBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn info(State(site): State<Arc<Site>>, Extension(role): Extension<Role>) -> Json<InfoBody> {
    let current = site.view.get();
    let info = &site.info;
    Json(InfoBody {
        version: info.version.clone(),
        node: site.node.clone(),
        bundle: info.bundle.clone(),
        bundle_version: info.bundle_version.clone(),
        pipeline_id: info.pipeline_id.clone(),
        role: role.name(),
        access: site.gate.access().name(),
        login: site.gate.has_tokens(),
        hop_s: current.view.hop_s,
        spectrogram: SpectrogramBody::of(&site.frontend),
        sources: current.view.sources.iter().map(|source| source.id.clone()).collect(),
    })
}

/// What health has beside the payload of the same name over MQTT.
#[derive(Serialize, ToSchema)]
pub(super) struct HealthBody {
    /// All that the topic `health` has.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    published: Value,
    /// What a person should know or do; empty where all is well.
    remedies: Vec<RemedyBody>,
}

/// What a person should know or do.
#[derive(Serialize, ToSchema)]
struct RemedyBody {
    /// A source's id; left out where it is about the whole device.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// What is amiss, and the remedy.
    text: String,
}

/// Health as it is sent.
pub(super) fn health_value(health: &Health) -> HealthBody {
    let payload = mqtt::health_payload(health).and_then(|payload| serde_json::from_slice(&payload));
    let published = payload.unwrap_or_else(|error| {
        log::error!("http: health cannot be written: {error}");
        json!({})
    });
    let remedies = health.remedies().into_iter();
    let remedies = remedies.map(|remedy| RemedyBody { source: remedy.source, text: remedy.text }).collect();
    HealthBody { published, remedies }
}

/// Says how clapd is doing.
#[utoipa::path(get, path = "/api/v1/health", tag = "state", responses(
    (status = 200, body = HealthBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn health(State(site): State<Arc<Site>>) -> Json<HealthBody> {
    Json(health_value(&site.view.get().health))
}

/// A source.
#[derive(Serialize, ToSchema)]
struct SourceBody {
    id: String,
    /// `device`, `file`, `stdin`, `url` or `listen`.
    kind: &'static str,
    /// Whether its sound is dropped.
    paused: bool,
    /// What it is doing, in a word.
    state: &'static str,
    /// The level of the last second in dB below full scale; null before there was one.
    level_db: Option<i32>,
    /// What is wrong with the sound, with the remedy.
    warnings: Vec<String>,
}

/// The sources, in the configuration's order.
#[derive(Serialize, ToSchema)]
struct SourcesBody {
    sources: Vec<SourceBody>,
}

/// Lists what is listened to.
#[utoipa::path(get, path = "/api/v1/sources", tag = "state", responses(
    (status = 200, body = SourcesBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn sources(State(site): State<Arc<Site>>) -> Json<SourcesBody> {
    let current = site.view.get();
    let body = current.view.sources.iter().map(|source| {
        let health = current.health.sources.iter().find(|health| health.id == source.id);
        SourceBody {
            id: source.id.clone(),
            kind: source.kind,
            paused: source.paused,
            state: health.map_or("starting", |health| health.state),
            level_db: health.and_then(|health| health.level_db),
            warnings: health.map(|health| health.warnings.clone()).unwrap_or_default(),
        }
    });
    Json(SourcesBody { sources: body.collect() })
}

/// What is listened for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `prompts/get` answers, which the supervisor writes")]
struct PromptsBody {
    /// As `request/prompts/set` takes them.
    #[schema(value_type = Vec<Object>)]
    prompts: Vec<Value>,
    /// `file`, or `mqtt` where they were set while clapd ran.
    from: String,
}

/// Lists what is listened for.
#[utoipa::path(get, path = "/api/v1/prompts", tag = "state", responses(
    (status = 200, body = PromptsBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn prompts(State(site): State<Arc<Site>>) -> Json<Value> {
    Json(site.view.get().view.prompts.clone())
}

/// What of the stream is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    /// The id of a source; without it all.
    source: Option<String>,
    /// Kinds of events with commas between: window, mel, level, event, health, prompts; without it all.
    kinds: Option<String>,
}

/// Sends what happens as it happens (text/event-stream), beginning with the prompts and health.
#[utoipa::path(get, path = "/api/v1/stream", tag = "live",
    params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "the id of the event that was received last")),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
async fn stream_events(
    State(site): State<Arc<Site>>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let current = site.view.get();
    if let Some(source) = &query.source
        && !current.view.sources.iter().any(|known| known.id == *source)
    {
        return Err(Failure::missing("there is no source of this id; /api/v1/sources lists them"));
    }
    let kinds = query.kinds.as_deref().map(read_kinds).transpose()?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let Some(subscription) = site.feed.watch(last, kinds.as_ref().is_none_or(|kinds| kinds.contains(&EventKind::Mel)))
    else {
        site.counters.full.add(1);
        return Err(Failure::busy("too many pages are open; close one, or try later"));
    };
    let first = [
        (EventKind::Prompts, serde_json::to_vec(&current.view.prompts)),
        (EventKind::Health, serde_json::to_vec(&health_value(&current.health))),
    ];
    let first = first.into_iter().filter_map(|(kind, json)| Some((kind, json.ok()?))).collect();
    Ok(stream::respond(subscription, Selection { source: query.source, kinds }, first))
}

fn read_kinds(kinds: &str) -> Result<Vec<EventKind>, Failure> {
    let all = EventKind::ALL;
    let kind = |name: &str| all.into_iter().find(|kind| kind.name() == name);
    let unknown = || {
        let names: Vec<_> = all.iter().map(|kind| kind.name()).collect();
        Failure::invalid(format!("`kinds` holds what is no kind of event; write some of {}", names.join(",")))
    };
    kinds.split(',').map(|name| kind(name).ok_or_else(unknown)).collect()
}

/// The answer to a command.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `mqtt::response_payload` writes")]
struct ResponseBody {
    /// As it came.
    #[schema(required = false)]
    transaction: commands::Transaction,
    #[schema(pattern = "^ok$")]
    status: &'static str,
    /// What the command answers.
    #[schema(value_type = Object)]
    data: Value,
}

/// Carries out a command, with the same object as over MQTT, and answers with the same.
async fn request(
    State(site): State<Arc<Site>>,
    Extension(role): Extension<Role>,
    command: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let Path(command) = command.map_err(|error| Failure::missing(error.body_text()))?;
    let Some(effect) = command::effect(&command) else {
        let names: Vec<_> = command::names().collect();
        return Err(Failure::missing(format!("there is no such command; there are {}", names.join(", "))));
    };
    if effect == Effect::Changes {
        guard::require_writer(role)?;
    }
    let payload = read_json(request).await?;
    let answer = site.calls.ask(&command, payload.into()).await?;
    let mut response = (answer.status, [(CONTENT_TYPE, "application/json")], answer.payload).into_response();
    add_error_headers(&mut response);
    Ok(response)
}

/// The body of a request, which says that it is JSON: a page of somebody else's can't have that sent without asking us.
async fn read_json(request: Request) -> Result<Bytes, Failure> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let text = "the body is not said to be JSON; send `Content-Type: application/json`";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    match timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => {
            let text = format!("the body is longer than {MAX_BODY_BYTES} bytes; send less at a time");
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Ok(Err(_)) => Err(Failure::invalid("the body is not what its headers say; send it with its length")),
        Err(_) => {
            let text = format!("the body did not come within {} s; send it again", BODY_TIMEOUT.as_secs());
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

/// The bound of `to_bytes` is an error below axum's.
fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.to_string().contains("length limit"))
}
