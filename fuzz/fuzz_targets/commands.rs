//! Reads any bytes as a request to a node.
//!
//! What must hold: it is a command, or an error of one line; prompts that are accepted can be written down and read
//! again as they were.

#![no_main]

use std::path::Path;

use clapd::config::{self, PromptOrigin, RecordingNames};
use clapd::mqtt::{Call, Command, Request, SetPrompts};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 6] = ["prompts/set", "prompts/get", "pause", "resume", "reload", "info"];
/// Some keys' names and a value are shown in it, each shortened.
const LONGEST_ERROR: usize = 2_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = bytes.split_first() else { return };
    let (command, payload) = match NAMES.get(usize::from(*which)) {
        Some(name) => ((*name).to_owned(), rest),
        None => {
            let cut = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            (String::from_utf8_lossy(&rest[..cut]).into_owned(), &rest[cut..])
        }
    };
    let Some(call) = Call::read(&Request { command, payload: payload.to_vec() }) else { return };
    match call.command {
        Ok(Command::PromptsSet(SetPrompts::Replace(text) | SetPrompts::Change { merge: Some(text), .. })) => {
            check_round_trip(&text)
        }
        Ok(_) => {}
        Err(error) => assert!(error.len() < LONGEST_ERROR && !error.contains('\n'), "{error}"),
    }
});

fn check_round_trip(text: &str) {
    let names = RecordingNames::default();
    let parse =
        |text: &str| config::parse_prompts(text, PromptOrigin::Request("prompts/set", &names), Path::new("/nowhere"));
    let Ok((prompts, _)) = parse(text) else { return };
    let written = config::request_text(&prompts).expect("was read from such a text");
    let (again, _) = parse(&written).unwrap_or_else(|faults| panic!("{written}\n{faults}"));
    assert_eq!(again, prompts);
}
