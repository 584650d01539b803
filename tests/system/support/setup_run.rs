//! `clapd setup` as a person or a script runs it, with a sound device of its own.
#![allow(dead_code)]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

pub const CLAPD: &str = env!("CARGO_BIN_EXE_clapd");

/// A device of ALSA's that is always there and delivers, if only zeros, as fast as it is read.
pub const NULL: [&str; 2] = ["--device", "alsa:null"];

/// How long somebody at a terminal waits: far longer than any question takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// A folder for a configuration.
pub struct SetupFolder {
    folder: TempDir,
}

/// How it went.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The exit status, which must be this one, and what was said must hold these words.
    #[track_caller]
    pub fn is(&self, status: i32, words: &[&str]) {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.status.code(), Some(status), "{all}");
        for word in words {
            assert!(all.contains(word), "{word:?} is not in: {all}");
        }
    }

    #[track_caller]
    pub fn hides(&self, secret: &str) {
        assert!(!self.stdout.contains(secret) && !self.stderr.contains(secret), "{}\n{}", self.stdout, self.stderr);
    }
}

impl SetupFolder {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("etc/clapd.toml")
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// What lies beside the configuration, it included.
    pub fn written(&self) -> Vec<String> {
        let files =
            fs::read_dir(self.path("etc")).map(|files| files.flatten().collect()).unwrap_or_else(|_| Vec::new());
        let mut names: Vec<_> = files.iter().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .env_remove("CLAPD_MQTT_PASSWORD")
            // Whatever a library would tell of a password must be seen to be hidden.
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// With these flags, `--config` and one prompt; nobody is there to be asked.
    pub fn setup(&self, arguments: &[&str]) -> Outcome {
        self.setup_with(arguments, |_| ())
    }

    pub fn setup_with(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Outcome {
        let mut command = self.command(CLAPD);
        command.arg("setup").arg("--config").arg(self.config()).args(["--node", "attic", "-p", "a dog barking"]);
        command.args(arguments).stdin(Stdio::null());
        change(&mut command);
        let output = command.output().expect("clapd runs");
        Outcome {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// On a terminal, with somebody who waits for these words and then types those. However it ends, the terminal must be as before.
    #[track_caller]
    pub fn typed(&self, arguments: &str, dialogue: &[(&str, &str)]) -> Outcome {
        let setup = format!("'{CLAPD}' setup --config '{}' {arguments}", self.config().display());
        let run = format!(
            "trap : INT; before=$(stty -g); {setup}; status=$?; [ \"$before\" = \"$(stty -g)\" ] || exit 99; exit $status"
        );
        let mut command = self.command("script");
        command.args(["--quiet", "--return", "--command", &run, "/dev/null"]).env("RUST_LOG", "warn");
        let mut script = command.stdin(Stdio::piped()).spawn().expect("script, of util-linux, runs");
        let mut keyboard = script.stdin.take().expect("is piped");
        let mut screen = script.stdout.take().expect("is piped");
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut some) {
                if sender.send(some[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (mut stdout, mut read) = (Vec::new(), 0);
        for (words, answer) in dialogue {
            loop {
                if let Some(at) = String::from_utf8_lossy(&stdout[read..]).find(words) {
                    read += at + words.len();
                    break;
                }
                let Ok(more) = shown.recv_timeout(PATIENCE) else {
                    let _ = script.kill();
                    panic!("{words:?} is not asked: {}", String::from_utf8_lossy(&stdout));
                };
                stdout.extend(more);
            }
            keyboard.write_all(format!("{answer}\n").as_bytes()).expect("is read");
        }
        shown.iter().for_each(|more| stdout.extend(more));
        let status = script.wait().expect("ends");
        drop(keyboard);
        Outcome { status, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr: String::new() }
    }
}

pub fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("is there").permissions()) & 0o777
}
