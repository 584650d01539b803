//! What the threads of the daemon have in common: a name, an owner who sees how they end, and a heartbeat.
//!
//! A thread that ended unseen leaves a process that works in part and tells nobody. So whoever starts a thread hands out
//! a [`ServiceThread`], whose owner asks it again and again whether it still runs; and a panic becomes a [`ThreadPanic`],
//! which names the thread.

mod fault;
mod heartbeat;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use fault::panic_if_asked;
pub use heartbeat::Heartbeat;

/// How often a thread that is about to end is asked whether it has: whoever waits has seconds.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A thread that runs until it is told to stop.
#[derive(Debug)]
pub struct ServiceThread {
    heartbeat: Arc<Heartbeat>,
    handle: JoinHandle<()>,
}

impl ServiceThread {
    /// Starts a thread of this name; `run` is to beat at each turn of its loop.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn spawn(name: &'static str, run: impl FnOnce(Arc<Heartbeat>) + Send + 'static) -> io::Result<Self> {
        let heartbeat = Arc::new(Heartbeat::new(name));
        let beating = Arc::clone(&heartbeat);
        let handle = thread::Builder::new().name(name.into()).spawn(move || run(beating))?;
        Ok(Self { heartbeat, handle })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.heartbeat.name()
    }

    /// Its heartbeat.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// Whether it has ended, in whatever way.
    pub fn has_ended(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for its end, but not past `deadline`; `Ok(false)` where it goes on, and is left behind.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn join_until(self, deadline: Instant) -> Result<bool, ThreadPanic> {
        while !self.has_ended() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            thread::sleep(left.min(POLL_INTERVAL));
        }
        let name = self.name();
        joined(name, self.handle.join()).map(|()| true)
    }
}

/// A thread panicked. What it has left behind nobody knows, so only a new process mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadPanic {
    thread: String,
    message: String,
}

impl fmt::Display for ThreadPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} panicked ({}), which is a fault in clapd", self.thread, self.message)
    }
}

impl std::error::Error for ThreadPanic {}

/// The result of the thread of this name, of what joining it gave.
///
/// # Errors
/// The thread panicked.
pub fn joined<T>(thread: &str, joined: thread::Result<T>) -> Result<T, ThreadPanic> {
    joined.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        ThreadPanic { thread: thread.into(), message: text.unwrap_or("without a message").into() }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn how_a_thread_ended_is_seen_and_one_that_goes_on_is_left_behind() {
        let soon = || Instant::now() + Duration::from_secs(60);
        let ends = ServiceThread::spawn("ends", |heartbeat| heartbeat.beat(Duration::ZERO)).unwrap();
        assert_eq!((ends.name(), ends.join_until(soon())), ("ends", Ok(true)));
        let panics = ServiceThread::spawn("panics", |_| panic!("no {}", 5)).unwrap();
        let panic = panics.join_until(soon()).unwrap_err();
        assert_eq!(panic.to_string(), "thread panics panicked (no 5), which is a fault in clapd");
        let (hold, held) = sync_channel::<()>(0);
        let hangs = ServiceThread::spawn("hangs", move |_| assert!(held.recv().is_err())).unwrap();
        assert!(!hangs.has_ended());
        assert_eq!(hangs.join_until(Instant::now()), Ok(false));
        drop(hold);
    }
}
