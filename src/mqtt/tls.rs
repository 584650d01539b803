//! What a TLS connection to the broker trusts, and how it says who we are.
//!
//! The PEM texts of the configuration become a rustls configuration, which checks the broker's certificate and name.
//! ring is its only cryptography: it builds with a C compiler alone, where the other provider wants cmake.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rumqttc_v5::tokio_rustls::rustls::crypto::ring;
use rumqttc_v5::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc_v5::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc_v5::tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::Tls;

/// The configuration of a connection.
///
/// # Errors
/// Texts that hold no certificate or key, a key that does not fit its certificate, and a system without certificates.
pub(super) fn configuration(tls: &Tls) -> Result<Arc<ClientConfig>> {
    let roots = match &tls.ca {
        Some(pem) => own_roots(pem).context("mqtt.ca_file")?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS 1.2 and 1.3 are not both built in")?
        .with_root_certificates(roots);
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

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("holds what is no certificate in PEM")?;
    ensure!(!found.is_empty(), "holds no certificate in PEM: a block that begins with -----BEGIN CERTIFICATE-----");
    Ok(found)
}

fn own_roots(pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).context("holds a certificate that cannot be trusted as an authority's")?;
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
