//! Streams and recordings of web servers: Icecast, go2rtc, a file somewhere.
//!
//! A response that states its length is a recording and is heard to its end; any other is a live stream. Of a live stream the burst
//! that a server sends first is left out: it is sound of the past, which after a break would be heard twice.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::Decoder;
use ureq::http::{Response, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, BodyReader};

use super::live_source::{Ended, LOST_AFTER, Refused, StreamSpec};
use super::live_writer::LiveWriter;
use super::playlist;
use super::stream_url::{Scheme, StreamUrl};

/// Sound that comes within so much of the first is the server's burst: Icecast sends 64 KB, some seconds of sound, in one go.
const BURST: Duration = Duration::from_secs(1);
/// Bytes that come for so long and are no sound are none at all. A picture of 16 MB before the sound needs less on a slow line.
const NO_SOUND_AFTER: Duration = Duration::from_secs(30);
/// How far a recording may run ahead of the clock: as little as a sound card's blocks, so that every window of it is scored.
const RECORDING_AHEAD: Duration = Duration::from_millis(200);
/// Icecast behind a load balancer redirects once or twice.
const MAX_REDIRECTS: u32 = 5;
/// Headers of Icecast have a kilobyte.
const MAX_HEADERS: usize = 16 * 1024;

/// Receives until the connection is over.
///
/// # Errors
/// Whatever ends a live stream; a recording that can't be fetched or decoded.
pub(super) fn receive(id: &str, spec: &StreamSpec, channel: Channel, writer: &mut LiveWriter) -> Result<Ended> {
    let agent = agent(spec.url.scheme == Scheme::Https)?;
    let mut response = get(&agent, spec, &spec.url)?;
    if playlist::is_list(&content_type(&response), &spec.url.text()) {
        let entry = read_list(&mut response, &spec.url)?;
        log::debug!("source {id:?}: the list leads to {entry}");
        // A list may lead to another server, whom the password is no business of.
        let same = (entry.scheme, &entry.host, entry.port) == (spec.url.scheme, &spec.url.host, spec.url.port);
        let credentials = spec.credentials.clone().filter(|_| same);
        let agent = self::agent(entry.scheme == Scheme::Https)?;
        response = get(&agent, &StreamSpec { credentials, ..spec.clone() }, &entry)?;
        ensure!(!playlist::is_list(&content_type(&response), &entry.text()), "its list leads to another list");
    }
    let kind = content_type(&response);
    ensure!(!kind.starts_with("text/"), "sends a page ({kind}) and no sound; see the path of the url");
    // Icecast states no length. What calls itself a radio station is no recording.
    let is_station = response.headers().keys().any(|name| name.as_str().starts_with("icy-"));
    let is_recording = response.body().content_length().is_some() && !is_station;
    if is_recording {
        writer.hold_back(RECORDING_AHEAD);
    }
    let last_sound = Arc::new(Mutex::new(Instant::now()));
    let body = WatchedBody {
        body: Mutex::new(response.into_body().into_reader()),
        stop: writer.stop_flag(),
        last_sound: Arc::clone(&last_sound),
    };
    let mut decoder = Decoder::from_reader(Box::new(body), "the stream", channel)?;
    let (rate, channels) = (decoder.rate(), decoder.channels());
    let what = if is_recording { "a recording" } else { "a live stream" };
    log::info!("source {id:?}: listening to {} ({what}, {kind}, {rate} Hz, {channels} channels)", spec.url);
    decode(&mut decoder, is_recording, writer, &last_sound)?;
    ensure!(is_recording, "the server has ended the stream");
    Ok(Ended::Recording)
}

