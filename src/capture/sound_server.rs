//! Sources of PulseAudio, or of PipeWire in its place, by name: what `pactl` says.
//!
//! ALSA's plugin takes a source's name and lists none. `pactl` comes with either server's tools, and speaks to the server that the plugin
//! would speak to.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// For an answer, which takes some ms; a server that hangs must not hang us.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often to look whether it has come.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A source of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerSource {
    /// The server's name for it, the same after a reboot: `alsa_input.usb-...`.
    pub name: String,
    /// What people call it.
    pub description: String,
}

/// The server's sources, microphones before what is played; none without a server or without `pactl`.
pub(super) fn sources() -> Vec<ServerSource> {
    let mut sources = listing().map(|text| parse(&text)).unwrap_or_default();
    sources.sort_by_key(|source| source.name.ends_with(".monitor"));
    sources
}

fn listing() -> Option<String> {
    let mut pactl = Command::new("pactl")
        .args(["list", "sources"])
        // Its words are translated otherwise.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut output = pactl.stdout.take()?;
    // Read while it writes: a pipe holds less than many sources.
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let began = Instant::now();
    loop {
        match pactl.try_wait() {
            Ok(Some(status)) => return status.success().then(|| reader.join().ok()).flatten(),
            Ok(None) if began.elapsed() < TIMEOUT => thread::sleep(POLL_INTERVAL),
            _ => {
                let _ = pactl.kill();
                let _ = pactl.wait();
                return None;
            }
        }
    }
}

fn parse(text: &str) -> Vec<ServerSource> {
    let mut sources: Vec<ServerSource> = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if let Some(name) = line.strip_prefix("Name: ") {
            sources.push(ServerSource { name: name.into(), description: String::new() });
        } else if let Some((source, description)) = sources.last_mut().zip(line.strip_prefix("Description: "))
            && source.description.is_empty()
        {
            source.description = description.into();
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_descriptions_are_taken() {
        let text = "Source #0\n\tState: IDLE\n\tName: mic.monitor\n\tDescription: Monitor of Null Output\n\tDriver: module-null-sink.c\n\
                    \tProperties:\n\t\tdevice.description = \"Monitor of Null Output\"\n\nSource #1\n\tName: alsa_input.usb\n\tDescription: Desk\n";
        let source =
            |name: &str, description: &str| ServerSource { name: name.into(), description: description.into() };
        assert_eq!(parse(text), [source("mic.monitor", "Monitor of Null Output"), source("alsa_input.usb", "Desk")]);
        assert_eq!(parse("Connection failure: Connection refused\n"), []);
    }
}
