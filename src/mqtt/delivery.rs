//! What the publishers and the connection's thread share: what waits for the broker, and the link that carries it.
//!
//! Whoever changes what waits hands out as much of it as the link has room for, and so does the thread whenever the broker
//! has acknowledged something: nobody blocks, and there is one queue only. An event leaves the outbox in
//! [`Delivery::on_answer`] only, when the broker has accepted it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::announcements::Announcements;
use super::inbox::{Request, RequestQueue};
use super::link::{Link, WINDOW};
use super::outgoing::Outgoing;
use super::session::Client;
use crate::health::DeliveryCounters;
use crate::outbox::Outbox;

/// What the publishers and the thread share.
pub(super) struct Delivery {
    state: Mutex<DeliveryState>,
    changed: Condvar,
    counters: Arc<DeliveryCounters>,
    requests: RequestQueue,
}

struct DeliveryState {
    outgoing: Outgoing,
    link: Option<Link>,
    /// The last connection ended early with something in flight. If that was the reason, one packet at a time shows which
    /// it is: a broker may end a connection right after it has refused something, and its reason is lost if we go on
    /// writing.
    single_in_flight: bool,
    /// Set once we want to stop: until then events may still be delivered.
    stop_deadline: Option<Instant>,
    /// The connection's thread has ended.
    finished: bool,
}

impl DeliveryState {
    /// Hands out as much as there is room for.
    fn send_waiting(&mut self) {
        let Some(link) = &mut self.link else { return };
        let filters = self.outgoing.take_filters(Instant::now());
        if !filters.is_empty() && !link.subscribe(filters) {
            return;
        }
        while link.has_room() {
            let Some(message) = self.outgoing.next(Instant::now()) else { return };
            if !link.publish(message) {
                // The connection has just ended; the next one begins from the start.
                return;
            }
        }
    }

    /// How long events have to wait still.
    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        self.link.as_ref().and_then(|_| self.outgoing.pause_until(now)).map(|until| until - now)
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
    pub(super) fn new(outbox: Outbox, announcements: Announcements, counters: Arc<DeliveryCounters>) -> Self {
        let outgoing = Outgoing::new(outbox, announcements);
        let state =
            DeliveryState { outgoing, link: None, single_in_flight: false, stop_deadline: None, finished: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), counters, requests: RequestQueue::default() }
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

    /// Hands out what has waited for a pause to pass. The connection's thread does so when it has: nobody else may have
    /// anything to do at that time.
    pub(super) fn hand_out(&self) {
        self.lock().send_waiting();
    }

    /// We want to stop by `deadline`: the broker is tried at once, and again and again while events wait.
    pub(super) fn stop(&self, deadline: Instant) {
        self.lock().stop_deadline = Some(deadline);
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

    /// The broker has let us in; it takes packets of at most `max_packet` bytes, if it has said so.
    pub(super) fn on_connected(&self, client: &Client, max_packet: Option<u32>) {
        let mut state = self.lock();
        state.outgoing.begin_connection(max_packet);
        state.link = Some(Link::new(client.clone(), if state.single_in_flight { 1 } else { WINDOW }));
        state.send_waiting();
    }

    /// The connection has ended, `early` where that was soon after it had begun.
    pub(super) fn on_disconnected(&self, early: bool) {
        let mut state = self.lock();
        if let Some(link) = state.link.take() {
            state.single_in_flight = early && !link.is_idle();
        }
    }

    /// The broker has retained a state of this node.
    pub(super) fn on_retained_state(&self, topic: &str) {
        self.change(|outgoing| outgoing.found_state(topic));
    }

    /// Somebody's device was announced, or is retained, on a topic for which we have asked.
    pub(super) fn on_announcement(&self, topic: &str, payload: &[u8]) {
        if let Some(seen) = self.change(|outgoing| outgoing.found_announcement(topic, payload)) {
            self.counters.names_taken.add(1);
            log::warn!("mqtt: {seen}");
        }
    }

    /// Home Assistant has begun, and knows nothing of us.
    pub(super) fn on_ha_birth(&self) {
        self.change(|outgoing| outgoing.on_ha_birth(Instant::now()));
    }

    /// A command came; where too many wait already, it is not carried out.
    pub(super) fn on_request(&self, request: Request) {
        if !self.requests.put(request) {
            self.count_dropped_command("too many wait");
        }
    }

    /// The command that has waited longest; waits for one for `patience`.
    pub(super) fn next_request(&self, patience: Duration) -> Option<Request> {
        self.requests.take(patience)
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
    pub(super) fn on_answer(&self, packet_id: u16, answer: Result<(), String>) {
        let mut state = self.lock();
        if let Some(ticket) = state.link.as_mut().and_then(|link| link.on_answer(packet_id)) {
            match answer {
                Ok(()) => state.outgoing.acknowledged(ticket),
                Err(reason) => {
                    state.outgoing.refused(ticket);
                    if let Some(count) = self.counters.refused.add(1) {
                        let topic = state.outgoing.topic(ticket);
                        log::warn!("mqtt: the broker refuses {topic}: {reason} ({count} messages refused so far)");
                    }
                }
            }
        }
        state.send_waiting();
        self.changed.notify_all();
    }

    /// To be called once in a while: offers the broker again what it has refused. False where it acknowledges nothing.
    pub(super) fn is_acknowledging(&self) -> bool {
        let mut state = self.lock();
        let Some(link) = &state.link else { return true };
        let stuck = link.is_stuck();
        if link.is_idle() {
            state.outgoing.retry_refused();
            state.send_waiting();
        }
        !stuck
    }

    /// Whether to connect again. While we are stopping, only for events: what else waits means nothing to a broker that
    /// never knew we were there.
    pub(super) fn should_retry(&self) -> bool {
        let state = self.lock();
        state.stop_deadline.is_none_or(|deadline| Instant::now() < deadline && state.outgoing.waiting_events() > 0)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stop_deadline.is_some()
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }
}