/// Decodes to the end of the body.
fn decode(
    decoder: &mut Decoder,
    is_recording: bool,
    writer: &mut LiveWriter,
    last_sound: &Mutex<Instant>,
) -> Result<()> {
    let (mut first, mut before) = (None, decoder.faults());
    let rate = decoder.rate();
    while let Some(samples) = decoder.next_block()? {
        let first = *first.get_or_insert_with(Instant::now);
        if is_recording || first.elapsed() >= BURST {
            writer.write(rate, samples.lost, samples.data)?;
        }
        *last_sound.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let faults = decoder.faults();
        writer.counters().samples_bad.add(faults.samples_bad - before.samples_bad);
        writer.counters().packets_bad.add(faults.packets_bad - before.packets_bad);
        before = faults;
    }
    ensure!(
        !(is_recording && decoder.faults().truncated),
        "the recording breaks off; it is fetched again from its beginning"
    );
    Ok(())
}

/// A client that waits for nothing longer than [`LOST_AFTER`].
fn agent(secure: bool) -> Result<Agent> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .max_response_header_size(MAX_HEADERS)
        .user_agent(concat!("clapd/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(LOST_AFTER))
        .timeout_connect(Some(LOST_AFTER))
        .timeout_recv_response(Some(LOST_AFTER))
        .timeout_per_read(Some(LOST_AFTER));
    // The authorities that the system trusts are read from files: only where they are needed.
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(if secure { trusted()? } else { Vec::new() })));
    Ok(config.tls_config(tls.build()).build().new_agent())
}

fn trusted() -> Result<Vec<Certificate<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    ensure!(
        !found.certs.is_empty(),
        "https:// needs authorities that the system trusts, and there are none; install ca-certificates"
    );
    Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

fn get(agent: &Agent, spec: &StreamSpec, url: &StreamUrl) -> Result<Response<Body>> {
    // Metadata between the sound is not asked for (Icy-MetaData), and so does not come.
    let mut request = agent.get(url.text()).header(header::ACCEPT, "audio/*, application/ogg, */*;q=0.1");
    if let Some(credentials) = &spec.credentials {
        request = request.header(header::AUTHORIZATION, super::rtsp::basic(credentials));
    }
    let response = request.call().map_err(describe)?;
    let status = response.status();
    match status.as_u16() {
        401 | 403 => Err(anyhow!(Refused).context(format!("the server answers {status}"))),
        404 => bail!("the server answers {status}: nothing is sent at this path now"),
        _ if status.is_success() => Ok(response),
        _ => bail!("the server answers {status}"),
    }
}

/// What went wrong, without the url, which may hold what nobody is to see.
fn describe(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::BadUri(_) => anyhow!("the url or a redirect is none that can be fetched"),
        ureq::Error::Protocol(error) => anyhow!("it does not speak HTTP as web servers do ({error})"),
        ureq::Error::TooManyRedirects => anyhow!("the server redirects more than {MAX_REDIRECTS} times"),
        other => anyhow!("{other}"),
    }
}

fn content_type(response: &Response<Body>) -> String {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.chars().take(60).collect::<String>().to_ascii_lowercase()
}

fn read_list(response: &mut Response<Body>, url: &StreamUrl) -> Result<StreamUrl> {
    let text = response.body_mut().with_config().limit(playlist::MAX_LIST).lossy_utf8(true).read_to_string();
    let text = text.context("can't read the list")?;
    url.join(playlist::first_entry(&text)?).map_err(|seen| anyhow!("the first entry of its list {seen}")).and_then(
        |entry| {
            ensure!(entry.scheme != Scheme::Rtsp, "its list leads to {entry}; write that as the source's url");
            Ok(entry)
        },
    )
}

/// A body that ends when nobody wants it any more, and when it brings no sound.
struct WatchedBody {
    /// Never shared: a decoder wants its input to be `Sync`.
    body: Mutex<BodyReader<'static>>,
    stop: Arc<AtomicBool>,
    last_sound: Arc<Mutex<Instant>>,
}

impl Read for WatchedBody {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the source is closed"));
        }
        let quiet = self.last_sound.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if quiet >= NO_SOUND_AFTER {
            return Err(std::io::Error::other(format!("no sound among what it sends for {} s", quiet.as_secs())));
        }
        self.body.get_mut().unwrap_or_else(PoisonError::into_inner).read(bytes)
    }
}
