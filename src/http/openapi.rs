//! The description of the REST interface, made of the types that it sends. `docs/openapi.json` is a copy, which a test compares.

use axum::Json;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

use super::api;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "clapd",
        description = "What a device hears, and what it is to listen for. Each path is below the address that the page has in the \
                       browser, whatever a proxy puts before it. Events of the stream are listed in docs/http.md."
    ),
    servers((url = ".", description = "where this description lies")),
    paths(
        api::info,
        api::health,
        api::sources,
        api::prompts,
        api::stream_events,
        api::request,
        api::session::login,
        api::session::logout,
        super::metrics::scrape
    )
)]
struct Description;

/// The description, as JSON with line breaks.
///
/// # Errors
/// What no description of ours does: a key that JSON has no form for.
pub fn document() -> serde_json::Result<String> {
    Description::openapi().to_pretty_json().map(|text| text + "\n")
}

/// Answers with it.
pub(super) async fn serve() -> Response {
    Json(Description::openapi()).into_response()
}
