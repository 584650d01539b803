//! The page: its head, its figures, and the order of its sections.
//!
//! It asks no network for anything and runs no script. maud escapes every text: what comes from manifests and file
//! names is a stranger's.

use std::borrow::Cow;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::evaluation::Evaluation;
use super::format::{interval, number, range};
use super::run::{LoggedRun, LoggedValidation};
use super::worst::Disagreement;
use super::{curves, groups, reliability, scatter, worst};
use crate::eval::{DifferenceRecord, IntervalRecord, PairGroup};
use crate::metrics::NAMES;

const STYLE: &str = include_str!("style.css");
/// Options that a page shows; a longer list is no list of options.
const MOST_FACTS: usize = 100;
/// What the four metrics are.
const MEANINGS: [(&str, &str); 4] = [
    ("SRCC", "rank correlation of cosine and mean rating"),
    ("LCC", "linear correlation of cosine and mean rating"),
    ("KTAU", "pairs in the right order, less those in the wrong one"),
    ("MSE", "squared error of the score, in squared points; less is better"),
];

/// What a page is made of.
pub(super) struct PageData<'a> {
    pub(super) run: &'a LoggedRun,
    pub(super) evaluation: Option<&'a Evaluation>,
    pub(super) worst: &'a [Disagreement<'a>],
    /// What could not be had.
    pub(super) notes: &'a [String],
    /// No person has rated.
    pub(super) simulated: bool,
}

impl PageData<'_> {
    /// The whole page.
    pub(super) fn page(&self) -> Markup {
        let raters = if self.simulated { "SIMULATED listeners" } else { "listeners" };
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    // Whatever a text would smuggle in, the browser fetches nothing and runs nothing.
                    meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; media-src data:";
                    title { (self.name()) " – claptune report" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    @if self.simulated {
                        p.simulated role="note" { b { "SIMULATED listeners." } " No person has rated these sounds: the figures show that the method works, not how people would agree." }
                    }
                    main {
                        (self.head())
                        (self.summary())
                        (curves::draw(self.run))
                        @if let Some(evaluation) = self.evaluation {
                            (scatter::draw(&evaluation.scored.columns, raters))
                            (reliability::draw(evaluation, raters))
                            (groups::draw(&evaluation.figures.groups))
                        }
                        @if !self.worst.is_empty() { (worst::draw(self.worst, raters)) }
                        (self.facts())
                        (self.foot())
                    }
                }
            }
        }
    }

    fn name(&self) -> String {
        // `runs/a/.` and `.` have names, too.
        let whole = self.run.dir.canonicalize().unwrap_or_else(|_| self.run.dir.clone());
        whole.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
    }

    fn head(&self) -> Markup {
        let bundle = self.run.dir.join("bundle/bundle.toml").is_file();
        let steps = self.run.steps.iter().map(|step| step.step).max();
        html! {
            header {
                p.over { "claptune report" }
                h1 { (self.name()) " " span class={ "state " (if bundle { "done" } else { "open" }) } { (if bundle { "finished" } else { "unfinished" }) } }
                p.facts {
                    @if let Some(init) = self.run.text("init") { span { "from " b { (short(init)) } } }
                    @if let Some(loss) = self.run.text("loss") { span { "loss " b { (loss) } } }
                    @if let Some(steps) = steps { span { b { (steps) } " steps" } }
                    @if let Some(evaluation) = self.evaluation {
                        span { "judged by " b { (evaluation.scored.pairs.len()) } " pairs, " b { (evaluation.figures.ratings) } " ratings, split " b { (evaluation.split) } }
                    }
                }
                @for note in self.notes { p.warning { (note) } }
            }
        }
    }

    /// The four metrics, large and as a table.
    fn summary(&self) -> Markup {
        let all = self.evaluation.and_then(|evaluation| evaluation.figures.groups.first());
        html! {
            section #agreement {
                h2 { "Agreement with " @if self.simulated { "SIMULATED listeners" } @else { "people" } }
                @if let Some(all) = all {
                    div.tiles { @for (key, meaning) in NAMES.into_iter().zip(MEANINGS) { (tile(all, key, meaning)) } }
                    (table(all, self.simulated))
                }
                (validation(self.run))
            }
        }
    }

    fn facts(&self) -> Markup {
        let facts = self.run.facts();
        html! {
            section #run {
                h2 { "The run" }
                @if let Some(evaluation) = self.evaluation { (data(evaluation)) }
                table.facts { tbody {
                    @for (name, value) in facts.iter().take(MOST_FACTS) { tr { th { (name) } td { (value) } } }
                } }
                @if facts.len() > MOST_FACTS { p.note { (facts.len() - MOST_FACTS) " more are in run.json." } }
                @if self.run.torn > 0 { p.note { (self.run.torn) " torn lines of metrics.jsonl were passed over: the run was ended while it wrote." } }
            }
        }
    }

    fn foot(&self) -> Markup {
        html! {
            footer {
                @if let Some(evaluation) = self.evaluation {
                    p {
                        "Intervals hold 95% of " (evaluation.figures.resamples) " draws of recordings, each with all its pairs (seed "
                        (evaluation.figures.seed) "); a difference is taken on the same draws. Correlations are of cosines, the squared error of scores."
                    }
                    p { "Pipeline " code { (evaluation.figures.models.first().map_or("", |model| model.pipeline_id.as_str())) } }
                }
                p { "claptune " (env!("CARGO_PKG_VERSION")) @if self.simulated { " · SIMULATED listeners" } }
            }
        }
    }
}

