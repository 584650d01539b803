//! The daemon at work: it watches its sources, signals, health and systemd, and does what others ask, until it is time to
//! stop.
//!
//! The main thread runs it, and it never waits for long: a source's thread may take two seconds to end, new
//! prompts are embedded elsewhere (`reloader`), and whoever sends thousands of requests finds most of them dropped, and
//! counted.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clapd_core::prompts::{Prompt, PromptTable};
use serde_json::{Value, json};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::POLL_INTERVAL;
use super::active_settings::{ActiveSettings, SettingsChange, summarize};
use super::health_reporter::HealthReporter;
use super::notifier::Notifier;
use super::prompt_preparer::PromptPreparer;
use super::reloader::{PreparedChange, Reloader};
use super::score_tap::SharedScoreLog;
use super::source_control::ListenConfig;
use super::source_set::{OpenedSource, SourceSet};
use crate::config;
use crate::health::DeliveryCounters;
use crate::mqtt::{Call, Command, Info, Publisher, Reply};
use crate::outbox::Outbox;

/// From the wish to stop to the end: systemd's stop timeout in our unit is twice as long.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// After each request, so that a flood of them leaves the computer to the sources: at most a hundred a second.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);

/// The daemon at work.
pub(super) struct Supervisor {
    settings: ActiveSettings,
    sources: SourceSet,
    reloader: Reloader,
    health: HealthReporter,
    publisher: Option<Publisher>,
    score_log: Option<SharedScoreLog>,
    notifier: Notifier,
    info: Info,
}

impl Supervisor {
    /// Starts the publisher, and a thread for each of the `opened` sources.
    ///
    /// # Errors
    /// Certificates or keys that are none; a thread that cannot be started.
    pub(super) fn start(
        settings: ActiveSettings,
        preparer: PromptPreparer,
        config: ListenConfig,
        info: Info,
        opened: Vec<OpenedSource>,
    ) -> Result<Self> {
        let delivery = Arc::<DeliveryCounters>::default();
        let file = settings.file();
        let start =
            |broker| Publisher::start(broker, &file.node, &info, Outbox::open(&file.outbox), Arc::clone(&delivery));
        let publisher = file.broker.as_ref().map(start).transpose()?;
        let score_log = file.log.clone().map(SharedScoreLog::new);
        let sources = SourceSet::new(preparer.model().clone(), config, publisher.clone(), score_log.clone());
        let (reloader, health) = (Reloader::new(preparer), HealthReporter::new(delivery));
        let notifier = Notifier::from_environment();
        let mut supervisor = Self { settings, sources, reloader, health, publisher, score_log, notifier, info };
        supervisor.announce();
        let run = supervisor.sources.start(opened)?;
        log::info!(
            "{}: {} prompt(s) at {} source(s), model {} {}; ids of events begin with {run}",
            supervisor.settings.file().node,
            supervisor.prompts().len(),
            supervisor.sources.len(),
            supervisor.info.bundle,
            supervisor.info.bundle_version
        );
        Ok(supervisor)
    }

    /// Runs until every source is over, one of them needs a new process, or a signal says stop.
    pub(super) fn run(&mut self, mut signals: Signals) {
        self.report_health();
        self.notifier.send("READY=1");
        while self.sources.collect_ended() && !self.sources.is_broken() && !self.handle_signals(&mut signals) {
            self.finish_change();
            self.report_health();
            if self.sources.is_watchdog_satisfied() {
                self.notifier.send("WATCHDOG=1");
            }
            self.serve_request();
        }
    }

    /// Ends what is open, publishes what is left, and disconnects.
    ///
    /// # Errors
    /// The first source that could not be read to its end.
    pub(super) fn stop(mut self) -> Result<()> {
        self.notifier.send("STOPPING=1");
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.sources.stop();
        // The last counts of all, whether or not a state has changed.
        self.health.forget_published();
        self.report_health();
        // A source that was left behind still holds the log.
        self.score_log.iter().for_each(SharedScoreLog::flush);
        if let Some(publisher) = self.publisher.take() {
            publisher.stop(deadline.saturating_duration_since(Instant::now()));
        }
        log::info!("stopped");
        self.sources.into_outcome()
    }

    /// Reloads where a signal says so; true where one says stop.
    fn handle_signals(&mut self, signals: &mut Signals) -> bool {
        let (mut stop, mut reload) = (false, false);
        for signal in signals.pending() {
            stop |= signal != SIGHUP;
            reload |= signal == SIGHUP;
        }
        if reload && !stop {
            self.reload(None);
        }
        stop
    }

    fn report_health(&mut self) {
        self.health.report(self.sources.health(), self.publisher.as_ref(), &self.notifier);
    }

    /// The prompts that are listened for.
    fn prompts(&self) -> &[Prompt] {
        self.sources.config().prompts.prompts()
    }

    /// Announces to Home Assistant what is listened to, and for what.
    fn announce(&self) {
        if let Some(publisher) = &self.publisher {
            let sources = self.settings.file().sources.iter().map(|source| source.id.as_str());
            publisher.announce(sources, self.prompts(), self.sources.config().hop);
        }
    }

    /// Waits a while for a request, and answers it.
    fn serve_request(&mut self) {
        let Some(publisher) = &self.publisher else {
            thread::sleep(POLL_INTERVAL);
            return;
        };
        let Some(request) = publisher.next_request(POLL_INTERVAL) else { return };
        match Call::read(&request) {
            Some(call) => self.answer(call),
            None => publisher.ignore_request("its name could be no command's"),
        }
        thread::sleep(REQUEST_INTERVAL);
    }

