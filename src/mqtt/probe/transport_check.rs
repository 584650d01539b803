//! The way to a broker: its name, its port, its certificate.
//!
//! The connection is closed again: what follows makes its own. The certificate is checked as the daemon checks it, by
//! `tls`.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rumqttc_v5::tokio_rustls::rustls::pki_types::UnixTime;
use rumqttc_v5::tokio_rustls::rustls::{self, ClientConnection};

use super::super::tls::{self, TlsFault, Trust};
use super::{ProbeFailure, ProbeStep};
use crate::config::{Broker, Tls};

/// A broker in the same home answers within milliseconds, one across the world within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const NAMED: &str = "give the name that stands in the certificate";

pub(super) fn run(broker: &Broker, passed: &mut dyn FnMut(ProbeStep, &str)) -> Result<(), ProbeFailure> {
    let addresses = addresses(broker)?;
    let several: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    passed(ProbeStep::Name, &format!("{} is {}", broker.host, several.join(", ")));
    let (address, stream) = connect(&addresses)?;
    passed(ProbeStep::Tcp, &format!("{address} answers"));
    if let Some(tls) = &broker.tls {
        passed(ProbeStep::Tls, &handshake(broker, tls, stream)?);
    }
    Ok(())
}

fn addresses(broker: &Broker) -> Result<Vec<SocketAddr>, ProbeFailure> {
    let fault = |seen: String| {
        let remedy = "see whether `ping` knows that name, or give the broker's address";
        ProbeFailure::new(ProbeStep::Name, format!("\"{}\" has no address ({seen})", broker.host), remedy)
    };
    let found = (broker.host.as_str(), broker.port).to_socket_addrs().map_err(|error| fault(error.to_string()))?;
    let mut addresses: Vec<_> = found.collect();
    addresses.dedup();
    if addresses.is_empty() { Err(fault("none was found".into())) } else { Ok(addresses) }
}

/// The first address that answers, or why the last did not.
fn connect(addresses: &[SocketAddr]) -> Result<(SocketAddr, TcpStream), ProbeFailure> {
    let mut fault = ProbeFailure::new(ProbeStep::Tcp, "there is no address", "give the broker's address");
    for address in addresses {
        match TcpStream::connect_timeout(address, ANSWER_TIMEOUT) {
            Ok(stream) => return Ok((*address, stream)),
            Err(error) => fault = unreachable(*address, &error),
        }
    }
    Err(fault)
}

fn unreachable(address: SocketAddr, error: &io::Error) -> ProbeFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => ProbeFailure::new(
            ProbeStep::Tcp,
            format!("nobody listens at {address} (connection refused)"),
            "see whether the broker runs, on which port, and whether other computers may reach it \
             (mosquitto: `listener 1883` in its configuration)",
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => ProbeFailure::new(
            ProbeStep::Tcp,
            format!("{address} does not answer within {} s", ANSWER_TIMEOUT.as_secs()),
            "see whether that computer is on and whether a firewall stands between",
        ),
        _ => ProbeFailure::new(
            ProbeStep::Tcp,
            format!("{address} cannot be reached ({error})"),
            "see whether this computer is in the same network",
        ),
    }
}

/// Shakes hands and closes; what was agreed upon, and why the certificate is trusted.
fn handshake(broker: &Broker, tls: &Tls, mut stream: TcpStream) -> Result<String, ProbeFailure> {
    let fault = |seen: String, remedy: &str| ProbeFailure::new(ProbeStep::Tls, seen, remedy);
    let unusable = |error: anyhow::Error| fault(format!("{error:#}"), "name files in PEM that belong together");
    let verifier = tls::verifier(tls).map_err(unusable)?;
    let configuration = tls::configuration_with(tls, Arc::clone(&verifier)).map_err(unusable)?;
    let name = tls::server_name(broker).map_err(|error| fault(format!("{error:#}"), NAMED))?;
    let mut session = ClientConnection::new(configuration, name.clone()).map_err(|error| refused(broker, &error))?;
    let limited = stream.set_read_timeout(Some(ANSWER_TIMEOUT)).and(stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
    limited.map_err(|error| fault(error.to_string(), "try again"))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(|error| not_shaken(broker, &error))?;
    }
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let chain = session.peer_certificates().unwrap_or_default();
    let trust = chain.split_first().map(|(own, others)| verifier.judge(own, others, &name, UnixTime::now()));
    let trusted = match trust.transpose().map_err(|error| refused(broker, &error))? {
        Some(Trust::Pinned) => format!("the certificate is the one in mqtt.ca_file, for {}", broker.host),
        Some(Trust::PinnedNameless) => "the certificate is the one in mqtt.ca_file, which names no host".into(),
        Some(Trust::Vouched) | None => format!("the certificate is good for {}", broker.host),
    };
    Ok(format!("{}, and {trusted}", version.replace("TLSv1_", "TLS 1.")))
}

fn refused(broker: &Broker, error: &rustls::Error) -> ProbeFailure {
    let (seen, remedy) = TlsFault::of(error).explain(broker);
    ProbeFailure::new(ProbeStep::Tls, seen, remedy)
}

fn not_shaken(broker: &Broker, error: &io::Error) -> ProbeFailure {
    const NO_TLS: &str = "is that the port for TLS (8883 by custom)? Without TLS it is mqtt://";
    let port = broker.port;
    if let Some(fault) = TlsFault::find(error) {
        let (seen, remedy) = fault.explain(broker);
        return ProbeFailure::new(ProbeStep::Tls, seen, remedy);
    }
    let seen = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("port {port} does not answer within {} s", ANSWER_TIMEOUT.as_secs())
        }
        _ => format!("the broker hangs up at port {port} ({error})"),
    };
    ProbeFailure::new(ProbeStep::Tls, seen, NO_TLS)
}
