//! Which last will a broker takes.
//!
//! MQTT 5 says why a connection is refused. MQTT 3.1.1 has no code for a last will that the broker does not take: it hangs up,
//! as it does for many other reasons. So lesser wills are tried in turn, and one that is accepted is believed only when the
//! full one is refused once more right after: a broker that was just starting has not refused anything.

use std::time::{Duration, Instant};

use super::protocol::PublishForm;
use super::reason::Cause;

/// The full will and what it may lack, down to none.
const LADDER: [Option<PublishForm>; 5] = [
    Some(PublishForm::RETAINED),
    Some(PublishForm::ACKNOWLEDGED),
    Some(PublishForm { retained: true, acknowledged: false }),
    Some(PublishForm::PLAIN),
    None,
];

/// After this long the full will is tried again on a new connection: somebody may have mended the broker.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// The search for the will that a broker takes.
#[derive(Debug, Default)]
pub(super) struct WillSearch {
    step: usize,
    /// The broker has accepted this step, and is to refuse the full will once more.
    unproven: Option<usize>,
    /// The connection that has accepted it is to be ended for that.
    is_to_be_proven: bool,
    /// Since when it is known that the broker takes no more than `step`.
    proven_at: Option<Instant>,
    /// All steps were tried in vain: the will is not the reason, and there is no hurry.
    is_exhausted: bool,
}

impl WillSearch {
    /// The will to connect with.
    pub(super) fn form(&mut self, now: Instant) -> Option<PublishForm> {
        if self.proven_at.is_some_and(|at| now.duration_since(at) > FORGET_AFTER) {
            *self = Self::default();
        }
        self.is_to_be_proven = false;
        LADDER[self.step]
    }

    /// Whether the next attempt should follow soon.
    pub(super) fn is_searching(&self) -> bool {
        !self.is_exhausted && self.proven_at.is_none() && (self.step > 0 || self.unproven.is_some())
    }

    /// The broker has let us in.
    pub(super) fn on_accepted(&mut self) {
        self.is_exhausted = false;
        if self.step == 0 {
            self.unproven = None;
        } else if self.proven_at.is_none() {
            (self.unproven, self.step) = (Some(self.step), 0);
            self.is_to_be_proven = true;
        }
    }

    /// Whether this connection is to be ended, and another to follow at once with the full will.
    pub(super) fn is_to_be_proven(&self) -> bool {
        self.is_to_be_proven
    }

    /// The broker has refused the connection for this reason, or hung up in every version of the protocol (none). Returns
    /// what is now known of the will.
    pub(super) fn on_refused(&mut self, cause: Option<Cause>, now: Instant) -> Option<&'static str> {
        if let Some(step) = self.unproven.take() {
            (self.step, self.proven_at) = (step, Some(now));
            return Some(self.in_words());
        }
        let form = LADDER[self.step];
        let named = match (cause, form) {
            (Some(Cause::Retain), Some(form)) => Some(Some(PublishForm { retained: false, ..form })),
            (Some(Cause::Qos), Some(form)) => Some(Some(PublishForm { acknowledged: false, ..form })),
            (Some(Cause::Will), _) => Some(None),
            _ => None,
        };
        // A reason that names what is left out already is about something else.
        let step = named.and_then(|form| LADDER.iter().position(|known| *known == form));
        if let Some(step) = step.filter(|step| *step > self.step) {
            (self.step, self.proven_at) = (step, Some(now));
            return Some(self.in_words());
        }
        if cause.is_none() {
            self.proven_at = None;
            self.step = (self.step + 1) % LADDER.len();
            self.is_exhausted |= self.step == 0;
        }
        None
    }

    fn in_words(&self) -> &'static str {
        match LADDER[self.step] {
            None => "the broker takes no last will: nobody learns from it when clapd dies",
            Some(PublishForm { retained: false, .. }) => {
                "the broker takes no retained last will: who subscribes later does not learn from it that clapd has died"
            }
            Some(_) => "the broker takes no last will with QoS 1: it is published with QoS 0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connects until the broker lets us in for good, and returns the will and how many attempts that took.
    fn connect(takes: impl Fn(Option<PublishForm>) -> bool, cause: Option<Cause>) -> (Option<PublishForm>, usize) {
        let (mut search, now) = (WillSearch::default(), Instant::now());
        for attempt in 1..20 {
            let form = search.form(now);
            if !takes(form) {
                search.on_refused(cause, now);
                continue;
            }
            search.on_accepted();
            if !search.is_to_be_proven() {
                return (form, attempt);
            }
        }
        panic!("no will is taken: {search:?}");
    }

    #[test]
    fn the_fullest_will_is_found_that_the_broker_takes() {
        let full = LADDER[0];
        assert_eq!(connect(|_| true, None), (full, 1));
        assert_eq!(connect(|form| form.is_none_or(|form| !form.retained), None), (LADDER[1], 4));
        assert_eq!(connect(|form| form.is_none_or(|form| !form.acknowledged), None), (LADDER[2], 5));
        assert_eq!(connect(|form| form.is_none_or(|form| !form.acknowledged && !form.retained), None), (LADDER[3], 6));
        assert_eq!(connect(|form| form.is_none(), None), (None, 7));
    }

    #[test]
    fn a_reason_needs_no_search() {
        let unretained = |form: Option<PublishForm>| form.is_none_or(|form| !form.retained);
        assert_eq!(connect(unretained, Some(Cause::Retain)), (LADDER[1], 2));
        assert_eq!(connect(|form| form.is_none(), Some(Cause::Will)), (None, 2));
    }

    #[test]
    fn a_reason_that_stays_without_a_will_is_about_something_else() {
        let (mut search, now) = (WillSearch::default(), Instant::now());
        assert!(search.on_refused(Some(Cause::Will), now).is_some());
        assert_eq!((search.on_refused(Some(Cause::Will), now), search.is_searching()), (None, false));
        assert_eq!((search.on_refused(Some(Cause::Retain), now), search.form(now)), (None, None));
    }

    #[test]
    fn a_broker_that_was_only_starting_gets_the_full_will() {
        let attempts = std::cell::Cell::new(0);
        let takes = |_| {
            attempts.set(attempts.get() + 1);
            attempts.get() > 3
        };
        assert_eq!(connect(takes, None).0, LADDER[0]);
    }

    #[test]
    fn what_is_known_is_forgotten_in_time() {
        let (mut search, now) = (WillSearch::default(), Instant::now());
        search.on_refused(Some(Cause::Qos), now);
        assert_eq!(search.form(now), LADDER[2]);
        assert_eq!(search.form(now + FORGET_AFTER + Duration::from_secs(1)), LADDER[0]);
    }
}
