//! What a TLS connection to the broker trusts, and how it says who we are.
//!
//! In: `ca_file`, `client_cert`, `client_key` as written, and systemd's credentials. Out: a [`Tls`] with the files' texts.
//! Never: judges a certificate; that is `mqtt::check`'s, which has the means. Never shows a key.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::broker::Secret;
use super::check::Check;
use super::file::WrittenMqtt;
use super::section::At;

/// Every authority that Mozilla trusts is 230 kB of PEM.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// A TLS connection's certificates and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM of the authorities that may vouch for the broker; none: those that the system trusts.
    pub ca: Option<String>,
    /// PEM of our own certificate, with those between it and its authority, and of its key.
    pub client: Option<(String, Secret)>,
}

/// None: there is a fault.
pub(super) fn check(written: &WrittenMqtt, check: &mut Check<'_>) -> Option<Tls> {
    let ca = written.ca_file.as_ref().map(|file| pem(file, "CERTIFICATE-----", check));
    let cert = written.client_cert.as_ref().map(|file| pem(file, "CERTIFICATE-----", check));
    let key = written.client_key.as_ref().map(|file| pem(file, "PRIVATE KEY-----", check));
    let client = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert?, Secret::new(key?))),
        (cert, _) => {
            let (seen, wanted) =
                if cert.is_some() { ("client_cert", "client_key") } else { ("client_key", "client_cert") };
            let place = written.client_cert.as_ref().or(written.client_key.as_ref()).map(|at| &at.place)?;
            check.fault(place, format!("stands alone, and {seen} needs {wanted}"), format!("add `{wanted} = \"...\"`"));
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
pub(super) fn without(written: &WrittenMqtt, check: &mut Check<'_>) {
    for key in [&written.ca_file, &written.client_cert, &written.client_key].into_iter().flatten() {
        check.fault(&key.place, "is for TLS, and mqtt.url begins with mqtt://", "write mqtt.url = \"mqtts://...\"");
    }
}

fn pem(file: &At<String>, block: &str, check: &mut Check<'_>) -> Option<String> {
    let path = check.existing_file(file)?;
    let seen = match read(&path) {
        Ok(text) if text.contains(block) => return Some(text),
        Ok(_) => format!("has no block that ends its first line with {block}"),
        Err(seen) => seen,
    };
    check.fault(&file.place, format!("{}: {seen}", path.display()), "name a file in PEM");
    None
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_PEM_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_PEM_BYTES { Err(format!("is longer than {MAX_PEM_BYTES} bytes")) } else { Ok(text) }
}
