//! Whether a score means what it says: pictures of the curve from cosine to score, and of the mean rating that a score
//! stands for, in bins with their counts, on pairs that the curve was not fitted to.

use maud::{Markup, html};

use super::chart::{Axes, AxisScale, at};
use super::evaluation::Evaluation;
use super::format::interval;
use crate::metrics::{BootstrapPlan, Columns, Interval, bootstrap};

/// Bins of cosines whose ratings are averaged, equally full.
const BINS: usize = 12;
/// Bars that count cosines, equally wide.
const BARS: u32 = 24;
/// Fewer pairs in a bin say little.
const LEAST_IN_A_BIN: usize = 8;
/// Fewer recordings than this give an interval that is too narrow to be believed.
const LEAST_RECORDINGS: usize = 3;
/// 25 draws beyond each end: enough for a whisker a pixel wide.
const DRAWS: usize = 1000;
/// Share of the picture's height that the fullest bin's bar takes.
const TALLEST: f64 = 0.22;

/// Pairs with similar cosines or scores.
struct Bin {
    /// Mean of what they are binned by.
    middle: f64,
    rating: Interval,
    pairs: usize,
}

pub(super) fn draw(evaluation: &Evaluation, raters: &str) -> Markup {
    let (columns, recordings) = (&evaluation.scored.columns[0], &evaluation.scored.recordings);
    let plan = BootstrapPlan { resamples: DRAWS, seed: evaluation.figures.seed };
    html! {
        section #calibration {
            h2 { "Calibration" }
            p {
                "What a score stands for: mean ratings of " (raters) " in bins, with 95% intervals, on the "
                (evaluation.split) " split. Bars along the foot count the pairs."
            }
            div.pictures {
                (curve(evaluation, columns, recordings, plan))
                (scores(columns, recordings, plan, raters))
            }
            (fitted(evaluation))
        }
    }
}

/// The bundle's curve among the ratings.
fn curve(evaluation: &Evaluation, columns: &Columns, recordings: &[usize], plan: BootstrapPlan) -> Markup {
    let axes = Axes { x: AxisScale::around(columns.cosine.iter().copied()), y: AxisScale::fixed(0.0, 10.0, 2.0) };
    let mut order: Vec<usize> = (0..columns.cosine.len()).collect();
    order.sort_by(|&a, &b| columns.cosine[a].total_cmp(&columns.cosine[b]));
    let count = (order.len() / LEAST_IN_A_BIN).clamp(1, BINS);
    let rows = (0..count).map(|n| &order[n * order.len() / count..(n + 1) * order.len() / count]);
    let bins: Vec<Bin> = rows.map(|rows| bin(&columns.cosine, columns, rows, recordings, plan)).collect();
    // As many pieces as the eye can tell apart.
    let line = (0..=200).map(|n| axes.x.low() + (axes.x.high() - axes.x.low()) * f64::from(n) / 200.0);
    let line = line.map(|cosine| (cosine, f64::from(evaluation.curve.score(cosine as f32).score)));
    let width = (axes.x.high() - axes.x.low()) / f64::from(BARS);
    let counts: Vec<(f64, f64, usize)> = (0..BARS)
        .map(|n| (axes.x.low() + width * f64::from(n), axes.x.low() + width * f64::from(n + 1)))
        .map(|(from, to)| (from, to, columns.cosine.iter().filter(|&&cosine| from <= cosine && cosine < to).count()))
        .collect();
    let marks = html! {
        (bars(&axes, &counts))
        (whiskers(&axes, &bins))
        path.line.tuned d=(axes.path(line)) {}
    };
    html! {
        figure {
            figcaption { "From cosine to score" span.key { span.swatch.tuned {} "the bundle's curve" } span.key { span.swatch.bin {} "rated" } }
            (axes.draw("The curve from cosine to score among mean ratings", "cosine", "score, mean rating", &marks))
        }
    }
}

