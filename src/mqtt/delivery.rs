//! What the publishers and the connection's thread share: what waits for the broker, and the link that carries it.
//!
//! Whoever changes what waits hands out as much of it as the link has room for, and so does the thread whenever the broker
//! has acknowledged something: nobody blocks, and there is one queue only. An event leaves the outbox when the broker has
//! acknowledged it ([`Delivery::on_answer`]), or, where it takes QoS 0 only, has read it ([`Delivery::on_marker`]).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::elimination::MessageKind;
use super::limits::BrokerLimits;
use super::link::Link;
use super::outgoing::{Outgoing, SentMessage};
use super::protocol::{Filter, SessionFailure};
use super::reason::{Cause, Reason};
use super::session::Client;
use crate::command::{Caller, Request, RequestQueue};
use crate::health::DeliveryCounters;

/// A connection with a single message in flight on which everything was confirmed, and that lasts this long, has nothing more to
/// show.
const SINGLE_IN_FLIGHT_FOR: Duration = Duration::from_secs(3);

/// What the publishers and the thread share.
pub(super) struct Delivery {
    state: Mutex<DeliveryState>,
    changed: Condvar,
    counters: Arc<DeliveryCounters>,
    requests: Arc<RequestQueue>,
}

struct DeliveryState {
    outgoing: Outgoing,
    link: Option<Link>,
    connected_at: Instant,
    /// Set once we want to stop: until then events may still be delivered.
    stop_deadline: Option<Instant>,
    /// The connection's thread has ended.
    finished: bool,
}

impl DeliveryState {
    /// Hands out as much as there is room for.
    fn send_waiting(&mut self) {
        let Some(link) = &mut self.link else { return };
        for filters in self.outgoing.take_filters(Instant::now()) {
            if !link.subscribe(filters, None) {
                return;
            }
        }
        while link.has_room() {
            let Some(message) = self.outgoing.next(Instant::now()) else { return };
            if !link.publish(message) {
                // The connection has just ended; the next one begins from the start.
                return;
            }
        }
    }

    /// How long what waits for a time to come has to wait still.
    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let is_open = self.link.as_ref().is_some_and(Link::has_room);
        let at = is_open.then(|| self.outgoing.wake_at(now)).flatten()?;
        Some(at.saturating_duration_since(now))
    }

    /// Offers the broker again what it has refused, and ends the sending one by one where it shows no more. False where the broker answers
    /// nothing.
    fn check(&mut self) -> bool {
        let Some(link) = &mut self.link else { return true };
        if link.is_idle() {
            self.outgoing.retry_refused();
        }
        let is_settled = link.has_nothing_but_scores() && self.outgoing.is_handed_out();
        if self.outgoing.is_single_in_flight() && is_settled && self.connected_at.elapsed() > SINGLE_IN_FLIGHT_FOR {
            self.outgoing.on_settled();
            link.end_single_in_flight();
        }
        !link.is_stuck()
    }

    /// Whether nothing more can be done here: the broker has all, or refuses it.
    fn is_settled(&self) -> bool {
        match &self.link {
            Some(link) => link.is_idle() && self.outgoing.is_handed_out(),
            None => self.outgoing.is_handed_out() && self.outgoing.waiting_events() == 0,
        }
    }
}

