//! Bars on standard error that show a long step at work; nothing where that is no terminal. Standard output is for
//! results.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for work on so many bytes; where standard error is no terminal, nothing is shown.
pub fn bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bar:30} {bytes}/{total_bytes} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar for so many things of this name, with the time left.
pub fn count(things: u64, name: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(things);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bar:30} {pos}/{len} {elapsed}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(name);
    bar
}
