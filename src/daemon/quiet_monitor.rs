//! What is quiet now, by the clock and by who has asked for it: found out once a second, and shared with the sources.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::active_settings::ActiveSettings;
use crate::command::Snooze;
use crate::health::QuietHealth;
use crate::local_time::LocalZone;
use crate::quiet::{self, ActiveQuiet, Snoozes};
use crate::time::Clocks;

/// Quiet hours begin and end by the minute; a second late nobody notices.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is quiet now, as sources see it. A clone shows the same.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedQuiet(Arc<Mutex<Arc<Vec<ActiveQuiet>>>>);

impl SharedQuiet {
    pub(super) fn get(&self) -> Arc<Vec<ActiveQuiet>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this is quiet.
    pub(super) fn set(&self, active: Vec<ActiveQuiet>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = active.into();
    }
}

/// Finds out what is quiet.
pub(super) struct QuietMonitor {
    snoozes: Snoozes,
    shared: SharedQuiet,
    looked: Option<Instant>,
}

impl QuietMonitor {
    /// With what was snoozed when an earlier process ended.
    pub(super) fn new(settings: &ActiveSettings) -> Self {
        let snoozes = Snoozes::load(settings.file().state.as_deref(), Clocks::now());
        let mut monitor = Self { snoozes, shared: SharedQuiet::default(), looked: None };
        monitor.refresh(settings);
        monitor
    }

    pub(super) fn shared(&self) -> SharedQuiet {
        self.shared.clone()
    }

    /// Looks at the clock, where that is due. To be called often.
    pub(super) fn refresh(&mut self, settings: &ActiveSettings) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        let now = Clocks::now();
        let file = settings.file();
        let mut active = quiet::active(&file.quiet, file.place, &LocalZone::of_system(), now.wall);
        active.extend(self.snoozes.active(now));
        let before = self.shared.get();
        if *before == active {
            return;
        }
        match active.iter().map(|quiet| quiet.until).max() {
            Some(until) => log::info!("quiet until {}: no events begin", humantime::format_rfc3339_seconds(until)),
            None => log::info!("no longer quiet"),
        }
        self.shared.set(active);
    }

    /// Takes a snooze up, or ends it.
    ///
    /// # Errors
    /// Too many of them.
    pub(super) fn snooze(&mut self, snooze: &Snooze, settings: &ActiveSettings) -> Result<(), String> {
        let Snooze { minutes, source, prompt } = snooze;
        self.snoozes.set(*minutes, source.as_deref(), prompt.as_deref(), Clocks::now())?;
        self.looked = None;
        self.refresh(settings);
        Ok(())
    }

    /// From the next look on by other settings.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    pub(super) fn health(&self) -> Vec<QuietHealth> {
        let health = |quiet: &ActiveQuiet| QuietHealth {
            until: quiet.until,
            is_snooze: quiet.is_snooze,
            sources: quiet.scope.sources.clone(),
            prompts: quiet.scope.prompts.clone(),
        };
        self.shared.get().iter().map(health).collect()
    }
}
