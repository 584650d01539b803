//! Why there is no TLS connection, in words for somebody who has never seen a certificate.
//!
//! A [`TlsFault`] is made of rustls's error where it turns up, in a handshake of ours or within rumqttc's errors, and
//! explained by one function, so that set-up and the log say the same.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rumqttc_v5::tokio_rustls::rustls::pki_types::UnixTime;
use rumqttc_v5::tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use super::webpki_error;
use crate::config::Broker;

/// The year 2020 in seconds since 1970: nobody runs this program before it was written, so an earlier clock was never set.
const CLOCK_WAS_SET: u64 = 1_577_836_800;

/// Why TLS failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum TlsFault {
    /// Nobody whom we trust has signed the broker's certificate.
    UnknownAuthority,
    /// The broker shows the certificate of an authority, most likely one that it has signed for itself, and it is not pinned.
    NotPinned,
    /// The certificate is of version 1.
    Version1,
    /// The certificate is for these names.
    OtherNames(Vec<String>),
    /// The certificate was good until then.
    Expired(Validity),
    /// The certificate is good from then on.
    NotValidYet(Validity),
    /// The clock shows a time before 1970.
    NoClock,
    /// The certificate is for something else than servers.
    OtherPurpose,
    /// The certificate is signed with an algorithm that is not accepted; its identifier in DER, in hexadecimal digits.
    Algorithm(String),
    /// A signature does not hold.
    BadSignature,
    /// The certificate has a critical extension that is not known.
    UnknownExtension,
    /// The certificate cannot be read.
    Unreadable,
    /// The certificate is refused for this reason.
    Refused(String),
    /// What answers speaks no TLS.
    NoTls,
    /// The broker speaks TLS in a way that we don't, as rustls says it.
    Incompatible(String),
    /// The broker has ended it with this alert.
    Alert(AlertDescription),
    /// Anything else, as rustls says it.
    Other(String),
}

/// A certificate's bound, and the time of this computer. Seconds since 1970.
#[derive(Debug, Clone, Copy, Eq)]
pub(in super::super) struct Validity {
    bound: u64,
    now: u64,
}

/// A moment later it is the same fault.
impl PartialEq for Validity {
    fn eq(&self, other: &Self) -> bool {
        self.bound == other.bound
    }
}

