//! ALSA's capture devices: what there is, and what of it a person means.

use std::collections::HashSet;

use alsa::ctl::DeviceIter;
use alsa::device_name::HintIter;
use alsa::pcm::{Access, HwParams, PCM};
use alsa::{Ctl, Direction, card};
use anyhow::Result;

use super::alsa_log::{AlsaMessages, without_stderr};
use super::alsa_pcm::{all_formats, check_configuration, open_pcm, rates_of};
use super::card_name::is_index;
use super::device::{InputDevice, Selection};
use super::input_stream::MAX_CHANNELS;
use super::sound_server::ServerSource;

/// PCMs that alsa.conf and the packages of ALSA and JACK, PulseAudio and PipeWire define: conversions and combinations of cards that are
/// listed themselves, and other ways to a sound server than by the name of a source.
const PLUMBING: [&str; 33] = [
    "a52",
    "arcam_av",
    "center_lfe",
    "dmix",
    "dsnoop",
    "dsp",
    "empty",
    "front",
    "hdmi",
    "hw",
    "iec958",
    "jack",
    "lavrate",
    "modem",
    "null",
    "oss",
    "phoneline",
    "pipewire",
    "plug",
    "plughw",
    "pulse",
    "rear",
    "samplerate",
    "side",
    "spdif",
    "speex",
    "speexrate",
    "surround",
    "sysdefault",
    "upmix",
    "usbstream",
    "vdownmix",
    "default",
];

/// What one may be called by, before it was opened.
struct Candidate {
    name: String,
    description: String,
}

/// Lists them; `server` are the sources of the sound server that ALSA reaches as `pulse`.
///
/// # Errors
/// ALSA's configuration can't be read.
pub(super) fn list(selection: Selection, server: &[ServerSource]) -> Result<Vec<InputDevice>> {
    let mut messages = AlsaMessages::collect();
    check_configuration(&mut messages)?;
    let hints = hints();
    let mut candidates =
        vec![Candidate { name: "default".into(), description: "what ALSA takes if nothing is named".into() }];
    candidates.extend(cards());
    let reaches_server = hints.iter().any(|hint| hint.name == "pulse");
    candidates.extend(
        server.iter().map(|source| Candidate {
            name: format!("pulse:{}", source.name),
            description: source.description.clone(),
        }),
    );
    candidates.extend(hints.into_iter().filter(|hint| selection == Selection::All || !is_plumbing(&hint.name)));
    // Cards are among the hints, too.
    let mut seen = HashSet::new();
    candidates.retain(|candidate| seen.insert(candidate.name.clone()));
    let describe_all = |messages: &mut AlsaMessages| -> Vec<InputDevice> {
        candidates.iter().map(|candidate| describe(candidate, reaches_server, messages)).collect()
    };
    Ok(match selection {
        Selection::Usual => describe_all(&mut messages),
        // Among all of them are JACK's.
        Selection::All => without_stderr(|| describe_all(&mut messages)),
    })
}

/// Whether a PCM is one of those that come with the sound system; `surround51` is `surround`.
fn is_plumbing(name: &str) -> bool {
    let kind = name.split(':').next().unwrap_or(name).trim_end_matches(|last: char| last.is_ascii_digit());
    PLUMBING.contains(&kind) || kind == "a"
}

/// The PCMs that say that they may be listed, and are no outputs.
fn hints() -> Vec<Candidate> {
    let hints = HintIter::new(None, c"pcm").into_iter().flatten();
    let inputs = hints.filter(|hint| hint.direction != Some(Direction::Playback));
    let named = inputs.filter_map(|hint| Some((hint.name?, hint.desc.unwrap_or_default())));
    named
        .filter(|(name, _)| !is_index(name))
        .map(|(name, description)| Candidate { name, description: description.lines().collect::<Vec<_>>().join(", ") })
        .collect()
}

/// Capture devices of cards, by their names.
fn cards() -> Vec<Candidate> {
    let mut found = Vec::new();
    for card in card::Iter::new().flatten() {
        let Ok(control) = Ctl::from_card(&card, true) else { continue };
        let Ok(info) = control.card_info() else { continue };
        let Ok(id) = info.get_id() else { continue };
        let card_name = info.get_name().unwrap_or(id);
        for number in DeviceIter::new(&control).filter_map(|number| u32::try_from(number).ok()) {
            let Ok(device) = control.pcm_info(number, 0, Direction::Capture) else { continue };
            let description = match device.get_name() {
                Ok(name) if name != card_name => format!("{card_name}, {name}"),
                _ => card_name.to_owned(),
            };
            found.push(Candidate { name: format!("hw:CARD={id},DEV={number}"), description });
        }
    }
    found
}

fn describe(candidate: &Candidate, reaches_server: bool, messages: &mut AlsaMessages) -> InputDevice {
    let Candidate { name, description } = candidate;
    let mut device = InputDevice {
        name: name.clone(),
        description: description.clone(),
        is_default: name == "default",
        rates: Vec::new(),
        channels: Vec::new(),
        formats: Vec::new(),
        problem: None,
    };
    if name.starts_with("pulse:") && !reaches_server {
        device.problem = Some("ALSA's plugin for it is missing: install libasound2-plugins".into());
        return device;
    }
    let offered = open_pcm(name, name, messages).and_then(|pcm| offer(&pcm, &mut device));
    device.problem = offered.err().map(|error| format!("{error:#}"));
    device
}

fn offer(pcm: &PCM, device: &mut InputDevice) -> Result<()> {
    let offered = HwParams::any(pcm)?;
    // What offers no interleaved frames is read through ALSA's `plug`, and has the same rates, channels and formats.
    let _ = offered.set_access(Access::RWInterleaved);
    let (low, high) = (offered.get_rate_min()?, offered.get_rate_max()?);
    device.rates = if low == high || offered.test_rate(low + 1).is_ok() {
        vec![(low, high)]
    } else {
        rates_of(&offered, low, high).into_iter().map(|rate| (rate, rate)).collect()
    };
    let channels = (1..=MAX_CHANNELS).filter(|count| offered.test_channels(*count).is_ok());
    device.channels = channels.filter_map(|count| u16::try_from(count).ok()).collect();
    device.formats = all_formats(&offered);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plumbing_is_told_from_what_somebody_named() {
        for name in
            ["null", "surround51:CARD=PCH,DEV=0", "plughw:CARD=USB,DEV=0", "sysdefault:CARD=USB", "jack", "default"]
        {
            assert!(is_plumbing(name), "{name}");
        }
        for name in ["mic", "porch_left", "usbmic", "mic2"] {
            assert!(!is_plumbing(name), "{name}");
        }
    }
}
