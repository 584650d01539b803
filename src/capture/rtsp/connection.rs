//! A connection to an RTSP server (RFC 2326): requests go out; responses, and packets between them, come in.
//!
//! Everything that a server sends has a bound here; beyond it the connection is given up.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::super::stream_url::StreamUrl;

/// Headers of a response have some hundred bytes.
const MAX_HEAD: usize = 16 * 1024;
/// A description has a few kilobytes.
const MAX_BODY: usize = 64 * 1024;
/// Bytes that are nothing, between messages: some cameras send a wrong length now and then.
const MAX_JUNK: usize = 64 * 1024;
/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;
/// How long one of a host's addresses may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is short: who does not take it for so long is away.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A packet of this channel, between two messages.
    Data { channel: u8, bytes: Vec<u8> },
    /// An answer to a request.
    Response(Response),
    /// Something that it asks of us.
    Request,
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// As it says it: "Not Found".
    pub(super) reason: String,
    /// Names in small letters.
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Response {
    /// The first header of this name (in small letters).
    pub(super) fn header(&self, name: &'static str) -> Option<&str> {
        self.headers(name).next()
    }

    pub(super) fn headers(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    parser: Parser,
    count: u32,
}

impl Connection {
    /// # Errors
    /// A host without an address, or none of whose addresses answers.
    pub(super) fn open(url: &StreamUrl) -> Result<Self> {
        let addresses = (url.host.as_str(), url.port).to_socket_addrs();
        let addresses = addresses.with_context(|| format!("the name {:?} leads to no address", url.host))?;
        let mut last = anyhow!("the name {:?} leads to no address", url.host);
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true).context("can't set up the connection")?;
                    stream.set_write_timeout(Some(WRITE_TIMEOUT)).context("can't set up the connection")?;
                    return Ok(Self { stream, parser: Parser::default(), count: 0 });
                }
                Err(error) => last = anyhow!("can't connect: {error}"),
            }
        }
        Err(last)
    }

    /// The other end's address, and our own.
    pub(super) fn addresses(&self) -> Result<(IpAddr, IpAddr)> {
        Ok((self.stream.peer_addr()?.ip(), self.stream.local_addr()?.ip()))
    }

    /// Sends a request; returns its number.
    pub(super) fn send(&mut self, method: &str, uri: &str, headers: &[(&str, String)]) -> Result<u32> {
        self.count += 1;
        let mut text = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n", self.count);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += concat!("User-Agent: clapd/", env!("CARGO_PKG_VERSION"), "\r\n\r\n");
        self.stream.write_all(text.as_bytes()).context("can't send a request")?;
        Ok(self.count)
    }

    /// The next of what comes within `wait`; `None` where nothing does.
    ///
    /// # Errors
    /// The server has closed the connection, or sends what is no RTSP.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Option<Incoming>> {
        if let Some(incoming) = self.parser.next()? {
            return Ok(Some(incoming));
        }
        let until = Instant::now() + wait;
        let mut chunk = [0; CHUNK];
        loop {
            // Zero would mean for ever.
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).context("can't set up the connection")?;
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the server has closed the connection"),
                Ok(received) => self.parser.push(&chunk[..received]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                }
                Err(error) => return Err(error).context("the connection has failed"),
            }
            if let Some(incoming) = self.parser.next()? {
                return Ok(Some(incoming));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }
}

/// Bytes into messages. It never holds more than the largest of them and what was read at once.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    /// Bytes before it that are used up.
    used: usize,
    junk: usize,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Incoming>> {
        loop {
            let rest = &self.buffer[self.used..];
            match rest {
                [] => return Ok(None),
                [b'$', head @ ..] => {
                    let Some((&[channel, high, low], behind)) = head.split_first_chunk::<3>() else { return Ok(None) };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    let Some(bytes) = behind.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
                    self.used += 4 + length;
                    return Ok(Some(Incoming::Data { channel, bytes }));
                }
                // An answer begins with RTSP/, a request with its name.
                [b'A'..=b'Z', ..] => match read_message(rest)? {
                    Some((incoming, length)) => {
                        self.used += length;
                        self.junk = 0;
                        return Ok(Some(incoming));
                    }
                    None => return Ok(None),
                },
                [_, ..] => {
                    self.used += 1;
                    self.junk += 1;
                    ensure!(self.junk <= MAX_JUNK, "what the server sends is no RTSP");
                }
            }
        }
    }
}

/// A message at the beginning of `bytes`, and its length; `None` where more is to come.
fn read_message(bytes: &[u8]) -> Result<Option<(Incoming, usize)>> {
    let within = &bytes[..bytes.len().min(MAX_HEAD)];
    let end = |separator: &[u8]| {
        within.windows(separator.len()).position(|at| at == separator).map(|at| (at, at + separator.len()))
    };
    let Some((head, body)) = [end(b"\r\n\r\n"), end(b"\n\n")].into_iter().flatten().min() else {
        ensure!(bytes.len() < MAX_HEAD, "the server sends a head of more than {MAX_HEAD} bytes");
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes[..head]);
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(Ok(0), |(_, value)| value.parse());
    let length: usize = length.map_err(|_| anyhow!("the server states a length that is no number"))?;
    ensure!(length <= MAX_BODY, "the server sends a message of {length} bytes, at most {MAX_BODY} are allowed");
    let Some(content) = bytes.get(body..body + length) else { return Ok(None) };
    let version = first.next().unwrap_or_default();
    if !version.starts_with("RTSP/") {
        ensure!(
            !version.starts_with("HTTP/"),
            "a web server answers there, which speaks no RTSP; see the port of the url"
        );
        return Ok(Some((Incoming::Request, body + length)));
    }
    let status = first.next().and_then(|status| status.parse().ok()).context("an answer has no status")?;
    let reason = first.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(60).collect();
    let body_text = String::from_utf8_lossy(content).into_owned();
    Ok(Some((Incoming::Response(Response { status, reason, headers, body: body_text }), body + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<Incoming>> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece);
            while let Some(incoming) = parser.next()? {
                found.push(incoming);
            }
        }
        Ok(found)
    }

    #[test]
    fn messages_and_packets_are_told_apart_wherever_they_are_cut() {
        let all = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\nabc$\x02\x00\x02xy\0\0OPTIONS * RTSP/1.0\r\n\r\n$\x00\x00\x00";
        let whole = parse(&[all]).unwrap();
        assert_eq!(whole.len(), 4);
        let Incoming::Response(response) = &whole[0] else { panic!("{whole:?}") };
        assert_eq!((response.status, response.header("cseq"), response.body.as_str()), (200, Some("1"), "abc"));
        assert_eq!(whole[1], Incoming::Data { channel: 2, bytes: b"xy".to_vec() });
        assert_eq!((&whole[2], &whole[3]), (&Incoming::Request, &Incoming::Data { channel: 0, bytes: Vec::new() }));
        for cut in 1..all.len() {
            assert_eq!(parse(&[&all[..cut], &all[cut..]]).unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn what_is_too_large_or_no_rtsp_ends_the_connection() {
        let endless =
            b"RTSP/1.0 200 OK\r\nX: ".iter().copied().chain(std::iter::repeat_n(b'x', MAX_HEAD)).collect::<Vec<_>>();
        for bad in [
            &endless[..],
            b"RTSP/1.0 200 OK\r\nContent-Length: 4000000000\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: x\r\n\r\n",
            b"RTSP/1.0 \r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &vec![0; MAX_JUNK + 1],
        ] {
            assert!(parse(&[bad]).is_err(), "{:?}", String::from_utf8_lossy(&bad[..bad.len().min(60)]));
        }
    }
}
