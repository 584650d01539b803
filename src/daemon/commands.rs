//! What others ask of the daemon over MQTT, carried out.
//!
//! In: requests, one at a time. Out: a response to each that names a command, and the change that it asked for.
//! Never: is kept busy: whoever sends thousands finds most of them dropped, and counted.

use std::path::Path;
use std::thread;
use std::time::Duration;

use clapd_core::prompts::Prompt;
use serde_json::{Value, json};

use super::LOOK;
use super::house::House;
use super::reload::{Wanted, in_short};
use crate::config::{self, Origin};
use crate::mqtt::{Call, Command, SetPrompts};
use crate::prompts;

/// After each request, so that a flood of them leaves the computer to those who listen: at most a hundred a second.
const BREATH: Duration = Duration::from_millis(10);

impl House {
    /// Waits a while for a request, and answers it.
    pub(super) fn serve(&mut self) {
        let Some(publisher) = &self.publisher else {
            thread::sleep(LOOK);
            return;
        };
        let Some(request) = publisher.next_request(LOOK) else { return };
        match Call::read(&request) {
            Some(call) => self.answer(call),
            None => publisher.ignore_request("its name could be no command's"),
        }
        thread::sleep(BREATH);
    }

    fn answer(&mut self, Call { reply, command }: Call) {
        log::info!("mqtt: asked for {}", reply.command);
        let outcome = match command {
            Ok(Command::Reload) => return self.reload(Some(reply)),
            Ok(Command::PromptsSet(set)) => match self.wanted(set) {
                Ok(wanted) => return self.begin(wanted, Some(reply)),
                Err(error) => Err(error),
            },
            Ok(Command::PromptsGet) => Ok(self.prompts_data()),
            Ok(Command::Pause(source)) => self.pause(source.as_deref(), true),
            Ok(Command::Resume(source)) => self.pause(source.as_deref(), false),
            Ok(Command::Info) => self.info_data(),
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            log::warn!("mqtt: {} is not carried out: {error}", reply.command);
        }
        if let Some(publisher) = &self.publisher {
            publisher.respond(&reply, &outcome);
        }
    }

    /// The prompts that are wanted; checked as a whole, as they are when they are read at the next start.
    fn wanted(&self, set: SetPrompts) -> Result<Wanted, String> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let parse = |text: &str| {
            prompts::parse(text, Origin::Request("prompts/set"), folder).map_err(|faults| in_short(&faults))
        };
        let prompts = match set {
            SetPrompts::Reset => return Ok(Wanted::Prompts(None)),
            SetPrompts::Replace(text) => parse(&text)?,
            SetPrompts::Change { merge, remove } => {
                let coming = merge.map_or(Ok(Vec::new()), |text| parse(&text))?;
                changed(self.prompts(), coming, &remove)?
            }
        };
        let text = config::prompts_text(&prompts).map_err(|error| error.to_string())?;
        Ok(Wanted::Prompts(Some(parse(&text)?)))
    }

    /// Pauses or resumes one source, or all and those to come.
    fn pause(&mut self, id: Option<&str>, paused: bool) -> Result<Value, String> {
        if let Some(id) = id
            && !self.sources.iter().any(|source| source.spec.id == id)
        {
            let known: Vec<_> = self.sources.iter().map(|source| source.spec.id.as_str()).collect();
            return Err(format!("`source` is {id:?}, and this node has {}; leave it out for all", known.join(", ")));
        }
        for source in self.sources.iter().filter(|source| id.is_none_or(|id| source.spec.id == id)) {
            source.orders.set_paused(paused);
        }
        if id.is_none() {
            self.paused = paused;
        }
        Ok(json!({ "paused": self.paused_sources() }))
    }

    fn paused_sources(&self) -> Vec<&str> {
        let paused = self.sources.iter().filter(|source| source.orders.is_paused());
        paused.map(|source| source.spec.id.as_str()).collect()
    }

    /// Whose prompts they are.
    pub(super) fn origin(&self) -> &'static str {
        if self.set.is_some() { "mqtt" } else { "file" }
    }

    pub(super) fn prompts_data(&self) -> Value {
        let tables: Vec<_> = self.prompts().iter().map(config::prompt_table).collect();
        json!({ "prompts": tables, "from": self.origin() })
    }

    fn info_data(&self) -> Result<Value, String> {
        let mut data = serde_json::to_value(&self.info).map_err(|error| error.to_string())?;
        let sources: Vec<_> = self.sources.iter().map(|source| source.spec.id.as_str()).collect();
        data["sources"] = json!(sources);
        data["paused"] = json!(self.paused_sources());
        data["prompts"] = self.prompts().len().into();
        data["prompts_from"] = self.origin().into();
        Ok(data)
    }
}

/// Those of `before` that are not removed, with those that come in the place of their ids, or at the end.
fn changed(before: &[Prompt], coming: Vec<Prompt>, remove: &[String]) -> Result<Vec<Prompt>, String> {
    if let Some(stranger) = remove.iter().find(|id| !before.iter().any(|prompt| prompt.id.as_str() == **id)) {
        let shown: String = stranger.chars().take(40).collect();
        return Err(format!("`remove` names {shown:?}, and there is no such prompt; prompts/get lists them"));
    }
    let mut prompts: Vec<Prompt> =
        before.iter().filter(|prompt| !remove.iter().any(|id| prompt.id.as_str() == id)).cloned().collect();
    for prompt in coming {
        match prompts.iter_mut().find(|known| known.id == prompt.id) {
            Some(known) => *known = prompt,
            None => prompts.push(prompt),
        }
    }
    Ok(prompts)
}
