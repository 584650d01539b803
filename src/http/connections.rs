//! Connections, within bounds: how many, how large a request, and how long anything may take.
//!
//! axum's own server has none of these, so this is what it would do, with them. A connection that finds no room gets an answer that says
//! so, and one that does not read is closed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::{Site, api};
use crate::threads::Heartbeat;

/// Twenty browsers of six connections each, which is what they take to a host.
const MAX_CONNECTIONS: usize = 128;
/// Connections at a time that are told that there is no room; more are closed.
const MAX_REFUSALS: usize = 16;
/// For the headers of a request, and for the next request on a connection. A person on a slow network needs a second.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// For a viewer to take what is sent. A telephone that has gone to sleep does not, and comes back by itself.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of headers with their cookies and tokens; a browser sends 2 kB.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// In the system's buffer, where what a viewer does not read waits: seconds of a stream, not minutes.
const SEND_BUFFER: u32 = 64 << 10;
/// Connections that the system holds for us while we are busy.
const BACKLOG: u32 = 64;
/// Until the address is tried again: it may be another program's still, or the network may not be there yet.
const BIND_INTERVAL: Duration = Duration::from_secs(5);
/// After an error of accepting, which is the system's want of descriptors: others need the time to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the thread says that it turns; it is late after ten of these.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n\
    Connection: close\r\nContent-Length: 86\r\n\r\n\
    {\"status\":\"error\",\"error\":\"too many connections are open; close a page, or try later\"}";

/// Serves until the site is told to stop.
pub(super) async fn serve(site: Arc<Site>, listen: SocketAddr, heartbeat: &Heartbeat) {
    let accepting = accept_all(&site, listen);
    let beating = async {
        loop {
            heartbeat.beat(BEAT_INTERVAL * 10);
            sleep(BEAT_INTERVAL).await;
        }
    };
    // Whichever ends first ends all of it; but for the stop none does.
    let mut turns = (std::pin::pin!(accepting), std::pin::pin!(beating), std::pin::pin!(site.stop.notified()));
    std::future::poll_fn(|context| {
        let (accepting, beating, stopped) = &mut turns;
        let over = accepting.as_mut().poll(context).is_ready() || beating.as_mut().poll(context).is_ready();
        if over || stopped.as_mut().poll(context).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn accept_all(site: &Arc<Site>, listen: SocketAddr) {
    let listener = bind(listen).await;
    let router = api::router(Arc::clone(site));
    let (places, refusals) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(Semaphore::new(MAX_REFUSALS)));
    let errors = crate::counter::Counter::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(count) = errors.add(1) {
                    log::warn!("http: a connection cannot be accepted ({count} so far): {error}");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            tokio::spawn(converse(stream, peer.ip(), router.clone(), place));
            continue;
        }
        if let Some(count) = site.counters.full.add(1) {
            log::warn!(
                "http: more than {MAX_CONNECTIONS} connections; {count} connections or viewers found no room so far"
            );
        }
        if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
            tokio::spawn(refuse(stream, place));
        }
    }
}

/// The listening socket, as soon as it can be had: what else clapd does must not wait for it.
async fn bind(listen: SocketAddr) -> TcpListener {
    let errors = crate::counter::Counter::default();
    loop {
        match listener(listen) {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(listen);
                log::info!("http: the page is at http://{address}/");
                return listener;
            }
            Err(error) => {
                if let Some(count) = errors.add(1) {
                    log::error!(
                        "http: cannot listen at {listen} ({count} times so far): {error}; it is tried again, see http.listen"
                    );
                }
            }
        }
        sleep(BIND_INTERVAL).await;
    }
}

fn listener(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart does not wait until the connections of the last run are forgotten.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

/// Serves a connection until it is closed.
async fn converse(stream: TcpStream, peer: IpAddr, router: Router, _place: OwnedSemaphorePermit) {
    // What is sent is whole messages, each due now.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        service.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(ImpatientStream { stream, stalled: None }), service);
    if let Err(error) = served.await {
        log::debug!("http: {peer}: {error}");
    }
}

/// Says that there is no room, and waits until that is read, so that the system does not take it back.
async fn refuse(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    if stream.try_write(FULL).is_err() {
        return;
    }
    let mut rest = [0; 1024];
    let read_all = async {
        let closing = std::future::poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context));
        let _ = closing.await;
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut rest) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    };
    let _ = timeout(ACCEPT_PAUSE * 10, read_all).await;
}

/// Whose connection a request came by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// A connection that fails when the other side has not read for too long.
struct ImpatientStream {
    stream: TcpStream,
    /// Since a write has waited for room.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ImpatientStream {
    /// What becomes of a write: it fails where one has waited for too long.
    fn judge(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "does not read")))
    }
}

impl AsyncRead for ImpatientStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for ImpatientStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_how_long_it_is() {
        let text = str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
