//! What is listened for, checked: every `[[prompt]]` as written becomes a [`Prompt`] with its rule.
//!
//! No recording is opened here, and no text embedded: `crate::prompts` does that.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clapd_core::prompts::{DEFAULT_CONFIRM, DEFAULT_COOLDOWN, DEFAULT_START, Prompt, PromptId, Rule, usual_stop};
use clapd_core::text::shorten;

use super::check::Check;
use super::file::WrittenPrompt;
use super::finding::Place;
use super::id;
use super::section::At;

/// The most that has been measured. Each prompt is three topics a source.
const MAX_PROMPTS: usize = 1_000;
/// A prompt's competitors are scored like prompts.
const MAX_CONTRAST: usize = 16;
/// The text towers read 64 or 77 tokens, of about four letters each; beyond this much would not be read.
const MAX_TEXT: usize = 300;
/// Their mean is what counts, and it hardly moves after a dozen; each is read at every start.
const MAX_EXAMPLES: usize = 32;
/// Every window that may confirm is remembered; beyond a hundred, `start` is the better means.
const MAX_CONFIRM: i64 = 100;
/// A day: who wants to hear of a sound once a week wants a rule in their house's software.
const MAX_COOLDOWN_S: f64 = 86_400.0;

impl Check<'_> {
    pub(super) fn prompts(&mut self, written: &[WrittenPrompt]) -> Option<Vec<Prompt>> {
        if let Some(extra) = written.get(MAX_PROMPTS) {
            self.fault(&extra.place, format!("is beyond the {MAX_PROMPTS} prompts that are allowed"), "remove some");
        }
        let mut seen = HashMap::new();
        let prompts: Vec<Option<Prompt>> = written
            .iter()
            .map(|prompt| {
                let place = prompt.id.as_ref().or(prompt.text.as_ref()).map_or(&prompt.place, |at| &at.place);
                self.prompt(prompt, |check, id| check.unique(id, place, &mut seen))
            })
            .collect();
        prompts.into_iter().collect()
    }

    /// `named` is told the id, whatever else is at fault.
    fn prompt(&mut self, written: &WrittenPrompt, named: impl FnOnce(&mut Self, &str)) -> Option<Prompt> {
        let text = written.text.as_ref().map(|text| self.text(text));
        let audio = self.examples(written.audio.as_ref());
        let first = audio.as_deref().and_then(|files| files.first()?.file_stem()?.to_str());
        let id = match (&written.id, &text) {
            (Some(id), _) => self.id(&id.value, &id.place),
            (None, Some(text)) => text.as_deref().and_then(|text| self.slug_of(text, &written.place)),
            (None, None) => first.and_then(|name| self.slug_of(name, &written.place)),
        };
        if let Some(id) = &id {
            named(self, id);
        }
        let rule = self.rule(written);
        let contrast = self.contrast(written, text.as_ref().and_then(Option::as_deref));
        let text = match text {
            Some(text) => Some(text?),
            None => None,
        };
        let id = PromptId::new(&id?).ok()?;
        Some(Prompt { id, text, audio: audio?, rule: rule?, contrast: contrast? })
    }

    fn slug_of(&mut self, text: &str, place: &Place) -> Option<String> {
        let slug = id::slug(text);
        if slug.is_none() {
            let seen = format!("is missing, and \"{}\" has no letter of a-z to make it from", shorten(text));
            self.fault(&place.child(place.line, "id"), seen, "add `id = \"...\"`");
        }
        slug
    }

    fn text(&mut self, written: &At<String>) -> Option<String> {
        let text = written.value.trim();
        let letters = text.chars().count();
        if letters == 0 || letters > MAX_TEXT {
            let seen = format!("has {letters} letters, and 1 to {MAX_TEXT} are allowed");
            self.fault(&written.place, seen, "describe one sound in a few words");
            return None;
        }
        Some(text.to_owned())
    }

    fn examples(&mut self, written: Option<&At<Vec<At<String>>>>) -> Option<Vec<PathBuf>> {
        let Some(At { value, place }) = written else { return Some(Vec::new()) };
        if value.is_empty() || value.len() > MAX_EXAMPLES {
            let seen = format!("has {} recordings, and 1 to {MAX_EXAMPLES} are allowed", value.len());
            self.fault(place, seen, "name a few good ones, or remove the key");
            return None;
        }
        value.iter().map(|file| self.example(file)).collect::<Vec<_>>().into_iter().collect()
    }

    fn example(&mut self, written: &At<String>) -> Option<PathBuf> {
        let path = self.path(written)?;
        self.add_recording(path.clone(), &written.place);
        Some(path)
    }

    fn contrast(&mut self, written: &WrittenPrompt, text: Option<&str>) -> Option<Vec<String>> {
        let Some(At { value, place }) = &written.contrast else { return Some(Vec::new()) };
        if value.len() > MAX_CONTRAST {
            self.fault(
                place,
                format!("has {} texts, and {MAX_CONTRAST} are allowed", value.len()),
                "keep the likeliest rivals",
            );
        }
        for rival in value.iter().filter(|rival| Some(rival.value.trim()) == text) {
            self.fault(&rival.place, "is the prompt itself", "name a sound that is taken for it");
        }
        value.iter().map(|rival| self.text(rival)).collect::<Vec<_>>().into_iter().collect()
    }

    fn rule(&mut self, written: &WrittenPrompt) -> Option<Rule> {
        let start = self.score(written.start.as_ref(), DEFAULT_START);
        let stop = self.score(written.stop.as_ref(), start.map_or(0.0, usual_stop));
        if let (Some(start), Some(stop)) = (start, stop)
            && stop > start
        {
            let place = written.stop.as_ref().or(written.start.as_ref()).map_or(&written.place, |at| &at.place);
            self.fault(place, format!("{stop} is above `start`, {start}"), "write 1 to 2 less than `start`");
        }
        if let (Some(0.0), Some(At { place, .. })) = (stop, &written.stop) {
            self.warn(place, "is 0, and no score is below it: an event would never end", "write at least 0.5");
        }
        let confirm = self.confirm(written.confirm.as_ref());
        let cooldown = self.cooldown(written.cooldown_s.as_ref());
        Some(Rule { start: start?, stop: stop?, confirm: confirm?, cooldown: cooldown? })
    }

    fn score(&mut self, written: Option<&At<f64>>, default: f32) -> Option<f32> {
        let Some(At { value, place }) = written else { return Some(default) };
        if !(0.0..=10.0).contains(value) {
            self.fault(
                place,
                format!("{value} is not on the scale from 0 to 10"),
                format!("{DEFAULT_START} is the usual start"),
            );
            return None;
        }
        Some(*value as f32)
    }

    fn confirm(&mut self, written: Option<&At<Vec<At<i64>>>>) -> Option<(u32, u32)> {
        let Some(At { value, place }) = written else { return Some(DEFAULT_CONFIRM) };
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
        self.fault(place, seen, "write `[2, 3]`");
        None
    }

    fn cooldown(&mut self, written: Option<&At<f64>>) -> Option<Duration> {
        let Some(At { value, place }) = written else { return Some(DEFAULT_COOLDOWN) };
        if !(0.0..=MAX_COOLDOWN_S).contains(value) {
            self.fault(place, format!("{value} is not from 0 to {MAX_COOLDOWN_S} seconds"), "10 suits most");
            return None;
        }
        Some(Duration::from_secs_f64(*value))
    }
}

fn list(numbers: &[i64]) -> String {
    let some: Vec<String> = numbers.iter().take(4).map(ToString::to_string).collect();
    format!("[{}{}]", some.join(", "), if numbers.len() > 4 { ", ..." } else { "" })
}
