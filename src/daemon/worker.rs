//! A thread for what may take long, or for ever: files of anyone are read, decoded and opened there, one job at a time.
//!
//! A file may be a pipe to which nobody writes, or lie on a server that is away. Whoever waits for it can't be told
//! to stop, so it is not the main thread; a job that hangs is left behind when the process ends, and named.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::health::ThreadHealth;
use crate::threads::{ThreadPanic, joined, panic_if_asked};

/// Does one job at a time, each on a thread of its own.
pub(super) struct Worker<T> {
    /// The thread's, in the log and in health.
    name: &'static str,
    job: Option<RunningJob<T>>,
}

struct RunningJob<T> {
    activity: Activity,
    thread: JoinHandle<T>,
}

/// What the job is doing, so that a job that hangs says where. A clone shows the same.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<(String, Instant)>>);

impl Activity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(("beginning".into(), Instant::now()))))
    }

    /// From now on the job is doing this: "reading x".
    pub(super) fn set(&self, doing: impl Into<String>) {
        *self.lock() = (doing.into(), Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, (String, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In words: what, and for how long.
    fn describe(&self) -> String {
        let (doing, since) = &*self.lock();
        format!("{doing}, for {} s", since.elapsed().as_secs())
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Without a job; its threads have this name.
    pub(super) fn idle(name: &'static str) -> Self {
        Self { name, job: None }
    }

    /// What it is doing, and for how long; none where it has no job.
    pub(super) fn activity(&self) -> Option<String> {
        self.job.as_ref().map(|job| job.activity.describe())
    }

    /// Begins a job. To be called while there is none.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub(super) fn begin(&mut self, work: impl FnOnce(&Activity) -> T + Send + 'static) -> io::Result<()> {
        let activity = Activity::new();
        let shown = activity.clone();
        let name = self.name;
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            panic_if_asked(name);
            work(&shown)
        })?;
        self.job = Some(RunningJob { activity, thread });
        Ok(())
    }

    /// The result of the job that is done, if one is.
    pub(super) fn take_done(&mut self) -> Option<Result<T, ThreadPanic>> {
        let job = self.job.take_if(|job| job.thread.is_finished())?;
        Some(joined(self.name, job.thread.join()))
    }

    /// The process ends: what still runs is left behind, and named.
    pub(super) fn leave(&mut self) {
        if let Some(job) = self.job.take() {
            let (name, activity) = (self.name, job.activity.describe());
            log::warn!("thread {name}: left behind, {activity}");
        }
    }

    /// How it is doing: a job that takes long is no fault of the thread's.
    pub(super) fn health(&self) -> ThreadHealth {
        let quiet = self.job.as_ref().map(|job| job.activity.lock().1.elapsed());
        let state = if quiet.is_some() { ThreadHealth::BUSY } else { ThreadHealth::IDLE };
        ThreadHealth { name: self.name, state, quiet: quiet.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    fn wait<T: Send + 'static>(worker: &mut Worker<T>) -> Result<T, ThreadPanic> {
        loop {
            if let Some(done) = worker.take_done() {
                return done;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_job_is_done_beside_and_says_what_it_does() {
        let mut worker = Worker::idle("worker");
        assert_eq!((worker.activity(), worker.health().state), (None, "idle"));
        let ((hold, held), (tell, told)) = (sync_channel::<()>(0), sync_channel(0));
        let work = move |activity: &Activity| {
            activity.set("reading a pipe");
            tell.send(()).unwrap();
            let _ = held.recv();
            5
        };
        worker.begin(work).unwrap();
        told.recv().unwrap();
        assert!(worker.take_done().is_none());
        assert!(worker.activity().unwrap().starts_with("reading a pipe, for "));
        assert_eq!(worker.health().state, "busy");
        drop(hold);
        assert_eq!(wait(&mut worker), Ok(5));
        worker.begin(|_| panic!("gone")).unwrap();
        assert!(wait(&mut worker).unwrap_err().to_string().contains("thread worker panicked (gone)"));
        assert_eq!(worker.activity(), None);
    }
}
