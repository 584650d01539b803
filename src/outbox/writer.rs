//! The thread under the outbox: does to the log what the state machine says, and tells it what became of that. The state is not
//! locked while the disk works.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::SharedOutbox;
use super::log_file::LogFile;
use super::state::{DiskChange, Job};
use crate::threads::{Heartbeat, ServiceThread};
use crate::time::Clocks;

/// How often the loop turns at the least, so that its owner sees it turn. Whatever changes wakes the thread.
const TURN_INTERVAL: Duration = Duration::from_secs(5);
/// The most that a turn may take, which is one append, sync or rewrite: after as long as this Linux itself calls a task hung that waits
/// for a disk (kernel.hung_task_timeout_secs). Memory cards that tidy up have been seen to take tens of seconds.
const MAX_TURN: Duration = Duration::from_secs(120);

pub(super) fn spawn(shared: Arc<SharedOutbox>, log: LogFile) -> io::Result<ServiceThread> {
    ServiceThread::spawn("outbox", move |heartbeat| run(&shared, log, &heartbeat))
}

fn run(shared: &SharedOutbox, mut log: LogFile, heartbeat: &Heartbeat) {
    let _end = WriterEnd(shared);
    while let Some(job) = wait_for_job(shared, heartbeat) {
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
fn wait_for_job(shared: &SharedOutbox, heartbeat: &Heartbeat) -> Option<Job> {
    let mut state = shared.lock();
    loop {
        heartbeat.beat(MAX_TURN);
        let now = Clocks::now();
        if let Some(job) = state.next_job(now) {
            return Some(job);
        }
        if state.is_closing() {
            return None;
        }
        let patience = state.wake_at(now.boot).map_or(TURN_INTERVAL, |at| at.since(now.boot).min(TURN_INTERVAL));
        state = shared.wait(state, patience);
    }
}
