//! Which certificates of a broker are trusted.
//!
//! As everywhere, one that an authority vouches for. And the very one that `mqtt.ca_file` holds, byte for byte, as the broker's
//! neighbours take it (mosquitto's clients do): guides have people make a certificate that is its own authority, which
//! rustls's own verifier refuses in a server's place, and old `openssl` made version 1, which it does not read at all. Of
//! such a pinned certificate the dates are checked too, and its names, if it has any; the handshake proves that the broker
//! has its key. All of the checking is webpki's.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rumqttc_v5::tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use rumqttc_v5::tokio_rustls::rustls::client::{
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rumqttc_v5::tokio_rustls::rustls::crypto::CryptoProvider;
use rumqttc_v5::tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rumqttc_v5::tokio_rustls::rustls::server::ParsedCertificate;
use rumqttc_v5::tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::webpki_error;

/// What a broker's certificate has to be.
#[derive(Debug)]
pub(in super::super) struct BrokerVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    /// Certificates that are trusted as a broker's own.
    pinned: Vec<CertificateDer<'static>>,
    /// That a pinned certificate names no host was logged: once is enough.
    has_logged: AtomicBool,
}

/// Why a certificate is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Trust {
    /// An authority vouches for it.
    Vouched,
    /// It is pinned, and for the broker's name.
    Pinned,
    /// It is pinned, and names no host at all.
    PinnedNameless,
}

impl BrokerVerifier {
    /// Trusts what `authorities` vouch for, and `pinned` certificates.
    ///
    /// # Errors
    /// No authority.
    pub(super) fn new(
        authorities: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> anyhow::Result<Self> {
        let authorities =
            WebPkiServerVerifier::builder_with_provider(authorities.into(), Arc::clone(&provider)).build()?;
        Ok(Self { authorities, provider, pinned, has_logged: AtomicBool::new(false) })
    }

    /// Whether this certificate of a broker at `name` is trusted at the time `now`, and why.
    ///
    /// # Errors
    /// Why it is not.
    pub(in super::super) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Trust, Error> {
        if !self.is_pinned(end_entity) {
            return self
                .authorities
                .verify_server_cert(end_entity, intermediates, name, &[], now)
                .map(|_| Trust::Vouched);
        }
        let readable = self.readable(end_entity);
        let certificate = ParsedCertificate::try_from(&*readable)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        // Without any authority this ends in one of the two complaints below, after the dates and the purpose were checked.
        let checked =
            verify_server_cert_signed_by_trust_anchor(&certificate, &RootCertStore::empty(), &[], now, algorithms);
        match checked {
            Ok(()) | Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
            Err(error) if webpki_error(&error) == Some(&webpki::Error::CaUsedAsEndEntity) => {}
            Err(error) => return Err(error),
        }
        match verify_server_name(&certificate, name) {
            Ok(()) => Ok(Trust::Pinned),
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
                if presented.is_empty() =>
            {
                Ok(Trust::PinnedNameless)
            }
            Err(error) => Err(error),
        }
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|pinned| pinned.as_ref() == certificate.as_ref())
    }

    /// The certificate as webpki reads it: a pinned one of version 1 is given out as one of version 3, which is the same but for that
    /// number and what may follow. Its own signature does not hold for that, and is not looked at.
    fn readable<'a>(&self, certificate: &'a CertificateDer<'a>) -> Cow<'a, CertificateDer<'a>> {
        let parsed = webpki::EndEntityCert::try_from(certificate).map(drop);
        if parsed == Err(webpki::Error::UnsupportedCertVersion)
            && self.is_pinned(certificate)
            && let Some(rewritten) = as_version_3(certificate)
        {
            return Cow::Owned(rewritten.into());
        }
        Cow::Borrowed(certificate)
    }
}

impl ServerCertVerifier for BrokerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = self.judge(end_entity, intermediates, name, now)?;
        if trust == Trust::PinnedNameless && !self.has_logged.swap(true, Ordering::Relaxed) {
            log::info!(
                "mqtt: the broker's certificate is the one in mqtt.ca_file; it names no host (subjectAltName), so its name is not checked"
            );
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, &self.readable(certificate), signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, &self.readable(certificate), signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// The tag of a sequence, in DER.
const SEQUENCE: u8 = 0x30;
/// `[0] { INTEGER 2 }`: version 3. Version 1 is written by leaving this out.
const VERSION_3: [u8; 5] = [0xA0, 0x03, 0x02, 0x01, 0x02];

/// A certificate of version 1 (RFC 5280, 4.1) with the number of version 3.
fn as_version_3(certificate: &[u8]) -> Option<Vec<u8>> {
    let (signed, rest) = split_sequence(certificate)?;
    let (body, signature) = split_sequence(signed)?;
    let body = sequence(&[&VERSION_3, body]);
    rest.is_empty().then(|| sequence(&[&body, signature]))
}

/// What the sequence that `bytes` begin with holds, and what follows it.
fn split_sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        // So many bytes of length follow. webpki reads no certificate of more than two.
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    (tag == SEQUENCE && length <= rest.len()).then(|| rest.split_at(length))
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        length @ 0..0x80 => vec![length as u8],
        length @ 0x80..0x100 => vec![0x81, length as u8],
        length => [&[0x82], &(length as u16).to_be_bytes()[..]].concat(),
    };
    [&[SEQUENCE], length.as_slice(), &content].concat()
}
