//! The page's server: what it hears as a page, REST, a stream of what happens, and metrics.
//!
//! It is the one place with async code, all of it on the `http` thread, since whoever watches waits for most of the time and a thread for
//! each would cost more memory than what it sends. The supervisor hands in what changes (`view`), sources hand in what they hear
//! (`feed`), and requests go the way that those of MQTT go (`calls`). Nobody who hands something in waits for a viewer.
//!
//! | file | is |
//! |---|---|
//! | `access` | who may read and write: hosts, tokens, cookies, proxies |
//! | `api`, `openapi` | REST, and its description |
//! | `calls` | requests that wait for the supervisor's answer |
//! | `connections` | connections, within bounds of number, size and time |
//! | `failure` | errors as they are answered |
//! | `feed`, `stream` | what happens, written once, and a viewer's stream of it |
//! | `live` | what a source hears, as it is sent |
//! | `metrics` | the same for Prometheus |
//! | `page` | the page's files |
//! | `view` | what is true now |

mod access;
mod api;
mod calls;
mod connections;
mod failure;
mod feed;
mod live;
mod metrics;
mod openapi;
mod page;
mod stream;
mod view;

use std::sync::Arc;

use anyhow::{Context, Result};
use clapd_core::dsp::FrontendSpec;
use tokio::runtime::{Builder, Runtime};

use crate::command::{Outcome, Reply, RequestQueue};
use crate::config::HttpSpec;
use crate::health::Health;
use crate::history::History;
use crate::journal::Journal;
use crate::levels::LevelHistory;
use crate::mqtt::{self, Info};
use crate::threads::ServiceThread;
use access::Gate;
use calls::Calls;
use feed::{EventKind, LiveFeed};
pub use live::LiveSource;
pub use view::{SourceView, View};

/// The server, for those who hand something in. A clone is another handle to the same one.
#[derive(Clone)]
pub struct HttpServer(Arc<Site>);

/// What all requests share.
struct Site {
    gate: Gate,
    calls: Calls,
    feed: LiveFeed,
    view: view::SharedView,
    node: String,
    info: Info,
    frontend: FrontendSpec,
    past: PastStores,
    /// The newest scores, and how many events there were.
    observed: live::Observed,
    counters: HttpCounters,
    stop: tokio::sync::Notify,
}

/// Where the past is.
#[derive(Clone, Default)]
pub struct PastStores {
    /// What was heard; none where that is not kept.
    pub history: Option<History>,
    /// How loud it was.
    pub levels: LevelHistory,
    /// Events that have ended; none where they are not stored.
    pub journal: Option<Journal>,
}

/// What is counted of connections and requests.
#[derive(Debug, Default)]
struct HttpCounters {
    /// Requests that were let in.
    requests: crate::counter::Counter,
    /// Connections and viewers that found no room.
    full: crate::counter::Counter,
    /// Requests without the token that they need, or with another.
    unauthorised: crate::counter::Counter,
    /// Requests from somewhere else: another host's name, another page.
    foreign: crate::counter::Counter,
}

impl Site {
    fn new(spec: &HttpSpec, node: &str, info: Info, frontend: FrontendSpec, requests: Arc<RequestQueue>) -> Self {
        Self {
            gate: Gate::new(spec, node),
            calls: Calls::new(requests),
            feed: LiveFeed::default(),
            view: view::SharedView::default(),
            node: node.to_owned(),
            info,
            frontend,
            past: PastStores::default(),
            observed: live::Observed::default(),
            counters: HttpCounters::default(),
            stop: tokio::sync::Notify::new(),
        }
    }

    #[cfg(test)]
    fn for_tests() -> Self {
        let spec = HttpSpec {
            listen: ([127, 0, 0, 1], 0).into(),
            access: crate::config::Access::Off,
            read_token: None,
            write_token: None,
            trusted_proxies: Vec::new(),
            allowed_hosts: Vec::new(),
        };
        let text = String::new;
        let info = Info { version: text(), bundle: text(), bundle_version: text(), pipeline_id: text() };
        Self::new(&spec, "attic", info, FrontendSpec::yamnet(), Arc::default())
    }
}

impl HttpServer {
    /// Starts the `http` thread, which listens as `spec` says, as soon as the address can be had. Columns of the spectrogram are
    /// `frontend`'s; questions of the past are answered from `past`. What others ask for goes to `requests`.
    ///
    /// # Errors
    /// The system gives no runtime or no thread.
    pub fn start(
        spec: &HttpSpec,
        node: &str,
        info: Info,
        frontend: FrontendSpec,
        past: PastStores,
        requests: Arc<RequestQueue>,
    ) -> Result<(Self, ServiceThread)> {
        // Reading files may wait for a disk, which no stream is to wait for: one such thread is enough for a home.
        let runtime: Runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(1)
            .thread_name("http-files")
            .build()
            .context("the page cannot be served")?;
        let site = Site::new(spec, node, info, frontend, requests);
        let site = Arc::new(Site { past, ..site });
        let (served, listen) = (Arc::clone(&site), spec.listen);
        let thread = ServiceThread::spawn("http", move |heartbeat| {
            runtime.block_on(connections::serve(served, listen, &heartbeat));
            // What reads a file that hangs is left behind.
            runtime.shutdown_background();
        });
        let thread = thread.context("the http thread cannot be started; see the limits of the service (TasksMax)")?;
        Ok((Self(site), thread))
    }

    /// Where the source of this id hands in what it hears.
    pub fn source(&self, id: &str) -> LiveSource {
        LiveSource::new(Arc::clone(&self.0), id)
    }

    /// What is listened to and for what, from now on.
    pub fn set_view(&self, view: &View) {
        if self.0.view.set_view(view) {
            self.0.feed.publish(EventKind::Prompts, None, &view.prompts);
        }
    }

    /// How the daemon is doing; viewers are sent it where it is news. To be called often.
    pub fn set_health(&self, health: &Health, is_news: bool) {
        self.0.view.set_health(health);
        if is_news && self.0.feed.has_viewers() {
            self.0.feed.publish(EventKind::Health, None, &api::health_value(health));
        }
    }

    /// Answers request number `call`, if whoever sent it waits still.
    pub fn respond(&self, call: u64, reply: &Reply, outcome: &Outcome) {
        match mqtt::response_payload(reply.transaction.as_ref(), outcome) {
            Ok(payload) => self.0.calls.answer(call, outcome, payload),
            Err(error) => log::error!("http: the response to {} cannot be written: {error}", reply.command),
        }
    }

    /// Has the thread end.
    pub fn stop(&self) {
        self.0.stop.notify_one();
    }
}
