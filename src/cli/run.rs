//! `clapd run`: the daemon.

use std::path::Path;

use super::exit::{AtStage, Failure, Stage};
use super::locate;
use crate::clap::Bundle;
use crate::daemon::Daemon;
use crate::{config, mqtt};

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (settings, warnings) = config::load(path).at(Stage::Usage)?;
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if let Some(broker) = &settings.broker {
        mqtt::check(broker).at(Stage::Usage)?;
    }
    let dir = locate::bundle(settings.bundle.as_deref()).at(Stage::Bundle)?;
    let bundle = Bundle::open(dir).at(Stage::Bundle)?;
    let daemon = Daemon::prepare(settings, &bundle, &locate::cache()).at(Stage::Bundle)?;
    daemon.run().at(Stage::Input)
}
