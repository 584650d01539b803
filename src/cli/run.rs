//! `clapd run`: the daemon.

use std::path::Path;

use super::exit::{AtStage, Failure, Stage};
use super::locate;
use crate::config;
use crate::daemon::Daemon;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (settings, warnings) = config::load(path).at(Stage::Usage)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let bundle = locate::open(settings.bundle.as_deref(), settings.threads)?;
    let daemon = Daemon::prepare(settings, &bundle, &locate::cache()).at(Stage::Bundle)?;
    daemon.run().at(Stage::Input)
}
