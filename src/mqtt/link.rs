//! What the publishers and the connection's thread share: what waits, and the link that carries it.
//!
//! In: changes of what waits; what the thread hears. Out: messages handed to the client, as many as there is room for.
//! Whoever changes what waits hands out as much of it as the connection has room for, and so does the thread whenever the
//! broker has acknowledged something: nobody blocks, and there is one queue only.
//! Never: an event leaves the outbox before the broker has accepted it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::announce::Announcements;
use super::inbox::Requests;
use super::outgoing::{Message, Outgoing, Ticket};
use super::session::Client;
use crate::health::DeliveryCounters;
use crate::outbox::Outbox;

/// Packets under way at a time. It hides a slow link's delay, and stays below the 100 packet ids that rumqttc uses, so
/// that ids do not collide.
pub(super) const WINDOW: usize = 64;
/// A broker that acknowledges nothing for so long, and answers pings, is stuck; another connection may not be.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What the publishers and the thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Events wait for a moment that will pass.
    paused: Condvar,
    pub(super) counters: Arc<DeliveryCounters>,
    pub(super) requests: Requests,
}

struct State {
    outgoing: Outgoing,
    link: Option<Link>,
    /// The last connection ended early with something under way. If that was the reason, one at a time shows which it is: a
    /// broker may end a connection right after it has refused something, and what it said is lost if we go on writing.
    careful: bool,
    /// Set once we want to leave: until then events may still be delivered.
    leave_by: Option<Instant>,
    /// The thread has ended.
    finished: bool,
}

/// A connection that the broker has accepted.
struct Link {
    client: Client,
    /// Handed to the client, not yet written: those to be acknowledged, in order, and how many scores.
    handed: VecDeque<Ticket>,
    scores: usize,
    /// Written, not yet acknowledged, by packet id.
    in_flight: HashMap<u16, Ticket>,
    /// When the broker last answered, or had nothing to answer.
    answered: Instant,
    /// Packets that may be under way at a time.
    window: usize,
}

impl State {
    /// Hands out as much as there is room for.
    fn pump(&mut self) {
        let Some(link) = &mut self.link else { return };
        while link.under_way() < link.window {
            let Some(message) = self.outgoing.next(Instant::now()) else { return };
            if !link.hand(message) {
                // The connection has just ended; the next one begins from the start.
                return;
            }
        }
    }

    /// How long events have to wait still.
    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        self.link.as_ref().and_then(|_| self.outgoing.announcements.quiet_until(now)).map(|until| until - now)
    }

    /// Whether nothing more can be done here: the broker has all, or refuses it.
    fn is_settled(&self) -> bool {
        match &self.link {
            Some(link) => link.under_way() == 0 && self.outgoing.is_handed_out(),
            None => self.outgoing.is_handed_out() && self.outgoing.events() == 0,
        }
    }
}

impl Link {
    fn under_way(&self) -> usize {
        self.handed.len() + self.scores + self.in_flight.len()
    }

    fn hand(&mut self, message: Message) -> bool {
        let Message { ticket, topic, payload } = message;
        let handed = self.client.publish(&topic, payload, ticket.is_acknowledged(), ticket.is_retained());
        match (handed, ticket) {
            (true, Ticket::Score) => self.scores += 1,
            (true, _) => self.handed.push_back(ticket),
            (false, _) => {}
        }
        handed
    }
}