/// The mean rating of pairs with a score of 0 to 1, 1 to 2, and so on.
fn scores(columns: &Columns, recordings: &[usize], plan: BootstrapPlan, raters: &str) -> Markup {
    let axes = Axes { x: AxisScale::fixed(0.0, 10.0, 2.0), y: AxisScale::fixed(0.0, 10.0, 2.0) };
    let rows = |n: usize| -> Vec<usize> {
        (0..columns.score.len()).filter(|&row| (columns.score[row] as usize).min(9) == n).collect()
    };
    let bins: Vec<Bin> = (0..10)
        .map(rows)
        .filter(|rows| !rows.is_empty())
        .map(|rows| bin(&columns.score, columns, &rows, recordings, plan))
        .collect();
    let counts: Vec<(f64, f64, usize)> = (0..10).map(|n| (n as f64, n as f64 + 1.0, rows(n).len())).collect();
    let marks = html! {
        path.diagonal d=(axes.path([(0.0, 0.0), (10.0, 10.0)])) {}
        (bars(&axes, &counts))
        (whiskers(&axes, &bins))
    };
    html! {
        figure {
            figcaption { "What a score stands for" span.key { span.swatch.bin {} "rated" } span.key { span.swatch.diagonal {} "as it should be" } }
            (axes.draw("Mean rating by score", "score", &format!("mean rating of {raters}"), &marks))
        }
    }
}

fn bin(by: &[f64], columns: &Columns, rows: &[usize], recordings: &[usize], plan: BootstrapPlan) -> Bin {
    let mean = |column: &[f64]| rows.iter().map(|&row| column[row]).sum::<f64>() / rows.len() as f64;
    let clusters: Vec<usize> = rows.iter().map(|&row| recordings[row]).collect();
    let mut names = clusters.clone();
    names.sort_unstable();
    names.dedup();
    let value = mean(&columns.rating);
    let rating = if names.len() < LEAST_RECORDINGS {
        Interval { value, low: f64::NAN, high: f64::NAN }
    } else {
        let [draws] = bootstrap::draws(&clusters, plan, |drawn| {
            [drawn.iter().map(|&n| columns.rating[rows[n]]).sum::<f64>() / drawn.len() as f64]
        });
        Interval::of(value, &draws)
    };
    Bin { middle: mean(by), rating, pairs: rows.len() }
}

/// Bars from, to, and of how many pairs, along the foot.
fn bars(axes: &Axes, counts: &[(f64, f64, usize)]) -> Markup {
    let most = counts.iter().map(|(.., pairs)| *pairs).max().unwrap_or(0).max(1) as f64;
    let foot = axes.y(axes.y.low());
    let tall = TALLEST * (foot - axes.y(axes.y.high()));
    html! {
        @for (from, to, pairs) in counts.iter().filter(|(.., pairs)| *pairs > 0) {
            @let high = tall * *pairs as f64 / most;
            rect.count x=(at(axes.x(*from) + 0.5)) y=(at(foot - high)) width=(at(axes.x(*to) - axes.x(*from) - 1.0)) height=(at(high)) {
                title { (format!("{from:.2} to {to:.2}: {pairs} pairs")) }
            }
        }
    }
}

fn whiskers(axes: &Axes, bins: &[Bin]) -> Markup {
    html! {
        @for bin in bins {
            @let x = at(axes.x(bin.middle));
            @if bin.rating.low.is_finite() {
                line.whisker x1=(x) x2=(x) y1=(at(axes.y(bin.rating.low))) y2=(at(axes.y(bin.rating.high))) {}
            }
            circle.bin cx=(x) cy=(at(axes.y(bin.rating.value))) r="4" {
                title { (bin.pairs) " pairs: mean rating " (interval(bin.rating.into())) }
            }
        }
    }
}

/// What the bundle states of its own curve.
fn fitted(evaluation: &Evaluation) -> Markup {
    let card = evaluation.manifest.quality.get("calibration").and_then(toml::Value::as_table);
    let figure = |name: &str| {
        let numbers = card?.get(name)?.as_array()?;
        let [value, low, high] = [0, 1, 2].map(|n| numbers.get(n).and_then(toml::Value::as_float).unwrap_or(f64::NAN));
        Some(interval(Interval { value, low, high }.into()))
    };
    let count = |name: &str| card.and_then(|card| card.get(name)).and_then(toml::Value::as_integer);
    html! {
        @if let (Some(pairs), Some(recordings)) = (count("pairs"), count("recordings")) {
            p.note {
                "The curve was fitted to " (pairs) " pairs of " (recordings) " recordings of validation. On recordings left out of the fit: "
                @for (name, key) in [("MSE", "mse"), ("MAE", "mae"), ("expected calibration error", "expected_calibration_error")] {
                    @if let Some(figure) = figure(key) { (name) " " (figure) @if key != "expected_calibration_error" { ", " } }
                }
                "."
            }
        } @else {
            p.note { "The bundle does not tell what its curve was fitted to (" code { "claptune calibrate" } " fits one)." }
        }
    }
}
