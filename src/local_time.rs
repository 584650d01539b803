//! The time of day where the computer stands, as people write it and read it.
//!
//! The time zone is the system's (`TZ`, `/etc/localtime`), with its summer time. It is asked of the system at each call, so that a
//! daemon that runs for months follows a change of it.

use std::time::SystemTime;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A time zone.
#[derive(Debug, Clone)]
pub struct LocalZone(TimeZone);

/// A moment as a person there reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalMoment {
    /// `2026-11-22`.
    pub date: String,
    /// `19:00:00`.
    pub time: String,
    /// From UTC: `+01:00`.
    pub offset: String,
}

impl LocalZone {
    /// The system's. UTC where there is none.
    pub fn of_system() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    /// The one of this name, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// A name that the system's list of time zones does not have.
    pub fn named(name: &str) -> Result<Self, String> {
        TimeZone::get(name).map(Self).map_err(|error| error.to_string())
    }

    /// Its name; none where the system does not say.
    pub fn name(&self) -> Option<&str> {
        self.0.iana_name()
    }

    /// What a clock there shows at `time`.
    pub fn moment(&self, time: SystemTime) -> LocalMoment {
        let zoned = self.zoned(time);
        LocalMoment {
            date: zoned.strftime("%Y-%m-%d").to_string(),
            time: zoned.strftime("%H:%M:%S").to_string(),
            offset: zoned.strftime("%:z").to_string(),
        }
    }

    /// When what a person wrote is: `2026-11-22` (where the day begins), `2026-11-22 19:00`, or with an offset or `Z` behind it. A time
    /// that comes twice, as in autumn, is the first of the two.
    ///
    /// # Errors
    /// What is no such time, with what is.
    pub fn parse(&self, text: &str) -> Result<SystemTime, String> {
        let text = text.trim();
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(time.into());
        }
        let civil = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0)));
        let civil = civil.map_err(|_| {
            format!("{text:?} is no time; write 2026-11-22, \"2026-11-22 19:00\", or 2026-11-22T18:00:00Z")
        })?;
        let zoned = civil.to_zoned(self.0.clone()).map_err(|error| format!("{text:?}: {error}"))?;
        Ok(zoned.timestamp().into())
    }

    /// Where the day begins in which `time` is, or one so many days before it.
    pub fn day_start(&self, time: SystemTime, days_before: i32) -> SystemTime {
        let zoned = self.zoned(time);
        let day = zoned.date().saturating_sub(jiff::Span::new().days(days_before));
        day.to_zoned(self.0.clone()).map_or(time, |start| start.timestamp().into())
    }

    /// A clock that was never set, or set beyond all bounds, is shown as the nearest that there is.
    fn zoned(&self, time: SystemTime) -> Zoned {
        let nearest = if time < SystemTime::UNIX_EPOCH { Timestamp::UNIX_EPOCH } else { Timestamp::MAX };
        let timestamp = Timestamp::try_from(time).unwrap_or(nearest);
        timestamp.to_zoned(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn berlin() -> LocalZone {
        LocalZone::named("Europe/Berlin").unwrap()
    }

    fn utc(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// 2026-10-25 01:00 UTC, when summer time ends there.
    const AUTUMN: u64 = 1_792_890_000;

    #[test]
    fn a_moment_has_the_offset_of_its_season() {
        let shown = |seconds| {
            let LocalMoment { date, time, offset } = berlin().moment(utc(seconds));
            format!("{date} {time} {offset}")
        };
        assert_eq!(shown(AUTUMN - 1), "2026-10-25 02:59:59 +02:00");
        assert_eq!(shown(AUTUMN), "2026-10-25 02:00:00 +01:00");
        assert_eq!(shown(AUTUMN + 28 * 86_400), "2026-11-22 02:00:00 +01:00");
        assert!(LocalZone::named("Europe/Nowhere").is_err());
        // What no clock says.
        assert!(berlin().moment(utc(1 << 50)).date.starts_with("9999"));
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("2026-10-25", AUTUMN - 3 * 3_600),
            ("2026-10-25 02:30", AUTUMN - 1_800),
            ("2026-10-25T03:30:00", AUTUMN + 2 * 3_600 - 1_800),
            ("2026-10-25T01:00:00Z", AUTUMN),
            (" 2026-10-25T02:00:00+01:00 ", AUTUMN),
        ] {
            assert_eq!(berlin().parse(text), Ok(utc(seconds)), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "25.10.2026"] {
            assert!(berlin().parse(text).unwrap_err().contains("write 2026-11-22"), "{text}");
        }
    }

    #[test]
    fn days_begin_at_midnight_also_where_one_has_25_hours() {
        let noon = utc(AUTUMN + 86_400 + 10 * 3_600);
        assert_eq!(berlin().day_start(noon, 0), utc(AUTUMN + 22 * 3_600));
        assert_eq!(berlin().day_start(noon, 1), utc(AUTUMN - 3 * 3_600));
    }
}
