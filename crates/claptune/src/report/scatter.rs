//! Scores against ratings, as density: hexagons, the fuller the more pairs they hold. Of a thousand dots many would
//! hide each other, and a page of a million would not open.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::chart::{Axes, AxisScale, at};
use crate::metrics::Columns;

/// From a hexagon's middle to its corner, in units of the picture: 20 columns, half a point wide each.
const RADIUS: f64 = 11.0;
/// A hexagon with a single pair is still seen.
const MIN_OPACITY: f64 = 0.16;

/// Hexagons by row and column, and their pairs.
type Cells = BTreeMap<(i64, i64), usize>;

/// One picture a model, all with the same scale of density. `columns` has the tuned model first; the start is shown first.
pub(super) fn draw(columns: &[Columns], raters: &str) -> Markup {
    // Room for the hexagons of 0 and 10.
    let scale = AxisScale::fixed(-0.4, 10.4, 2.0);
    let axes = Axes { x: scale.clone(), y: scale };
    let cells: Vec<Cells> = columns.iter().map(|columns| bin(&axes, columns)).collect();
    let most = cells.iter().flat_map(BTreeMap::values).copied().max().unwrap_or(1);
    html! {
        section #scatter {
            h2 { "Scores beside ratings" }
            p {
                "Each hexagon holds the pairs of a recording and a text that fell there; the fuller it is, the more (up to "
                (most) "). On the line, score and " (raters) " agree."
            }
            div.pictures {
                @for (place, cells) in cells.iter().enumerate().rev() {
                    @let name = if place == 0 { "Tuned" } else { "Start" };
                    figure {
                        figcaption { (name) span.key { (columns[place].score.len()) " pairs" } }
                        (axes.draw(&format!("{name}: score by mean rating"), &format!("mean rating of {raters}"), "score", &marks(&axes, cells, most, place)))
                    }
                }
            }
        }
    }
}

fn marks(axes: &Axes, cells: &Cells, most: usize, place: usize) -> Markup {
    html! {
        path.diagonal d=(axes.path([(0.0, 0.0), (10.0, 10.0)])) {}
        g class=(if place == 0 { "hexagons tuned" } else { "hexagons start" }) {
            @for (cell, count) in cells {
                // The root: one pair in a hundred is to be seen beside the fullest.
                @let share = (*count as f64 / most as f64).sqrt();
                path d=(hexagon(middle(*cell))) fill-opacity=(format!("{:.2}", MIN_OPACITY + (1.0 - MIN_OPACITY) * share)) {
                    title { (count) (if *count == 1 { " pair" } else { " pairs" }) }
                }
            }
        }
    }
}

fn bin(axes: &Axes, columns: &Columns) -> Cells {
    let mut cells = Cells::new();
    for (rating, score) in columns.rating.iter().zip(&columns.score) {
        *cells.entry(nearest(axes.x(*rating), axes.y(*score))).or_default() += 1;
    }
    cells
}

/// The middle of a hexagon that stands on a corner; odd rows are moved by half a width.
fn middle((row, column): (i64, i64)) -> (f64, f64) {
    let half = if row.rem_euclid(2) == 1 { 0.5 } else { 0.0 };
    ((column as f64 + half) * RADIUS * 3_f64.sqrt(), row as f64 * RADIUS * 1.5)
}

/// The hexagon that a place lies in: the one with the nearest middle, which is in the row above or below.
fn nearest(x: f64, y: f64) -> (i64, i64) {
    let row = (y / (RADIUS * 1.5)).floor() as i64;
    let best = [row, row + 1].map(|row| {
        let half = if row.rem_euclid(2) == 1 { 0.5 } else { 0.0 };
        let cell = (row, (x / (RADIUS * 3_f64.sqrt()) - half).round() as i64);
        let (mx, my) = middle(cell);
        ((mx - x).powi(2) + (my - y).powi(2), cell)
    });
    if best[1].0 < best[0].0 { best[1].1 } else { best[0].1 }
}

fn hexagon((x, y): (f64, f64)) -> String {
    let corner = |n: i32| {
        let angle = std::f64::consts::PI * (f64::from(n) / 3.0 + 1.0 / 6.0);
        // A hair smaller, so that neighbours stay apart.
        let radius = RADIUS * 0.94;
        format!("{} {}", at(x + radius * angle.cos()), at(y + radius * angle.sin()))
    };
    format!("M{}Z", (0..6).map(corner).collect::<Vec<String>>().join("L"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_in_the_hexagon_around_it() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..10_000 {
            let (x, y) = (500.0 * random.f64(), 300.0 * random.f64());
            let (mx, my) = middle(nearest(x, y));
            // Inside a hexagon on its corner: within half a width across, and below its slanting sides.
            let (dx, dy) = ((x - mx).abs(), (y - my).abs());
            assert!(dx <= RADIUS * 0.75_f64.sqrt() + 1e-9 && dy <= RADIUS - dx / 3_f64.sqrt() + 1e-9, "{x} {y}");
        }
    }
}
