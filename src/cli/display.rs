//! How scores and events look: bars that move on a terminal, plain lines in a pipe or on a dumb terminal.
//!
//! A [`ScoreDisplay`] writes to standard output and never waits: the pace is the caller's.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::sync::Arc;

use anyhow::Result;
use clapd_core::detect::{Event, EventKind};
use clapd_core::pipeline::ScoredWindow;
use clapd_core::prompts::{Prompt, PromptId, PromptTable};
use terminal_size::{Height, Width, terminal_size_of};

use super::exit::printed;

/// Characters of a full bar: two a point of the score.
const BAR: usize = 20;
/// The quietest level that the meter shows, in dB below full scale: the noise floor of 10 bits.
const QUIET_DB: f32 = 60.0;

/// Columns beside a bar and its prompt: the level's decibels and seconds.
const MARGIN: usize = 22;

/// Whether a stream leads to a terminal on which a line can be written over.
pub(super) fn can_redraw(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb")
}

/// Something that shows what is heard.
pub(super) trait ScoreDisplay {
    fn show_level(&mut self, samples: &[f32]);
    fn show_window(&mut self, window: &ScoredWindow<'_>) -> Result<()>;
    fn show_event(&mut self, event: &Event) -> Result<()>;
}

fn event_line(prompts: &PromptTable, event: &Event) -> String {
    let (word, at, score) = match event.kind {
        EventKind::Started => ("started", event.started_at, event.score),
        EventKind::Ended => ("ended", event.ended_at.unwrap_or(event.started_at), event.peak),
    };
    let what = if event.kind == EventKind::Ended { "peak " } else { "" };
    let name = prompts.get(&event.prompt).map_or(event.prompt.as_str(), Prompt::name);
    format!("{:7.1} s  {word:<7}  {name}  {what}{score:.1}", at.as_secs_f64())
}

/// One line an event.
pub(super) struct LineDisplay {
    prompts: Arc<PromptTable>,
}

impl LineDisplay {
    pub(super) fn new(prompts: Arc<PromptTable>) -> Self {
        Self { prompts }
    }
}

impl ScoreDisplay for LineDisplay {
    fn show_level(&mut self, _: &[f32]) {}

    fn show_window(&mut self, _: &ScoredWindow<'_>) -> Result<()> {
        Ok(())
    }

    fn show_event(&mut self, event: &Event) -> Result<()> {
        printed(writeln!(stdout().lock(), "{}", event_line(&self.prompts, event)))?;
        Ok(())
    }
}

/// A bar a prompt and a level meter that are drawn over; events scroll by above them.
pub(super) struct LiveDisplay {
    prompts: Arc<PromptTable>,
    active: HashSet<PromptId>,
    width: usize,
    drawn: bool,
    peak: f32,
}

impl LiveDisplay {
    /// None where standard output is no terminal that holds the bars: drawn over, they must neither wrap nor scroll.
    pub(super) fn fitting(prompts: &Arc<PromptTable>) -> Option<Self> {
        let live = Self::new(prompts);
        let (Width(columns), Height(rows)) = terminal_size_of(stdout()).filter(|_| can_redraw(&stdout()))?;
        let fits = usize::from(columns) > live.width + BAR + MARGIN && usize::from(rows) > prompts.len() + 1;
        fits.then_some(live)
    }

    fn new(prompts: &Arc<PromptTable>) -> Self {
        let width = prompts.prompts().iter().map(|prompt| prompt.name().chars().count()).max().unwrap_or(0);
        Self { active: HashSet::new(), prompts: Arc::clone(prompts), width, drawn: false, peak: 0.0 }
    }

    /// Back to the first line of the bars.
    fn take_cursor_home(&mut self) -> String {
        let lines = self.prompts.len() + 1;
        if std::mem::take(&mut self.drawn) { format!("\x1b[{lines}A\r\x1b[J") } else { String::new() }
    }
}

impl ScoreDisplay for LiveDisplay {
    fn show_level(&mut self, samples: &[f32]) {
        self.peak = samples.iter().fold(self.peak, |peak, x| peak.max(x.abs()));
    }

    fn show_window(&mut self, window: &ScoredWindow<'_>) -> Result<()> {
        let mut text = self.take_cursor_home();
        let level = 20.0 * std::mem::take(&mut self.peak).max(1e-6).log10();
        let meter = bar((level + QUIET_DB) / QUIET_DB * 10.0);
        let width = self.width;
        writeln!(text, "{:<width$}  {meter} {level:5.0} dB {:8.1} s", "level", window.end.as_secs_f64())?;
        for (prompt, score) in self.prompts.prompts().iter().zip(window.scores) {
            let (on, off) = if self.active.contains(&prompt.id) { ("\x1b[1;32m", "\x1b[0m") } else { ("", "") };
            writeln!(text, "{on}{:<width$}  {} {:5.1}{off}", prompt.name(), bar(score.score), score.score)?;
        }
        self.drawn = true;
        let mut out = stdout().lock();
        printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
        Ok(())
    }

    fn show_event(&mut self, event: &Event) -> Result<()> {
        match event.kind {
            EventKind::Started => self.active.insert(event.prompt.clone()),
            EventKind::Ended => self.active.remove(&event.prompt),
        };
        let home = self.take_cursor_home();
        printed(writeln!(stdout().lock(), "{home}{}", event_line(&self.prompts, event)))?;
        Ok(())
    }
}

/// A bar for a value from 0 to 10.
fn bar(value: f32) -> String {
    let full = (value.clamp(0.0, 10.0) / 10.0 * BAR as f32).round() as usize;
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
}
