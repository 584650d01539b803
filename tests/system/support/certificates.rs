//! Certificates made for a test by openssl.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Somebody who issues certificates.
pub struct Authority {
    folder: PathBuf,
    name: String,
    /// Its own certificate.
    pub path: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let authority = Self { folder: folder.into(), name: name.into(), path: folder.join(format!("{name}.pem")) };
        let (subject, key) = (format!("/CN={name}"), authority.key());
        let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        openssl(&[&request[..], &["-subj", &subject, "-keyout", text(&key), "-out", text(&authority.path)]].concat());
        authority
    }

    /// A certificate for `name`, and its key. Where it is an address, it is one for a server at it.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let file = |end: &str| self.folder.join(format!("{}-{name}.{end}", self.name));
        let (cert, key, request, extensions) = (file("pem"), file("key"), file("csr"), file("ext"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let subject = format!("/CN={name}");
        openssl(&[&new[..], &["-subj", &subject, "-keyout", text(&key), "-out", text(&request)]].concat());
        let kind = if name.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
        fs::write(&extensions, format!("subjectAltName={kind}:{name}\n")).expect("a file");
        let authority = self.key();
        let sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-in", text(&request), "-CA", text(&self.path)];
        let with = ["-CAkey", text(&authority), "-extfile", text(&extensions), "-out", text(&cert)];
        openssl(&[&sign[..], &with[..]].concat());
        (cert, key)
    }

    fn key(&self) -> PathBuf {
        self.folder.join(format!("{}.key", self.name))
    }
}

/// A certificate and its key that nobody but itself vouches for, made with these flags of `openssl`'s.
pub fn self_signed(folder: &Path, name: &str, flags: &[&str]) -> (PathBuf, PathBuf) {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"];
    openssl(&[&request[..], &["-keyout", text(&key), "-out", text(&cert)], flags].concat());
    (cert, key)
}

/// One of X.509 version 1, as guides had it made: without extensions.
pub fn version_1(folder: &Path) -> (PathBuf, PathBuf) {
    let (cert, key, request) = (folder.join("v1.pem"), folder.join("v1.key"), folder.join("v1.csr"));
    let new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"];
    openssl(&[&new[..], &["-keyout", text(&key), "-out", text(&request)]].concat());
    let sign = ["x509", "-req", "-days", "2", "-in", text(&request), "-signkey", text(&key), "-out", text(&cert)];
    openssl(&sign);
    (cert, key)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("is a text")
}

fn openssl(arguments: &[&str]) {
    let made = Command::new("openssl").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(made.expect("openssl is installed: `make test` does it").success(), "openssl {arguments:?}");
}
