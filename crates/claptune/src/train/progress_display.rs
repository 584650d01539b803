//! What a run shows while it is at work, on standard error: a bar on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::validate::ValidationFigures;

/// Where no bar can be drawn, a line for the steps of this long.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
/// How much of the mean loss and speed a step replaces: a bar that can be read.
const SMOOTHING: f64 = 0.1;

/// The display of a run.
#[derive(Debug)]
pub struct ProgressDisplay {
    bar: ProgressBar,
    steps: u64,
    begun: Instant,
    first: u64,
    last_line: Instant,
    /// Running means of the loss and of pairs a second.
    means: Option<(f64, f64)>,
    srcc: f64,
}

impl ProgressDisplay {
    /// For a run of `steps` that goes on after `done`.
    pub fn new(steps: u64, done: u64) -> Self {
        let bar = ProgressBar::new(steps).with_position(done);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}, {eta} left") {
            bar.set_style(style);
        }
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, steps, begun: now, first: done, last_line: now, means: None, srcc: f64::NAN }
    }

    /// After a step.
    pub fn step(&mut self, done: u64, loss: f64, pairs_per_second: f64) {
        let (loss, speed) = match self.means {
            Some((old_loss, old_speed)) => {
                (old_loss + SMOOTHING * (loss - old_loss), old_speed + SMOOTHING * (pairs_per_second - old_speed))
            }
            None => (loss, pairs_per_second),
        };
        self.means = Some((loss, speed));
        let srcc = if self.srcc.is_nan() { String::new() } else { format!(", SRCC {:.3}", self.srcc) };
        let text = format!("loss {loss:.4}{srcc}, {speed:.1} pairs/s");
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            self.bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let left = self.begun.elapsed().as_secs_f64() / (done - self.first) as f64 * (self.steps - done) as f64;
            let left = humantime::format_duration(Duration::from_secs(left as u64));
            eprintln!("step {done} of {}: {text}, {left} left", self.steps);
        }
    }

    /// After a validation.
    pub fn validation(&mut self, done: u64, epoch: u64, figures: &ValidationFigures, best: bool) {
        let ValidationFigures { metrics, loss } = figures;
        self.srcc = metrics.srcc;
        let best = if best { " (best)" } else { "" };
        self.print_line(&format!(
            "step {done}, epoch {epoch}: SRCC {:.3}{best}, LCC {:.3}, KTAU {:.3}, MSE {:.2}, loss {loss:.4}",
            metrics.srcc, metrics.lcc, metrics.ktau, metrics.mse
        ));
    }

    /// A line of its own.
    pub fn print_line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}
