//! `clapd run` as a process, with a configuration of its own.

#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use super::broker::Broker;

pub const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio/demo.ogg");

/// A daemon with its configuration; killed when it is dropped.
pub struct Daemon {
    pub folder: TempDir,
    pub process: Child,
}

impl Daemon {
    /// Starts `clapd run` for a node called attic that listens for a dog; `more` ends its configuration.
    pub fn start(more: &str, change: impl FnOnce(&mut Command, &Path)) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), more, change)
    }

    /// The same in a folder where one may have run before.
    pub fn start_in(folder: TempDir, more: &str, change: impl FnOnce(&mut Command, &Path)) -> Self {
        let config = folder.path().join("clapd.toml");
        configure(folder.path(), more);
        let mut command = Command::new(env!("CARGO_BIN_EXE_clapd"));
        command
            .args(["run", "--config"])
            .arg(&config)
            .env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"))
            .env("STATE_DIRECTORY", folder.path().join("state"))
            .stderr(Stdio::piped());
        change(&mut command, folder.path());
        let process = command.spawn().expect("clapd runs");
        Self { folder, process }
    }

    /// Writes its configuration anew.
    pub fn configure(&self, more: &str) {
        configure(self.folder.path(), more);
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// The first line of its log that holds these words, however long that takes; it ends with its log.
    pub fn wait_for_log(mut self, words: &str) -> String {
        let stderr = BufReader::new(self.process.stderr.take().expect("is piped"));
        let mut seen = String::new();
        for line in stderr.lines() {
            let line = line.expect("is text");
            if line.contains(words) {
                return line;
            }
            seen += &(line + "\n");
        }
        panic!("{words:?} is not in the log: {seen}");
    }

    /// Waits for its end; how it ended, and what it logged.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        let mut stderr = self.process.stderr.take().expect("is piped");
        std::io::Read::read_to_string(&mut stderr, &mut log).expect("is text");
        (self.process.wait().expect("ends"), log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes `clapd.toml`, whole at any moment.
fn configure(folder: &Path, more: &str) {
    let text =
        format!("[node]\nid = \"attic\"\n[[prompt]]\nid = \"dog\"\ntext = \"a dog barking\"\ncooldown_s = 0\n{more}");
    fs::write(folder.join("new.toml"), text).expect("a file");
    fs::rename(folder.join("new.toml"), folder.join("clapd.toml")).expect("is renamed");
}

pub fn mqtt(broker: &Broker) -> String {
    format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port)
}

/// A source that is not there: it is waited for, for ever.
pub const NOBODY: &str = "[[source]]\nid = \"mic\"\ndevice = \"alsa:clapd_test_nobody\"\n";

/// 16 kHz, mono, 16 bits.
pub fn wav(samples: &[i16]) -> Vec<u8> {
    wav_of(1, &samples.iter().map(|sample| sample.to_le_bytes()).collect::<Vec<_>>())
}

/// The same of floats, which have no lowest bit.
pub fn float_wav(samples: &[f32]) -> Vec<u8> {
    wav_of(3, &samples.iter().map(|sample| sample.to_le_bytes()).collect::<Vec<_>>())
}

/// With samples of `SIZE` bytes, of the kind that `tag` says: 1 whole numbers, 3 floats.
fn wav_of<const SIZE: usize>(tag: u16, samples: &[[u8; SIZE]]) -> Vec<u8> {
    let size = u16::try_from(SIZE).expect("is small");
    let bytes = u32::try_from(samples.len() * SIZE).expect("is short");
    let mut wav = [b"RIFF".as_slice(), &(36 + bytes).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    wav.extend([tag.to_le_bytes(), 1_u16.to_le_bytes()].concat());
    wav.extend([16_000_u32.to_le_bytes(), (16_000 * u32::from(size)).to_le_bytes()].concat());
    wav.extend([size.to_le_bytes(), (8 * size).to_le_bytes()].concat());
    wav.extend([b"data".as_slice(), &bytes.to_le_bytes()].concat());
    samples.iter().for_each(|sample| wav.extend(sample));
    wav
}
