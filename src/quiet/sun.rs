//! When the sun rises and sets at a place: the approximation of NOAA's solar calculator ("General Solar Position Calculations"), which
//! is within two and a half minutes of another program's times between the polar circles.

use std::f64::consts::TAU;
use std::time::{Duration, SystemTime};

/// A place on the earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    /// North is positive; -90 to 90.
    pub latitude: f64,
    /// East is positive; -180 to 180.
    pub longitude: f64,
}

/// The zenith's distance from the sun when its upper edge is at the horizon: refraction and its radius are 0.833 degrees.
const ZENITH_DEGREES: f64 = 90.833;

/// Sunrise and sunset of the day that has this number in its year and begins at `midnight` in UTC. Where the sun does not set, both are
/// at midnight, as far apart as a day is long; where it does not rise, both are at noon.
pub(super) fn rise_and_set(place: Coordinates, day_of_year: i16, midnight: SystemTime) -> [SystemTime; 2] {
    let year = TAU / 365.0 * (f64::from(day_of_year) - 1.0);
    // In minutes.
    let equation_of_time = 229.18
        * (0.000_075 + 0.001_868 * year.cos()
            - 0.032_077 * year.sin()
            - 0.014_615 * (2.0 * year).cos()
            - 0.040_849 * (2.0 * year).sin());
    let declination = 0.006_918 - 0.399_912 * year.cos() + 0.070_257 * year.sin() - 0.006_758 * (2.0 * year).cos()
        + 0.000_907 * (2.0 * year).sin()
        - 0.002_697 * (3.0 * year).cos()
        + 0.001_48 * (3.0 * year).sin();
    // A hair off the poles, where the tangent has no value.
    let latitude = place.latitude.clamp(-89.9, 89.9).to_radians();
    let cosine =
        ZENITH_DEGREES.to_radians().cos() / (latitude.cos() * declination.cos()) - latitude.tan() * declination.tan();
    let half_day = cosine.clamp(-1.0, 1.0).acos().to_degrees();
    let minutes = |angle: f64| 720.0 - 4.0 * (place.longitude + angle) - equation_of_time;
    [half_day, -half_day].map(|angle| {
        let minutes = minutes(angle);
        let distance = Duration::from_secs_f64(minutes.abs() * 60.0);
        if minutes < 0.0 { midnight - distance } else { midnight + distance }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_time::LocalZone;

    /// Hours and minutes of sunrise and sunset.
    type RiseAndSet = [(i8, i8); 2];

    /// In local time, computed with the Python package astral 3.2 (`astral.sun.sun`), to the minute.
    const REFERENCE: [(&str, f64, f64, &str, RiseAndSet); 7] = [
        ("Europe/Berlin", 52.52, 13.405, "2026-06-21", [(4, 43), (21, 33)]),
        ("Europe/Berlin", 52.52, 13.405, "2026-12-21", [(8, 15), (15, 54)]),
        ("America/New_York", 40.713, -74.006, "2026-07-04", [(5, 30), (20, 30)]),
        ("Australia/Sydney", -33.869, 151.209, "2026-12-21", [(5, 41), (20, 5)]),
        ("Australia/Sydney", -33.869, 151.209, "2026-06-21", [(7, 0), (16, 54)]),
        ("Europe/London", 51.507, -0.128, "2026-12-21", [(8, 4), (15, 53)]),
        ("Asia/Tokyo", 35.69, 139.692, "2026-06-21", [(4, 26), (19, 0)]),
    ];

    #[test]
    fn sunrise_and_sunset_are_those_of_another_program() {
        for (zone, latitude, longitude, date, published) in REFERENCE {
            let local = LocalZone::named(zone).unwrap();
            let day = local.day(local.parse(date).unwrap(), 0);
            let computed = rise_and_set(Coordinates { latitude, longitude }, day.of_year(), day.utc_midnight());
            for (computed, (hour, minute)) in computed.into_iter().zip(published) {
                let off = computed.duration_since(day.at(hour, minute)).unwrap_or_else(|early| early.duration());
                assert!(off <= Duration::from_secs(150), "{zone} {date} {hour}:{minute}: off by {off:?}");
            }
        }
    }

    #[test]
    fn where_it_does_not_rise_or_set_the_night_is_all_day_or_none() {
        let place = Coordinates { latitude: 78.2, longitude: 15.6 };
        let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(1_782_000_000);
        let lasts = |day_of_year| {
            let [rise, set] = rise_and_set(place, day_of_year, midnight);
            set.duration_since(rise).unwrap().as_secs()
        };
        assert_eq!((lasts(172), lasts(355)), (86_400, 0));
    }
}
