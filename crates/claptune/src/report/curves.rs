//! Learning curves: the pictures of loss and SRCC. A run of a thousand steps or of a million gives a line of as many
//! points as can be seen.

use maud::{Markup, html};

use super::chart::{Axes, AxisScale, at};
use super::run::LoggedRun;

/// Points of a line: about one a unit of the picture's width.
const POINTS: usize = 400;
/// Part of a run that the smooth line looks back on: a fiftieth is seen, and does not hide a bend.
const SMOOTHED: f64 = 1.0 / 50.0;

/// Loss and SRCC beside each other; nothing where nothing was logged yet.
pub(super) fn draw(run: &LoggedRun) -> Markup {
    let has_loss = run.steps.iter().any(|step| step.loss.is_some());
    html! {
        @if has_loss || !run.validations.is_empty() {
            section #learning {
                h2 { "Learning" }
                div.pictures {
                    @if has_loss { (loss(run)) }
                    @if !run.validations.is_empty() { (srcc(run)) }
                }
            }
        }
    }
}

fn loss(run: &LoggedRun) -> Markup {
    let raw: Vec<(f64, f64)> = run
        .steps
        .iter()
        .filter_map(|step| Some((step.step as f64, step.loss.filter(|loss| loss.is_finite())?)))
        .collect();
    let validation_losses: Vec<(f64, f64)> =
        run.validations.iter().filter_map(|validation| Some((validation.step as f64, validation.loss?))).collect();
    let (thin, smooth) = (thinned(&raw), thinned(&smoothed(&raw)));
    // A single wild batch must not press the rest flat: the highest of a hundred is cut off.
    let mut sorted: Vec<f64> = raw.iter().map(|(_, loss)| *loss).collect();
    sorted.sort_by(f64::total_cmp);
    let usual = &sorted[..sorted.len() - sorted.len() / 100];
    let axes = Axes {
        x: steps(run),
        y: AxisScale::around(usual.iter().copied().chain(validation_losses.iter().map(|(_, loss)| *loss))),
    };
    let marks = html! {
        path.raw d=(axes.path(thin)) {}
        path.line.tuned d=(axes.path(smooth)) {}
        path.line.dashed d=(axes.path(validation_losses.iter().copied())) {}
        @for (step, loss) in &validation_losses {
            circle.dot.hollow cx=(at(axes.x(*step))) cy=(at(axes.y(*loss))) r="2.6" {
                title { "validation loss " (format!("{loss:.4}")) " after step " (step) }
            }
        }
    };
    html! {
        figure {
            figcaption {
                "Loss"
                span.key { span.swatch.tuned {} "training, smoothed" }
                @if !validation_losses.is_empty() { span.key { span.swatch.dashed {} "validation" } }
            }
            (axes.draw("Loss by step", "step", "loss", &marks))
        }
    }
}

fn srcc(run: &LoggedRun) -> Markup {
    let correlations: Vec<(f64, f64)> = run
        .validations
        .iter()
        .map(|validation| (validation.step as f64, validation.srcc.unwrap_or(f64::NAN)))
        .collect();
    let axes = Axes { x: steps(run), y: AxisScale::around(correlations.iter().map(|(_, srcc)| *srcc)) };
    let start = run.start().and_then(|validation| validation.srcc);
    let best = run.best().and_then(|validation| Some((validation.step, validation.srcc?)));
    let marks = html! {
        @if let Some(srcc) = start {
            path.line.start.dashed d=(axes.path([(axes.x.low(), srcc), (axes.x.high(), srcc)])) {}
        }
        path.line.tuned d=(axes.path(correlations.iter().copied())) {}
        @for (step, srcc) in correlations.iter().filter(|(_, srcc)| srcc.is_finite()) {
            circle.dot.tuned cx=(at(axes.x(*step))) cy=(at(axes.y(*srcc))) r="2.6" {
                title { "SRCC " (format!("{srcc:.4}")) " after step " (step) }
            }
        }
        @if let Some((step, srcc)) = best {
            circle.ring cx=(at(axes.x(step as f64))) cy=(at(axes.y(srcc))) r="6.5" {}
        }
    };
    html! {
        figure {
            figcaption {
                "SRCC on validation"
                @if let Some(srcc) = start { span.key { span.swatch.start {} "start " (format!("{srcc:.3}")) } }
                @if let Some((step, srcc)) = best {
                    span.key { span.swatch.tuned {} "best " (format!("{srcc:.3}")) ", step " (step) }
                }
            }
            (axes.draw("Rank correlation on the validation split by step", "step", "SRCC", &marks))
        }
    }
}

/// The same steps under both pictures.
fn steps(run: &LoggedRun) -> AxisScale {
    let steps = run.steps.iter().map(|step| step.step).chain(run.validations.iter().map(|validation| validation.step));
    AxisScale::between(0.0, steps.max().unwrap_or(0) as f64)
}

/// An exponential mean, corrected for its beginning.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let fresh = 1.0 / (SMOOTHED * points.len() as f64).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let smooth = |&(step, loss): &(f64, f64)| {
        sum += fresh * (loss - sum);
        weight += fresh * (1.0 - weight);
        (step, sum / weight)
    };
    points.iter().map(smooth).collect()
}

/// Means of neighbours, at most [`POINTS`].
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let together = points.len().div_ceil(POINTS).max(1);
    let mean = |few: &[(f64, f64)]| {
        let sum = few.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / few.len() as f64, sum.1 / few.len() as f64)
    };
    points.chunks(together).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_thinned_and_smooth_lines_begin_where_the_loss_does() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|n| (f64::from(n), 3.0)).collect();
        let thin = thinned(&smoothed(&points));
        assert!(thin.len() <= POINTS && thin.iter().all(|(_, loss)| (loss - 3.0).abs() < 1e-9), "{}", thin.len());
        assert!(thinned(&[]).is_empty() && smoothed(&[]).is_empty());
    }
}
