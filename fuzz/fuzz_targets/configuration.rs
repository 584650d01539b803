//! Reads any text as a configuration.
//!
//! What must hold: it is settings, or faults; the same ones each time.

#![no_main]

use std::path::Path;

use clapd::config::{self, Environment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let environment = Environment { host_name: "fuzz".into(), ..Environment::default() };
    let parse = || config::parse(text, Path::new("/nowhere/clapd.toml"), &environment);
    match (parse(), parse()) {
        (Ok((settings, warnings)), Ok((again, _))) => {
            assert!(!settings.sources.is_empty() && !settings.node.is_empty());
            assert_eq!(settings.prompts, again.prompts);
            warnings.iter().for_each(|warning| drop(warning.to_string()));
        }
        (Err(faults), Err(again)) => assert_eq!(faults.to_string(), again.to_string()),
        _ => panic!("now it is a configuration, now it is none"),
    }
});