impl Shared {
    pub(super) fn new(outbox: Outbox, announcements: Announcements, counters: Arc<DeliveryCounters>) -> Self {
        let outgoing = Outgoing::new(outbox, announcements);
        let state = State { outgoing, link: None, careful: false, leave_by: None, finished: false };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            paused: Condvar::new(),
            counters,
            requests: Requests::default(),
        }
    }

    /// A thread that panicked left whole values behind: every change here is done in one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits, then hands out what there is room for.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Outgoing) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.outgoing);
        self.pump(&mut state);
        result
    }

    fn pump(&self, state: &mut State) {
        state.pump();
        if state.pause().is_some() {
            self.paused.notify_all();
        }
    }

    /// Hands out what has waited for a pause to pass, until the connection's thread has ended: for a thread of its own, since
    /// nobody else may have anything to do at that time.
    pub(super) fn mind_pauses(&self) {
        let mut state = self.lock();
        while !state.finished {
            state = match state.pause() {
                Some(pause) => {
                    self.paused.wait_timeout(state, pause).map_or_else(|end| end.into_inner().0, |woken| woken.0)
                }
                None => self.paused.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.pump();
        }
    }

    /// We want to leave by `deadline`: the broker is tried at once, and again and again while events wait.
    pub(super) fn stop(&self, deadline: Instant) {
        self.lock().leave_by = Some(deadline);
        self.changed.notify_all();
    }

    pub(super) fn wait_until_settled(&self, deadline: Instant) {
        self.wait(deadline, |state| state.finished || state.is_settled());
    }

    /// Takes leave of the broker, which then keeps the last will to itself; returns how many starts and ends wait still.
    pub(super) fn disconnect(&self, deadline: Instant) -> usize {
        if let Some(link) = &self.lock().link
            && !link.client.leave()
        {
            log::debug!("mqtt: the connection ended before we took leave");
        }
        self.wait(deadline, |state| state.finished);
        self.lock().outgoing.events()
    }

    /// Waits for `patience`, or until somebody wants to leave.
    pub(super) fn rest(&self, patience: Duration) {
        self.wait(Instant::now() + patience, |state| state.leave_by.is_some());
    }

    /// Waits until `done` or the deadline.
    fn wait(&self, deadline: Instant, mut done: impl FnMut(&State) -> bool) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |state| !done(state));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The broker has let us in; it takes packets of at most `limit` bytes, if it has said so.
    pub(super) fn connected(&self, client: &Client, limit: Option<u32>) {
        let mut state = self.lock();
        state.outgoing.announcements.fit(limit);
        state.outgoing.begin();
        state.link = Some(Link {
            client: client.clone(),
            handed: VecDeque::new(),
            scores: 0,
            in_flight: HashMap::new(),
            answered: Instant::now(),
            window: if state.careful { 1 } else { WINDOW },
        });
        self.pump(&mut state);
    }

    /// The connection is gone, `early` where that was soon after it had begun.
    pub(super) fn disconnected(&self, early: bool) {
        let mut state = self.lock();
        if let Some(link) = state.link.take() {
            state.careful = early && link.under_way() > 0;
        }
    }

    /// The broker has retained a state of this node.
    pub(super) fn found_state(&self, topic: &str) {
        self.change(|outgoing| outgoing.found_state(topic));
    }

    /// Home Assistant has begun, and knows nothing of us.
    pub(super) fn welcome(&self) {
        self.change(|outgoing| outgoing.welcome(Instant::now()));
    }

    /// A command came that is not carried out.
    pub(super) fn drop_command(&self, reason: &str) {
        if self.counters.commands_dropped.add(1) {
            let count = self.counters.commands_dropped.get();
            log::warn!("mqtt: a command is not carried out: {reason} ({count} commands dropped so far)");
        }
    }

    /// The client writes in the order in which it was given; packet id 0 means that no acknowledgement will come.
    pub(super) fn written(&self, packet_id: u16) {
        let mut state = self.lock();
        if let Some(link) = &mut state.link {
            if packet_id == 0 {
                link.scores = link.scores.saturating_sub(1);
            } else if let Some(ticket) = link.handed.pop_front() {
                if link.in_flight.is_empty() {
                    link.answered = Instant::now();
                }
                link.in_flight.insert(packet_id, ticket);
            }
        }
        self.pump(&mut state);
        self.changed.notify_all();
    }

    /// The broker has accepted a message, or refused it.
    pub(super) fn answered(&self, packet_id: u16, answer: Result<(), String>) {
        let mut state = self.lock();
        if let Some(link) = &mut state.link
            && let Some(ticket) = link.in_flight.remove(&packet_id)
        {
            link.answered = Instant::now();
            match answer {
                Ok(()) => state.outgoing.acknowledged(ticket),
                Err(reason) => {
                    state.outgoing.refused(ticket);
                    if self.counters.refused.add(1) {
                        let (topic, count) = (state.outgoing.topic(ticket), self.counters.refused.get());
                        log::warn!("mqtt: the broker refuses {topic}: {reason} ({count} messages refused so far)");
                    }
                }
            }
        }
        self.pump(&mut state);
        self.changed.notify_all();
    }

    /// Looks, once in a while, whether the broker still answers, and offers it again what it has refused; false where it
    /// is stuck.
    pub(super) fn is_answering(&self) -> bool {
        let mut state = self.lock();
        let Some(link) = &mut state.link else { return true };
        let stuck = !link.in_flight.is_empty() && link.answered.elapsed() > ANSWER_WITHIN;
        if link.under_way() == 0 {
            state.outgoing.ask_again();
            self.pump(&mut state);
        }
        !stuck
    }

    /// While we are leaving, only for events: what else waits means nothing to a broker that never knew we were there.
    pub(super) fn is_worth_another_try(&self) -> bool {
        let state = self.lock();
        state.leave_by.is_none_or(|deadline| Instant::now() < deadline && state.outgoing.events() > 0)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.lock().leave_by.is_some()
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
        self.paused.notify_all();
    }
}
