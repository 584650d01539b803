//! The unit as systemd reads it: no fault, no warning, little exposure, and nothing that gives up. `make systemd-check` runs it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

const UNIT: &str = include_str!("../../systemd/clapd.service");
/// What exposure is allowed, in tenths, of a scale from 0 (none) to 10.
const MOST_EXPOSED: &str = "20";

/// The unit with an executable that is there, in a folder of its own.
fn unit(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("clapd.service");
    fs::write(&path, UNIT.replace("/usr/bin/clapd", env!("CARGO_BIN_EXE_clapd"))).unwrap();
    path
}

/// None where there is no systemd-analyze: `make test` installs it, a container may do without.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    match Command::new("systemd-analyze").args(arguments).arg(unit(&folder)).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: systemd-analyze cannot be run ({error}); `make test` installs it (package systemd)");
            None
        }
    }
}

#[test]
fn systemd_finds_no_fault_in_it() {
    let Some(output) = analyze(&["verify"]) else { return };
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
}

#[test]
fn it_exposes_little() {
    let threshold = format!("--threshold={MOST_EXPOSED}");
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager", &threshold]) else { return };
    let (table, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complaint.is_empty(), "{table}{complaint}");
    assert!(table.contains("Overall exposure level"), "{table}");
}

fn value(key: &str) -> Vec<&str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn it_never_gives_up() {
    assert_eq!((value("Restart"), value("StartLimitIntervalSec")), (vec!["always"], vec!["0"]));
    for key in ["RestartPreventExitStatus", "StartLimitBurst", "StartLimitAction", "FailureAction"] {
        assert_eq!(value(key), Vec::<&str>::new(), "{key}");
    }
}

#[test]
fn it_starts_what_there_is_to_start() {
    let [start] = value("ExecStart")[..] else { panic!("{:?}", value("ExecStart")) };
    let mut words = start.split(' ').skip(1);
    assert_eq!(words.next(), Some("run"));
    let (option, file) = (words.next().unwrap(), words.next().unwrap());
    let help = Command::new(env!("CARGO_BIN_EXE_clapd")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains(option) && help.contains(&format!("[default: {file}]")), "{help}");
    // Where `clapd setup` puts the password for this configuration, and how the daemon asks for it and for the page's tokens.
    let credentials =
        ["mqtt-password", "http-read-token", "http-write-token"].map(|name| format!("{name}:/etc/clapd/{name}"));
    assert_eq!(value("LoadCredential"), credentials);
    assert_eq!(value("ConfigurationDirectory"), ["clapd"]);
}

/// clapd as a user who may not read root's files, which it is in the service.
fn as_somebody(folder: &std::path::Path, arguments: &[&str]) -> Command {
    let clapd = folder.join("clapd");
    fs::copy(env!("CARGO_BIN_EXE_clapd"), &clapd).unwrap();
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        let mut command = Command::new(clapd);
        command.args(arguments);
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(clapd).args(arguments);
    command
}

#[test]
fn a_password_that_only_root_may_read_comes_from_systemd() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    write("mqtt-password", "hunter2\n", 0o000);
    let text = "[node]\nid = \"n\"\n[model]\nbundle = \"none\"\n[[source]]\nid = \"mic\"\ndevice = \"default\"\n[[prompt]]\ntext = \"rain\"\n\
                [mqtt]\nurl = \"mqtt://me@host\"\npassword_file = \"mqtt-password\"\n";
    let config = write("clapd.toml", text, 0o644);
    let handed = write("credentials/mqtt-password", "hunter2", 0o644).parent().unwrap().to_owned();
    let check = |credentials: Option<&std::path::Path>| {
        let mut command = as_somebody(folder.path(), &["check", "--config", config.to_str().unwrap()]);
        command.env_remove("CREDENTIALS_DIRECTORY").env_remove("CLAPD_MQTT_PASSWORD");
        credentials.map(|folder| command.env("CREDENTIALS_DIRECTORY", folder));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = check(None);
    assert!(status == Some(2) && said.contains("mqtt-password: Permission denied"), "{said}");
    // The next fault: there is no such bundle.
    assert_eq!(check(Some(&handed)).0, Some(3));
    // What stands in the unit for a password that is not there.
    let empty = write("empty/mqtt-password", "\n", 0o644).parent().unwrap().to_owned();
    assert_eq!(check(Some(&empty)).0, Some(2));
}
