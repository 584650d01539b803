//! libasound's messages, in our log and in our errors.
//!
//! Left alone, libasound writes to standard error: a line for every PCM of alsa.conf that this machine lacks, dozens a
//! try, and a device that is away is tried every few seconds, for days. The same lines are the only place where it says
//! which file and line of an asound.conf it could not read, so an error takes them along.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::rc::Rc;

use rustix::io::dup;
use rustix::stdio::{dup2_stderr, stderr};

/// Takes what libasound says on this thread, for as long as it lives and after.
pub(super) struct AlsaMessages {
    output: Option<Rc<RefCell<alsa::Output>>>,
}

impl AlsaMessages {
    /// From now on. Where ALSA can't set it up (no memory), its messages go where they went before.
    pub fn collect() -> Self {
        Self { output: alsa::Output::local_error_handler().ok() }
    }

    /// What was said since the last call, a message a line; it is logged at level debug as well.
    pub fn take(&mut self) -> String {
        let Some(output) = &self.output else { return String::new() };
        let text = output.borrow().buffer_string(|text| String::from_utf8_lossy(text).into_owned());
        if !text.is_empty() {
            text.lines().for_each(|line| log::debug!("{line}"));
            // A buffer of ALSA's is emptied by another in its place.
            *self = Self::collect();
        }
        text
    }
}

/// The last message without the name of the C function in front of it: what ALSA gave up for.
pub(super) fn last_message(messages: &str) -> Option<&str> {
    messages.lines().rev().map(without_function).find(|line| !line.is_empty())
}

/// Messages that name a place in a file, as in "/etc/asound.conf:3:7:Unexpected char".
pub(super) fn syntax_errors(messages: &str) -> Vec<String> {
    /// What ALSA calls the file of ALSA_CONFIG_PATH, whose name it says in its next message.
    const UNNAMED: &str = "_toplevel_";
    let mut faults: Vec<String> = Vec::new();
    for line in messages.lines().map(without_function) {
        let mut parts = line.splitn(4, ':').skip(1);
        let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
        if is_number(parts.next()) && is_number(parts.next()) {
            faults.push(line.to_owned());
        } else if let Some((file, _)) = line.split_once(" may be old or corrupted")
            && let Some(fault) = faults.last_mut()
            && let Some(place) = fault.strip_prefix(UNNAMED)
        {
            *fault = format!("{file}{place}");
        }
    }
    faults
}

fn without_function(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(_, message)| message).trim()
}

/// Does `work` with standard error closed to everybody: libjack, behind ALSA's `jack`, writes there past ALSA's messages. For a process
/// that does nothing else meanwhile, since its own messages would be lost too.
pub(super) fn without_stderr<T>(work: impl FnOnce() -> T) -> T {
    let nothing = OpenOptions::new().write(true).open("/dev/null");
    let (Ok(nothing), Ok(before)) = (nothing, dup(stderr())) else { return work() };
    let hidden = dup2_stderr(nothing);
    let result = work();
    if hidden.is_ok() {
        let _ = dup2_stderr(before);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_files_are_found_among_messages() {
        let messages = "snd_config_update_r: hooks failed\n_snd_config_load_with_include: /tmp/a b.conf:3:0:Unexpected end of file\n\
                        snd_pcm_open_noupdate: Unknown PCM mic\n";
        assert_eq!(syntax_errors(messages), ["/tmp/a b.conf:3:0:Unexpected end of file"]);
        let unnamed = "_snd_config_load_with_include: _toplevel_:4:0:Unexpected char\n\
                       snd_config_update_r: /tmp/x.conf may be old or corrupted: consider to remove or fix it\n";
        assert_eq!(syntax_errors(unnamed), ["/tmp/x.conf:4:0:Unexpected char"]);
        assert_eq!(last_message(messages), Some("Unknown PCM mic"));
        assert_eq!(last_message(""), None);
    }
}
