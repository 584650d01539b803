//! What to do once there is a configuration.
//!
//! These are commands to paste. None holds a password: everybody on the computer can read a command line.

use std::path::Path;

use super::print_line;
use super::store::Target;
use crate::cli::paths;
use crate::config::{Broker, Settings};

/// Where packages and people put a unit.
const UNITS: [&str; 3] =
    ["/etc/systemd/system/clapd.service", "/usr/lib/systemd/system/clapd.service", "/lib/systemd/system/clapd.service"];

pub(super) fn print(target: &Target, settings: &Settings) {
    let path = target.path();
    let is_service = path == Path::new(paths::CONFIG) && UNITS.iter().any(|unit| Path::new(unit).exists());
    print_line("\nNext");
    if is_service {
        print_line(
            "  sudo systemctl enable clapd && sudo systemctl restart clapd    # listens now, and after every start",
        );
        print_line("  journalctl -fu clapd                                           # what it has to say");
    } else {
        print_line(&format!("  clapd run --config {}", path.display()));
    }
    if let Some(broker) = &settings.broker {
        print_line(&format!("  {}", subscribe(broker, &settings.node, target)));
        if broker.password.is_some() {
            print_line("      (its password: `-P ...` as a line of ~/.config/mosquitto_sub, not on the command line)");
        }
    }
    print_line(&format!(
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
