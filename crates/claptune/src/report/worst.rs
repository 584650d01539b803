//! Where the model and people disagree most: a table with players, and each listener's rating on the scale. A recording
//! is there once: one that is misheard would fill the table.

use std::collections::HashSet;

use maud::{Markup, html};

use super::evaluation::Evaluation;
use super::sound;
use crate::data::Pair;

/// A pair and what was said of it.
pub(super) struct Disagreement<'a> {
    pair: &'a Pair,
    score: f64,
    /// Of the model before training.
    before: Option<f64>,
    rating: f64,
    listeners: Vec<f64>,
    /// An address that plays, or why there is none.
    sound: Result<String, String>,
}

/// The pairs whose score is farthest from their rating, one a recording, with their sounds.
pub(super) fn find(evaluation: &Evaluation) -> Vec<Disagreement<'_>> {
    let (pairs, columns) = (&evaluation.scored.pairs, &evaluation.scored.columns);
    let distance = |row: usize| (columns[0].score[row] - columns[0].rating[row]).abs();
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by(|&a, &b| distance(b).total_cmp(&distance(a)));
    let mut recordings = HashSet::new();
    order
        .into_iter()
        .filter(|&row| recordings.insert(pairs[row].recording.as_str()))
        .take(sound::MAX_SOUNDS)
        .map(|row| Disagreement {
            pair: &pairs[row],
            score: columns[0].score[row],
            before: columns.get(1).map(|start| start.score[row]),
            rating: columns[0].rating[row],
            listeners: pairs[row].by_listener(),
            sound: sound::address(&pairs[row].audio).map_err(|error| format!("{error:#}")),
        })
        .collect()
}

pub(super) fn draw(worst: &[Disagreement<'_>], raters: &str) -> Markup {
    html! {
        section #worst {
            h2 { "Where they disagree most" }
            p {
                "The " (worst.len()) " recordings whose score is farthest from the mean rating. Sounds are cut to "
                (sound::SECONDS) " s and kept at 16 kHz, so that the page stays small. On the scale: "
                span.key { span.swatch.listener {} (raters) } span.key { span.swatch.rating {} "their mean" }
                span.key { span.swatch.tuned.round {} "score" } @if worst.iter().any(|row| row.before.is_some()) { span.key { span.swatch.start.round {} "score before" } }
            }
            table.worst {
                thead { tr { th { "Sound and text" } th.wide { "0 to 10" } th.n { "Rating" } th.n { "Spread" } th.n { "Score" } th.n { "Off by" } } }
                tbody { @for row in worst { (line(row)) } }
            }
        }
    }
}

fn line(row: &Disagreement<'_>) -> Markup {
    let Disagreement { pair, score, rating, listeners, .. } = row;
    html! {
        tr {
            td.sound {
                q { (pair.text) }
                @match &row.sound {
                    Ok(address) => audio controls preload="metadata" src=(address) {},
                    Err(reason) => p.note { "No sound: " (reason) },
                }
                span.file { (pair.recording) @if let Some(category) = &pair.category { " · " (category) } @if let Some(kind) = &pair.kind { " · " (kind) } }
            }
            td.wide { (scale(row)) }
            td.n data-name="Rating" { (format!("{rating:.1}")) }
            td.n data-name="Spread" { @if listeners.len() > 1 { "± " (format!("{:.1}", spread(listeners))) } @else { "–" } }
            td.n data-name="Score" { (format!("{score:.1}")) }
            td.n.off data-name="Off by" { (format!("{:+.1}", score - rating).replace('-', "\u{2212}")) }
        }
    }
}

/// All that was said of the pair, on one line.
fn scale(row: &Disagreement<'_>) -> Markup {
    let at = |value: f64| format!("{:.2}%", 2.0 + 9.6 * value.clamp(0.0, 10.0));
    html! {
        svg.strip role="img" aria-label={ "rated " (format!("{:.1}", row.rating)) ", scored " (format!("{:.1}", row.score)) } {
            line.axis x1=(at(0.0)) x2=(at(10.0)) y1="20" y2="20" {}
            @for n in 0..=5 { line.tick x1=(at(2.0 * f64::from(n))) x2=(at(2.0 * f64::from(n))) y1="17" y2="23" {} }
            line.gap x1=(at(row.rating)) x2=(at(row.score)) y1="20" y2="20" {}
            @for listener in &row.listeners { circle.listener cx=(at(*listener)) cy="20" r="3.5" { title { "a listener: " (format!("{listener:.1}")) } } }
            line.rating x1=(at(row.rating)) x2=(at(row.rating)) y1="10" y2="30" { title { "mean rating " (format!("{:.2}", row.rating)) } }
            @if let Some(before) = row.before { circle.start cx=(at(before)) cy="20" r="5" { title { "score before " (format!("{before:.2}")) } } }
            circle.tuned cx=(at(row.score)) cy="20" r="6" { title { "score " (format!("{:.2}", row.score)) } }
        }
    }
}

/// The sample's standard deviation.
fn spread(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}