impl TlsFault {
    /// What rustls says.
    pub(in super::super) fn of(error: &Error) -> Self {
        let validity = |bound: &UnixTime, now: &UnixTime| Validity { bound: bound.as_secs(), now: now.as_secs() };
        match error {
            Error::InvalidCertificate(fault) => match fault {
                CertificateError::UnknownIssuer => Self::UnknownAuthority,
                CertificateError::NotValidForNameContext { presented, .. } => {
                    Self::OtherNames(presented.iter().map(|name| bare_name(name)).collect())
                }
                CertificateError::NotValidForName => Self::OtherNames(Vec::new()),
                CertificateError::ExpiredContext { time, not_after } => Self::Expired(validity(not_after, time)),
                CertificateError::NotValidYetContext { time, not_before } => {
                    Self::NotValidYet(validity(not_before, time))
                }
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::OtherPurpose,
                CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    signature_algorithm_id, ..
                } => Self::Algorithm(signature_algorithm_id.iter().map(|byte| format!("{byte:02x}")).collect()),
                CertificateError::BadSignature => Self::BadSignature,
                CertificateError::UnhandledCriticalExtension => Self::UnknownExtension,
                CertificateError::BadEncoding => Self::Unreadable,
                other => match webpki_error(error) {
                    Some(webpki::Error::CaUsedAsEndEntity) => Self::NotPinned,
                    Some(webpki::Error::UnsupportedCertVersion) => Self::Version1,
                    Some(webpki::Error::UnsupportedCriticalExtension) => Self::UnknownExtension,
                    _ => Self::Refused(other.to_string()),
                },
            },
            Error::FailedToGetCurrentTime => Self::NoClock,
            Error::InvalidMessage(_) => Self::NoTls,
            Error::PeerIncompatible(what) => Self::Incompatible(format!("{what:?}")),
            Error::AlertReceived(alert) => Self::Alert(*alert),
            other => Self::Other(other.to_string()),
        }
    }

    /// What rustls says somewhere within this error, if that is where it comes from.
    pub(in super::super) fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<Error>() {
                return Some(Self::of(error));
            }
            // An error of input and output gives the source of what it holds, and passes over that itself.
            let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = held.map(|held| held as &(dyn StdError + 'static)).or_else(|| error.source());
        }
        None
    }

    /// What was seen at this broker, and what to do about it.
    pub(in super::super) fn explain(&self, broker: &Broker) -> (String, String) {
        match self {
            Self::Alert(alert) => explain_alert(*alert, broker),
            Self::NoTls => (
                format!("what answers at port {} speaks no TLS", broker.port),
                "is that the port for TLS (8883 by custom)? Without TLS it is mqtt://".into(),
            ),
            Self::Incompatible(what) => (
                format!("the broker speaks TLS in a way that is not accepted here ({what})"),
                "have it offer TLS 1.2 or 1.3 with the ciphers that its authors recommend".into(),
            ),
            Self::Other(what) => (what.clone(), "see the broker's log".into()),
            Self::NoClock => clock_was_never_set("a time before 1970"),
            Self::Expired(validity) | Self::NotValidYet(validity) => self.explain_validity(*validity),
            _ => self.explain_certificate(broker),
        }
    }

    fn explain_validity(&self, Validity { bound, now }: Validity) -> (String, String) {
        let (bound, shown) = (date(bound), date(now));
        if now < CLOCK_WAS_SET {
            return clock_was_never_set(&shown);
        }
        if matches!(self, Self::Expired(_)) {
            let seen =
                format!("the broker's certificate has expired: it was valid until {bound}, and here it is {shown}");
            return (seen, "renew it; if that time is wrong, set this computer's clock (`timedatectl`)".into());
        }
        let seen = format!("the broker's certificate is not valid yet: it is from {bound} on, and here it is {shown}");
        let remedy =
            "see whether this computer's clock is right (`timedatectl`), and the clock of the one that made it";
        (seen, remedy.into())
    }

    fn explain_certificate(&self, broker: &Broker) -> (String, String) {
        const PIN: &str = "name the broker's own certificate (its `certfile`) as mqtt.ca_file, which is then accepted";
        const ISSUE: &str = "have one issued for it (`openssl x509 -req ... -extfile san`, with `subjectAltName=DNS:NAME` or `IP:ADDRESS` in the file san)";
        let has_ca = broker.tls.as_ref().is_some_and(|tls| tls.ca.is_some());
        let host = &broker.host;
        let (seen, remedy): (String, String) = match self {
            Self::UnknownAuthority if has_ca => (
                "the authority in mqtt.ca_file does not vouch for the broker's certificate".into(),
                "name the certificate of the authority that signed it (and those in between), or the broker's own, and not an older one".into(),
            ),
            Self::UnknownAuthority => (
                "no authority that this system trusts vouches for the broker's certificate".into(),
                "name that of your own authority, or the broker's own certificate, as mqtt.ca_file (`--ca-file FILE`)".into(),
            ),
            Self::NotPinned if has_ca => (
                "the broker shows a certificate that is its own authority, and not the one in mqtt.ca_file".into(),
                PIN.into(),
            ),
            Self::NotPinned => ("the broker shows a certificate that is its own authority".into(), PIN.into()),
            Self::Version1 => (
                format!("the broker's certificate is of X.509 version 1, in which it cannot name \"{host}\""),
                format!("{ISSUE}; or {PIN} as it is"),
            ),
            Self::OtherNames(names) if names.is_empty() => (
                format!("the broker's certificate names no host, and so not \"{host}\" (a common name, CN, does not count)"),
                format!("{ISSUE}; or {PIN} as it is"),
            ),
            Self::OtherNames(names) => (
                format!("the broker's certificate is for {}, and not for \"{host}\"", names.join(", ")),
                "give a name that stands in it, or have one issued for this name".into(),
            ),
            Self::OtherPurpose => (
                "the broker's certificate is not one for servers (its extendedKeyUsage lacks serverAuth)".into(),
                "have one issued for a server".into(),
            ),
            Self::Algorithm(id) => (
                format!("the broker's certificate is signed with an algorithm that is not accepted (identifier {id}), such as SHA-1"),
                "have one issued with SHA-256 and an RSA, ECDSA (P-256, P-384) or Ed25519 key".into(),
            ),
            Self::BadSignature => (
                "a signature does not hold: that of the broker's certificate, or the broker's own".into(),
                "see whether the broker's certificate, key and authority belong together, and whether each RSA key has 2048 bits or more".into(),
            ),
            Self::UnknownExtension => (
                "the broker's certificate has a critical extension that is not known here".into(),
                "have one issued without it".into(),
            ),
            Self::Unreadable => ("the broker's certificate cannot be read".into(), "have one issued anew".into()),
            other => {
                let what = if let Self::Refused(what) = other { what.clone() } else { format!("{other:?}") };
                (format!("the broker's certificate is not accepted ({what})"), "have one issued anew".into())
            }
        };
        (seen, remedy)
    }
}

