//! Agreement by kind and category of sound: for each group a bar a model with its interval, and the number of its
//! pairs.

use maud::{Markup, html};

use super::format::{interval, number};
use crate::eval::{IntervalRecord, PairGroup};

/// The figure that is compared.
const METRIC: &str = "srcc";

/// Bars of all groups, those of the tuned model above those of the start; nothing where there are no groups.
pub(super) fn draw(groups: &[PairGroup]) -> Markup {
    // One that holds all pairs tells nothing new.
    let groups: Vec<&PairGroup> = groups
        .iter()
        .enumerate()
        .filter(|(n, group)| *n == 0 || group.pairs < groups[0].pairs)
        .map(|(_, group)| group)
        .collect();
    let lowest = groups
        .iter()
        .flat_map(|group| group.models.iter().filter_map(|model| model.get(METRIC)))
        .flat_map(|figure| [figure.value, figure.low])
        .filter(|value| value.is_finite())
        .fold(0.0, f64::min);
    // From the next tenth below what there is: mostly 0.
    let low = ((lowest * 10.0).floor() / 10.0).max(-1.0);
    html! {
        @if groups.len() > 1 {
            section #groups {
                h2 { "By kind of sound" }
                p { "SRCC with 95% intervals: " span.key { span.swatch.tuned {} "tuned" } @if groups[0].models.len() > 1 { span.key { span.swatch.start {} "start" } } }
                div.groups {
                    @for group in &groups { (row(group, low)) }
                    div.scale aria-hidden="true" {
                        span {}
                        div.numbers {
                            @for value in numbers(low) { span style=(format!("left:{:.2}%", place(value, low))) { (format!("{value:.1}")) } }
                        }
                        span {}
                    }
                }
            }
        }
    }
}

fn row(group: &PairGroup, low: f64) -> Markup {
    html! {
        div.group {
            div.label { (label(&group.group)) " " span.pairs { (group.pairs) " pairs, " (group.recordings) " rec." } }
            svg.bars role="img" aria-label={ "SRCC of " (group.group) } {
                @for value in numbers(low) {
                    line.rule x1=(percent(value, low)) x2=(percent(value, low)) y1="0" y2="100%" {}
                }
                @for (model, figure) in group.models.iter().enumerate().filter_map(|(n, model)| Some((n, model.get(METRIC)?))) {
                    (bar(*figure, model, low))
                }
                line.zero x1=(percent(0.0, low)) x2=(percent(0.0, low)) y1="0" y2="100%" {}
            }
            div.figures {
                @for (model, figure) in group.models.iter().enumerate().filter_map(|(n, model)| Some((n, model.get(METRIC)?))) {
                    span class=(if model == 0 { "tuned" } else { "start" }) { (number(figure.value)) }
                }
            }
        }
    }
}

fn bar(figure: IntervalRecord, number: usize, low: f64) -> Markup {
    let (name, top) = if number == 0 { ("tuned", 4) } else { ("start", 18) };
    let (left, right) = (place(figure.value.min(0.0), low), place(figure.value.max(0.0), low));
    html! {
        @if figure.value.is_finite() {
            rect class={ "bar " (name) } x=(format!("{left:.2}%")) width=(format!("{:.2}%", right - left)) y=(top) height="11" rx="2" {
                title { (name) ": SRCC " (interval(figure)) }
            }
        }
        @if figure.low.is_finite() {
            line.whisker x1=(percent(figure.low, low)) x2=(percent(figure.high, low)) y1=(format!("{}.5", top + 5)) y2=(format!("{}.5", top + 5)) {}
        }
    }
}

/// `generator:x` and `category:x` as what they are.
fn label(group: &str) -> Markup {
    match group.split_once(':') {
        Some(("category", name)) => html! { (name) },
        Some((what, name)) => html! { (name) " " span.what { (what) } },
        None => html! { b { (group) } },
    }
}

fn numbers(low: f64) -> Vec<f64> {
    (-5..=5).map(|n| f64::from(n) / 5.0).filter(|value| *value >= low - 1e-9).collect()
}

fn place(value: f64, low: f64) -> f64 {
    100.0 * ((value - low) / (1.0 - low)).clamp(0.0, 1.0)
}

fn percent(value: f64, low: f64) -> String {
    format!("{:.2}%", place(value, low))
}
