//! Sound of cameras and of go2rtc: RTSP, with packets within its connection or over UDP.
//!
//! Only the sound is asked for, no picture. By ourselves and not by `retina`, which buffers a message of any length that a server
//! states, knows neither Opus nor packets out of order, and brings seventy crates, most of them for pictures.

mod auth;
mod connection;
mod rtp;
mod sdp;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clapd_core::channel::Channel;
use clapd_core::decode::PacketDecoder;

use auth::Challenge;
pub(super) use auth::basic;
use connection::{Connection, Incoming, Response};
use rtp::{Packet, Sequencer, Timeline, Unpacker};
use sdp::{Format, Track};

use super::live_source::{Ended, LOST_AFTER, Refused, StreamSpec, Transport};
use super::live_writer::{LiveWriter, POLL_INTERVAL};

/// How often a server hears that we are still there, unless it wants it more often: they close a session after 60 s as a rule.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// Pairs of neighbouring ports that are tried: they are free nearly everywhere.
const PORT_TRIES: usize = 20;
/// The largest packet of UDP.
const MAX_DATAGRAM: usize = 65_536;
/// How often the connection is looked at while packets come beside it.
const CONTROL_INTERVAL: Duration = Duration::from_millis(500);
/// Packets in a row that can't be decoded: some seconds of them are no damage but another encoding than was described.
const MAX_BROKEN_PACKETS: u32 = 200;

/// Receives until the connection is over.
///
/// # Errors
/// Whatever ends it.
pub(super) fn receive(id: &str, spec: &StreamSpec, channel: Channel, writer: &mut LiveWriter) -> Result<Ended> {
    let mut session = Session {
        connection: Connection::open(&spec.url)?,
        spec,
        uri: spec.url.text(),
        challenge: None,
        answers: 0,
        session: None,
        keepalive: KEEPALIVE,
        keepalive_method: "OPTIONS",
    };
    let described = session.describe()?;
    let track = sdp::find_track(&described.body)?;
    let mut packets = session.set_up(&track, &described)?;
    session.request("PLAY", &session.uri.clone(), &[("Range", "npt=0.000-".into())])?;
    let mut receiver = Receiver::new(id, spec, &track, channel, packets.patient());
    let played = session.play(&mut packets, &mut receiver, writer);
    // Cameras have room for a few sessions; who does not say goodbye keeps one for a minute.
    let _ = session.send("TEARDOWN", &session.uri.clone(), &[]);
    played
}

/// A conversation with a server.
struct Session<'a> {
    connection: Connection,
    spec: &'a StreamSpec,
    /// What requests are about: the url, or what the server says instead.
    uri: String,
    challenge: Option<Challenge>,
    /// Requests that answered the challenge.
    answers: u32,
    session: Option<String>,
    keepalive: Duration,
    keepalive_method: &'static str,
}

