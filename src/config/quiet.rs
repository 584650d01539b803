//! Quiet hours, checked: every `[[quiet]]` as written becomes a [`QuietRule`], and `[node]`'s latitude and longitude a [`Coordinates`].

use clapd_core::prompts::Prompt;
use clapd_core::text::shorten;

use super::checker::Checker;
use super::diagnostic::Location;
use super::raw::RawQuiet;
use super::section::Located;
use crate::capture::SourceSpec;
use crate::quiet::{Coordinates, DayMoment, QuietRule, QuietScope};

/// A rule for each prompt at each of a few sources; they are looked at once a second.
const MAX_RULES: usize = 100;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Checker<'_> {
    /// Outer none: there is a fault.
    #[expect(clippy::option_option, reason = "a fault and no place are two things")]
    pub(super) fn check_place(
        &mut self,
        latitude: Option<&Located<f64>>,
        longitude: Option<&Located<f64>>,
    ) -> Option<Option<Coordinates>> {
        let mut check = |raw: &Located<f64>, most: f64, example: &str| {
            let is_allowed = (-most..=most).contains(&raw.value);
            if !is_allowed {
                let seen = format!("{} is not from -{most} to {most} degrees", raw.value);
                self.fault(&raw.location, seen, format!("write {example}"));
            }
            is_allowed.then_some(raw.value)
        };
        match (latitude, longitude) {
            (None, None) => Some(None),
            (Some(latitude), Some(longitude)) => {
                let latitude = check(latitude, 90.0, "52.5 for Berlin, -33.9 for Sydney");
                let longitude = check(longitude, 180.0, "13.4 for Berlin, -74.0 for New York");
                Some(Some(Coordinates { latitude: latitude?, longitude: longitude? }))
            }
            (Some(one), None) | (None, Some(one)) => {
                self.fault(&one.location, "stands alone", "write both `latitude` and `longitude`, in degrees");
                None
            }
        }
    }

    pub(super) fn check_quiet(
        &mut self,
        raw: &[RawQuiet],
        is_placed: bool,
        sources: Option<&[SourceSpec]>,
        prompts: Option<&[Prompt]>,
    ) -> Option<Vec<QuietRule>> {
        // Where those have faults of their own, nobody knows which there are.
        let sources = sources.map(|it| it.iter().map(|source| source.id.as_str()).collect::<Vec<_>>());
        let prompts = prompts.map(|it| it.iter().map(|prompt| prompt.id.as_str()).collect::<Vec<_>>());
        if let Some(extra) = raw.get(MAX_RULES) {
            let seen = format!("is beyond the {MAX_RULES} quiet hours that are allowed");
            self.fault(&extra.location, seen, "name several prompts or sources in one");
            return None;
        }
        let rules: Vec<Option<QuietRule>> = raw
            .iter()
            .map(|raw| {
                let from = self.check_day_moment(raw.from.as_ref(), is_placed);
                let to = self.check_day_moment(raw.to.as_ref(), is_placed);
                let days = self.check_days(raw.days.as_ref());
                let sources = self.check_quiet_ids(raw.sources.as_ref(), sources.as_deref(), true);
                let prompts = self.check_quiet_ids(raw.prompts.as_ref(), prompts.as_deref(), false);
                let scope = QuietScope { sources: sources?, prompts: prompts? };
                Some(QuietRule { from: from?, to: to?, days: days?, scope })
            })
            .collect();
        rules.into_iter().collect()
    }

    fn check_day_moment(&mut self, raw: Option<&Located<String>>, is_placed: bool) -> Option<DayMoment> {
        let Located { value, location } = raw?;
        let moment = match value.as_str() {
            "sunrise" => Some(DayMoment::Sunrise),
            "sunset" => Some(DayMoment::Sunset),
            clock => read_clock(clock),
        };
        match moment {
            None => {
                let seen = format!("\"{}\" is no time of day", shorten(value));
                self.fault(location, seen, "write \"22:00\", \"sunset\" or \"sunrise\"");
            }
            Some(DayMoment::Sunrise | DayMoment::Sunset) if !is_placed => {
                let seen = format!("is \"{value}\", and nobody knows where this is");
                self.fault(location, seen, "add `latitude` and `longitude` to [node], in degrees");
                return None;
            }
            Some(_) => {}
        }
        moment
    }

    fn check_days(&mut self, raw: Option<&Located<Vec<Located<String>>>>) -> Option<[bool; 7]> {
        let Some(Located { value, location }) = raw else { return Some([true; 7]) };
        if value.is_empty() {
            self.fault(location, "is empty, and so the hours would never be", "name days, or remove the key for all");
            return None;
        }
        let mut days = [false; 7];
        let mut faultless = true;
        for raw in value {
            match DAYS.iter().position(|day| *day == raw.value) {
                Some(day) => days[day] = true,
                None => {
                    let seen = format!("\"{}\" is none of {}", shorten(&raw.value), DAYS.join(", "));
                    self.fault(&raw.location, seen, "write [\"mon\", \"tue\"]");
                    faultless = false;
                }
            }
        }
        faultless.then_some(days)
    }

    /// Prompts may be set at run time, so one that the file does not have is no fault.
    fn check_quiet_ids(
        &mut self,
        raw: Option<&Located<Vec<Located<String>>>>,
        known: Option<&[&str]>,
        is_complete: bool,
    ) -> Option<Vec<String>> {
        let Some(Located { value, location }) = raw else { return Some(Vec::new()) };
        if value.is_empty() {
            self.fault(location, "is empty, and so nothing would be quiet", "name some, or remove the key for all");
            return None;
        }
        let ids = value.iter().map(|raw| {
            let id = self.check_id(&raw.value, &raw.location)?;
            if let Some(known) = known.filter(|known| !known.is_empty() && !known.contains(&id.as_str())) {
                self.warn_of_unknown(&raw.location, &id, known, is_complete);
            }
            Some(id)
        });
        ids.collect::<Vec<_>>().into_iter().collect()
    }

    fn warn_of_unknown(&mut self, location: &Location, id: &str, known: &[&str], is_complete: bool) {
        let remedy = format!("there is {}", known.join(", "));
        if is_complete {
            self.fault(location, format!("\"{id}\" is no source's id"), remedy);
        } else {
            self.warn(location, format!("\"{id}\" is no prompt's id here; one that is set later may have it"), remedy);
        }
    }
}

/// `22:00`, hours and minutes with two digits each.
fn read_clock(text: &str) -> Option<DayMoment> {
    let (hour, minute) = text.split_once(':')?;
    let read = |part: &str, below: i8| {
        let number = (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<i8>());
        number?.ok().filter(|number| *number < below)
    };
    Some(DayMoment::Clock { hour: read(hour, 24)?, minute: read(minute, 60)? })
}
