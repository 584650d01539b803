//! Figures as text.

use crate::eval::IntervalRecord;

/// Three decimals, with a true minus; a dash where there is no figure.
pub(super) fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}").replace('-', "\u{2212}") } else { "–".into() }
}

/// An interval, or that there is none.
pub(super) fn range(figure: IntervalRecord) -> String {
    if figure.low.is_finite() {
        format!("{} to {}", number(figure.low), number(figure.high))
    } else {
        "no interval".into()
    }
}

/// A figure and its interval in running text.
pub(super) fn interval(figure: IntervalRecord) -> String {
    format!("{} ({})", number(figure.value), range(figure))
}
