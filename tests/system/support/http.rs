//! A client of the page's server that sends what it is told to, right or wrong, and reads what comes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("is listened to");
    stream.set_read_timeout(Some(PATIENCE)).expect("is a time");
    stream
}

/// Sends these bytes, and reads the answer; none where the connection is closed without one.
pub fn send(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = connect(address);
    // The other side may have answered and gone before it has read all.
    let _ = stream.write_all(bytes);
    let mut reader = BufReader::new(stream);
    let (status, headers) = read_head(&mut reader).ok().flatten()?;
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = Vec::new();
    match length.and_then(|(_, length)| length.parse::<usize>().ok()) {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body).ok()?;
        }
        None => drop(reader.read_to_end(&mut body)),
    }
    Some(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A status, and headers with their names in lower case.
type Head = (u16, Vec<(String, String)>);

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let header = |line: &String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Ok(Some((status, lines[1..].iter().filter_map(header).collect())))
}

/// The text of a request; `Host` is the address unless `headers` has one.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text += &format!("Host: {address}\r\n");
    }
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    (text + "\r\n" + body).into_bytes()
}

#[track_caller]
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(address, &request(address, "GET", path, headers, "")).expect("an answer")
}

#[track_caller]
pub fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    send(address, &request(address, "POST", path, &headers, body)).expect("an answer")
}

/// An event of a stream.
#[derive(Debug, Clone)]
pub struct StreamEvent {
    pub id: Option<String>,
    pub kind: String,
    pub data: Value,
}

/// A viewer.
pub struct Viewer {
    reader: BufReader<TcpStream>,
    /// What is left of the chunk that is read.
    left: usize,
}

impl Viewer {
    pub fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = connect(address);
        stream.write_all(&request(address, "GET", path, headers, "")).expect("is read");
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).expect("is read").expect("an answer");
        assert_eq!(status, 200, "{headers:?}");
        assert!(headers.contains(&("content-type".into(), "text/event-stream".into())), "{headers:?}");
        Self { reader, left: 0 }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            if self.left == 0 {
                let mut size = String::new();
                self.reader.read_line(&mut size).ok()?;
                self.left = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)?;
            }
            let mut byte = [0];
            self.reader.read_exact(&mut byte).ok()?;
            self.left -= 1;
            if self.left == 0 {
                let mut end = [0; 2];
                self.reader.read_exact(&mut end).ok()?;
            }
            match byte[0] {
                b'\n' => return Some(String::from_utf8(line).expect("is text")),
                byte => line.push(byte),
            }
        }
    }

    /// The next event; none where the stream is over.
    pub fn next(&mut self) -> Option<StreamEvent> {
        let (mut id, mut kind, mut data) = (None, String::new(), None);
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => data = serde_json::from_str(value).ok(),
                _ => {}
            }
            if line.is_empty()
                && let Some(data) = data.take()
            {
                return Some(StreamEvent { id, kind, data });
            }
        }
    }

    /// The next event of a kind.
    #[track_caller]
    pub fn wait_for(&mut self, kind: &str) -> StreamEvent {
        loop {
            let event = self.next().expect("the stream goes on");
            if event.kind == kind {
                return event;
            }
        }
    }
}
