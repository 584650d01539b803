//! The page's files, which are a part of the program: nothing is read from a disk, and nothing is fetched from elsewhere.
//!
//! They are compressed once, by whoever asks first. All that they name is relative, so that they work below any path.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use clapd_core::files::hexadecimal;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::Site;
use super::failure::Failure;

/// A file: its name in a url, its type, and what is in it.
struct File(&'static str, &'static str, &'static [u8]);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// All of them.
const FILES: &[File] = &[
    File("api.js", SCRIPT, include_bytes!("page/api.js")),
    File("device.js", SCRIPT, include_bytes!("page/device.js")),
    File("dom.js", SCRIPT, include_bytes!("page/dom.js")),
    File("events.js", SCRIPT, include_bytes!("page/events.js")),
    File("icon.svg", PICTURE, include_bytes!("page/icon.svg")),
    File("index.html", HTML, include_bytes!("page/index.html")),
    File("level.js", SCRIPT, include_bytes!("page/level.js")),
    File("live.js", SCRIPT, include_bytes!("page/live.js")),
    File("main.js", SCRIPT, include_bytes!("page/main.js")),
    File("paint.js", SCRIPT, include_bytes!("page/paint.js")),
    File("past.js", SCRIPT, include_bytes!("page/past.js")),
    File("prompts.js", SCRIPT, include_bytes!("page/prompts.js")),
    File("rings.js", SCRIPT, include_bytes!("page/rings.js")),
    File("spectrogram.js", SCRIPT, include_bytes!("page/spectrogram.js")),
    File("store.js", SCRIPT, include_bytes!("page/store.js")),
    File("stream.js", SCRIPT, include_bytes!("page/stream.js")),
    File("style.css", STYLE, include_bytes!("page/style.css")),
    File("words.js", SCRIPT, include_bytes!("page/words.js")),
];

/// A file as it is sent.
struct PageFile {
    name: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    gzip: Bytes,
    tag: HeaderValue,
}

static PAGE: LazyLock<Vec<PageFile>> = LazyLock::new(|| FILES.iter().filter_map(PageFile::of).collect());

impl PageFile {
    fn of(&File(name, kind, plain): &File) -> Option<Self> {
        // Nothing is written but memory, so it fails never.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).ok()?;
        let gzip = encoder.finish().ok()?.into();
        let digest = hexadecimal(&Sha256::digest(plain)[..8]);
        // Weak: the same content in two encodings.
        Some(Self { name, kind, plain, gzip, tag: format!("W/\"{digest}\"").parse().ok()? })
    }
}

/// The page itself.
pub(super) async fn index(State(_): State<Arc<Site>>, headers: HeaderMap) -> Result<Response, Failure> {
    respond("index.html", &headers)
}

/// One of its files.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    respond(&name, &headers)
}

fn respond(name: &str, asked: &HeaderMap) -> Result<Response, Failure> {
    let Some(file) = PAGE.iter().find(|file| file.name == name) else {
        return Err(Failure::missing("there is nothing here; /openapi.json says what there is"));
    };
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|tags| {
        tags.to_str().is_ok_and(|tags| tags.split(',').any(|tag| tag.trim().as_bytes() == file.tag.as_bytes()))
    });
    let takes_gzip = asked.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(',').any(|item| {
            let (coding, quality) = item.split_once(';').unwrap_or((item, ""));
            coding.trim().eq_ignore_ascii_case("gzip") && !["q=0", "q=0.0"].contains(&quality.trim())
        })
    });
    let mut response = match (is_known, takes_gzip) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => file.gzip.clone().into_response(),
        (false, false) => file.plain.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    if takes_gzip && !is_known {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(ETAG, file.tag.clone());
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    // A browser asks each time whether it is still the same: an update of clapd is seen at once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the page may have, so that it opens at once over a slow network.
    const MAX_COMPRESSED: usize = 60_000;

    #[test]
    fn the_page_is_small_and_names_nothing_elsewhere() {
        assert_eq!(PAGE.len(), FILES.len());
        let compressed: usize = PAGE.iter().map(|file| file.gzip.len()).sum();
        assert!(compressed <= MAX_COMPRESSED, "{compressed} bytes");
        for file in PAGE.iter().filter(|file| file.kind.starts_with("text/")) {
            let text = str::from_utf8(file.plain).unwrap();
            for outside in ["src=\"/", "href=\"/", "src=\"http", "url(http", "url(/", "import(\"http", "from \"http"] {
                assert!(!text.contains(outside), "{}: {outside}", file.name);
            }
        }
    }

    #[test]
    fn a_file_that_a_browser_has_is_not_sent_again() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let first = respond("index.html", &headers(&[("accept-encoding", "br, gzip;q=0.5")])).unwrap();
        assert_eq!(first.headers()[CONTENT_ENCODING], "gzip");
        let tag = first.headers()[ETAG].to_str().unwrap();
        let again = respond("index.html", &headers(&[("if-none-match", &format!("\"x\", {tag}"))])).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let plain = respond("index.html", &headers(&[("accept-encoding", "gzip;q=0")])).unwrap();
        assert!(plain.status() == StatusCode::OK && !plain.headers().contains_key(CONTENT_ENCODING));
        for name in ["", "../Cargo.toml", "index.htm", "page/index.html"] {
            assert!(respond(name, &headers(&[])).is_err(), "{name}");
        }
    }
}
