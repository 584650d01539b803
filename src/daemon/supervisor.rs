//! The daemon at work: it watches its sources, threads, signals, health and systemd, and does what others ask, until it is
//! time to stop.
//!
//! The main thread runs it, and it owns every thread of the process that is not some other's alone. One that ends unasked ends the
//! process, so that systemd starts another. It never waits for a file, a device or another thread, but to stop: whatever takes
//! long is the worker's (`reloader`), and whoever sends thousands of requests finds most of them dropped, and counted.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};
use clapd_core::prompts::{Prompt, PromptTable};
use serde_json::{Value, json};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use super::active_settings::ActiveSettings;
use super::health_reporter::HealthReporter;
use super::journal_observer::JournalObserver;
use super::level_observer::LevelObserver;
use super::notifier::Notifier;
use super::prompt_preparer::PromptPreparer;
use super::questions::Questions;
use super::quiet_monitor::QuietMonitor;
use super::reloader::{ChangeRequest, PreparedChange, PreparedReply, Reloader};
use super::shared_score_log::SharedScoreLog;
use super::source_control::ListenConfig;
use super::source_opening::OpenedSource;
use super::source_set::{SourceSet, require_known};
use super::source_taps::Observer;
use super::watchdog::Watchdog;
use super::{DaemonError, POLL_INTERVAL};
use crate::command::{Call, Caller, Command, Outcome, Question, Refusal, Reply, RequestQueue, STOPPING, Snooze};
use crate::config;
use crate::health::{DeliveryCounters, ThreadHealth};
use crate::history::{History, NOT_KEPT};
use crate::http::{HttpServer, PastStores, View};
use crate::journal::Journal;
use crate::levels::LevelHistory;
use crate::mqtt::{self, Identity, Info, Publisher};
use crate::outbox::Outbox;
use crate::threads::ServiceThread;

/// From the wish to stop to the end: systemd's stop timeout in our unit is twice as long.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// For the last scores to be written. They lie in the system's cache within a millisecond, or on a file system that hangs.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// For a thread to end that is done: that of the broker looks every 250 ms whether it is, while it tries to connect once more.
const JOIN_TIMEOUT: Duration = Duration::from_millis(500);
/// After each request, so that a flood of them leaves the computer to the sources: at most a hundred a second.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);

/// The daemon at work.
pub(super) struct Supervisor {
    settings: ActiveSettings,
    sources: SourceSet,
    reloader: Reloader,
    health: HealthReporter,
    publisher: Option<Publisher>,
    /// The page's server; none where it is off.
    http: Option<HttpServer>,
    /// What others ask for, over MQTT and HTTP.
    requests: Arc<RequestQueue>,
    levels: LevelHistory,
    journal: Option<Journal>,
    /// Those that serve all sources: the connection's, the outbox's and the journal's.
    threads: Vec<ServiceThread>,
    watchdog: Watchdog,
    score_log: Option<SharedScoreLog>,
    /// The past; none where none is kept.
    history: Option<History>,
    questions: Option<Questions>,
    quiet: QuietMonitor,
    notifier: Notifier,
    info: Info,
    /// Why the process is to end, so that another begins.
    fault: Option<Error>,
}

