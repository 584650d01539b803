//! Certificates as people have them, made by openssl, shown by a real broker: what set-up says of them, and what the daemon does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::broker::{Broker, free_port};
use crate::support::certificates::{Authority, self_signed, version_1};
use crate::support::faults::TimeOfDay;
use crate::support::node::{Daemon, NOBODY};
use crate::support::setup_run::{NULL, Outcome, SetupFolder};

/// A broker that shows this certificate, and its port for TLS.
fn serve((cert, key): &(PathBuf, PathBuf), more: &str) -> (Broker, u16) {
    let port = free_port();
    let files = format!("certfile {}\nkeyfile {}\n{more}", cert.display(), key.display());
    (Broker::start_with(|_| format!("allow_anonymous true\nlistener {port} 127.0.0.1\n{files}")), port)
}

fn reach(port: u16, ca: &Path, change: impl FnOnce(&mut Command)) -> Outcome {
    let url = format!("mqtts://127.0.0.1:{port}");
    let ca = ca.to_str().expect("is a text");
    SetupFolder::new().setup_with(&[&NULL[..], &["--broker", &url, "--ca-file", ca]].concat(), change)
}

#[test]
fn a_certificate_that_is_its_own_authority_is_accepted_where_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = self_signed(folder.path(), "named", &["-addext", "subjectAltName=IP:127.0.0.1"]);
    let nameless = self_signed(folder.path(), "nameless", &[]);
    let elsewhere = self_signed(folder.path(), "elsewhere", &["-addext", "subjectAltName=DNS:broker.elsewhere"]);
    let (broker, port) = serve(&named, "");
    reach(port, &named.0, |_| ()).is(0, &["the certificate is the one in mqtt.ca_file, for 127.0.0.1", "comes back"]);
    reach(port, &nameless.0, |_| ())
        .is(5, &["TLS: the broker shows a certificate that is its own authority", "as mqtt.ca_file"]);
    let (_other, port_2) = serve(&nameless, "");
    reach(port_2, &nameless.0, |_| ()).is(0, &["the one in mqtt.ca_file, which names no host", "comes back"]);
    let (_third, port_3) = serve(&elsewhere, "");
    reach(port_3, &elsewhere.0, |_| ()).is(5, &["TLS: the broker's certificate is for broker.elsewhere, and not for"]);

    // The daemon says the same, and does.
    let mut watcher = broker.watch();
    let mqtt = |port, ca: &Path| format!("[mqtt]\nurl = \"mqtts://127.0.0.1:{port}\"\nca_file = {ca:?}\n{NOBODY}");
    let accepted = Daemon::start(&mqtt(port, &named.0), |_, _| ());
    watcher.wait_for("0 1 clapd/attic/status online");
    drop(accepted);
    let refused = Daemon::start(&mqtt(port_3, &elsewhere.0), |_, _| ());
    let line = refused.wait_for_log("mqtt: no connection");
    assert!(
        line.contains("TLS: the broker's certificate is for broker.elsewhere, and not for \"127.0.0.1\"; give a name"),
        "{line}"
    );
}

#[test]
fn a_certificate_of_version_1_is_accepted_where_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = version_1(folder.path());
    let (_broker, port) = serve(&old, "");
    reach(port, &old.0, |_| ()).is(0, &["TLS 1.3", "the one in mqtt.ca_file, which names no host", "comes back"]);
    // OpenSSL's ciphers below TLS 1.3 are no concern of this setting: the version is.
    let other = Authority::new(folder.path(), "other");
    reach(port, &other.path, |_| ()).is(5, &["TLS: the broker's certificate is of X.509 version 1", "subjectAltName"]);
}

#[test]
fn a_clock_that_is_wrong_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut clock) = TimeOfDay::new(folder.path()) else {
        eprintln!("no libfaketime: left out");
        return;
    };
    let cert = self_signed(folder.path(), "own", &[]);
    let (_broker, port) = serve(&cert, "");
    let mut off = |years: i64| {
        clock.set(years * 365 * 86_400);
        reach(port, &cert.0, |command| clock.give(command))
    };
    off(3).is(5, &["TLS: the broker's certificate has expired: it was valid until 20", "set this computer's clock"]);
    off(-2).is(5, &["TLS: the broker's certificate is not valid yet: it is from 20", "and here it is 20"]);
    off(-50).is(5, &["TLS: this computer's clock shows 19", "so it was never set"]);
}

#[test]
fn a_broker_that_wants_a_certificate_of_ours_is_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new(folder.path(), "ours");
    let server = ours.issue("127.0.0.1");
    let more = format!("cafile {}\nrequire_certificate true", ours.path.display());
    let (_broker, port) = serve(&server, &more);
    reach(port, &ours.path, |_| ()).is(5, &["it wants a client's certificate, and has got none", "mqtt.client_cert"]);
    let stranger = Authority::new(folder.path(), "stranger").issue("attic");
    let mqtt = |(cert, key): &(PathBuf, PathBuf)| {
        let files = format!("ca_file = {:?}\nclient_cert = {cert:?}\nclient_key = {key:?}", ours.path);
        format!("[mqtt]\nurl = \"mqtts://127.0.0.1:{port}\"\n{files}\n{NOBODY}")
    };
    let line = Daemon::start(&mqtt(&stranger), |_, _| ()).wait_for_log("mqtt: no connection");
    assert!(
        line.contains("TLS: the broker refuses the connection (UnknownCA): it knows no authority that vouches for our"),
        "{line}"
    );
    let line = Daemon::start(&mqtt(&ours.issue("attic")), |_, _| ()).wait_for_log("mqtt: connected");
    assert!(line.contains("MQTT 5"), "{line}");
}

#[test]
fn files_are_read_as_windows_saves_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let cert = self_signed(folder.path(), "own", &[]);
    let (_broker, port) = serve(&cert, "");
    let pem = fs::read_to_string(&cert.0).expect("a text").replace('\n', "\r\n");
    let windows = folder.path().join("windows.pem");
    fs::write(&windows, [b"\xEF\xBB\xBFsubject=CN = M\xFCller\r\n", pem.as_bytes()].concat()).expect("a file");
    reach(port, &windows, |_| ()).is(0, &["the one in mqtt.ca_file", "comes back"]);
    let der = folder.path().join("own.der");
    let made =
        Command::new("openssl").args(["x509", "-outform", "der", "-in"]).arg(&cert.0).arg("-out").arg(&der).status();
    assert!(made.expect("openssl runs").success());
    reach(port, &der, |_| ()).is(2, &["is binary (DER)", "openssl x509 -inform der"]);
    let wide: Vec<u8> = pem.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&windows, [&[0xFF, 0xFE], &wide[..]].concat()).expect("a file");
    reach(port, &windows, |_| ()).is(2, &["is in UTF-16", "save the file as UTF-8"]);
}

#[test]
fn a_user_is_written_as_in_any_url() {
    let broker = Broker::start_with_password("ha@home", "p:ss");
    let folder = SetupFolder::new();
    let file = folder.write("password", "\u{feff}p:ss\r\n");
    for user in ["ha@home", "ha%40home"] {
        let url = format!("mqtt://{user}@127.0.0.1:{}", broker.port);
        let password = ["--password-file", file.to_str().expect("is a text"), "--force"];
        folder
            .setup(&[&NULL[..], &["--broker", &url], &password].concat())
            .is(0, &["as ha@home, in MQTT 5", "comes back"]);
    }
}
