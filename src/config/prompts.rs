//! What is listened for, checked: every `[[prompt]]` as written becomes a [`Prompt`] with its rule.
//!
//! No recording is opened here, and no text embedded: `crate::prompts` does that.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clapd_core::prompts::{DEFAULT_CONFIRM, DEFAULT_COOLDOWN, DEFAULT_START, Prompt, PromptId, Rule, usual_stop};
use clapd_core::text::shorten;

use super::checker::Checker;
use super::diagnostic::Location;
use super::id;
use super::raw::RawPrompt;
use super::section::Located;

/// The most that has been measured. Each prompt is three topics a source.
const MAX_PROMPTS: usize = 1_000;
/// A prompt's competitors are scored like prompts.
const MAX_CONTRAST: usize = 16;
/// The text towers read 64 or 77 tokens, of about four letters each; beyond this much would not be read.
const MAX_TEXT: usize = 300;
/// Their mean is what counts, and it hardly moves after a dozen; each is read at every start.
const MAX_EXAMPLES: usize = 32;
/// Embeddings that one configuration may ask for. So many the cache has room for (200 MB, should somebody ask for all):
/// with fewer, some would be made again at every start.
pub const MAX_EMBEDDINGS: usize = MAX_PROMPTS * (1 + MAX_CONTRAST + MAX_EXAMPLES);
/// Every window that may confirm is remembered; beyond a hundred, `start` is the better means.
const MAX_CONFIRM: i64 = 100;
/// A day: who wants to hear of a sound once a week wants a rule in their house's software.
const MAX_COOLDOWN_S: f64 = 86_400.0;

