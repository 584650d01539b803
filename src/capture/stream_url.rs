//! Where a stream in the network is: a url without what it says of users.
//!
//! [`StreamUrl`] is parsed by hand, as the broker's is: a url of a camera holds what the web's standard refuses or
//! encodes. It is shown without its path, since many cameras want a password there.

use std::fmt;

use clapd_core::text::shorten;
use percent_encoding::percent_decode_str;

/// Cameras' urls have a hundred characters; web servers take some 8,000.
const MAX_URL: usize = 2_000;

/// How a stream is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `rtsp://`: cameras.
    Rtsp,
    /// `http://`: Icecast, files.
    Http,
    /// `https://`: the same with TLS.
    Https,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "rtsp" => Some(Self::Rtsp),
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rtsp => "rtsp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// As IANA registered them.
    fn default_port(self) -> u16 {
        match self {
            Self::Rtsp => 554,
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A stream's address.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUrl {
    /// How it is fetched.
    pub scheme: Scheme,
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// With its query; begins with a slash.
    path: String,
}

/// What a url says of who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Before the colon.
    pub user: Option<String>,
    /// Behind it.
    pub password: Option<String>,
}

impl StreamUrl {
    /// Reads `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy; nothing of what stands behind the scheme but the host and the port.
    pub fn parse(url: &str) -> Result<(Self, UserInfo), (String, String)> {
        let example = || "write \"rtsp://camera/stream\" or \"http://server:8000/stream.ogg\"".to_owned();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let Some(scheme) = Scheme::parse(scheme) else {
            let remedy = match scheme {
                "rtsps" | "rtmp" | "srt" => {
                    "let go2rtc or ffmpeg serve it as rtsp://, or write the camera's rtsp:// url".into()
                }
                _ => example(),
            };
            return Err((format!("\"{}\" is not a scheme of streams: rtsp, http, https", shorten(scheme)), remedy));
        };
        if url.len() > MAX_URL {
            return Err((format!("has {} characters, at most {MAX_URL} are allowed", url.len()), example()));
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("holds a space or a character that is not ASCII".into(), "write it as %20 and so on".into()));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // A password may hold an @ of its own.
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (UserInfo::parse(user), authority),
            None => (UserInfo::default(), authority),
        };
        let (host, port) = split_port(authority, scheme.default_port()).map_err(|seen| (seen, example()))?;
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok((Self { scheme, host, port, path }, user))
    }

    /// The url as a server wants it: whole, and without a user. Not for logs.
    pub fn text(&self) -> String {
        format!("{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }

    /// Host and port, the latter where it is not the usual one.
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// Where `reference` leads that stands in what this url led to: another url, a path from the root, or a name beside it.
    ///
    /// # Errors
    /// As [`StreamUrl::parse`].
    pub(super) fn join(&self, reference: &str) -> Result<Self, String> {
        if reference.contains("://") {
            return Self::parse(reference).map(|(url, _)| url).map_err(|(seen, _)| seen);
        }
        let folder = self.path.split('?').next().unwrap_or_default();
        let folder = &folder[..folder.rfind('/').unwrap_or(0)];
        let path = if reference.starts_with('/') { reference.to_owned() } else { format!("{folder}/{reference}") };
        Self::parse(&format!("{}://{}{path}", self.scheme.name(), self.authority()))
            .map(|(url, _)| url)
            .map_err(|(seen, _)| seen)
    }

    /// Whether path or query seem to hold a password, as some cameras want it.
    pub fn has_secret_path(&self) -> bool {
        let path = self.path.to_ascii_lowercase();
        ["pass", "pwd", "token", "auth="].iter().any(|word| path.contains(word))
    }
}

/// Without the path: no log and no message shows what stands in it.
impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path == "/" { "/" } else { "/..." };
        write!(f, "{}://{}{path}", self.scheme.name(), self.authority())
    }
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamUrl({self})")
    }
}

impl UserInfo {
    fn parse(text: &str) -> Self {
        let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
        // What is no percent-encoded character stays as it is.
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let some = |text: &str| Some(decode(text)).filter(|text| !text.is_empty());
        Self { user: some(user), password: password.and_then(some) }
    }
}

fn split_port(authority: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("\"{}\" is no IPv6 address, which is what brackets hold", shorten(host)));
        }
        (host, port)
    } else {
        let colon = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(colon);
        if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            return Err(format!("\"{}\" is not a host's name or address (IPv6 in brackets)", shorten(host)));
        }
        (host, port)
    };
    let port = match port {
        "" => default,
        port => port
            .strip_prefix(':')
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("\"{}\" is not a port from 1 to 65535", shorten(port.trim_start_matches(':'))))?,
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> (StreamUrl, UserInfo) {
        StreamUrl::parse(url).unwrap()
    }

    #[test]
    fn urls_as_people_write_them() {
        let (url, user) = parse("rtsp://admin:p%40ss:w@rd@192.168.1.10/Streaming/Channels/101?x=1#y");
        assert_eq!((url.host.as_str(), url.port), ("192.168.1.10", 554));
        assert_eq!(url.text(), "rtsp://192.168.1.10/Streaming/Channels/101?x=1");
        assert_eq!((user.user.as_deref(), user.password.as_deref()), (Some("admin"), Some("p@ss:w@rd")));
        assert_eq!(parse("http://[::1]:8000").0.text(), "http://[::1]:8000/");
        assert_eq!(parse("HTTPS://x?y").0.text(), "https://x/?y");
        assert_eq!(parse("rtsp://me@x").1, UserInfo { user: Some("me".into()), password: None });
        for url in [
            "",
            "camera",
            "rtsp://",
            "rtsp://x:0",
            "rtsp://x:70000",
            "rtsp://a b",
            "rtsp://[x]",
            "rtsp://[::1",
            "rtsp://::1",
            "rtsps://x",
            "ftp://x",
            "rtsp://x/ü",
            "http://x/\r\nHost: y",
        ] {
            assert!(StreamUrl::parse(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let (url, user) = parse("rtsp://me:hunter2@camera:8554/user=me_password=hunter2.sdp");
        assert!(url.has_secret_path());
        assert_eq!(format!("{url} {url:?}"), "rtsp://camera:8554/... StreamUrl(rtsp://camera:8554/...)");
        assert!(user.password.is_some());
        for url in ["rtsp://me:hunter2@a b", "rtsp://me:hunter2@x:0", "xtsp://me:hunter2@x"] {
            let (seen, remedy) = StreamUrl::parse(url).unwrap_err();
            assert!(!seen.contains("hunter2") && !remedy.contains("hunter2"), "{seen}; {remedy}");
        }
    }

    #[test]
    fn references_lead_where_a_browser_would_go() {
        let (url, _) = parse("http://x:8000/radio/list.m3u?y");
        let join = |reference| url.join(reference).map(|url| url.text());
        assert_eq!(join("a.ogg").as_deref(), Ok("http://x:8000/radio/a.ogg"));
        assert_eq!(join("/a.ogg").as_deref(), Ok("http://x:8000/a.ogg"));
        assert_eq!(join("https://y/z").as_deref(), Ok("https://y/z"));
        assert!(join("mms://y").is_err());
    }
}
