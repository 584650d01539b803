//! Names of devices: what ALSA calls them, which of them are one card, and who has it.

use std::fs;

/// ALSA's name for a device as it is configured: `alsa:` in front of it is ours.
pub(super) fn pcm_name(device: &str) -> &str {
    device.strip_prefix("alsa:").unwrap_or(device)
}

/// Whether a name counts cards instead of naming one: `hw:0,0`, `plughw:CARD=1,DEV=0`.
pub(super) fn is_index(name: &str) -> bool {
    let card = name.split_once(':').map_or("", |(_, arguments)| arguments).trim_start_matches("CARD=");
    card.starts_with(|first: char| first.is_ascii_digit())
        && card.split(',').next().is_some_and(|card| card.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Two devices with one key are one device, which can be opened once: `hw:USB` is `plughw:CARD=USB,DEV=0`.
pub(super) fn device_key(device: &str) -> String {
    let name = pcm_name(device);
    match card_and_device(name) {
        Some((card, number)) => format!("hw:CARD={},DEV={number}", card_id(card)),
        None => name.to_owned(),
    }
}

/// Card and device number of a card that is opened directly.
fn card_and_device(name: &str) -> Option<(&str, u32)> {
    let (kind, arguments) = name.split_once(':')?;
    if !["hw", "plughw"].contains(&kind) {
        return None;
    }
    let (mut card, mut number) = (None, 0);
    for (place, argument) in arguments.split(',').enumerate() {
        match (argument.split_once('='), place) {
            (Some(("CARD", value)), _) => card = Some(value),
            (Some(("DEV", value)), _) => number = value.parse().ok()?,
            (None, 0) => card = Some(argument),
            (None, 1) => number = argument.parse().ok()?,
            // Subdevices are devices of their own.
            _ => return None,
        }
    }
    card.map(|card| (card, number))
}

/// A card's name, also where it is given by its number.
fn card_id(card: &str) -> String {
    let named =
        card.parse::<u32>().ok().and_then(|index| fs::read_to_string(format!("/proc/asound/card{index}/id")).ok());
    named.map_or_else(|| card.to_owned(), |id| id.trim().to_owned())
}

/// The program that has a card's device open, as the kernel says.
#[cfg(target_os = "linux")]
pub(super) fn owner(name: &str) -> Option<String> {
    let (card, number) = card_and_device(name)?;
    let status = format!("/proc/asound/{}/pcm{number}c/sub0/status", card_id(card));
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.starts_with("owner_pid"))?;
    let process: u32 = line.split_once(':')?.1.trim().parse().ok()?;
    let program = fs::read_to_string(format!("/proc/{process}/comm")).ok();
    Some(program.map_or_else(|| format!("process {process}"), |name| format!("{} (process {process})", name.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_told_from_names() {
        for index in ["hw:0", "hw:0,0", "plughw:1,0", "hw:CARD=0,DEV=0"] {
            assert!(is_index(index), "{index}");
        }
        for name in ["default", "mic", "hw:CARD=USB,DEV=0", "plughw:CARD=4chMic,DEV=0", "usbstream:CARD=USB"] {
            assert!(!is_index(name), "{name}");
        }
    }

    #[test]
    fn one_card_has_one_key() {
        for name in
            ["hw:USB", "hw:USB,0", "hw:CARD=USB", "hw:CARD=USB,DEV=0", "plughw:CARD=USB,DEV=0", "alsa:plughw:USB"]
        {
            assert_eq!(device_key(name), "hw:CARD=USB,DEV=0", "{name}");
        }
        for name in ["default", "mic", "hw:CARD=USB,DEV=0,SUBDEV=1", "pulse:alsa_input.usb", "hw:CARD=USB,DEV=x"] {
            assert_eq!(device_key(name), name);
        }
        assert_ne!(device_key("hw:USB,1"), device_key("hw:USB"));
    }
}
