//! The input devices of the sound system, as somebody chooses one of them.
//!
//! A device is named by its stable name and not by its card's index, since cards change places at a boot.

use anyhow::Result;

#[cfg(not(target_os = "linux"))]
use super::cpal_stream;
#[cfg(target_os = "linux")]
use super::{alsa_list, sound_server};

/// An input device, as the sound system describes it.
#[derive(Debug, Clone)]
pub struct InputDevice {
    /// The name to configure: stable over reboots and replugging.
    pub name: String,
    /// What the driver calls it.
    pub description: String,
    /// Whether it is the one that `default` means.
    pub is_default: bool,
    /// Sample rates in Hz, as ranges from lowest to highest.
    pub rates: Vec<(u32, u32)>,
    /// Channel counts.
    pub channels: Vec<u16>,
    /// Sample formats by ALSA's names, best first.
    pub formats: Vec<String>,
    /// Why it can't be used now (busy, no permission, no server); then the lists are empty.
    pub problem: Option<String>,
}

/// Which devices are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// What a person would choose: the default, cards, sources of a sound server, and PCMs that somebody has named in an asound.conf.
    Usual,
    /// Those that ALSA makes of them, too: the same cards with conversions, for surround sound, for other sound systems.
    All,
}

/// The input devices, the default first. Opens each for a moment to see what it offers; may take some seconds, and as long as the sound
/// system likes where that is sick. With [`Selection::All`], what the process writes to standard error meanwhile is lost.
///
/// # Errors
/// ALSA's configuration can't be read; with file and line.
#[cfg(target_os = "linux")]
pub fn list(selection: Selection) -> Result<Vec<InputDevice>> {
    alsa_list::list(selection, &sound_server::sources())
}

/// The input devices, the default first; both selections are what cpal lists.
///
/// # Errors
/// There is no sound system.
#[cfg(not(target_os = "linux"))]
pub fn list(_: Selection) -> Result<Vec<InputDevice>> {
    cpal_stream::list()
}