impl Checker<'_> {
    pub(super) fn check_prompts(&mut self, raw: &[RawPrompt]) -> Option<Vec<Prompt>> {
        if let Some(extra) = raw.get(MAX_PROMPTS) {
            self.fault(&extra.location, format!("is beyond the {MAX_PROMPTS} prompts that are allowed"), "remove some");
        }
        let mut seen = HashMap::new();
        let prompts: Vec<Option<Prompt>> = raw
            .iter()
            .map(|prompt| {
                let location = prompt.id.as_ref().or(prompt.text.as_ref()).map_or(&prompt.location, |at| &at.location);
                self.check_prompt(prompt, |check, id| check.require_unique(id, location, &mut seen))
            })
            .collect();
        prompts.into_iter().collect()
    }

    /// `named` is told the id, whatever else is at fault.
    fn check_prompt(&mut self, raw: &RawPrompt, named: impl FnOnce(&mut Self, &str)) -> Option<Prompt> {
        let text = raw.text.as_ref().map(|text| self.check_text(text));
        let audio = self.check_examples(raw.audio.as_ref());
        let first = audio.as_deref().and_then(|files| files.first()?.file_stem()?.to_str());
        let id = match (&raw.id, &text) {
            (Some(id), _) => self.check_id(&id.value, &id.location),
            (None, Some(text)) => text.as_deref().and_then(|text| self.derive_id(text, &raw.location)),
            (None, None) => first.and_then(|name| self.derive_id(name, &raw.location)),
        };
        if let Some(id) = &id {
            named(self, id);
        }
        let rule = self.check_rule(raw);
        let contrast = self.check_contrast(raw, text.as_ref().and_then(Option::as_deref));
        let text = match text {
            Some(text) => Some(text?),
            None => None,
        };
        let id = PromptId::new(&id?).ok()?;
        Some(Prompt { id, text, audio: audio?, rule: rule?, contrast: contrast? })
    }

    fn derive_id(&mut self, text: &str, location: &Location) -> Option<String> {
        let slug = id::slug(text);
        if slug.is_none() {
            let seen = format!("is missing, and \"{}\" has no letter of a-z to make it from", shorten(text));
            self.fault(&location.child(location.line, "id"), seen, "add `id = \"...\"`");
        }
        slug
    }

    fn check_text(&mut self, raw: &Located<String>) -> Option<String> {
        let text = raw.value.trim();
        let letters = text.chars().count();
        if letters == 0 || letters > MAX_TEXT {
            let seen = format!("has {letters} letters, and 1 to {MAX_TEXT} are allowed");
            self.fault(&raw.location, seen, "describe one sound in a few words");
            return None;
        }
        Some(text.to_owned())
    }

    fn check_examples(&mut self, raw: Option<&Located<Vec<Located<String>>>>) -> Option<Vec<PathBuf>> {
        let Some(Located { value, location }) = raw else { return Some(Vec::new()) };
        if value.is_empty() || value.len() > MAX_EXAMPLES {
            let seen = format!("has {} recordings, and 1 to {MAX_EXAMPLES} are allowed", value.len());
            self.fault(location, seen, "name a few good ones, or remove the key");
            return None;
        }
        value.iter().map(|file| self.check_recording(file)).collect::<Vec<_>>().into_iter().collect()
    }

    fn check_contrast(&mut self, raw: &RawPrompt, text: Option<&str>) -> Option<Vec<String>> {
        let Some(Located { value, location }) = &raw.contrast else { return Some(Vec::new()) };
        if value.len() > MAX_CONTRAST {
            self.fault(
                location,
                format!("has {} texts, and {MAX_CONTRAST} are allowed", value.len()),
                "keep the likeliest rivals",
            );
        }
        for rival in value.iter().filter(|rival| Some(rival.value.trim()) == text) {
            self.fault(&rival.location, "is the prompt itself", "name a sound that is taken for it");
        }
        value.iter().map(|rival| self.check_text(rival)).collect::<Vec<_>>().into_iter().collect()
    }

    fn check_rule(&mut self, raw: &RawPrompt) -> Option<Rule> {
        let start = self.check_score(raw.start.as_ref(), DEFAULT_START);
        let stop = self.check_score(raw.stop.as_ref(), start.map_or(0.0, usual_stop));
        if let (Some(start), Some(stop)) = (start, stop)
            && stop > start
        {
            let location = raw.stop.as_ref().or(raw.start.as_ref()).map_or(&raw.location, |at| &at.location);
            self.fault(location, format!("{stop} is above `start`, {start}"), "write 1 to 2 less than `start`");
        }
        if let (Some(0.0), Some(Located { location, .. })) = (stop, &raw.stop) {
            self.warn(location, "is 0, and no score is below it: an event would never end", "write at least 0.5");
        }
        let confirm = self.check_confirm(raw.confirm.as_ref());
        let cooldown = self.check_cooldown(raw.cooldown_s.as_ref());
        Some(Rule { start: start?, stop: stop?, confirm: confirm?, cooldown: cooldown? })
    }

    fn check_score(&mut self, raw: Option<&Located<f64>>, default: f32) -> Option<f32> {
        let Some(Located { value, location }) = raw else { return Some(default) };
        if !(0.0..=10.0).contains(value) {
            self.fault(
                location,
                format!("{value} is not on the scale from 0 to 10"),
                format!("{DEFAULT_START} is the usual start"),
            );
            return None;
        }
        Some(*value as f32)
    }

    fn check_confirm(&mut self, raw: Option<&Located<Vec<Located<i64>>>>) -> Option<(u32, u32)> {
        let Some(Located { value, location }) = raw else { return Some(DEFAULT_CONFIRM) };
        let numbers: Vec<i64> = value.iter().map(|at| at.value).collect();
        if let [n, m] = numbers[..]
            && 1 <= n
            && n <= m
            && m <= MAX_CONFIRM
        {
            return Some((u32::try_from(n).ok()?, u32::try_from(m).ok()?));
        }
        let seen =
            format!("{} is not `[n, m]`, n of the last m windows, with 1 <= n <= m <= {MAX_CONFIRM}", list(&numbers));
        self.fault(location, seen, "write `[2, 3]`");
        None
    }

    fn check_cooldown(&mut self, raw: Option<&Located<f64>>) -> Option<Duration> {
        let Some(Located { value, location }) = raw else { return Some(DEFAULT_COOLDOWN) };
        if !(0.0..=MAX_COOLDOWN_S).contains(value) {
            self.fault(location, format!("{value} is not from 0 to {MAX_COOLDOWN_S} seconds"), "10 suits most");
            return None;
        }
        Some(Duration::from_secs_f64(*value))
    }
}

fn list(numbers: &[i64]) -> String {
    let some: Vec<String> = numbers.iter().take(4).map(ToString::to_string).collect();
    format!("[{}{}]", some.join(", "), if numbers.len() > 4 { ", ..." } else { "" })
}
