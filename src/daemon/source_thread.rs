//! The thread of one source: it waits until it may begin, and reads until the source is over or its [`SourceControl`]
//! says stop. It ends with no event open.
//!
//! It is started when its source is opened, which may be long before it begins: a change of sources is made only where
//! all that it needs is there, threads included.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use super::source_control::SourceControl;
use super::source_processor::SourceProcessor;
use crate::capture::{Read, Source, SourceCounters, SourceSpec};
use crate::threads::panic_if_asked;

/// How long the thread waits for sound before it looks at its control again.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// What the thread reads.
pub(super) enum SourceInput {
    /// A source that is open.
    Open(Box<Source>),
    /// A device that another source still uses: it is opened when the thread begins.
    Later(SourceSpec, Arc<SourceCounters>),
}

/// A thread that has not begun.
pub(super) struct HeldThread {
    begin: SyncSender<Box<SourceProcessor>>,
    thread: JoinHandle<Result<()>>,
}

impl HeldThread {
    /// Starts the thread of the source with this id.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub(super) fn spawn(id: &str, input: SourceInput) -> Result<Self> {
        let (begin, begins) = sync_channel(1);
        let thread = thread::Builder::new()
            .name(thread_name(id))
            .spawn(move || run(input, &begins))
            .context("a thread cannot be started; see the limits of the service (TasksMax)")?;
        Ok(Self { begin, thread })
    }

    /// Begins; the handle's result is why the source could not be read to its end.
    pub(super) fn begin(self, processor: SourceProcessor) -> JoinHandle<Result<()>> {
        // Where the thread is gone, the handle says why.
        let _ = self.begin.send(processor.into());
        self.thread
    }

    /// Ends it before it has begun, which is at once.
    pub(super) fn discard(self) {
        drop(self.begin);
        // It has done nothing whose outcome could matter.
        drop(self.thread.join());
    }
}

/// The name of the thread of the source with this id.
pub(super) fn thread_name(id: &str) -> String {
    format!("source-{id}")
}

fn run(input: SourceInput, begins: &Receiver<Box<SourceProcessor>>) -> Result<()> {
    let Ok(mut processor) = begins.recv() else { return Ok(()) };
    let mut source = match input {
        SourceInput::Open(source) => *source,
        SourceInput::Later(spec, counters) => Source::open(&spec, counters)?,
    };
    let control = Arc::clone(processor.control());
    let read = read_all(&mut source, &mut processor, &control);
    // Where the sound goes on and we do not, a window between two hops would only be scored to say something else
    // than an undisturbed run would, and there is little time to stop in.
    if control.is_stopping() {
        processor.close_open_events();
        return read;
    }
    processor.finish();
    read
}

fn read_all(source: &mut Source, processor: &mut SourceProcessor, control: &SourceControl) -> Result<()> {
    let name = thread_name(&processor.status().id);
    while !control.is_stopping() {
        panic_if_asked(&name);
        processor.apply_control();
        match source.read(READ_TIMEOUT)? {
            Read::Block { rate, samples, anchor } => processor.process(rate, samples, anchor)?,
            Read::Idle => processor.process_idle(),
            Read::End => break,
        }
    }
    Ok(())
}
