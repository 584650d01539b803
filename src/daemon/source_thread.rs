//! The thread of one source: it reads until the source is over or its [`SourceControl`] says stop. It ends with no event
//! open.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::source_control::SourceControl;
use super::source_processor::SourceProcessor;
use crate::capture::{Read, Source};

/// How long the thread waits for sound before it looks at its control again.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// One source's thread, before it runs.
pub(super) struct SourceThread {
    source: Source,
    processor: SourceProcessor,
    control: Arc<SourceControl>,
}

impl SourceThread {
    pub(super) fn new(source: Source, processor: SourceProcessor, control: Arc<SourceControl>) -> Self {
        Self { source, processor, control }
    }

    /// Starts the thread; its result is why the source could not be read to its end.
    pub(super) fn spawn(mut self) -> io::Result<JoinHandle<Result<()>>> {
        let name = format!("source-{}", self.processor.status().id);
        thread::Builder::new().name(name).spawn(move || {
            let read = self.read_all();
            // Where the sound goes on and we do not, a window between two hops would only be scored to say something else
            // than an undisturbed run would, and there is little time to stop in.
            if self.control.is_stopping() {
                self.processor.close_open_events();
                return read;
            }
            self.processor.finish();
            read
        })
    }

    fn read_all(&mut self) -> Result<()> {
        while !self.control.is_stopping() {
            self.processor.apply_control(&self.control);
            match self.source.read(READ_TIMEOUT)? {
                Read::Block { rate, samples, anchor } => self.processor.process(rate, samples, anchor)?,
                Read::Idle => self.processor.process_idle(),
                Read::End => break,
            }
        }
        Ok(())
    }
}