    fn answer(&mut self, Call { reply, command }: Call) {
        log::info!("mqtt: asked for {}", reply.command);
        let outcome = match command {
            Ok(Command::Reload) => return self.reload(Some(reply)),
            Ok(Command::PromptsSet(set)) => match self.settings.requested_prompts(set, self.prompts()) {
                Ok(prompts) => return self.begin_change(SettingsChange::Prompts(prompts), Some(reply)),
                Err(error) => Err(error),
            },
            Ok(Command::PromptsGet) => Ok(self.prompts_data()),
            Ok(Command::Pause(source)) => self.set_paused(source.as_deref(), true),
            Ok(Command::Resume(source)) => self.set_paused(source.as_deref(), false),
            Ok(Command::Info) => self.info_data(),
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            log::warn!("mqtt: {} is not carried out: {error}", reply.command);
        }
        if let Some(publisher) = &self.publisher {
            publisher.respond(&reply, &outcome);
        }
    }

    /// Pauses or resumes one source, or all and those to come.
    fn set_paused(&mut self, id: Option<&str>, paused: bool) -> Result<Value, String> {
        self.sources.set_paused(id, paused)?;
        Ok(json!({ "paused": self.sources.paused_ids() }))
    }

    fn prompts_data(&self) -> Value {
        let tables: Vec<_> = self.prompts().iter().map(config::prompt_table).collect();
        json!({ "prompts": tables, "from": self.settings.prompts_origin() })
    }

    fn info_data(&self) -> Result<Value, String> {
        let mut data = serde_json::to_value(&self.info).map_err(|error| error.to_string())?;
        data["sources"] = json!(self.sources.ids());
        data["paused"] = json!(self.sources.paused_ids());
        data["prompts"] = self.prompts().len().into();
        data["prompts_from"] = self.settings.prompts_origin().into();
        Ok(data)
    }

    /// Reads the configuration again; where it is in order, what it says is made ready.
    fn reload(&mut self, reply: Option<Reply>) {
        if reply.is_none() && self.reloader.defer_reload() {
            return;
        }
        self.notifier.send("RELOADING=1");
        log::info!("{}: read again", self.settings.path().display());
        match self.settings.load() {
            Ok((settings, warnings)) => {
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                self.begin_change(SettingsChange::Settings(settings.into()), reply);
            }
            Err(faults) => {
                faults.iter().for_each(|fault| log::error!("{fault}"));
                self.report_change(reply.as_ref(), &Err(summarize(&faults)));
            }
        }
    }

    fn begin_change(&mut self, change: SettingsChange, reply: Option<Reply>) {
        let prompts = self.settings.prompts_after(&change);
        if let Err((reply, reason)) = self.reloader.begin(change, prompts, reply) {
            self.report_change(reply.as_ref(), &Err(reason));
        }
    }

    /// Makes the change that is ready, if one is.
    fn finish_change(&mut self) {
        let Some(PreparedChange { change, reply, table }) = self.reloader.take_prepared() else { return };
        let outcome = table.and_then(|table| match change {
            SettingsChange::Prompts(prompts) => Ok(self.set_prompts(prompts, table)),
            SettingsChange::Settings(settings) => self.set_settings(*settings, table),
        });
        self.report_change(reply.as_ref(), &outcome.map_err(|error| format!("{error:#}")));
        if self.reloader.take_deferred_reload() {
            self.reload(None);
        }
    }

    /// Reports the outcome of a change: in the log, to systemd, and to whoever asked.
    fn report_change(&self, reply: Option<&Reply>, outcome: &Result<Value, String>) {
        match outcome {
            Ok(_) => log::info!("{} prompt(s) at {} source(s)", self.prompts().len(), self.sources.len()),
            Err(error) => {
                log::error!("everything stays as it was: {error}");
                // `systemctl reload` does not wait for us; `systemctl status` shows this until something else is news.
                self.notifier.send(&format!("STATUS=everything stays as it was: {error}"));
            }
        }
        self.notifier.send("READY=1");
        if let (Some(publisher), Some(reply)) = (&self.publisher, reply) {
            publisher.respond(reply, outcome);
        }
    }

    /// Listens for these from now on, and stores them for the next start.
    fn set_prompts(&mut self, prompts: Option<Vec<Prompt>>, table: PromptTable) -> Value {
        self.listen_for(table);
        let stored = self.settings.set_prompts(prompts);
        let mut data = self.prompts_data();
        data["kept"] = stored.is_ok().into();
        if let Err(error) = stored {
            log::error!("what is set does not outlive this process: {error:#}");
            data["warning"] = format!("not kept for the next start: {error:#}").into();
        }
        data
    }

    /// Does what the configuration says now, but for what needs a new process.
    fn set_settings(&mut self, settings: config::Settings, table: PromptTable) -> Result<Value> {
        let restart = self.settings.warn_of_change(&settings);
        let changes = self.sources.replace(&settings.sources)?;
        self.settings.replace(settings);
        self.listen_for(table);
        Ok(json!({
            "sources": { "added": changes.added, "changed": changes.changed, "removed": changes.removed },
            "prompts": self.prompts().len(),
            "from": self.settings.prompts_origin(),
            "restart": restart,
        }))
    }

    fn listen_for(&mut self, table: PromptTable) {
        self.sources.set_config(self.settings.listen_config(table));
        self.announce();
    }
}
