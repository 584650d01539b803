//! What stands before every route: whose requests are none of ours, who may read, and what browsers are told of every answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::Site;
use crate::http::access::{Foreign, Role, Visitor};
use crate::http::connections::Peer;
use crate::http::failure::Failure;

/// Everything from here and nothing from elsewhere. Home Assistant shows the page in a frame, from its own address and so from what is the
/// page's own, too. Pictures and sounds that the page makes itself are blobs.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'self'",
);
/// Other pages may not have what is here as their pictures or scripts.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// After a wrong token. A person does not notice; who tries all tokens gets to two a second a connection.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);

/// Refuses what should not have come here.
pub(super) async fn refuse_strangers(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
        return Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "nobody knows who sent this").into_response();
    };
    let (text, status) = match site.gate.foreign(peer, request.method(), request.headers()) {
        None => return next.run(request).await,
        Some(Foreign::Host) => (
            "the name that this was sent to is none of clapd's; open it by its address, or add the name to http.allowed_hosts",
            StatusCode::MISDIRECTED_REQUEST,
        ),
        Some(Foreign::Page) => (
            "another page sent this; send it from clapd's own. Behind a proxy: let it send on the browser's Host",
            StatusCode::FORBIDDEN,
        ),
    };
    if let Some(count) = site.counters.foreign.add(1) {
        log::warn!("http: {peer}: {text} ({count} so far)");
    }
    Failure::new(status, text).into_response()
}

/// Lets in whoever may read, and says to the route what they may.
pub(super) async fn require_reader(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let visitor = peer.map_or(Visitor::Unknown, |Peer(peer)| site.gate.visitor(peer, request.headers()));
    match visitor {
        Visitor::Known(role) => {
            site.counters.requests.add(1);
            request.extensions_mut().insert(role);
            next.run(request).await
        }
        Visitor::Unknown => {
            Failure::new(StatusCode::UNAUTHORIZED, "this takes a token; log in, or send `Authorization: Bearer TOKEN`")
                .into_response()
        }
        Visitor::Wrong => wrong_token(&site).await.into_response(),
    }
}

/// What a wrong token gets, after a while.
pub(super) async fn wrong_token(site: &Site) -> Failure {
    if let Some(count) = site.counters.unauthorised.add(1) {
        log::warn!("http: a wrong token was sent ({count} so far)");
    }
    tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
    Failure::new(StatusCode::UNAUTHORIZED, "this token is not one of this node's; see http.write_token_file")
}

/// # Errors
/// Whoever asks may only read.
pub(super) fn require_writer(role: Role) -> Result<(), Failure> {
    if role >= Role::Write {
        return Ok(());
    }
    let text = "this changes something, which takes the write token; log in with it";
    Err(Failure::new(StatusCode::FORBIDDEN, text))
}

/// What a browser is told of every answer.
pub(super) async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