/// One metric: what the tuned model reaches, and from where.
fn tile(all: &PairGroup, key: &str, (name, meaning): (&str, &str)) -> Markup {
    let (tuned, start) = (all.models.first().and_then(|m| m.get(key)), all.models.get(1).and_then(|m| m.get(key)));
    html! {
        @if let Some(tuned) = tuned {
            div.tile {
                h3 { abbr title=(meaning) { (name) } }
                p.value { (number(tuned.value)) }
                p.range { (range(*tuned)) }
                @if let Some(start) = start { p.from { "from " (number(start.value)) } }
            }
        }
    }
}

fn table(all: &PairGroup, simulated: bool) -> Markup {
    let has_start = all.models.len() > 1;
    html! {
        div.scroll { table.figures {
            thead { tr {
                th {} @if has_start { th.n { "Start" } } th.n { "Tuned" } @if has_start { th.n { "Tuned less start" } th.n { "p" } }
            } }
            tbody { @for (key, (name, meaning)) in NAMES.into_iter().zip(MEANINGS) { tr {
                th { (name) span.meaning { (meaning) } }
                @for model in all.models.iter().take(2).rev() { td.n { @if let Some(figure) = model.get(key) { (cell(*figure)) } } }
                @if let Some(DifferenceRecord { value, low, high, p }) = all.difference.as_ref().and_then(|difference| difference.get(key)) {
                    td.n { (cell(IntervalRecord { value: *value, low: *low, high: *high })) }
                    td.n { (probability(*p)) }
                }
            } } }
        } }
        @if let Some(ceiling) = all.ceiling {
            p.note {
                "A model that knew the true relevance would reach an SRCC of " (interval(ceiling.model)) " on the mean of these "
                @if simulated { "SIMULATED " } "listeners; half of them reach " (interval(ceiling.halves)) " against the other half."
            }
        }
    }
}

/// What the run itself saw, on validation.
fn validation(run: &LoggedRun) -> Markup {
    let shown: Vec<(&str, &LoggedValidation)> = [("Start", run.start()), ("Best", run.best())]
        .into_iter()
        .filter_map(|(name, validation)| Some((name, validation?)))
        .collect();
    html! {
        @if !shown.is_empty() {
            h3 { "On validation, while it learned" }
            div.scroll { table.figures {
                thead { tr { th {} th.n { "Step" } @for (name, _) in MEANINGS { th.n { (name) } } th.n { "Loss" } } }
                tbody { @for (name, validation) in shown { tr {
                    th { (name) }
                    td.n { (validation.step) }
                    @for figure in [validation.srcc, validation.lcc, validation.ktau, validation.mse, validation.loss] { td.n { (number(figure.unwrap_or(f64::NAN))) } }
                } } }
            } }
        }
    }
}

fn data(evaluation: &Evaluation) -> Markup {
    let figures = &evaluation.figures;
    let screened = figures.screened;
    html! {
        p {
            "Judged by " (figures.ratings) " ratings of " (figures.listeners) " known listeners. Left out: " (figures.excluded)
            " rows excluded by the publisher, " (screened.by_anchors) " ratings of " (screened.listeners) " listeners by anchors, "
            (screened.by_disagreement) " by disagreement, " (figures.skipped.len()) " audio files that could not be used."
        }
        @if !figures.skipped.is_empty() {
            details { summary { "Audio that could not be used" } ul {
                @for skipped in &figures.skipped { li { (skipped.audio.display().to_string()) ": " (skipped.reason) } }
            } }
        }
    }
}

/// A place's own name, a repository's whole id.
fn short(init: &str) -> Cow<'_, str> {
    let path = Path::new(init);
    path.file_name().filter(|_| path.is_absolute()).map_or(init.into(), |name| name.to_string_lossy())
}

fn cell(figure: IntervalRecord) -> Markup {
    html! { (number(figure.value)) span.range { (range(figure)) } }
}

fn probability(p: f64) -> String {
    match p {
        p if p.is_nan() => "–".into(),
        p if p < 0.001 => "< 0.001".into(),
        p => format!("{p:.3}"),
    }
}
