//! Sound cards as people have them, made up: `card.c`, a plugin of ALSA's, in an asound.conf of the test's own.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Cards of one test, and the configuration in which ALSA finds them.
pub struct SoundCards {
    folder: tempfile::TempDir,
    text: String,
}

/// The plugin, compiled once. `cc` is what Rust links with, and the headers are those that clapd is built with.
fn plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/support/card.c");
        let plugin = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("testcard-{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-DPIC", "-o"])
            .args([plugin.as_os_str(), source.as_ref(), "-lasound".as_ref()])
            .status();
        assert!(compiled.expect("cc runs").success(), "card.c is not compiled");
        plugin
    })
}

impl SoundCards {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("<confdir:alsa.conf>\npcm_type.testcard {{ lib {:?} }}\n", plugin());
        Self { folder, text }
    }

    /// A card called `name`, of this rate and format, that hears `samples` (in its format) over and over; `more` as in card.c.
    pub fn add(&mut self, name: &str, channels: usize, format: &str, samples: &[u8], more: &str) -> &mut Self {
        let file = self.path(name);
        std::fs::write(&file, samples).expect("a file");
        self.add_text(&format!(
            "pcm.{name} {{ type testcard channels {channels} format {format} samples {file:?} {more} hint {{ show on description \"{name} card\" }} }}"
        ))
    }

    /// A line of the configuration.
    pub fn add_text(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self.text.push('\n');
        std::fs::write(self.path("asound.conf"), &self.text).expect("a file");
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The environment in which a process has these cards.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("ALSA_CONFIG_PATH", self.path("asound.conf"))]
    }
}

/// A sound of so many seconds at 48 kHz, of one value for each channel and frame.
pub fn frames(seconds: u32, frame: impl FnMut(u32) -> Vec<f64>) -> Vec<Vec<f64>> {
    (0..seconds * 48_000).map(frame).collect()
}

/// In integers of so many bytes, of which the lowest `bits` are used, little end first.
pub fn integers(frames: &[Vec<f64>], bytes: usize, bits: u32) -> Vec<u8> {
    let scale = f64::from(1_u32 << (bits - 1)) - 1.0;
    let one = |sample: &f64| ((sample * scale).round() as i64).to_le_bytes()[..bytes].to_vec();
    frames.iter().flatten().flat_map(one).collect()
}
