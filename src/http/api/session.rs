//! Logging in: a token becomes a cookie, since a browser's stream of events can send no header.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{guard, read_json};
use crate::http::Site;
use crate::http::connections::Peer;
use crate::http::failure::{ErrorBody, Failure};

/// What somebody logs in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// The read token or the write token.
    token: String,
}

/// What it lets them do.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleBody {
    /// `read`, or `write`, which includes it.
    #[schema(pattern = "^(read|write)$")]
    role: &'static str,
}

/// Sets the cookie of a token.
#[utoipa::path(post, path = "/api/v1/login", tag = "session", request_body = Login, responses(
    (status = 200, body = RoleBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 408, body = ErrorBody), (status = 413, body = ErrorBody),
    (status = 415, body = ErrorBody)))]
pub(super) async fn login(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Result<Response, Failure> {
    let is_encrypted = site.gate.is_encrypted(peer, request.headers());
    let body = read_json(request).await?;
    // The error of serde would show what was sent.
    let login: Login = serde_json::from_slice(&body)
        .map_err(|_| Failure::invalid("the body is not {\"token\":\"...\"}; send that"))?;
    match site.gate.cookie_for(&login.token, is_encrypted) {
        Some((role, cookie)) => Ok(([(SET_COOKIE, cookie)], Json(RoleBody { role: role.name() })).into_response()),
        None => Err(guard::wrong_token(&site).await),
    }
}

/// Has the browser forget the cookie.
#[utoipa::path(post, path = "/api/v1/logout", tag = "session", responses((status = 204), (status = 403, body = ErrorBody)))]
pub(super) async fn logout(State(site): State<Arc<Site>>) -> Response {
    (StatusCode::NO_CONTENT, [(SET_COOKIE, site.gate.farewell_cookie())]).into_response()
}
