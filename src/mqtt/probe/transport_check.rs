//! The way to a broker: its name, its port, its certificate.
//!
//! The connection is closed again: what follows makes its own. The certificate is checked as the daemon checks it, by
//! `tls`.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rumqttc_v5::tokio_rustls::rustls::pki_types::ServerName;
use rumqttc_v5::tokio_rustls::rustls::{self, CertificateError, ClientConnection};

use super::super::tls;
use super::{ProbeFailure, ProbeStep};
use crate::config::{Broker, Tls};

/// A broker in the same home answers within milliseconds, one across the world within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(broker: &Broker, passed: &mut dyn FnMut(ProbeStep, &str)) -> Result<(), ProbeFailure> {
    let addresses = addresses(broker)?;
    let several: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    passed(ProbeStep::Name, &format!("{} is {}", broker.host, several.join(", ")));
    let (address, stream) = connect(&addresses)?;
    passed(ProbeStep::Tcp, &format!("{address} answers"));
    if let Some(tls) = &broker.tls {
        let version = handshake(broker, tls, stream)?;
        passed(ProbeStep::Tls, &format!("{version}, and the certificate is good for {}", broker.host));
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

/// Shakes hands and closes; the version that was agreed upon.
fn handshake(broker: &Broker, tls: &Tls, mut stream: TcpStream) -> Result<String, ProbeFailure> {
    let fault = |seen: String, remedy: &str| ProbeFailure::new(ProbeStep::Tls, seen, remedy);
    let configuration = tls::configuration(tls)
        .map_err(|error| fault(format!("{error:#}"), "name files in PEM that belong together"))?;
    let name = ServerName::try_from(broker.host.clone())
        .map_err(|error| fault(format!("{}: {error}", broker.host), "give the name that stands in the certificate"))?;
    let mut session = ClientConnection::new(configuration, name)
        .map_err(|error| fault(error.to_string(), "give the name that stands in the certificate"))?;
    let limited = stream.set_read_timeout(Some(ANSWER_TIMEOUT)).and(stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
    limited.map_err(|error| fault(error.to_string(), "try again"))?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(|error| refused(broker, tls, &error))?;
    }
    Ok(session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS").replace("TLSv1_", "TLS 1."))
}

/// What went wrong in a handshake, in words for somebody who has never seen one.
fn refused(broker: &Broker, tls: &Tls, error: &io::Error) -> ProbeFailure {
    const NO_TLS: &str = "is that the port for TLS (8883 by custom)? Without TLS it is mqtt://";
    let port = broker.port;
    let (seen, remedy) = match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(certificate)) => certificate_fault(broker, tls, certificate),
        Some(rustls::Error::InvalidMessage(_)) => (format!("what answers at port {port} speaks no TLS"), NO_TLS.into()),
        Some(rustls::Error::AlertReceived(alert)) => (
            format!("the broker refuses the connection ({alert:?})"),
            "see the broker's log; it may want a client's certificate (mqtt.client_cert, mqtt.client_key)".into(),
        ),
        Some(other) => (other.to_string(), "see the broker's log".into()),
        None if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            (format!("port {port} does not answer within {} s", ANSWER_TIMEOUT.as_secs()), NO_TLS.into())
        }
        None => (format!("the broker hangs up at port {port} ({error})"), NO_TLS.into()),
    };
    ProbeFailure::new(ProbeStep::Tls, seen, remedy)
}

fn certificate_fault(broker: &Broker, tls: &Tls, fault: &CertificateError) -> (String, String) {
    let host = &broker.host;
    match fault {
        CertificateError::UnknownIssuer if tls.ca.is_none() => (
            "no authority that this system trusts vouches for the broker's certificate".into(),
            "if it is signed by an authority of your own, name that one's certificate as mqtt.ca_file (`--ca-file FILE`)".into(),
        ),
        CertificateError::UnknownIssuer => (
            "the authority in mqtt.ca_file does not vouch for the broker's certificate".into(),
            "name the certificate of the authority that signed it, not the broker's own and not an older one".into(),
        ),
        CertificateError::NotValidForName => {
            (format!("the broker's certificate is not for \"{host}\""), "give the name that stands in it".into())
        }
        CertificateError::NotValidForNameContext { presented, .. } => (
            format!("the broker's certificate is for {}, and not for \"{host}\"", presented.join(", ")),
            "give a name that stands in it, or have one issued for this name".into(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("the broker's certificate has expired".into(), "renew it, and see whether this computer's clock is right".into())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "the broker's certificate is not valid yet".into(),
            "see whether this computer's clock is right (`timedatectl`): a Raspberry Pi without network starts in the past".into(),
        ),
        other => (
            format!("the broker's certificate is not accepted ({other})"),
            "have an authority sign a certificate for the broker's name; one that a server signed for itself does not do".into(),
        ),
    }
}
