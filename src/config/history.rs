//! How much of the past is kept, checked: `[history]` as written becomes a [`HistorySpec`].

use super::checker::Checker;
use super::raw::RawHistory;
use super::section::Located;
use crate::history::{DEFAULT_HOURS, HistorySpec};

/// A day, of which a window each second fills the most memory that a source may have.
const MAX_HOURS: f64 = 24.0;

impl Checker<'_> {
    /// Inner none: nothing is kept. Without the table it is kept where the page is served, since memory that nobody can ask is wasted;
    /// with it also where only MQTT's `ask` does. Outer none: there is a fault.
    #[expect(clippy::option_option, reason = "a fault and no history are two things")]
    pub(super) fn check_history(&mut self, raw: Option<&RawHistory>, is_served: bool) -> Option<Option<HistorySpec>> {
        let usual = HistorySpec { hours: DEFAULT_HOURS };
        let Some(raw) = raw else { return Some(is_served.then_some(usual)) };
        let Some(Located { value, location }) = &raw.hours else { return Some(Some(usual)) };
        if !((0.0..=MAX_HOURS).contains(value) && value.fract() == 0.0) {
            let seen = format!("{value} is not a whole number from 0 to {MAX_HOURS}");
            self.fault(location, seen, format!("{DEFAULT_HOURS} is usual, and 0 keeps nothing"));
            return None;
        }
        // A whole number of at most two digits.
        let hours = *value as u32;
        Some((hours > 0).then_some(HistorySpec { hours }))
    }
}
