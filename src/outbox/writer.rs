//! The thread under the outbox: does to the log what the state machine says, and tells it what became of that. The state is not
//! locked while the disk works.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::SharedOutbox;
use super::log_file::LogFile;
use super::state::{DiskChange, Job};
use crate::time::Clocks;

/// With nothing due, an hour is as good as for ever: whatever changes wakes the thread.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) fn spawn(shared: Arc<SharedOutbox>, log: LogFile) -> io::Result<()> {
    thread::Builder::new().name("outbox".into()).spawn(move || run(&shared, log)).map(drop)
}

fn run(shared: &SharedOutbox, mut log: LogFile) {
    let _end = WriterEnd(shared);
    while let Some(job) = wait_for_job(shared) {
        let done = log.perform(&job);
        let change = shared.lock().finish_job(done, Clocks::now());
        match change {
            Some(DiskChange::Failed(error)) => warn_of(&error),
            Some(DiskChange::Recovered) => log::info!("outbox: the disk takes events again"),
            None => {}
        }
        shared.changed.notify_all();
    }
    // The next run may open it as soon as we say so.
    drop(log);
}

/// Says at the thread's end, be it a panic, that nobody needs to wait for the disk any more.
struct WriterEnd<'a>(&'a SharedOutbox);

impl Drop for WriterEnd<'_> {
    fn drop(&mut self) {
        self.0.lock().set_closed();
        self.0.changed.notify_all();
    }
}

/// The disk failed.
pub(super) fn warn_of(error: &io::Error) {
    log::warn!("outbox: {error}; events wait in memory and do not outlive this process until it works again");
}

/// The next job; none once the outbox is closed and nothing is left to do.
fn wait_for_job(shared: &SharedOutbox) -> Option<Job> {
    let mut state = shared.lock();
    loop {
        let now = Clocks::now();
        if let Some(job) = state.next_job(now) {
            return Some(job);
        }
        if state.is_closing() {
            return None;
        }
        let patience = state.wake_at(now.boot).map_or(IDLE, |at| at.since(now.boot));
        state = shared.wait(state, patience);
    }
}