impl Session<'_> {
    fn send(&mut self, method: &str, uri: &str, headers: &[(&str, String)]) -> Result<u32> {
        let mut headers = headers.to_vec();
        headers.extend(self.session.clone().map(|session| ("Session", session)));
        if let (Some(challenge), Some(credentials)) = (&self.challenge, &self.spec.credentials) {
            self.answers += 1;
            headers.push(("Authorization", challenge.answer(credentials, method, uri, self.answers)));
        }
        self.connection.send(method, uri, &headers)
    }

    /// Sends a request and waits for its answer; says who we are where the server asks.
    fn request(&mut self, method: &str, uri: &str, headers: &[(&str, String)]) -> Result<Response> {
        let mut answered = false;
        loop {
            let number = self.send(method, uri, headers)?;
            let response = self.wait_for(number).with_context(|| format!("no answer to {method}"))?;
            match response.status {
                200..=299 => return Ok(response),
                401 if !answered && self.spec.credentials.is_some() => {
                    self.challenge = Challenge::best(response.headers("www-authenticate"));
                    ensure!(self.challenge.is_some(), "the server asks for a password in a way that is not known here");
                    (answered, self.answers) = (true, 0);
                }
                401 | 403 => return Err(anyhow!(Refused).context(refusal(method, &response))),
                404 | 454 => bail!("{}: nothing is sent at this path now", refusal(method, &response)),
                461 => {
                    let other = if self.spec.transport == Transport::Tcp { "udp" } else { "tcp" };
                    bail!("{}: write `transport = \"{other}\"`", refusal(method, &response));
                }
                _ => bail!("{}", refusal(method, &response)),
            }
        }
    }

    fn wait_for(&mut self, number: u32) -> Result<Response> {
        let until = Instant::now() + LOST_AFTER;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the server has said nothing for {} s", LOST_AFTER.as_secs());
            match self.connection.next(left)? {
                // An answer without a number is taken for the one that is awaited.
                Some(Incoming::Response(response))
                    if response.header("cseq").is_none_or(|found| found.parse() == Ok(number)) =>
                {
                    return Ok(response);
                }
                _ => {}
            }
        }
    }

    fn describe(&mut self) -> Result<Response> {
        // Some refuse it before they know who asks, and none needs it.
        let number = self.send("OPTIONS", &self.uri.clone(), &[])?;
        let options = self.wait_for(number)?;
        if options.header("public").is_some_and(|methods| methods.contains("GET_PARAMETER")) {
            self.keepalive_method = "GET_PARAMETER";
        }
        self.request("DESCRIBE", &self.uri.clone(), &[("Accept", "application/sdp".into())])
    }

    /// Asks for the track, and makes ready for its packets.
    fn set_up(&mut self, track: &Track, described: &Response) -> Result<PacketSource> {
        let base = described.header("content-base").or(described.header("content-location")).unwrap_or(&self.uri);
        let base = base.to_owned();
        let uri = join(&base, &track.control);
        let (transport, sockets) = match self.spec.transport {
            Transport::Tcp => ("RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(), None),
            Transport::Udp => {
                let sockets = UdpPair::bind(self.connection.addresses()?)?;
                (format!("RTP/AVP;unicast;client_port={}-{}", sockets.port, sockets.port + 1), Some(sockets))
            }
        };
        let response = self.request("SETUP", &uri, &[("Transport", transport)])?;
        let session = response.header("session").unwrap_or_default();
        let (name, parameters) = session.split_once(';').unwrap_or((session, ""));
        self.session = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
        if let Some(timeout) =
            parameters.trim().strip_prefix("timeout=").and_then(|timeout| timeout.trim().parse().ok())
        {
            self.keepalive = KEEPALIVE.min(Duration::from_secs(timeout) / 2).max(CONTROL_INTERVAL);
        }
        self.uri = base;
        let answer = response.header("transport").unwrap_or_default();
        Ok(match sockets {
            None => {
                let channel =
                    parameter(answer, "interleaved").and_then(|channels| channels.split('-').next()?.parse().ok());
                PacketSource::Interleaved(channel.unwrap_or(0))
            }
            Some(sockets) => {
                let port = parameter(answer, "server_port").and_then(|ports| ports.split('-').next()?.parse().ok());
                sockets.greet(port);
                PacketSource::Udp(sockets)
            }
        })
    }

    /// Takes packets until the connection ends, stalls, or nobody wants the source any more.
    fn play(
        &mut self,
        packets: &mut PacketSource,
        receiver: &mut Receiver<'_>,
        writer: &mut LiveWriter,
    ) -> Result<Ended> {
        let (mut last_packet, mut last_request) = (Instant::now(), Instant::now());
        let mut last_control = Instant::now();
        while !writer.is_stopped() {
            let packet = match packets {
                PacketSource::Interleaved(channel) => match self.connection.next(POLL_INTERVAL)? {
                    Some(Incoming::Data { channel: found, bytes }) if found == *channel => Some(bytes),
                    _ => None,
                },
                PacketSource::Udp(sockets) => {
                    if last_control.elapsed() >= CONTROL_INTERVAL {
                        last_control = Instant::now();
                        while self.connection.next(Duration::ZERO)?.is_some() {}
                    }
                    sockets.receive()?
                }
            };
            if let Some(packet) = packet.and_then(|bytes| Packet::parse(&bytes))
                && receiver.take(packet, writer)?
            {
                last_packet = Instant::now();
            }
            if last_packet.elapsed() >= LOST_AFTER {
                bail!("{}", packets.silence(LOST_AFTER));
            }
            if last_request.elapsed() >= self.keepalive {
                last_request = Instant::now();
                self.send(self.keepalive_method, &self.uri.clone(), &[])?;
            }
        }
        Ok(Ended::Stopped)
    }
}

