//! Whether a loop still turns.
//!
//! A loop says at each turn how long the next may lawfully take, at the line that knows why: a look-up of a name takes
//! longer than a read. It is late once that time is over, whatever it was waiting for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::fault::panic_if_asked;

/// The heartbeat of one thread: the thread beats, any other looks. Time counts while the computer is awake.
#[derive(Debug)]
pub struct Heartbeat {
    name: &'static str,
    began: Instant,
    /// Milliseconds from `began` to the last beat, and to the time at which the next is due.
    last_ms: AtomicU64,
    due_ms: AtomicU64,
}

impl Heartbeat {
    /// Of a thread that has not begun; until it has, it is not late.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, began: Instant::now(), last_ms: AtomicU64::new(0), due_ms: AtomicU64::new(u64::MAX) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The loop turns, and will again within `limit`.
    pub fn beat(&self, limit: Duration) {
        panic_if_asked(self.name);
        let now = self.now_ms();
        // Nothing else is published by these, so relaxed is enough; a reader that sees one of the two new errs by a turn.
        self.due_ms.store(now.saturating_add(milliseconds(limit)), Relaxed);
        self.last_ms.store(now, Relaxed);
    }

    /// Time since the last beat.
    pub fn since_last(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Relaxed)))
    }

    /// Whether the next beat is overdue.
    pub fn is_late(&self) -> bool {
        self.now_ms() > self.due_ms.load(Relaxed)
    }

    fn now_ms(&self) -> u64 {
        milliseconds(self.began.elapsed())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_late_when_its_own_limit_is_over() {
        let heartbeat = Heartbeat::new("loop");
        assert!(!heartbeat.is_late(), "it has not begun");
        heartbeat.beat(Duration::from_secs(3600));
        assert!(!heartbeat.is_late());
        heartbeat.beat(Duration::ZERO);
        while !heartbeat.is_late() {
            std::thread::sleep(Duration::from_millis(1));
        }
        heartbeat.beat(Duration::MAX);
        assert!(!heartbeat.is_late(), "a beat sets it right");
        assert!(heartbeat.since_last() < Duration::from_secs(60));
    }
}