impl Delivery {
    pub(super) fn new(outgoing: Outgoing, counters: Arc<DeliveryCounters>) -> Self {
        let state =
            DeliveryState { outgoing, link: None, connected_at: Instant::now(), stop_deadline: None, finished: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), counters, requests: Arc::default() }
    }

    /// A thread that panicked left whole values behind: every change here is done in one step.
    fn lock(&self) -> MutexGuard<'_, DeliveryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, then hands out what there is room for.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Outgoing) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.outgoing);
        state.send_waiting();
        result
    }

    /// How long what waits for a pause has to wait still; none where nothing does.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.lock().pause()
    }

    /// To be called about once a second: hands out what has waited for a pause to pass or was refused a while ago. The
    /// connection's thread does so: nobody else may have anything to do at that time. False where the broker answers nothing;
    /// it may want a keep-alive of hours, so that pings say nothing of that.
    pub(super) fn hand_out(&self) -> bool {
        let mut state = self.lock();
        let is_answering = state.check();
        state.send_waiting();
        is_answering
    }

    /// We want to stop by `deadline`: the broker is tried at once, and again and again while events wait.
    pub(super) fn stop(&self, deadline: Instant) {
        let mut state = self.lock();
        state.stop_deadline = Some(deadline);
        state.outgoing.stop();
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn wait_until_settled(&self, deadline: Instant) {
        self.wait(deadline, |state| state.finished || state.is_settled());
    }

    /// Disconnects in order, so that the broker keeps the last will to itself; returns how many starts and ends wait still.
    pub(super) fn disconnect(&self, deadline: Instant) -> usize {
        if let Some(link) = &self.lock().link
            && !link.disconnect()
        {
            log::debug!("mqtt: the connection ended before we took leave");
        }
        self.wait(deadline, |state| state.finished);
        self.lock().outgoing.waiting_events()
    }

    /// Waits for `patience`, or until somebody wants to stop.
    pub(super) fn sleep(&self, patience: Duration) {
        self.wait(Instant::now() + patience, |state| state.stop_deadline.is_some());
    }

    /// Waits until `done` or the deadline.
    fn wait(&self, deadline: Instant, mut done: impl FnMut(&DeliveryState) -> bool) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |state| !done(state));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The broker has let us in, and takes what `limits` says; `filters` are what we want to subscribe to.
    pub(super) fn on_connected(&self, client: &Client, limits: BrokerLimits, filters: Vec<Filter>) {
        let mut state = self.lock();
        let now = Instant::now();
        let filters = state.outgoing.begin_connection(limits, filters, now);
        let mut link = Link::new(client.clone(), limits.receive_max, state.outgoing.is_single_in_flight());
        if !link.subscribe(filters, None) {
            log::debug!("mqtt: the connection ended before we subscribed");
        }
        (state.link, state.connected_at) = (Some(link), now);
        state.send_waiting();
    }

    /// The connection has ended; `early` where that was soon after it had begun. Returns how many messages the broker had been
    /// sent just before and had not confirmed.
    pub(super) fn on_disconnected(&self, failure: Option<&SessionFailure>, early: bool) -> usize {
        let mut state = self.lock();
        let (Some(link), Some(failure)) = (state.link.take(), failure) else { return 0 };
        if failure.needs_a_person() || *failure == SessionFailure::TooLarge || failure.blames_no_message() {
            return 0;
        }
        let suspects = link.suspects();
        if early || !suspects.is_empty() {
            let finding = state.outgoing.on_end(&suspects, failure.cause());
            finding.into_iter().for_each(|finding| log::warn!("mqtt: {finding}"));
        }
        suspects.len()
    }

    /// Whether the next connection should follow soon, since it will show what the broker does not take.
    pub(super) fn is_searching(&self) -> bool {
        self.lock().outgoing.is_searching()
    }

    /// The broker has answered a subscription. Returns whether it allows no wildcards.
    pub(super) fn on_subscribed(&self, answers: &[Result<(), Reason>]) -> bool {
        let mut state = self.lock();
        let subscribed = state.link.as_mut().and_then(Link::on_subscribed);
        let mut needs_plain_filters = false;
        if let Some((filters, message)) = subscribed {
            for (filter, answer) in filters.iter().zip(answers) {
                match answer {
                    // Nothing but a topic of discovery ends so: it is read only to see whose it is.
                    Err(reason) if filter.ends_with("/config") => {
                        log::info!("mqtt: another node's device on {filter} would not be noticed: {reason}");
                    }
                    Err(reason) => {
                        log::warn!("mqtt: the broker refuses the subscription to {filter}: {reason}");
                        needs_plain_filters |= reason.cause() == Cause::Wildcards;
                    }
                    Ok(()) => log::debug!("mqtt: subscribed to {filter}"),
                }
                state.outgoing.on_subscribed(filter, answer.is_ok(), Instant::now());
            }
            message.iter().for_each(|message| state.outgoing.accepted(message));
        }
        state.send_waiting();
        needs_plain_filters
    }

    /// Subscribes to these, too.
    pub(super) fn subscribe(&self, filters: Vec<Filter>) {
        if let Some(link) = &mut self.lock().link
            && !link.subscribe(filters, None)
        {
            log::debug!("mqtt: the connection ended before we subscribed");
        }
    }

    /// Something on a topic by which another of our name is known, or of a former name of ours. True where it is nothing else.
    pub(super) fn on_name(&self, topic: &str, payload: &[u8], retained: bool) -> bool {
        let (is_nothing_else, seen) =
            self.change(|outgoing| outgoing.found_name(topic, payload, retained, Instant::now()));
        self.report_taken_name(seen);
        is_nothing_else
    }

    /// The broker has retained a state of this node.
    pub(super) fn on_retained_state(&self, topic: &str) {
        self.change(|outgoing| outgoing.found_state(topic));
    }

    /// Somebody's device was announced, or is retained, on a topic for which we have asked.
    pub(super) fn on_announcement(&self, topic: &str, payload: &[u8]) {
        let seen = self.change(|outgoing| outgoing.found_announcement(topic, payload));
        self.report_taken_name(seen);
    }

    /// Counts and logs what was seen of another who has a name of ours, where that is news.
    fn report_taken_name(&self, seen: Option<String>) {
        if let Some(seen) = seen {
            self.counters.names_taken.add(1);
            log::warn!("mqtt: {seen}");
        }
    }

    /// Home Assistant has begun, and knows nothing of us.
    pub(super) fn on_ha_birth(&self) {
        self.change(|outgoing| outgoing.on_ha_birth(Instant::now()));
    }

    /// A command came; where too many wait already, it is not carried out.
    pub(super) fn on_request(&self, command: &str, payload: Vec<u8>) {
        if !self.requests.put(Request { caller: Caller::Mqtt, command: command.to_owned(), payload }) {
            self.count_dropped_command("too many wait");
        }
    }

    /// Whether the broker has accepted us and is there still.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().link.is_some()
    }

    /// Where commands wait.
    pub(super) fn requests(&self) -> Arc<RequestQueue> {
        Arc::clone(&self.requests)
    }

    /// Counts a command that is not carried out.
    pub(super) fn count_dropped_command(&self, reason: &str) {
        if let Some(count) = self.counters.commands_dropped.add(1) {
            log::warn!("mqtt: a command is not carried out: {reason} ({count} commands dropped so far)");
        }
    }

    /// Counts a score that was replaced by a newer one.
    pub(super) fn count_dropped_score(&self) {
        if let Some(count) = self.counters.scores_dropped.add(1) {
            log::debug!("mqtt: {count} scores replaced by newer ones so far");
        }
    }

    /// Counts a connection that the broker has accepted; true where it is not the first.
    pub(super) fn count_connection(&self) -> bool {
        let is_again = self.counters.connections.get() > 0;
        self.counters.connections.add(1);
        if is_again {
            self.counters.reconnects.add(1);
        }
        is_again
    }

    /// The client has written a packet; see [`Link::on_written`].
    pub(super) fn on_written(&self, packet_id: u16) {
        let mut state = self.lock();
        if let Some(link) = &mut state.link {
            link.on_written(packet_id);
        }
        state.send_waiting();
        self.changed.notify_all();
    }

    /// The broker has accepted a message, or refused it.
    pub(super) fn on_answer(&self, packet_id: u16, answer: Result<(), Reason>) {
        let mut state = self.lock();
        if let Some(message) = state.link.as_mut().and_then(|link| link.on_answer(packet_id)) {
            match answer {
                Ok(()) => state.outgoing.accepted(&message),
                Err(reason) => {
                    state.outgoing.refused(&message, &reason);
                    if let Some(count) = self.counters.refused.add(1) {
                        let topic = &message.topic;
                        log::warn!("mqtt: the broker refuses {topic}: {reason} ({count} messages refused so far)");
                    }
                }
            }
        }
        state.send_waiting();
        self.changed.notify_all();
    }

    /// The broker has read everything before the marker.
    pub(super) fn on_marker(&self) {
        let mut state = self.lock();
        let read = state.link.as_mut().map(Link::on_marker).unwrap_or_default();
        for message in &read {
            self.count_unconfirmed(message);
            state.outgoing.accepted(message);
        }
        state.send_waiting();
        self.changed.notify_all();
    }

    fn count_unconfirmed(&self, message: &SentMessage) {
        if message.kind == MessageKind::Event {
            self.counters.unconfirmed.add(1);
        }
    }

    /// Starts and ends that this broker could not take.
    pub(super) fn events_set_aside(&self) -> u64 {
        self.lock().outgoing.events_set_aside()
    }

    /// Whether to connect again. While we are stopping, only for events: what else waits means nothing to a broker that
    /// never knew we were there.
    pub(super) fn should_retry(&self) -> bool {
        let state = self.lock();
        // One that has found out what it does not take is to learn that we have stopped.
        let is_worth_it = state.outgoing.waiting_events() > 0 || state.outgoing.is_searching();
        state.stop_deadline.is_none_or(|deadline| Instant::now() < deadline && is_worth_it)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stop_deadline.is_some()
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }
}