/// What a server says of a request that it does not do.
fn refusal(method: &str, response: &Response) -> String {
    format!("the server answers {method} with {} {}", response.status, response.reason)
}

/// A control url: whole, or behind the description's own. "*" is the latter itself.
fn join(base: &str, control: &str) -> String {
    if control.contains("://") {
        control.to_owned()
    } else if control.is_empty() || control == "*" {
        base.to_owned()
    } else {
        format!("{}/{}", base.trim_end_matches('/'), control.trim_start_matches('/'))
    }
}

/// A parameter of a Transport header.
fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Where packets come from.
enum PacketSource {
    /// This channel of the connection.
    Interleaved(u8),
    Udp(UdpPair),
}

impl PacketSource {
    /// Whether one packet may overtake another.
    fn patient(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    fn silence(&self, wait: Duration) -> String {
        let remedy = match self {
            Self::Interleaved(_) => "",
            Self::Udp(_) => "; a firewall may keep packets away: try `transport = \"tcp\"`",
        };
        format!("no sound has come for {} s{remedy}", wait.as_secs())
    }
}

/// Sockets for packets and for what is said of them.
struct UdpPair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    port: u16,
    peer: IpAddr,
    buffer: Vec<u8>,
}

impl UdpPair {
    /// Two neighbouring ports, an even and an odd one, as the standard wants them.
    fn bind((peer, own): (IpAddr, IpAddr)) -> Result<Self> {
        for _ in 0..PORT_TRIES {
            let rtp = UdpSocket::bind((own, 0)).context("can't open a socket for packets")?;
            let port = rtp.local_addr()?.port();
            if port % 2 == 0
                && let Ok(rtcp) = UdpSocket::bind((own, port + 1))
            {
                rtp.set_read_timeout(Some(POLL_INTERVAL))?;
                rtcp.set_nonblocking(true)?;
                return Ok(Self { rtp, rtcp, port, peer, buffer: vec![0; MAX_DATAGRAM] });
            }
        }
        bail!("there are no two neighbouring ports for packets; try `transport = \"tcp\"`")
    }

    /// Opens the way through routers: they let in what answers something.
    fn greet(&self, port: Option<u16>) {
        let Some(port) = port else { return };
        let _ = self.rtp.send_to(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], (self.peer, port));
        let _ = self.rtcp.send_to(&[0x80, 201, 0, 1, 0, 0, 0, 0], (self.peer, port.saturating_add(1)));
    }

    /// A packet of the server's; those of others are dropped.
    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        // Read, so that the system's buffer does not fill; what is in it no one needs.
        while self.rtcp.recv(&mut self.buffer).is_ok() {}
        match self.rtp.recv_from(&mut self.buffer) {
            Ok((length, from)) if from.ip() == self.peer => Ok(Some(self.buffer[..length].to_vec())),
            Ok(_) => Ok(None),
            // An earlier datagram of ours was refused: the server has not opened its port.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("can't receive packets"),
        }
    }
}

/// From packets to samples.
struct Receiver<'a> {
    id: &'a str,
    spec: &'a StreamSpec,
    formats: HashMap<u8, Format>,
    channel: Channel,
    sequencer: Sequencer,
    current: Option<Current>,
    broken: u32,
    /// Packets are missing before the next that can be decoded.
    missing: bool,
}

/// What is decoded now: a server may go over to another of the formats that it has described.
struct Current {
    payload_type: u8,
    decoder: PacketDecoder,
    unpacker: Unpacker,
    timeline: Timeline,
    samples_bad: u64,
}

