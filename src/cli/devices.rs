//! `clapd devices`: the input devices by the names that a configuration may use.

use std::io::Write;

use serde_json::json;

use super::exit::{AtStage, Failure, Stage, printed};
use crate::capture::device::{self, Selection};

pub(super) fn run(json: bool, all: bool) -> Result<(), Failure> {
    let selection = if all { Selection::All } else { Selection::Usual };
    let devices = device::list(selection).at(Stage::Input)?;
    if devices.is_empty() {
        return Err(Failure::message(
            Stage::Input,
            "no input device; plug one in, or see whether `arecord -L` lists one and whether you are in the group audio",
        ));
    }
    let mut out = std::io::stdout().lock();
    for device in devices {
        let line = if json {
            json!({
                "name": device.name, "description": device.description, "default": device.is_default,
                "rates": device.rates, "channels": device.channels, "formats": device.formats, "problem": device.problem,
            })
            .to_string()
        } else {
            let mark = if device.is_default { '*' } else { ' ' };
            let problem = device.problem.map(|problem| format!(" ({problem})")).unwrap_or_default();
            format!("{mark} {:<40} {}{problem}", device.name, device.description)
        };
        printed(writeln!(out, "{line}")).at(Stage::Output)?;
    }
    Ok(())
}