impl Supervisor {
    /// Starts the publisher, with who we are and what waits in the outbox, and begins with the `opened` sources.
    ///
    /// # Errors
    /// Certificates or keys that are none; a thread that cannot be started.
    pub(super) fn start(
        settings: ActiveSettings,
        preparer: PromptPreparer,
        config: ListenConfig,
        info: Info,
        delivery: Option<(Identity, Outbox)>,
        opened: Vec<OpenedSource>,
    ) -> Result<Self> {
        let counters = Arc::<DeliveryCounters>::default();
        let file = settings.file();
        let publisher = file
            .broker
            .as_ref()
            .zip(delivery)
            .map(|(broker, (identity, outbox))| {
                Publisher::start(broker, identity, &info, outbox, Arc::clone(&counters))
            })
            .transpose()?;
        let requests = publisher.as_ref().map(Publisher::requests).unwrap_or_default();
        let journal = file.journal.clone().map(Journal::start).transpose()?;
        let of_publisher = publisher.iter().flat_map(|it| [it.take_thread(), it.outbox().take_thread()]);
        let of_journal = journal.as_ref().and_then(Journal::take_thread);
        let mut threads: Vec<ServiceThread> = of_publisher.chain([of_journal]).flatten().collect();
        let model = preparer.model();
        let history =
            file.history.map(|spec| History::new(spec, model.encoder.embedding_len(), model.calibration.clone()));
        let levels = LevelHistory::default();
        let http = match &file.http {
            Some(spec) => {
                let (server, thread) = HttpServer::start(
                    spec,
                    &file.node,
                    info.clone(),
                    preparer.model().frontend,
                    PastStores { history: history.clone(), levels: levels.clone(), journal: journal.clone() },
                    Arc::clone(&requests),
                )?;
                threads.push(thread);
                Some(server)
            }
            None => None,
        };
        let score_log = file.log.clone().map(SharedScoreLog::new);
        let logging = score_log.iter().cloned().map(|log| -> Arc<dyn Observer> { Arc::new(log) });
        let showing = http.iter().cloned().map(|http| -> Arc<dyn Observer> { Arc::new(http) });
        let storing = history.iter().cloned().map(|history| -> Arc<dyn Observer> { Arc::new(history) });
        let level_observer =
            LevelObserver { history: levels.clone(), publisher: publisher.clone(), publishing: file.levels };
        let metering = [Arc::new(level_observer) as Arc<dyn Observer>].into_iter();
        let journaling =
            journal.iter().cloned().map(|journal| -> Arc<dyn Observer> { Arc::new(JournalObserver(journal)) });
        // The levels first: what comes behind writes them down.
        let observers = metering.chain(logging).chain(showing).chain(storing).chain(journaling).collect();
        let quiet = QuietMonitor::new(&settings);
        let sources = SourceSet::new(model.clone(), config, publisher.clone(), observers, quiet.shared());
        let preparer = Arc::new(preparer);
        let mut supervisor = Self {
            settings,
            sources,
            questions: history.clone().map(|history| Questions::new(history, Arc::clone(&preparer))),
            reloader: Reloader::new(preparer),
            health: HealthReporter::new(counters, journal.clone()),
            publisher,
            http,
            requests,
            levels,
            journal,
            threads,
            watchdog: Watchdog::from_environment(),
            score_log,
            history,
            quiet,
            notifier: Notifier::from_environment(),
            info,
            fault: None,
        };
        supervisor.announce();
        let run = supervisor.sources.start(opened);
        supervisor.show();
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

    /// Runs until every source is over, a signal says stop, or only a new process helps.
    pub(super) fn run(&mut self, mut signals: Signals) {
        self.report_health();
        self.notifier.send("READY=1");
        while self.sources.advance() && !self.is_broken() && !self.handle_signals(&mut signals) {
            self.finish_change();
            self.quiet.refresh(&self.settings);
            self.advance_questions();
            self.report_health();
            if self.watchdog.is_satisfied(self.sources.watched(), &self.threads) {
                self.notifier.send("WATCHDOG=1");
            }
            self.serve_request();
        }
    }

    /// Whether a thread has ended that should not have.
    fn is_broken(&mut self) -> bool {
        if let Some(index) = self.threads.iter().position(ServiceThread::has_ended) {
            let thread = self.threads.remove(index);
            let name = thread.name();
            let fault = match thread.join_until(Instant::now()) {
                Err(panic) => Error::new(panic),
                Ok(_) => anyhow!("thread {name} ended unasked, which is a fault in clapd"),
            };
            self.fail(fault);
        }
        self.fault.is_some() || self.sources.is_broken()
    }

    fn fail(&mut self, fault: Error) {
        log::error!("{fault:#}: clapd ends, to be started again");
        self.fault.get_or_insert(fault);
    }

    /// Ends what is open, publishes what is left, and disconnects.
    ///
    /// # Errors
    /// The thread that ended unasked; or else the first source that could not be read to its end.
    pub(super) fn stop(mut self) -> Result<(), DaemonError> {
        self.notifier.send("STOPPING=1");
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.sources.stop();
        self.questions.iter_mut().for_each(Questions::leave);
        let unanswered = self.reloader.leave();
        if let Some(reply) = unanswered {
            self.respond(&reply, &Err(Refusal::busy(STOPPING)));
        }
        // The last counts of all, whether or not a state has changed.
        self.health.forget_published();
        self.report_health();
        // A source that was left behind still holds the log.
        self.score_log.iter().for_each(|log| log.flush(FLUSH_TIMEOUT));
        self.journal.iter().for_each(Journal::close);
        if let Some(publisher) = self.publisher.take() {
            publisher.stop(deadline.saturating_duration_since(Instant::now()));
        }
        self.http.iter().for_each(HttpServer::stop);
        let (outcome, panic) = self.sources.into_outcome();
        let mut fault = self.fault.or(panic.map(Error::new));
        for thread in self.threads {
            let name = thread.name();
            match thread.join_until(Instant::now() + JOIN_TIMEOUT) {
                Ok(true) => {}
                Ok(false) => log::warn!("thread {name} does not end and is left behind"),
                Err(panic) => {
                    log::error!("{panic}");
                    fault.get_or_insert(panic.into());
                }
            }
        }
        log::info!("stopped");
        match fault {
            Some(fault) => Err(DaemonError::Fault(fault)),
            None => outcome.map_err(DaemonError::Source),
        }
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
        let loops = self.threads.iter().map(|thread| {
            let heartbeat = thread.heartbeat();
            let state = if heartbeat.is_late() { ThreadHealth::LATE } else { ThreadHealth::OK };
            ThreadHealth { name: thread.name(), state, quiet: heartbeat.since_last() }
        });
        let questions = self.questions.iter().map(Questions::health);
        let threads = loops.chain([self.reloader.health()]).chain(questions).collect();
        let (publisher, http) = (self.publisher.as_ref(), self.http.as_ref());
        self.health.report(self.sources.health(), threads, self.quiet.health(), publisher, http, &self.notifier);
    }

    /// Shows the page's viewers what is listened to and for what. To be called wherever any of it may have changed.
    fn show(&self) {
        let Some(http) = &self.http else { return };
        let (prompts, hop_s) = (self.prompts_data(), self.sources.config().hop.as_secs_f64());
        http.set_view(&View { prompts, sources: self.sources.views(), hop_s });
    }

    /// The prompts that are listened for.
    fn prompts(&self) -> &[Prompt] {
        self.sources.config().prompts.prompts()
    }

    /// Announces to Home Assistant, to the page and to the past what is listened to, and for what.
    fn announce(&self) {
        if let Some(history) = &self.history {
            history.set_prompts(Arc::clone(&self.sources.config().prompts), self.sources.config().hop);
        }
        if let Some(publisher) = &self.publisher {
            let file = self.settings.file();
            // First, since what is announced has them: said later, it would be sent twice.
            let references = file.sources.iter().map(|source| (source.id.as_str(), source.microphone.reference()));
            publisher.announce_levels(file.levels, references);
            let sources = file.sources.iter().map(|source| source.id.as_str());
            publisher.announce(sources, self.prompts(), self.sources.config().hop);
        }
        self.show();
    }

    /// Waits a while for a request, and answers it.
    fn serve_request(&mut self) {
        let Some(request) = self.requests.take(POLL_INTERVAL) else { return };
        match Call::read(&request) {
            Some(call) => self.answer(call),
            None => self.publisher.iter().for_each(|it| it.ignore_request("its name could be no command's")),
        }
        thread::sleep(REQUEST_INTERVAL);
    }

    /// Answers whoever asked, over the way that the request came.
    fn respond(&self, reply: &Reply, outcome: &Outcome) {
        respond(self.publisher.as_ref(), self.http.as_ref(), reply, outcome);
    }

    /// Has a question answered by its own thread.
    fn ask(&mut self, question: Question, reply: Reply) {
        let Some(questions) = &mut self.questions else {
            return self.respond(&reply, &Err(NOT_KEPT.to_owned().into()));
        };
        let (publisher, http) = (self.publisher.clone(), self.http.clone());
        let respond = move |outcome: &Outcome| respond(publisher.as_ref(), http.as_ref(), &reply, outcome);
        if let Some(panic) = questions.ask(question, Box::new(respond)) {
            self.fail(panic.into());
        }
    }

    fn advance_questions(&mut self) {
        if let Some(panic) = self.questions.as_mut().and_then(Questions::advance) {
            self.fail(panic.into());
        }
    }

    /// Begins or ends a snooze, and says what is quiet then.
    fn snooze(&mut self, snooze: &Snooze) -> Result<Value, String> {
        require_known("source", snooze.source.as_deref(), &self.sources.ids())?;
        let prompts: Vec<&str> = self.prompts().iter().map(|prompt| prompt.id.as_str()).collect();
        require_known("prompt", snooze.prompt.as_deref(), &prompts)?;
        self.quiet.snooze(snooze, &self.settings)?;
        mqtt::quiet_payload(&self.quiet.health()).map_err(|error| error.to_string())
    }

    fn answer(&mut self, Call { reply, command }: Call) {
        log::info!("{}: asked for {}", reply.caller, reply.command);
        let outcome: Outcome = match command {
            Ok(Command::Reload) => return self.reload(Some(reply)),
            Ok(Command::PromptsSet(set)) => {
                self.begin_change(ChangeRequest::Prompts(set), Some(reply));
                return;
            }
            Ok(Command::PromptsGet) => Ok(self.prompts_data()),
            Ok(Command::Pause(source)) => self.set_paused(source.as_deref(), true).map_err(Refusal::from),
            Ok(Command::Resume(source)) => self.set_paused(source.as_deref(), false).map_err(Refusal::from),
            Ok(Command::Info) => self.info_data().map_err(Refusal::from),
            Ok(Command::Ask(question)) => return self.ask(question, reply),
            Ok(Command::Snooze(snooze)) => self.snooze(&snooze).map_err(Refusal::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &outcome {
            log::warn!("{}: {} is not carried out: {error}", reply.caller, reply.command);
        }
        self.respond(&reply, &outcome);
    }

    /// Pauses or resumes one source, or all and those to come.
    fn set_paused(&mut self, id: Option<&str>, paused: bool) -> Result<Value, String> {
        self.sources.set_paused(id, paused)?;
        self.show();
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

    /// Has the configuration read again; where it is in order, what it says is made ready.
    fn reload(&mut self, reply: Option<Reply>) {
        if reply.is_none() && self.reloader.defer_reload() {
            return;
        }
        if self.begin_change(ChangeRequest::Reload, reply) {
            self.notifier.send("RELOADING=1");
            log::info!("{}: read again", self.settings.path().display());
        }
    }

    /// Has the worker make a change ready; false where it is not begun, which is reported.
    fn begin_change(&mut self, request: ChangeRequest, reply: Option<Reply>) -> bool {
        let begun = self.reloader.begin(request, &self.settings, &self.sources, reply);
        match begun {
            Ok(()) => true,
            Err((reply, reason)) => {
                log::error!("everything stays as it was: {reason}");
                if let Some(reply) = reply {
                    self.respond(&reply, &Err(reason));
                }
                false
            }
        }
    }

    /// Makes the change that is ready, if one is, and reports the one that has settled.
    fn finish_change(&mut self) {
        if let Some(PreparedReply { reply, outcome }) = self.reloader.take_prepared() {
            match outcome {
                Ok(Ok(change)) => self.make_change(change, reply),
                Ok(Err(error)) => self.report_change(reply.as_ref(), &Err(error.into())),
                Err(panic) => {
                    self.report_change(reply.as_ref(), &Err(panic.to_string().into()));
                    self.fail(panic.into());
                }
            }
        }
        if let Some((reply, data)) = self.reloader.take_settled(self.sources.is_settled()) {
            self.report_change(reply.as_ref(), &Ok(self.with_liveness(data)));
        }
        if self.reloader.take_deferred_reload() {
            self.reload(None);
        }
    }

    fn make_change(&mut self, change: PreparedChange, reply: Option<Reply>) {
        match change {
            PreparedChange::Prompts { prompts, table, stored } => {
                self.settings.set_prompts(prompts);
                self.listen_for(table);
                let mut data = self.prompts_data();
                data["kept"] = stored.is_ok().into();
                if let Err(error) = stored {
                    log::error!("what is set does not outlive this process: {error:#}");
                    data["warning"] = format!("not kept for the next start: {error:#}").into();
                }
                self.report_change(reply.as_ref(), &Ok(data));
            }
            PreparedChange::Settings { settings, table, opened } => {
                let data = self.set_settings(*settings, table, opened);
                self.reloader.settle(reply, data);
            }
        }
    }

    /// Reports the outcome of a change: in the log, to systemd, and to whoever asked.
    fn report_change(&self, reply: Option<&Reply>, outcome: &Outcome) {
        match outcome {
            Ok(_) => log::info!("{} prompt(s) at {} source(s)", self.prompts().len(), self.sources.len()),
            Err(error) => {
                log::error!("everything stays as it was: {error}");
                // `systemctl reload` does not wait for us; `systemctl status` shows this until something else is news.
                self.notifier.send(&format!("STATUS=everything stays as it was: {error}"));
            }
        }
        self.notifier.send("READY=1");
        if let Some(reply) = reply {
            self.respond(reply, outcome);
        }
    }

    /// Does what the configuration says now, but for what needs a new process.
    fn set_settings(&mut self, settings: config::Settings, table: PromptTable, opened: Vec<OpenedSource>) -> Value {
        let restart = self.settings.warn_of_change(&settings);
        self.settings.replace(settings);
        self.sources.set_config(self.settings.listen_config(table));
        let changes = self.sources.replace(&self.settings.file().sources, opened);
        self.quiet.look_again();
        if let Some(history) = &self.history {
            let known: Vec<&str> = self.settings.file().sources.iter().map(|source| source.id.as_str()).collect();
            history.retain(|id| known.contains(&id));
        }
        changes.removed.iter().for_each(|source| self.levels.forget(source));
        self.announce();
        json!({
            "sources": { "added": changes.added, "changed": changes.changed, "removed": changes.removed },
            "prompts": self.prompts().len(),
            "from": self.settings.prompts_origin(),
            "restart": restart,
        })
    }

    /// What came of a change of the sources: from which of them there is sound, and from which not, and why.
    fn with_liveness(&self, mut data: Value) -> Value {
        let (live, not_live) = self.sources.liveness();
        for (id, trouble) in &not_live {
            log::warn!("{id}: {trouble}");
        }
        data["live"] = json!(live);
        data["not_live"] = json!(not_live);
        data
    }

    fn listen_for(&mut self, table: PromptTable) {
        self.sources.set_config(self.settings.listen_config(table));
        self.announce();
    }
}

/// Answers whoever asked, over the way that the request came.
fn respond(publisher: Option<&Publisher>, http: Option<&HttpServer>, reply: &Reply, outcome: &Outcome) {
    match reply.caller {
        Caller::Mqtt => publisher.into_iter().for_each(|publisher| publisher.respond(reply, outcome)),
        Caller::Http(call) => http.into_iter().for_each(|http| http.respond(call, reply, outcome)),
    }
}