impl<'a> Receiver<'a> {
    fn new(id: &'a str, spec: &'a StreamSpec, track: &Track, channel: Channel, patient: bool) -> Self {
        let formats = track.formats.iter().cloned().collect();
        Self {
            id,
            spec,
            formats,
            channel,
            sequencer: Sequencer::new(patient),
            current: None,
            broken: 0,
            missing: false,
        }
    }

    /// Takes a packet; whether sound came of it, or of those that waited for it.
    fn take(&mut self, packet: Packet, writer: &mut LiveWriter) -> Result<bool> {
        let mut sounds = false;
        for (packet, missing) in self.sequencer.push(packet) {
            sounds |= self.decode(&packet, missing, writer)?;
        }
        Ok(sounds)
    }

    fn decode(&mut self, packet: &Packet, missing: u16, writer: &mut LiveWriter) -> Result<bool> {
        // Another type is of no sound: comfort noise, or telephone keys.
        let Some(format) = self.formats.get(&packet.payload_type) else { return Ok(false) };
        if self.current.as_ref().is_none_or(|current| current.payload_type != packet.payload_type) {
            let decoder = PacketDecoder::new(&format.codec, format.clock, format.channels, self.channel)?;
            log::info!(
                "source {:?}: listening to {} ({}, {} Hz, {} channels, over {})",
                self.id,
                self.spec.url,
                format.codec.name(),
                decoder.rate(),
                decoder.channels(),
                if self.spec.transport == Transport::Tcp { "TCP" } else { "UDP" }
            );
            let (unpacker, timeline) = (Unpacker::default(), Timeline::default());
            self.current =
                Some(Current { payload_type: packet.payload_type, decoder, unpacker, timeline, samples_bad: 0 });
        }
        let Some(current) = &mut self.current else { return Ok(false) };
        self.missing |= missing > 0;
        let Current { decoder, unpacker, timeline, samples_bad, .. } = current;
        let (rate, mut timestamp, mut sounds) = (decoder.rate(), packet.timestamp, false);
        let units = unpacker.unpack(packet, missing, format);
        let units = match units {
            Ok(units) => units,
            Err(error) => return self.count_broken(&error, writer),
        };
        for unit in units {
            let samples = match decoder.decode(&unit) {
                Ok(samples) => samples,
                Err(error) => return self.count_broken(&error, writer),
            };
            let lost = timeline.advance(timestamp, self.missing, samples.len(), format.clock, rate);
            timestamp =
                timestamp.wrapping_add((samples.len() as u64 * u64::from(format.clock) / u64::from(rate)) as u32);
            writer.write(rate, lost, samples)?;
            (self.missing, self.broken) = (false, 0);
            sounds |= !samples.is_empty();
        }
        writer.counters().samples_bad.add(decoder.samples_bad() - *samples_bad);
        *samples_bad = decoder.samples_bad();
        Ok(sounds)
    }

    /// The time stamps of the next packet tell how much went with it.
    fn count_broken(&mut self, error: &anyhow::Error, writer: &LiveWriter) -> Result<bool> {
        writer.counters().packets_bad.add(1);
        (self.broken, self.missing) = (self.broken + 1, true);
        ensure!(self.broken < MAX_BROKEN_PACKETS, "{MAX_BROKEN_PACKETS} packets in a row can't be decoded: {error:#}");
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_are_asked_for_where_they_are() {
        for (base, control, uri) in [
            ("rtsp://x/a/", "trackID=1", "rtsp://x/a/trackID=1"),
            ("rtsp://x/a", "trackID=1", "rtsp://x/a/trackID=1"),
            ("rtsp://x/a?b=c", "track1", "rtsp://x/a?b=c/track1"),
            ("rtsp://x/a", "rtsp://x/b", "rtsp://x/b"),
            ("rtsp://x/a", "*", "rtsp://x/a"),
            ("rtsp://x/a", "", "rtsp://x/a"),
        ] {
            assert_eq!(join(base, control), uri);
        }
        let transport = "RTP/AVP/TCP;unicast;interleaved=2-3; ssrc=1";
        assert_eq!((parameter(transport, "interleaved"), parameter(transport, "server_port")), (Some("2-3"), None));
    }
}
