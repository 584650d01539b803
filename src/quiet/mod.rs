//! When nobody wants to be disturbed: quiet hours, as the configuration has them, and snoozes, which somebody asks for.
//!
//! In such a time no event begins. Scores go on, and an event that is open goes on to its own end, since when a sound ended is true
//! whoever sleeps. What is there still when the time is over begins then.

mod snooze;
mod sun;

use std::time::SystemTime;

use crate::local_time::{LocalDay, LocalZone};
pub use snooze::{MAX_SNOOZE_MINUTES, Snoozes};
pub use sun::Coordinates;

/// A moment of each day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayMoment {
    /// What a clock shows there.
    Clock {
        /// 0 to 23.
        hour: i8,
        /// 0 to 59.
        minute: i8,
    },
    /// When the sun rises.
    Sunrise,
    /// When it sets.
    Sunset,
}

/// What is to be quiet; an empty list stands for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuietScope {
    /// Ids of sources.
    pub sources: Vec<String>,
    /// Ids of prompts.
    pub prompts: Vec<String>,
}

impl QuietScope {
    /// Whether this prompt at this source is quiet.
    pub fn covers(&self, source: &str, prompt: &str) -> bool {
        let has = |ids: &[String], id: &str| ids.is_empty() || ids.iter().any(|known| known == id);
        has(&self.sources, source) && has(&self.prompts, prompt)
    }
}

/// Hours in which no event begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietRule {
    /// When they begin.
    pub from: DayMoment,
    /// When they end: on the next day where that is not later.
    pub to: DayMoment,
    /// On which days they begin, from Monday.
    pub days: [bool; 7],
    /// What is quiet.
    pub scope: QuietScope,
}

/// What is quiet now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveQuiet {
    /// What.
    pub scope: QuietScope,
    /// Until when.
    pub until: SystemTime,
    /// Whether somebody has asked for it.
    pub is_snooze: bool,
}

impl QuietRule {
    /// Until when it is quiet at `now`; none where it is not.
    pub fn active_until(&self, place: Option<Coordinates>, zone: &LocalZone, now: SystemTime) -> Option<SystemTime> {
        // Hours that began yesterday last until today.
        [-1, 0].into_iter().find_map(|days| {
            let (day, next) = (zone.day(now, days), zone.day(now, days + 1));
            if !self.days[day.weekday()] {
                return None;
            }
            let from = moment(self.from, place, &day)?;
            let to = moment(self.to, place, &day).filter(|to| *to > from).or_else(|| moment(self.to, place, &next))?;
            (from <= now && now < to).then_some(to)
        })
    }
}

/// None where the sun decides and nobody knows where.
fn moment(moment: DayMoment, place: Option<Coordinates>, day: &LocalDay) -> Option<SystemTime> {
    let sun = || place.map(|place| sun::rise_and_set(place, day.of_year(), day.utc_midnight()));
    match moment {
        DayMoment::Clock { hour, minute } => Some(day.at(hour, minute)),
        DayMoment::Sunrise => sun().map(|[rise, _]| rise),
        DayMoment::Sunset => sun().map(|[_, set]| set),
    }
}

/// What is quiet at `now` by these rules.
pub fn active(rules: &[QuietRule], place: Option<Coordinates>, zone: &LocalZone, now: SystemTime) -> Vec<ActiveQuiet> {
    let active = rules.iter().filter_map(|rule| {
        let until = rule.active_until(place, zone, now)?;
        Some(ActiveQuiet { scope: rule.scope.clone(), until, is_snooze: false })
    });
    active.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_DAYS: [bool; 7] = [true; 7];

    fn berlin() -> LocalZone {
        LocalZone::named("Europe/Berlin").unwrap()
    }

    fn clock(hour: i8, minute: i8) -> DayMoment {
        DayMoment::Clock { hour, minute }
    }

    fn rule(from: DayMoment, to: DayMoment, days: [bool; 7]) -> QuietRule {
        QuietRule { from, to, days, scope: QuietScope::default() }
    }

    /// Until when it is quiet at this time in Berlin, as a clock there shows it.
    fn until(rule: &QuietRule, now: &str) -> Option<String> {
        let place = Coordinates { latitude: 52.52, longitude: 13.405 };
        let until = rule.active_until(Some(place), &berlin(), berlin().parse(now).unwrap())?;
        let moment = berlin().moment(until);
        Some(format!("{} {}", moment.date, &moment.time[..5]))
    }

    #[test]
    fn a_night_lasts_until_the_next_morning() {
        let night = rule(clock(22, 0), clock(7, 0), ALL_DAYS);
        for (now, end) in [
            ("2026-11-22 21:59:59", None),
            ("2026-11-22 22:00", Some("2026-11-23 07:00")),
            ("2026-11-23 06:59:59", Some("2026-11-23 07:00")),
            ("2026-11-23 07:00", None),
            // Summer time ends, and begins.
            ("2026-10-24 23:00", Some("2026-10-25 07:00")),
            ("2027-03-28 06:30", Some("2027-03-28 07:00")),
        ] {
            assert_eq!(until(&night, now).as_deref(), end, "{now}");
        }
        let noon = rule(clock(12, 30), clock(14, 0), ALL_DAYS);
        assert_eq!(until(&noon, "2026-11-22 13:00").as_deref(), Some("2026-11-22 14:00"));
        assert_eq!(until(&noon, "2026-11-22 14:00"), None);
        // From a time to the same is a day.
        assert!(until(&rule(clock(7, 0), clock(7, 0), ALL_DAYS), "2026-11-22 06:00").is_some());
    }

    #[test]
    fn days_are_those_on_which_it_begins() {
        // From Friday evening and Saturday evening on.
        let weekend = rule(clock(22, 0), clock(9, 0), [false, false, false, false, true, true, false]);
        for (now, quiet) in [
            ("2026-11-20 23:00", true),
            ("2026-11-21 08:00", true),
            ("2026-11-22 08:00", true),
            ("2026-11-22 23:00", false),
            ("2026-11-20 08:00", false),
        ] {
            assert_eq!(until(&weekend, now).is_some(), quiet, "{now}");
        }
    }

    #[test]
    fn the_sun_can_say_when() {
        let night = rule(DayMoment::Sunset, DayMoment::Sunrise, ALL_DAYS);
        let morning = until(&night, "2026-12-21 17:00").unwrap();
        assert!(morning.starts_with("2026-12-22 08:1"), "{morning}");
        assert!(until(&night, "2026-12-22 07:30").is_some());
        assert_eq!(until(&night, "2026-12-21 12:00"), None);
        assert_eq!(until(&night, "2026-06-21 20:00"), None);
        assert_eq!(night.active_until(None, &berlin(), berlin().parse("2026-12-21 17:00").unwrap()), None);
    }

    #[test]
    fn a_scope_names_what_is_quiet() {
        let scope = |sources: &[&str], prompts: &[&str]| QuietScope {
            sources: sources.iter().map(ToString::to_string).collect(),
            prompts: prompts.iter().map(ToString::to_string).collect(),
        };
        assert!(scope(&[], &[]).covers("mic", "dog"));
        assert!(scope(&["mic"], &["cat", "dog"]).covers("mic", "dog"));
        assert!(!scope(&["mac"], &[]).covers("mic", "dog"));
        assert!(!scope(&[], &["cat"]).covers("mic", "dog"));
    }
}
