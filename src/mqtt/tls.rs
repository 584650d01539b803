//! What a TLS connection to the broker trusts, and how it says who we are.
//!
//! The PEM texts of the configuration become a rustls configuration, whose `verifier` checks the broker's certificate and
//! name; `fault` explains what is wrong with them.
//! ring is its only cryptography: it builds with a C compiler alone, where the other provider wants cmake.

mod fault;
mod verifier;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rumqttc_v5::tokio_rustls::rustls::crypto::ring;
use rumqttc_v5::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc_v5::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rumqttc_v5::tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::config::{Broker, Tls};
pub(super) use fault::TlsFault;
pub(super) use verifier::{BrokerVerifier, Trust};

/// What checks the broker's certificate.
///
/// # Errors
/// A text that holds no certificate, and a system without certificates.
pub(super) fn verifier(tls: &Tls) -> Result<Arc<BrokerVerifier>> {
    let (roots, pinned) = match &tls.ca {
        Some(pem) => {
            let certificates = certificates(pem).context("mqtt.ca_file")?;
            (own_roots(&certificates).context("mqtt.ca_file")?, certificates)
        }
        // Nobody has said of those which is a broker's own.
        None => (system_roots()?, Vec::new()),
    };
    Ok(Arc::new(BrokerVerifier::new(roots, pinned, Arc::new(ring::default_provider()))?))
}

/// The configuration of a connection.
///
/// # Errors
/// Texts that hold no certificate or key, a key that does not fit its certificate, and a system without certificates.
pub(super) fn configuration(tls: &Tls) -> Result<Arc<ClientConfig>> {
    configuration_with(tls, verifier(tls)?)
}

/// The configuration of a connection whose broker this `verifier` checks.
///
/// # Errors
/// As [`configuration`].
pub(super) fn configuration_with(tls: &Tls, verifier: Arc<BrokerVerifier>) -> Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS 1.2 and 1.3 are not both built in")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain).context("mqtt.client_cert")?;
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
                .context("mqtt.client_key holds no private key that is not encrypted")?;
            builder
                .with_client_auth_cert(chain, key)
                .context("mqtt.client_key does not belong to mqtt.client_cert, or is of a kind that is not known")?
        }
    };
    Ok(Arc::new(config))
}

/// The broker's name, as its certificate has to have it.
///
/// # Errors
/// What is no name that could stand in one.
pub(super) fn server_name(broker: &Broker) -> Result<ServerName<'static>> {
    ServerName::try_from(broker.host.clone())
        .with_context(|| format!("mqtt.url: \"{}\" can stand in no certificate", broker.host))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("holds what is no certificate in PEM")?;
    ensure!(!found.is_empty(), "holds no certificate in PEM: a block that begins with -----BEGIN CERTIFICATE-----");
    Ok(found)
}

fn own_roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).context("holds a certificate that cannot be trusted as an authority's")?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    ensure!(
        !roots.is_empty(),
        "this system has no certificates of authorities ({:?}); install ca-certificates, or name the broker's as mqtt.ca_file",
        found.errors
    );
    Ok(roots)
}

/// What webpki says of a certificate where rustls has no word of its own for it.
fn webpki_error(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}
