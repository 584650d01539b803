//! Axes: from numbers to coordinates in an SVG with its grid, numbers and names. Colours are the style sheet's, which
//! knows day and night.

use maud::{Markup, html};

/// Units of the picture: as wide as a phone's page, so that text has its own size there.
pub(super) const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
/// Room for numbers and names: left, right, top, bottom.
const MARGIN: [f64; 4] = [52.0, 14.0, 12.0, 44.0];
/// About as many numbers on an axis.
const TICKS: f64 = 5.0;

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AxisScale {
    low: f64,
    high: f64,
    step: f64,
}

impl AxisScale {
    /// From `low` to `high` with a number every `step`.
    pub(super) fn fixed(low: f64, high: f64, step: f64) -> Self {
        Self { low, high, step }
    }

    /// Around these values, with round numbers; those that are none are left out.
    pub(super) fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = values
            .into_iter()
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match high - low {
            // Nothing there at all, or one value again and again.
            range if !range.is_finite() => (0.0, 1.0),
            range if range < 1e-9 * high.abs().max(1e-3) => {
                (low - 0.5 * low.abs().max(0.1), high + 0.5 * high.abs().max(0.1))
            }
            _ => (low, high),
        };
        let step = round_step((high - low) / TICKS);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    /// From `low` to `high`, the ends as they are, and round numbers between.
    pub(super) fn between(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, step: round_step((high - low) / TICKS) }
    }

    /// Places of numbers, and the numbers.
    fn ticks(&self) -> Vec<(f64, String)> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        let decimals = (-(self.step.log10() - 1e-9).floor()).clamp(0.0, 9.0) as usize;
        // 2.5 has a decimal more than its order of magnitude says.
        let exact = (self.step * 10_f64.powi(decimals as i32)).fract() > 1e-6;
        let decimals = decimals + usize::from(exact);
        (first..=last)
            .map(|n| n as f64 * self.step)
            .map(|value| {
                (value, format!("{:.decimals$}", if value == 0.0 { 0.0 } else { value }).replace('-', "\u{2212}"))
            })
            .collect()
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    pub(super) fn low(&self) -> f64 {
        self.low
    }

    pub(super) fn high(&self) -> f64 {
        self.high
    }
}

/// 1, 2, 2.5 or 5 times a power of ten, at least as large.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

/// Two axes and the field between them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axes {
    pub(super) x: AxisScale,
    pub(super) y: AxisScale,
}

impl Axes {
    /// Where a value lies across; beyond the axis it lies at its end.
    pub(super) fn x(&self, value: f64) -> f64 {
        MARGIN[0] + self.x.share(value) * (WIDTH - MARGIN[0] - MARGIN[1])
    }

    /// Where a value lies up and down.
    pub(super) fn y(&self, value: f64) -> f64 {
        HEIGHT - MARGIN[3] - self.y.share(value) * (HEIGHT - MARGIN[2] - MARGIN[3])
    }

    /// A line through points; where a value is none it is broken.
    pub(super) fn path(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let (mut path, mut open) = (String::new(), false);
        for (x, y) in points {
            if x.is_finite() && y.is_finite() {
                path += &format!("{}{:.1} {:.1}", if open { 'L' } else { 'M' }, self.x(x), self.y(y));
            }
            open = x.is_finite() && y.is_finite();
        }
        path
    }

    /// The picture: `marks` upon a grid. `title` says what it shows to those who don't see it.
    pub(super) fn draw(&self, title: &str, across: &str, up: &str, marks: &Markup) -> Markup {
        let (left, right, top, bottom) = (MARGIN[0], WIDTH - MARGIN[1], MARGIN[2], HEIGHT - MARGIN[3]);
        let middle = (top + bottom) / 2.0;
        html! {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                g.grid {
                    @for (value, name) in self.y.ticks() {
                        line x1=(left) x2=(right) y1=(at(self.y(value))) y2=(at(self.y(value))) {}
                        text.number x=(left - 7.0) y=(at(self.y(value) + 4.0)) text-anchor="end" { (name) }
                    }
                    @for (value, name) in self.x.ticks() {
                        line.tick x1=(at(self.x(value))) x2=(at(self.x(value))) y1=(bottom) y2=(bottom + 4.0) {}
                        text.number x=(at(self.x(value))) y=(bottom + 17.0) text-anchor="middle" { (name) }
                    }
                    line.base x1=(left) x2=(right) y1=(bottom) y2=(bottom) {}
                    text.name x=(at((left + right) / 2.0)) y=(HEIGHT - 7.0) text-anchor="middle" { (across) }
                    text.name x="11" y=(at(middle)) text-anchor="middle" transform={ "rotate(-90 11 " (at(middle)) ")" } { (up) }
                }
                (marks)
            }
        }
    }
}

/// A place with a tenth of a unit: finer than a screen shows.
pub(super) fn at(place: f64) -> String {
    format!("{place:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers_around_what_they_show() {
        let names = |values: &[f64]| -> Vec<String> {
            let scale = AxisScale::around(values.iter().copied());
            assert!(
                values.iter().filter(|v| v.is_finite()).all(|v| scale.low() <= *v && *v <= scale.high()),
                "{scale:?}"
            );
            scale.ticks().into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(names(&[0.03, 0.97]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(names(&[0.0, 1200.0, f64::NAN]), ["0", "250", "500", "750", "1000", "1250"]);
        assert_eq!(
            names(&[-0.011, 0.001]),
            [
                "\u{2212}0.0125",
                "\u{2212}0.0100",
                "\u{2212}0.0075",
                "\u{2212}0.0050",
                "\u{2212}0.0025",
                "0.0000",
                "0.0025"
            ]
        );
        assert!(names(&[]).len() > 2 && names(&[3.0, 3.0]).len() > 2 && names(&[0.0]).len() > 2);
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_value() {
        let axes = Axes { x: AxisScale::fixed(0.0, 3.0, 1.0), y: AxisScale::fixed(0.0, 1.0, 0.5) };
        let path = axes.path([(0.0, 0.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0)]);
        assert_eq!(path, "M52.0 256.0L176.7 12.0M426.0 12.0", "and what is beyond the axis lies at its end");
    }
}
