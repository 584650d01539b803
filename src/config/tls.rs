//! What a TLS connection to the broker trusts, and how it says who we are.
//!
//! The files that `ca_file`, `client_cert` and `client_key` name are read here; `mqtt::check` judges the certificates, since it
//! has the means. A key is a [`Secret`], which is not shown.

use super::checker::Checker;
use super::raw::RawMqtt;
use super::secret::Secret;
use super::section::Located;
use super::text_file;

/// Every authority that Mozilla trusts is 230 kB of PEM.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// What every certificate and key begins with in DER, of which PEM is the text.
const DER_SEQUENCE: u8 = 0x30;

/// A TLS connection's certificates and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM of the authorities that may vouch for the broker; none: those that the system trusts.
    pub ca: Option<String>,
    /// PEM of our own certificate, with those between it and its authority, and of its key.
    pub client: Option<(String, Secret)>,
}

/// None: there is a fault.
pub(super) fn check(raw: &RawMqtt, check: &mut Checker<'_>) -> Option<Tls> {
    let ca = raw.ca_file.as_ref().map(|file| read_pem(file, "CERTIFICATE-----", check));
    let cert = raw.client_cert.as_ref().map(|file| read_pem(file, "CERTIFICATE-----", check));
    let key = raw.client_key.as_ref().map(|file| read_pem(file, "PRIVATE KEY-----", check));
    let client = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert?, Secret::new(key?))),
        (cert, _) => {
            let (seen, needed) =
                if cert.is_some() { ("client_cert", "client_key") } else { ("client_key", "client_cert") };
            let location = raw.client_cert.as_ref().or(raw.client_key.as_ref()).map(|at| &at.location)?;
            check.fault(
                location,
                format!("stands alone, and {seen} needs {needed}"),
                format!("add `{needed} = \"...\"`"),
            );
            return None;
        }
    };
    let ca = match ca {
        Some(ca) => Some(ca?),
        None => None,
    };
    Some(Tls { ca, client })
}

/// Certificates without TLS are a mistake: whoever wrote them wants a connection that nobody reads.
pub(super) fn refuse_files(raw: &RawMqtt, check: &mut Checker<'_>) {
    for key in [&raw.ca_file, &raw.client_cert, &raw.client_key].into_iter().flatten() {
        check.fault(&key.location, "is for TLS, and mqtt.url begins with mqtt://", "write mqtt.url = \"mqtts://...\"");
    }
}

fn read_pem(file: &Located<String>, block: &str, check: &mut Checker<'_>) -> Option<String> {
    let path = check.require_file(file)?;
    let (seen, remedy) = match text_file::read_bytes(&path, MAX_PEM_BYTES) {
        Ok(bytes) if bytes.first() == Some(&DER_SEQUENCE) => {
            let remedy = format!(
                "make PEM of it: `openssl {} -inform der -in {} -out new.pem`",
                if block.contains("KEY") { "pkey" } else { "x509" },
                path.display()
            );
            ("is binary (DER)".into(), remedy)
        }
        Ok(bytes) => {
            // What stands between the blocks is for people, and in whatever encoding they had.
            let text = String::from_utf8_lossy(&bytes);
            if text.contains(block) {
                return Some(text.into_owned());
            }
            (format!("has no block that ends its first line with {block}"), "name a file in PEM".into())
        }
        Err(fault) => (fault.to_string(), fault.remedy("name a file in PEM that this user may read").into()),
    };
    check.fault(&file.location, format!("{}: {seen}", path.display()), remedy);
    None
}
