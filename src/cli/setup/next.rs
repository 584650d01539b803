//! What to do once there is a configuration.
//!
//! In: where it is, and what it says. Out: commands to paste.
//! Never: a password in one of them: everybody on the computer can read a command line.

use std::path::Path;

use super::store::Target;
use super::tell;
use crate::cli::locate;
use crate::config::{Broker, Settings};

/// Where packages and people put a unit.
const UNITS: [&str; 3] =
    ["/etc/systemd/system/clapd.service", "/usr/lib/systemd/system/clapd.service", "/lib/systemd/system/clapd.service"];

pub(super) fn print(target: &Target, settings: &Settings) {
    let path = target.path();
    let is_service = path == Path::new(locate::CONFIG) && UNITS.iter().any(|unit| Path::new(unit).exists());
    tell("\nNext");
    if is_service {
        tell("  sudo systemctl enable clapd && sudo systemctl restart clapd    # listens now, and after every start");
        tell("  journalctl -fu clapd                                           # what it has to say");
    } else {
        tell(&format!("  clapd run --config {}", path.display()));
    }
    if let Some(broker) = &settings.broker {
        tell(&format!("  {}", subscribe(broker, &settings.node, target)));
        if broker.password.is_some() {
            tell("      (its password: `-P ...` as a line of ~/.config/mosquitto_sub, not on the command line)");
        }
    }
    tell(&format!(
        "  clapd watch --config {} --for 10m    # live scores, and the start that suits the room",
        path.display()
    ));
}

fn subscribe(broker: &Broker, node: &str, target: &Target) -> String {
    let mut command = format!("mosquitto_sub -v -h {} -p {} -t 'clapd/{node}/#'", broker.host, broker.port);
    if let Some(user) = &broker.user {
        command += &format!(" -u '{}'", user.replace('\'', r"'\''"));
    }
    if let Some(tls) = &broker.tls {
        command += &match &tls.ca {
            Some(_) => format!(" --cafile {}", target.path().with_file_name(super::draft::CA_FILE).display()),
            None => " --capath /etc/ssl/certs".into(),
        };
    }
    command
}