fn clock_was_never_set(shown: &str) -> (String, String) {
    (
        format!("this computer's clock shows {shown}, so it was never set, and no certificate can be judged by it"),
        "set it (`timedatectl`); a computer whose clock has no battery needs time from the network before TLS".into(),
    )
}

fn explain_alert(alert: AlertDescription, broker: &Broker) -> (String, String) {
    let has_client = broker.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    let ours = "our certificate, mqtt.client_cert";
    let (why, remedy) = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => (
            "it wants a client's certificate, and has got none".to_owned(),
            "name one as mqtt.client_cert, with its key as mqtt.client_key",
        ),
        AlertDescription::UnknownCA if has_client => (
            format!("it knows no authority that vouches for {ours}"),
            "have its authority sign one, or name that one's to the broker (mosquitto: `cafile`)",
        ),
        AlertDescription::CertificateExpired if has_client => {
            (format!("{ours}, has expired"), "renew it, and see whether both clocks are right")
        }
        AlertDescription::CertificateRevoked if has_client => {
            (format!("{ours}, is revoked"), "have another one issued")
        }
        AlertDescription::UnsupportedCertificate if has_client => (
            format!("{ours}, is of a kind that it does not accept"),
            "have one issued for a client (extendedKeyUsage clientAuth)",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError
            if has_client =>
        {
            (format!("it does not accept {ours}"), "see the broker's log for what is wrong with it")
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => (
            "it has no cipher or key that is accepted here, or wants a client's certificate".into(),
            "see the broker's log; accepted are TLS 1.2 and 1.3 with RSA (2048 bits or more), ECDSA (P-256, P-384) and Ed25519 keys, and a client's certificate is mqtt.client_cert",
        ),
        AlertDescription::ProtocolVersion => ("it speaks neither TLS 1.2 nor 1.3".into(), "have it offer one of them"),
        AlertDescription::UnrecognisedName => {
            ("it does not know the name by which we call it".into(), "give the name that stands in its certificate")
        }
        _ => (
            "see its log for the reason".into(),
            "it may want a client's certificate (mqtt.client_cert, mqtt.client_key)",
        ),
    };
    (format!("the broker refuses the connection ({alert:?}): {why}"), remedy.into())
}

/// `DnsName("host")` and `IpAddress(10.0.0.1)`, as webpki gives a name, without what it is.
fn bare_name(presented: &str) -> String {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    inner.trim_matches('"').to_owned()
}

/// UTC, to the second; what is after the year 9999 is shown as that.
fn date(seconds: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}
