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
        api::commands::prompts_get,
        api::commands::prompts_set,
        api::commands::pause,
        api::commands::resume,
        api::commands::reload,
        api::commands::describe_info,
        api::commands::describe_ask,
        api::commands::snooze,
        api::past::scores,
        api::past::ask,
        api::past::what_if,
        api::past::heard,
        api::record::levels,
        api::record::events,
        api::record::remove_event,
        api::session::login,
        api::session::logout,
        super::metrics::scrape
    )
)]
struct Description;

/// Answers with it.
pub(super) async fn serve() -> Response {
    Json(Description::openapi()).into_response()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_command_is_described() {
        let description = Description::openapi();
        let described = description.paths.paths.keys().filter_map(|path| path.strip_prefix("/api/v1/request/"));
        let mut names: Vec<_> = crate::command::names().collect();
        names.sort_unstable();
        assert_eq!(described.collect::<Vec<_>>(), names);
    }

    /// `make manual` writes it anew.
    #[test]
    fn the_copy_is_what_the_server_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let text = Description::openapi().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("CLAPD_WRITE_MANUAL").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap() == text, "docs/openapi.json is old: `make manual` writes it anew");
    }
}
